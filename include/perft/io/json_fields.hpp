#pragma once
// Typed access to the keys of one JSON object, with errors that name the file and the key.

#include <cmath>        // std::isfinite
#include <cstdint>      // std::int64_t
#include <limits>       // open bounds
#include <optional>     // absent keys
#include <string>       // texts
#include <string_view>  // keys
#include <utility>      // std::move
#include <vector>       // lists

#include "perft/core/error.hpp"
#include "perft/io/json.hpp"

namespace perft::inline PERFT_ABI {

/// A view of an object; must not outlive it. `where` is the file as opened (with a key path, if the object is nested).
/// A key whose value is null reads as absent, as transformers writes unset options. Every failure is an IoError:
/// wrong JSON type, a number outside its range, a required key missing.
class JsonFields {
 public:
  static constexpr std::int64_t no_limit = std::numeric_limits<std::int64_t>::max();

  JsonFields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    check<IoError>(object.is_object(), where_, ": is not a JSON object, expected one; check that it is the right file");
  }

  const std::string& where() const { return where_; }

  /// Whether the key is there at all, null included.
  bool present(std::string_view key) const { return object_.find(key) != object_.end(); }

  /// The value, or null if the key is absent or null.
  const Json* find(std::string_view key) const {
    const auto at = object_.find(key);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }

  /// Throws IoError naming the key: "<file>: <key> <is …>; expected <…>".
  template <class... Pieces>
  [[noreturn]] void reject(std::string_view key, const Pieces&... pieces) const {
    fail<IoError>(where_, ": ", key, " ", pieces...);
  }

  std::optional<std::int64_t> integer_if(std::string_view key, std::int64_t least, std::int64_t most = no_limit) const {
    const Json* value = find(key);
    return value == nullptr ? std::nullopt : std::optional(as_integer(key, *value, least, most));
  }

  std::int64_t integer(std::string_view key, std::int64_t least, std::int64_t most = no_limit) const {
    return required(key, "a whole number", integer_if(key, least, most));
  }

  /// A number in [least, most].
  std::optional<double> number_if(std::string_view key, double least, double most = infinite) const {
    const Json* value = find(key);
    if (value == nullptr) {
      return std::nullopt;
    }
    if (!value->is_number()) {
      reject(key, "is ", shown(*value), ", expected a number; correct the file");
    }
    const auto number = value->get<double>();
    if (most == infinite && !(number >= least)) {
      reject(key, "is ", shown(*value), ", expected a number of at least ", least, "; correct the file");
    }
    if (!(number >= least && number <= most)) {
      reject(key, "is ", shown(*value), ", expected a number from ", least, " to ", most, "; correct the file");
    }
    return number;
  }

  /// A number greater than 0.
  std::optional<double> positive_if(std::string_view key) const {
    const std::optional<double> number = number_if(key, 0.0);
    if (number && *number == 0.0) {
      reject(key, "is 0, expected a number above 0; correct the file");
    }
    return number;
  }

  std::optional<bool> boolean_if(std::string_view key) const {
    const Json* value = find(key);
    if (value == nullptr) {
      return std::nullopt;
    }
    if (!value->is_boolean()) {
      reject(key, "is ", shown(*value), ", expected true or false; correct the file");
    }
    return value->get<bool>();
  }

  std::optional<std::string> string_if(std::string_view key) const {
    const Json* value = find(key);
    if (value == nullptr) {
      return std::nullopt;
    }
    if (!value->is_string()) {
      reject(key, "is ", shown(*value), ", expected a string; correct the file");
    }
    return value->get<std::string>();
  }

  std::string string(std::string_view key) const { return required(key, "a string", string_if(key)); }

  /// A whole number or a list of them, each at least `least`.
  std::optional<std::vector<std::int64_t>> integers_if(std::string_view key, std::int64_t least) const {
    const Json* value = find(key);
    if (value == nullptr) {
      return std::nullopt;
    }
    std::vector<std::int64_t> numbers;
    if (!value->is_array()) {
      numbers.push_back(as_integer(key, *value, least, no_limit));
      return numbers;
    }
    for (const Json& item : *value) {
      numbers.push_back(as_integer(key, item, least, no_limit));
    }
    return numbers;
  }

  /// A value as it may stand in a message: one line. Arrays and objects are named, not written out:
  /// nlohmann's dump recurses, and a nested value can be as deep as the file likes.
  static std::string shown(const Json& value) {
    if (value.is_object()) {
      return "an object";
    }
    if (value.is_array()) {
      return "an array";
    }
    if (value.is_string()) {
      return in_quotes(value.get_ref<const std::string&>());
    }
    return value.dump();
  }

 private:
  static constexpr double infinite = std::numeric_limits<double>::max();

  std::int64_t as_integer(std::string_view key, const Json& value, std::int64_t least, std::int64_t most) const {
    if (!value.is_number_integer()) {
      reject(key, "is ", shown(value), ", expected a whole number; correct the file");
    }
    const bool too_large = value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{no_limit};
    if (too_large || value.get<std::int64_t>() < least || value.get<std::int64_t>() > most) {
      if (most == no_limit) {
        reject(key, "is ", shown(value), ", expected at least ", least, "; correct the file");
      }
      reject(key, "is ", shown(value), ", expected ", least, " to ", most, "; correct the file");
    }
    return value.get<std::int64_t>();
  }

  template <class T>
  T required(std::string_view key, const char* what, std::optional<T> value) const {
    if (!value) {
      reject(key, present(key) ? "is null" : "is missing", ", expected ", what, "; add it");
    }
    return *std::move(value);
  }

  const Json& object_;
  std::string where_;
};

}  // namespace perft::inline PERFT_ABI
