#pragma once
// The options of one command as a table: name, help, type, range and where the value goes. The command line, config
// files, the help text and run.toml all read the same table.

#include <algorithm>    // std::find
#include <charconv>     // numbers
#include <cmath>        // std::isfinite
#include <cstdint>      // std::int64_t
#include <functional>   // how a value is stored
#include <limits>       // ranges
#include <list>         // stable addresses
#include <optional>     // values not given
#include <string>       // names
#include <string_view>  // names
#include <type_traits>  // targets
#include <utility>      // std::move
#include <vector>       // lists

#include "nearest_name.hpp"
#include "perft/train/run_config.hpp"  // ConfigValue
#include "report_error.hpp"

namespace perft::cli {

enum class OptionKind { flag, boolean, integer, real, text, list };

struct Option {
  std::string name;  // without dashes; a positional argument's name as in the help text
  OptionKind kind = OptionKind::text;
  std::string placeholder;  // of its value in the help text
  std::string help;
  std::string expected;                         // what a value must be, for errors
  std::vector<std::string> choices;             // valid names, if it has such
  std::function<bool(const ConfigValue&)> set;  // false: wrong type or out of range
  std::function<std::optional<ConfigValue>()> get;
  bool positional = false;
  bool given = false;

  /// As it is written on the command line.
  std::string spelled() const { return positional ? placeholder : "--" + name; }

  /// Whether `value` is one of the valid names; true if any text is valid.
  bool offers(const std::string& value) const {
    return choices.empty() || std::find(choices.begin(), choices.end(), value) != choices.end();
  }
};

/// "a, b and c".
inline std::string joined(const std::vector<std::string>& names, const char* last = " and ") {
  std::string out;
  for (std::size_t i = 0; i < names.size(); ++i) {
    out += (i == 0 ? "" : i + 1 == names.size() ? last : ", ") + names[i];
  }
  return out;
}

inline std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> out(1);
  for (const char c : text) {
    if (c == ',') {
      out.emplace_back();
    } else {
      out.back() += c;
    }
  }
  return out;
}

/// The table refers to the struct that it fills; neither may move while it is in use.
class OptionTable {
 public:
  OptionTable() = default;
  OptionTable(const OptionTable&) = delete;
  OptionTable& operator=(const OptionTable&) = delete;

  /// Takes all options but those of `names` away: they keep their defaults.
  void keep(const std::vector<std::string>& names) {
    std::erase_if(options_, [&names](const Option& option) {
      return std::find(names.begin(), names.end(), option.name) == names.end();
    });
  }

  /// A flag takes no value on the command line and true or false in a config file.
  Option& flag(const char* name, bool& target, const char* help) {
    Option& option = add(name, OptionKind::flag, "", help, "true or false");
    option.set = [&target](const ConfigValue& value) { return store(std::get_if<bool>(&value), target); };
    option.get = [&target]() -> std::optional<ConfigValue> { return target; };
    return option;
  }

  Option& boolean(const char* name, bool& target, const char* help) {
    Option& option = flag(name, target, help);
    option.kind = OptionKind::boolean;
    option.placeholder = "true|false";
    return option;
  }

  /// A whole number in [least, most]. T: an integer, or a std::optional of one.
  template <class T>
  Option& integer(const char* name, T& target, std::int64_t least, const char* help,
                  std::int64_t most = std::numeric_limits<std::int64_t>::max()) {
    const std::string range = most == std::numeric_limits<std::int64_t>::max()
                                  ? "of at least " + std::to_string(least)
                                  : "from " + std::to_string(least) + " to " + std::to_string(most);
    Option& option = add(name, OptionKind::integer, "N", help, "a whole number " + range);
    option.set = [&target, least, most](const ConfigValue& value) {
      const auto* number = std::get_if<std::int64_t>(&value);
      if (number == nullptr || *number < least || *number > most) {
        return false;
      }
      target = static_cast<ValueOf<T>>(*number);
      return true;
    };
    option.get = [&target] { return saved<std::int64_t>(target); };
    return option;
  }

  /// A finite number for which `valid` holds. T: double, or a std::optional of it.
  template <class T>
  Option& real(const char* name, T& target, bool (*valid)(double), const char* expected, const char* help) {
    Option& option = add(name, OptionKind::real, "X", help, expected);
    option.set = [&target, valid](const ConfigValue& value) {
      const auto* whole = std::get_if<std::int64_t>(&value);
      const auto* number = std::get_if<double>(&value);
      if (whole == nullptr && number == nullptr) {
        return false;
      }
      const double x = whole != nullptr ? static_cast<double>(*whole) : *number;
      if (!std::isfinite(x) || !valid(x)) {
        return false;
      }
      target = x;
      return true;
    };
    option.get = [&target] { return saved<double>(target); };
    return option;
  }

  Option& text(const char* name, std::string& target, const char* placeholder, const char* help) {
    Option& option = add(name, OptionKind::text, placeholder, help, "a text that is not empty");
    option.set = [&target](const ConfigValue& value) {
      const auto* string = std::get_if<std::string>(&value);
      return string != nullptr && !string->empty() && store(string, target);
    };
    option.get = [&target]() -> std::optional<ConfigValue> {
      return target.empty() ? std::nullopt : std::optional<ConfigValue>(target);
    };
    return option;
  }

  /// Several texts with commas between them (in a config file also an array).
  Option& list(const char* name, std::vector<std::string>& target, const char* placeholder, const char* help) {
    Option& option = add(name, OptionKind::list, placeholder, help, "names with commas between them, none empty");
    option.set = [&option, &target](const ConfigValue& value) {
      const auto* array = std::get_if<std::vector<std::string>>(&value);
      const auto* string = std::get_if<std::string>(&value);
      if (array == nullptr && string == nullptr) {
        return false;
      }
      std::vector<std::string> items = array != nullptr ? *array : split_at_commas(*string);
      for (std::size_t i = 0; i < items.size(); ++i) {
        const auto here = items.begin() + static_cast<std::ptrdiff_t>(i);
        const bool again = !option.choices.empty() && std::find(items.begin(), here, items[i]) != here;
        if (items[i].empty() || again || !option.offers(items[i])) {
          return false;
        }
      }
      target = std::move(items);
      return !target.empty();
    };
    option.get = [&target]() -> std::optional<ConfigValue> {
      return target.empty() ? std::nullopt : std::optional<ConfigValue>(target);
    };
    return option;
  }

  /// One of the names; T an enum, or a std::optional of one, whose values are the positions of the names.
  template <class T>
  Option& choice(const char* name, T& target, std::vector<std::string> names, const char* help) {
    Option& option = add(name, OptionKind::text, "", help, names.size() == 1 ? names[0] : joined(names, " or "));
    for (const std::string& choice : names) {
      option.placeholder += (option.placeholder.empty() ? "" : "|") + choice;
    }
    option.choices = names;
    option.set = [&target, names](const ConfigValue& value) {
      const auto* string = std::get_if<std::string>(&value);
      const auto found = string == nullptr ? names.end() : std::find(names.begin(), names.end(), *string);
      if (found == names.end()) {
        return false;
      }
      target = static_cast<ValueOf<T>>(found - names.begin());
      return true;
    };
    option.get = [&target, names]() -> std::optional<ConfigValue> {
      const std::optional<ValueOf<T>> value = target;
      return value ? std::optional<ConfigValue>(names[static_cast<std::size_t>(*value)]) : std::nullopt;
    };
    return option;
  }

  std::list<Option>& options() { return options_; }

  /// The option called `name`, or nullptr.
  Option* find(std::string_view name) {
    for (Option& option : options_) {
      if (option.name == name) {
        return &option;
      }
    }
    return nullptr;
  }

  bool given(std::string_view name) {
    const Option* option = find(name);
    return option != nullptr && option->given;
  }

  /// Stores a value from the command line. Throws UsageError.
  static void set_from_text(Option& option, const std::string& text) {
    const ConfigValue value = parsed(option.kind, text);
    set<UsageError>(option, value, option.spelled(),
                    std::holds_alternative<std::string>(value) ? "'" + text + "'" : text);
  }

  /// Stores the settings of the file `path`, except options that were given already: the command line wins. Names may
  /// be written with _ for -. Throws IoError.
  void set_from_config(const RunConfig& config, const std::string& path) {
    std::vector<std::string> names;
    for (const Option& option : options_) {
      if (option.name != "config") {
        names.push_back(option.name);
      }
    }
    std::vector<std::string> seen;
    for (const auto& [key, value] : config.entries()) {
      std::string name = key;
      std::replace(name.begin(), name.end(), '_', '-');
      check<IoError>(std::find(names.begin(), names.end(), name) != names.end(), path, ": unknown key '", key, "'",
                     did_you_mean(name, names));
      check<IoError>(std::find(seen.begin(), seen.end(), name) == seen.end(), path, ": key '", key,
                     "' stands there twice, once with - and once with _");
      seen.push_back(name);
      if (Option& option = *find(name); !option.given) {
        const auto* real = std::get_if<double>(&value);
        const bool finite = real == nullptr || std::isfinite(*real);
        set<IoError>(option, value, path + ": " + key, finite ? RunConfig::value_text(value) : "not finite");
      }
    }
  }

 private:
  template <class T>
  struct Unwrapped {
    using type = T;
  };

  template <class T>
  struct Unwrapped<std::optional<T>> {
    using type = T;
  };

  template <class T>
  using ValueOf = typename Unwrapped<T>::type;

  template <class T>
  static bool store(const T* value, T& target) {
    if (value == nullptr) {
      return false;
    }
    target = *value;
    return true;
  }

  template <class Stored, class T>
  static std::optional<ConfigValue> saved(const T& target) {
    const std::optional<ValueOf<T>> value = target;
    return value ? std::optional<ConfigValue>(static_cast<Stored>(*value)) : std::nullopt;
  }

  Option& add(const char* name, OptionKind kind, const char* placeholder, const char* help, std::string expected) {
    Option& option = options_.emplace_back();
    option.name = name;
    option.kind = kind;
    option.placeholder = placeholder;
    option.help = help;
    option.expected = std::move(expected);
    return option;
  }

  /// `text` as the option's type; text that is none is returned as it is, and `set` refuses it.
  static ConfigValue parsed(OptionKind kind, const std::string& text) {
    const char* end = text.data() + text.size();
    std::int64_t whole = 0;
    double number = 0;
    const auto complete = [end](std::from_chars_result result) {
      return result.ec == std::errc() && result.ptr == end;
    };
    if (kind == OptionKind::integer && complete(std::from_chars(text.data(), end, whole))) {
      return whole;
    }
    if (kind == OptionKind::real && complete(std::from_chars(text.data(), end, number))) {
      return number;
    }
    if ((kind == OptionKind::boolean || kind == OptionKind::flag) && (text == "true" || text == "false")) {
      return text == "true";
    }
    return text;
  }

  template <class E>
  static void set(Option& option, const ConfigValue& value, const std::string& where, const std::string& shown) {
    if (!option.set(value)) {
      std::string suggestion;
      if (const auto* string = std::get_if<std::string>(&value)) {
        for (const std::string& item : split_at_commas(*string)) {
          if (suggestion.empty() && !option.offers(item)) {
            suggestion = did_you_mean(item, option.choices);
          }
        }
      }
      fail<E>(where, " is ", shown, ", expected ", option.expected, suggestion);
    }
    option.given = true;
  }

  std::list<Option> options_;
};

}  // namespace perft::cli
