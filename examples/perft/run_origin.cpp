// What a run was begun with.

#include "run_origin.hpp"

#include <span>  // values

#include "fingerprint.hpp"
#include "perft/io/json.hpp"
#include "perft/io/mapped_file.hpp"

namespace perft::cli {

namespace {

std::int64_t print_of(const std::vector<EncodedRow>& rows) {
  Fingerprint print;
  for (const EncodedRow& row : rows) {
    print.add_values(std::span<const std::int32_t>(row.ids));
    print.add_values(std::span<const std::int32_t>(row.labels));
  }
  return print.value();
}

/// Of the values, so that neither spelling nor who wrote the file counts.
std::int64_t print_of_config(const std::string& path) {
  Json config = parse_json_strict(read_text_file(path), path);
  for (const char* key : {"_name_or_path", "transformers_version"}) {
    config.erase(key);
  }
  Fingerprint print;
  const std::string text = config.dump();
  print.add_bytes(text.data(), text.size());
  return print.value();
}

}  // namespace

RunOrigin run_origin(const FinetuneData& data, const ModelFiles& model) {
  RunOrigin origin;
  origin.train_rows = static_cast<std::int64_t>(data.train.size());
  origin.validation_rows = static_cast<std::int64_t>(data.validation.size());
  origin.train_print = print_of(data.train);
  origin.validation_print = print_of(data.validation);
  origin.config_print = print_of_config(model.config_path);
  return origin;
}

std::int64_t print_of_weights(const ModelFiles& model) {
  constexpr std::size_t kEnd = 4096;
  Fingerprint print;
  for (std::size_t i = 0; i < model.tensors.specs().size(); ++i) {
    const std::string& name = model.tensors.specs()[i].name;
    const TensorEntry& entry = model.tensors.entries()[i];
    print.add_bytes(name.data(), name.size());
    print.add(static_cast<std::uint64_t>(entry.dtype));
    print.add_values(std::span<const std::int64_t>(entry.shape));
    const std::size_t end = std::min(kEnd, entry.bytes);
    print.add_bytes(entry.data, end);
    print.add_bytes(entry.data + (entry.bytes - end), end);
  }
  return print.value();
}

void check_same_origin(const RunOrigin& saved, const RunOrigin& now, const std::string& data, const std::string& model,
                       const std::string& checkpoint) {
  const std::string advice =
      " when " + checkpoint + " was written; put back what it was, or train anew with another --out";
  check<IoError>(saved.train_rows == now.train_rows && saved.validation_rows == now.validation_rows, data, ": has ",
                 now.train_rows, " rows to train on and ", now.validation_rows, " held back, and had ",
                 saved.train_rows, " and ", saved.validation_rows, advice);
  const char* part = saved.train_print != now.train_print             ? "to train on"
                     : saved.validation_print != now.validation_print ? "held back"
                                                                      : nullptr;
  check<IoError>(part == nullptr, data, ": the rows ", part == nullptr ? "" : part,
                 " (or the tokenizer or template that made tokens of them) are not those", advice);
  check<IoError>(saved.config_print == now.config_print, model, "/config.json: its values are not those", advice);
  check<IoError>(saved.weights_print == now.weights_print, model, ": the base's weights are not those", advice);
}

}  // namespace perft::cli
