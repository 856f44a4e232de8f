#pragma once
// `metrics.jsonl`: one JSON object a line, appended and handed to the system line by line, so that a killed run keeps
// what it had written.

#include <cmath>        // std::isfinite
#include <cstdint>      // std::int64_t
#include <string>       // lines and texts
#include <string_view>  // names
#include <utility>      // pairs
#include <variant>      // values
#include <vector>       // fields

#include "perft/core/error.hpp"
#include "perft/io/append_file.hpp"
#include "perft/io/json.hpp"

namespace perft::inline PERFT_ABI {

/// One named value of a metrics line.
using MetricField = std::pair<std::string_view, std::variant<std::int64_t, double, std::string, std::vector<double>>>;

/// The JSON object of `fields`, in their order, without a line break. Doubles keep all their digits.
/// Throws NonFiniteError with the field's name: a number that is not finite is never written.
inline std::string metrics_line(const std::vector<MetricField>& fields) {
  OrderedJson line = OrderedJson::object();
  for (const auto& [name, value] : fields) {
    const std::string key(name);
    const auto finite = [&key](double number) {
      check<NonFiniteError>(std::isfinite(number), "metrics: ", key, " is ", number,
                            "; the run cannot go on, lower the learning rate or look at the data");
      return number;
    };
    if (const double* real = std::get_if<double>(&value)) {
      line[key] = finite(*real);
    } else if (const auto* list = std::get_if<std::vector<double>>(&value)) {
      line[key] = OrderedJson::array();
      for (const double number : *list) {
        line[key].push_back(finite(number));
      }
    } else if (const std::int64_t* integer = std::get_if<std::int64_t>(&value)) {
      line[key] = *integer;
    } else {
      line[key] = std::get<std::string>(value);
    }
  }
  return line.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

/// Appends lines to a file; `truncate` starts it anew. Readers never see half of a line.
class MetricsWriter {
 public:
  /// Throws IoError if the file cannot be opened.
  MetricsWriter(const std::string& path, bool truncate) : file_(path) {
    if (truncate) {
      file_.truncate(0);
    }
  }

  /// Throws NonFiniteError as metrics_line does, IoError if the line cannot be written (disk full).
  void write(const std::vector<MetricField>& fields) { file_.append(metrics_line(fields) + "\n"); }

  /// Makes what was written durable. Throws IoError.
  void sync() { file_.sync(); }

 private:
  AppendFile file_;
};

}  // namespace perft::inline PERFT_ABI
