#pragma once
// Prompt templates as data: the text a row is trained on, and the text a model answers when it is evaluated.

#include <algorithm>    // std::find
#include <array>        // names
#include <cstddef>      // std::size_t
#include <string>       // texts
#include <string_view>  // templates
#include <utility>      // std::move
#include <vector>       // names

#include "perft/core/error.hpp"
#include "perft/data/builtin_prompts.hpp"
#include "perft/data/rows.hpp"
#include "perft/io/json.hpp"
#include "perft/io/mapped_file.hpp"  // read_text_file

namespace perft::inline PERFT_ABI {

/// Names of the templates that are part of the library.
inline constexpr std::array<std::string_view, 2> kPromptNames = {"alpaca", "perft-paper"};

/// Which evaluation template a task uses.
enum class PromptTask : std::uint8_t { commonsense, arithmetic };

/// A text with {instruction}, {input} and {output} in it; `without_input` is used for rows whose input is empty.
struct PromptPair {
  std::string with_input;
  std::string without_input;

  const std::string& of(const Row& row) const { return row.input.empty() ? without_input : with_input; }
};

/// Everything `--prompt` decides.
struct PromptTemplate {
  PromptPair train;        // ends in {output}
  PromptPair commonsense;  // evaluation prompts: no {output}
  PromptPair arithmetic;
  std::string response_split = "### Response:";  // an answer is what follows its last occurrence

  /// The text a row is trained on.
  std::string training_text(const Row& row) const;

  /// Its part before the output: what `--train-on-inputs false` does not learn.
  std::string training_prompt(const Row& row) const;

  /// The text a model continues when a row of the task is evaluated.
  std::string evaluation_prompt(const Row& row, PromptTask task) const;
};

namespace detail {

inline constexpr std::string_view kOutputPlaceholder = "{output}";

/// Length of a placeholder `{name}` (lower-case letters and _) at the start of `text`, 0 if there is none. Other braces
/// are ordinary text.
inline std::size_t placeholder_length(std::string_view text) {
  if (text.empty() || text[0] != '{') {
    return 0;
  }
  const std::size_t end = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", 1);
  return end != std::string_view::npos && end > 1 && text[end] == '}' ? end + 1 : 0;
}

/// `form` with its placeholders replaced in one pass: braces inside a row's own texts stay as they are.
inline std::string fill_prompt(std::string_view form, const Row& row, std::string_view output) {
  std::string out;
  out.reserve(form.size() + row.instruction.size() + row.input.size() + output.size());
  while (!form.empty()) {
    const std::size_t length = placeholder_length(form);
    const std::string_view name = form.substr(0, length);
    if (length == 0) {
      out += form[0];
    } else if (name == "{instruction}") {
      out += row.instruction;
    } else if (name == "{input}") {
      out += row.input;
    } else {
      out += output;
    }
    form.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

/// Reads one PromptPair; `where` names file and key, `train` says that the texts end in {output} and not that they
/// lack it.
inline PromptPair read_prompt_pair(const Json& object, const std::string& where, bool train) {
  check<IoError>(object.is_object(), where, ": is ", object.type_name(),
                 ", expected an object with \"with_input\" and \"without_input\"");
  PromptPair pair;
  for (const auto& [key, value] : object.items()) {
    check<IoError>(key == "with_input" || key == "without_input", where, ": unknown key ", in_quotes(key),
                   ", expected \"with_input\" and \"without_input\"");
    check<IoError>(value.is_string(), where, ": \"", key, "\" is ", value.type_name(), ", expected a string");
  }
  for (const bool with_input : {true, false}) {
    const char* key = with_input ? "with_input" : "without_input";
    const auto found = object.find(key);
    check<IoError>(found != object.end(), where, ": no key \"", key, "\", expected a template");
    const auto text = found->get<std::string>();
    std::vector<std::string> seen;
    for (std::size_t at = 0; at < text.size(); ++at) {
      if (const std::size_t length = placeholder_length(std::string_view(text).substr(at)); length > 0) {
        seen.push_back(text.substr(at, length));
      }
    }
    const auto count = [&](std::string_view name) { return std::count(seen.begin(), seen.end(), name); };
    for (const std::string& name : seen) {
      check<IoError>(
          name == "{instruction}" || (name == "{input}" && with_input) || (name == kOutputPlaceholder && train), where,
          ": \"", key, "\": unknown placeholder ", in_quotes(name), ", expected {instruction}",
          with_input ? ", {input}" : "", train ? ", {output}" : "");
    }
    check<IoError>(count("{instruction}") > 0, where, ": \"", key, "\": {instruction} is missing");
    check<IoError>(!with_input || count("{input}") > 0, where, ": \"", key, "\": {input} is missing");
    check<IoError>(!train || (count(kOutputPlaceholder) == 1 && text.ends_with(kOutputPlaceholder)), where, ": \"", key,
                   "\": must end in {output} and hold it once");
    (with_input ? pair.with_input : pair.without_input) = text;
  }
  return pair;
}

/// `train` without its {output}: the evaluation prompt of a template that has none of its own.
inline PromptPair without_output(PromptPair train) {
  for (std::string* text : {&train.with_input, &train.without_input}) {
    text->resize(text->size() - kOutputPlaceholder.size());
  }
  return train;
}

inline void check_prompt_keys(const Json& object, const std::string& where, std::initializer_list<const char*> known) {
  check<IoError>(object.is_object(), where, ": is ", object.type_name(), ", expected an object");
  for (const auto& [key, value] : object.items()) {
    check<IoError>(std::find(known.begin(), known.end(), key) != known.end(), where, ": unknown key ", in_quotes(key),
                   ", expected ", std::span(known.begin(), known.size()));
  }
}

inline PromptTemplate read_prompt_template(const Json& object, const std::string& where) {
  check_prompt_keys(object, where, {"train", "evaluate", "response_split"});
  check<IoError>(object.contains("train"), where,
                 ": no key \"train\", expected the templates that rows are trained on");
  PromptTemplate prompt;
  prompt.train = read_prompt_pair(object["train"], where + ": train", true);
  prompt.commonsense = prompt.arithmetic = without_output(prompt.train);
  if (object.contains("evaluate")) {
    const Json& evaluate = object["evaluate"];
    check_prompt_keys(evaluate, where + ": evaluate", {"commonsense", "arithmetic"});
    if (evaluate.contains("commonsense")) {
      prompt.commonsense = read_prompt_pair(evaluate["commonsense"], where + ": evaluate: commonsense", false);
    }
    if (evaluate.contains("arithmetic")) {
      prompt.arithmetic = read_prompt_pair(evaluate["arithmetic"], where + ": evaluate: arithmetic", false);
    }
  }
  if (object.contains("response_split")) {
    const Json& split = object["response_split"];
    check<IoError>(split.is_string() && !split.get_ref<const std::string&>().empty(), where,
                   ": \"response_split\" must be a string that is not empty");
    prompt.response_split = split.get<std::string>();
  }
  return prompt;
}

}  // namespace detail

/// The template in `text`, the contents of the file `path`: {"train": {"with_input", "without_input"}, "evaluate":
/// {"commonsense": {...}, "arithmetic": {...}}, "response_split"}, of which only "train" is needed: a template is then
/// evaluated with its training prompt. Throws IoError for unknown keys or placeholders, with both in the text.
inline PromptTemplate parse_prompt_template(std::string_view text, const std::string& path) {
  return detail::read_prompt_template(parse_json_strict(text, path), path);
}

inline bool is_builtin_prompt(std::string_view name) {
  return std::find(kPromptNames.begin(), kPromptNames.end(), name) != kPromptNames.end();
}

/// The template called `name` if that is a built-in one, else the one in the file `name`. Throws IoError.
inline PromptTemplate load_prompt_template(const std::string& name) {
  if (is_builtin_prompt(name)) {
    return detail::read_prompt_template(parse_json(kBuiltinPrompts, "built-in prompts").at(name),
                                        "built-in prompts: " + name);
  }
  return parse_prompt_template(read_text_file(name), name);
}

inline std::string PromptTemplate::training_text(const Row& row) const {
  return detail::fill_prompt(train.of(row), row, row.output);
}

inline std::string PromptTemplate::training_prompt(const Row& row) const {
  return detail::fill_prompt(train.of(row), row, "");
}

inline std::string PromptTemplate::evaluation_prompt(const Row& row, PromptTask task) const {
  return detail::fill_prompt((task == PromptTask::commonsense ? commonsense : arithmetic).of(row), row, "");
}

}  // namespace perft::inline PERFT_ABI
