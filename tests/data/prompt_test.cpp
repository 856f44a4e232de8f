// Prompt templates: the built-in ones byte for byte, templates from files, and what a broken file's error says.

#include "perft/data/prompt.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <string>
#include <string_view>

using perft::PromptTask;
using perft::PromptTemplate;
using perft::Row;

namespace {

/// FNV-1a, 64 bits.
std::uint64_t hash(std::string_view text) {
  std::uint64_t h = 0xcbf29ce484222325U;
  for (const char c : text) {
    h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  }
  return h;
}

std::string message(const std::string& text) {
  try {
    perft::parse_prompt_template(text, "p.json");
  } catch (const perft::IoError& error) {
    return error.what();
  }
  return "no error";
}

const Row kPlain{"Say hi.", "", "hi", {}};
const Row kWithInput{"Add.", "1, 2", "3", {}};

}  // namespace

TEST_CASE("the built-in prompts are the published bytes", "[data][prompt]") {
  // Length and hash of the file of published templates that the text was copied from.
  CHECK(perft::kBuiltinPrompts.size() == 3570);
  CHECK(hash(perft::kBuiltinPrompts) == 0xffcac555ed335121U);
}

TEST_CASE("alpaca: training text, its prompt, and the evaluation prompts", "[data][prompt]") {
  const PromptTemplate prompt = perft::load_prompt_template("alpaca");
  const std::string head =
      "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n";
  CHECK(prompt.training_text(kPlain) == head + "### Instruction:\nSay hi.\n\n### Response:\nhi");
  CHECK(prompt.training_prompt(kPlain) == head + "### Instruction:\nSay hi.\n\n### Response:\n");
  CHECK(prompt.training_text(kWithInput) ==
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### "
        "Response:\n3");
  CHECK(prompt.evaluation_prompt(kPlain, PromptTask::commonsense) ==
        head + "### Instruction:\nSay hi.\n\n### Response:\nthe correct answer is");
  CHECK(prompt.evaluation_prompt(kPlain, PromptTask::arithmetic) ==
        head + "### Instruction:\nSay hi.\n\n### Response:\n");
  CHECK(prompt.response_split == "### Response:");
}

TEST_CASE("perft-paper: indented by 16 spaces, and not the same when it is evaluated", "[data][prompt]") {
  const PromptTemplate prompt = perft::load_prompt_template("perft-paper");
  const std::string indent(16, ' ');
  CHECK(prompt.training_text(kPlain) ==
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.  "
        "\n\n" +
            indent + "### Instruction:\n" + indent + "Say hi.\n" + indent + "\n" + indent + "### Response:\n" + indent +
            "hi");
  CHECK(prompt.evaluation_prompt(kPlain, PromptTask::commonsense) ==
        "Below is an instruction that describes a task. Write a response that appropriately completes the request. "
        "\n\n" +
            indent + "### Instruction:\n" + indent + "Say hi.\n\n" + indent + "### Response:\n" + indent +
            "the correct answer is");
  CHECK(prompt.evaluation_prompt(kPlain, PromptTask::arithmetic).ends_with("### Response:\n" + indent));
}

TEST_CASE("braces in a row's own texts stay as they are", "[data][prompt]") {
  const PromptTemplate prompt = perft::load_prompt_template("alpaca");
  const Row row{"{input} {x}", "{output}", "{instruction}", {}};
  CHECK(prompt.training_text(row).ends_with("{input} {x}\n\n### Input:\n{output}\n\n### Response:\n{instruction}"));
}

TEST_CASE("a template file needs only its training texts", "[data][prompt]") {
  const PromptTemplate prompt = perft::parse_prompt_template(
      R"({"train": {"with_input": "{instruction}|{input}>{output}", "without_input": "{ {instruction} {3} {}>{output}"}})",
      "p.json");
  CHECK(prompt.training_text(kPlain) == "{ Say hi. {3} {}>hi");
  CHECK(prompt.evaluation_prompt(kWithInput, PromptTask::commonsense) == "Add.|1, 2>");
  CHECK(prompt.response_split == "### Response:");
}

TEST_CASE("a template file's errors name the file, the key and the placeholder", "[data][prompt]") {
  const auto train = [](const std::string& with_input, const std::string& without_input) {
    return R"({"train": {"with_input": ")" + with_input + R"(", "without_input": ")" + without_input + R"("}})";
  };
  const std::string good = "{instruction}{input}{output}";
  CHECK(message(train(good, "{instruction}{output}")) == "no error");
  CHECK(message(train(good, "{instruction}{input}{output}")) ==
        R"(p.json: train: "without_input": unknown placeholder "{input}", expected {instruction}, {output})");
  CHECK(message(train("{instruction}{inputs}{output}", "{instruction}{output}")) ==
        R"(p.json: train: "with_input": unknown placeholder "{inputs}", expected {instruction}, {input}, {output})");
  CHECK(message(train("{instruction}{output}", "{instruction}{output}")) ==
        R"(p.json: train: "with_input": {input} is missing)");
  CHECK(message(train("{input}{output}", "{instruction}{output}")) ==
        R"(p.json: train: "with_input": {instruction} is missing)");
  CHECK(message(train(good, "{instruction}{output}.")) ==
        R"(p.json: train: "without_input": must end in {output} and hold it once)");
  CHECK(message(R"({"train": {"with_input": ")" + good + R"("}})") ==
        R"(p.json: train: no key "without_input", expected a template)");
  CHECK(message(R"({"train": {"with_inputs": "a"}})") ==
        R"(p.json: train: unknown key "with_inputs", expected "with_input" and "without_input")");
  CHECK(message(R"({"train": {"with_input": 3}})") == R"(p.json: train: "with_input" is number, expected a string)");
  CHECK(message(R"({"eval": {}})") == R"(p.json: unknown key "eval", expected [train, evaluate, response_split])");
  CHECK(message(R"({"a\nb": {}})") == R"(p.json: unknown key "a\nb", expected [train, evaluate, response_split])");
  CHECK(message("{}") == R"(p.json: no key "train", expected the templates that rows are trained on)");
  CHECK(message("[]") == "p.json: is array, expected an object");
  CHECK(message("{") == "p.json: not valid JSON at byte 2; fix or replace the file");
  const std::string body = train(good, "{instruction}{output}");
  CHECK(
      message(
          body.substr(0, body.size() - 1) +
          R"(, "evaluate": {"arithmetic": {"with_input": "{instruction}{input}", "without_input": "{instruction}{output}"}}})") ==
      R"(p.json: evaluate: arithmetic: "without_input": unknown placeholder "{output}", expected {instruction})");
  CHECK(message(body.substr(0, body.size() - 1) + R"(, "response_split": ""})") ==
        R"(p.json: "response_split" must be a string that is not empty)");
}
