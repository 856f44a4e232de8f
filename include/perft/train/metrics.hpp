#pragma once
// `metrics.jsonl`: one JSON object a line, appended and handed to the system line by line, so that a killed run keeps
// what it had written.

#include <fcntl.h>   // open
#include <unistd.h>  // write, close

#include <cerrno>       // errno
#include <cmath>        // std::isfinite
#include <cstdint>      // std::int64_t
#include <string>       // lines
#include <string_view>  // names
#include <utility>      // pairs
#include <variant>      // values
#include <vector>       // fields

#include "perft/core/error.hpp"
#include "perft/io/json.hpp"
#include "perft/io/mapped_file.hpp"  // Descriptor, errno_text

namespace perft::inline PERFT_ABI {

/// One named value of a metrics line.
using MetricField = std::pair<std::string_view, std::variant<std::int64_t, double, std::string_view>>;

/// The JSON object of `fields`, in their order, without a line break. Doubles keep all their digits.
/// Throws NonFiniteError with the field's name: a number that is not finite is never written.
inline std::string metrics_line(const std::vector<MetricField>& fields) {
  OrderedJson line = OrderedJson::object();
  for (const auto& [name, value] : fields) {
    const std::string key(name);
    if (const double* real = std::get_if<double>(&value)) {
      check<NonFiniteError>(std::isfinite(*real), "metrics: ", key, " is ", *real,
                            "; the run cannot go on, lower the learning rate or look at the data");
      line[key] = *real;
    } else if (const std::int64_t* integer = std::get_if<std::int64_t>(&value)) {
      line[key] = *integer;
    } else {
      line[key] = std::string(std::get<std::string_view>(value));
    }
  }
  return line.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

/// Appends lines to a file; `truncate` starts it anew. One write(2) per line: readers never see half of one.
class MetricsWriter {
 public:
  /// Throws IoError if the file cannot be opened.
  MetricsWriter(std::string path, bool truncate)
      : path_(std::move(path)),
        file_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (truncate ? O_TRUNC : 0), 0666)) {
    check<IoError>(file_.get() >= 0, path_, ": cannot open the file for writing: ", errno_text(errno),
                   "; check the folder and its permissions");
  }

  /// Throws NonFiniteError as metrics_line does, IoError if the line cannot be written (disk full).
  void write(const std::vector<MetricField>& fields) {
    const std::string line = metrics_line(fields) + "\n";
    std::string_view left = line;
    while (!left.empty()) {
      const ssize_t put = ::write(file_.get(), left.data(), left.size());
      if (put < 0 && errno == EINTR) {
        continue;
      }
      check<IoError>(put > 0, path_, ": cannot write a line: ", errno_text(put < 0 ? errno : ENOSPC));
      left.remove_prefix(static_cast<std::size_t>(put));
    }
  }

 private:
  std::string path_;
  detail::Descriptor file_;
};

}  // namespace perft::inline PERFT_ABI
