#pragma once
// A JSON value that knows its file and key, so that every complaint about tokenizer.json names both.

#include <cstddef>      // std::size_t
#include <cstdint>      // std::int64_t
#include <string>       // names
#include <string_view>  // keys

#include "perft/core/error.hpp"
#include "perft/io/json.hpp"

namespace perft::inline PERFT_ABI {

/// A view into a parsed file: `value` must outlive it. Getters throw IoError "file: key: expected …".
class JsonNode {
 public:
  JsonNode(const Json& value, std::string file, std::string key = "")
      : value_(&value), file_(std::move(file)), key_(std::move(key)) {}

  /// Member `name` of an object; IoError if this is no object or lacks it.
  JsonNode at(std::string_view name) const {
    expect(value_->is_object(), "an object");
    const auto it = value_->find(std::string(name));
    if (it == value_->end()) {
      fail<IoError>(file_, ": key ", in_quotes(path(name)), " is missing; use the model's own tokenizer.json");
    }
    return JsonNode(*it, file_, path(name));
  }

  /// Whether this object has member `name` with a value other than null.
  bool has(std::string_view name) const {
    expect(value_->is_object(), "an object");
    const auto it = value_->find(std::string(name));
    return it != value_->end() && !it->is_null();
  }

  /// Element `index` (< size()) of an array.
  JsonNode operator[](std::size_t index) const {
    return JsonNode((*value_)[index], file_, key_ + '[' + std::to_string(index) + ']');
  }

  std::size_t array_size() const {
    expect(value_->is_array(), "an array");
    return value_->size();
  }

  const std::string& string() const {
    expect(value_->is_string(), "a string");
    return value_->get_ref<const std::string&>();
  }

  bool boolean() const {
    expect(value_->is_boolean(), "true or false");
    return value_->get<bool>();
  }

  /// Boolean member `name`, or `otherwise` where it is absent or null.
  bool boolean_or(std::string_view name, bool otherwise) const { return has(name) ? at(name).boolean() : otherwise; }

  /// An integer in [0, limit).
  std::int32_t index(std::int32_t limit) const {
    const bool fits = value_->is_number_unsigned() ? value_->get<std::uint64_t>() < static_cast<std::uint64_t>(limit)
                                                   : value_->is_number_integer() && value_->get<std::int64_t>() >= 0 &&
                                                         value_->get<std::int64_t>() < limit;
    if (!fits) {
      expect(false, "an integer ≥ 0 and < " + std::to_string(limit));
    }
    return value_->get<std::int32_t>();
  }

  bool is_string() const { return value_->is_string(); }

  bool is_object() const { return value_->is_object(); }

  const Json& json() const { return *value_; }

  const std::string& file() const { return file_; }

  /// IoError unless `condition`: the value is present but wrong.
  void expect(bool condition, std::string_view expected) const {
    if (!condition) {
      fail<IoError>(file_, ": ", key_.empty() ? "the file" : "key " + in_quotes(key_), " is wrong, expected ", expected,
                    "; use the model's own tokenizer.json");
    }
  }

  /// The value is legal but not implemented.
  [[noreturn]] void unsupported(std::string_view supported) const {
    const std::string shown = value_->dump(-1, ' ', true, Json::error_handler_t::replace);
    fail<UnsupportedError>(file_, ": key ", in_quotes(key_), " is ",
                           shown.size() > 60 ? shown.substr(0, 57) + "..." : shown,
                           ", which is not supported; expected ", supported);
  }

 private:
  std::string path(std::string_view name) const {
    return key_.empty() ? std::string(name) : key_ + '.' + std::string(name);
  }

  const Json* value_;
  std::string file_;
  std::string key_;
};

}  // namespace perft::inline PERFT_ABI
