#pragma once
// The built-in prompt templates as the JSON a user's own template file would hold, by name. "perft-paper" is as
// published, byte for byte: its lines are indented by 16 spaces inside, an accident that published numbers depend on.
// clang-format must not touch the text; a test holds its hash.

#include <string_view>  // the text

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

// Source: LLM-Adapters (alpaca) and the PERFT authors' training and evaluation scripts (perft-paper).
// clang-format off
inline constexpr std::string_view kBuiltinPrompts = R"json({
 "perft-paper": {
  "train": {
   "with_input": "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request. \n\n                ### Instruction:\n                {instruction}\n                \n                ### Input:\n                {input}\n                \n                ### Response:\n                {output}",
   "without_input": "Below is an instruction that describes a task. Write a response that appropriately completes the request.  \n\n                ### Instruction:\n                {instruction}\n                \n                ### Response:\n                {output}"
  },
  "evaluate": {
   "commonsense": {
    "with_input": "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n                ### Instruction:\n                {instruction}\n\n                ### Input:\n                {input}\n\n                ### Response:\n                the correct answer is",
    "without_input": "Below is an instruction that describes a task. Write a response that appropriately completes the request. \n\n                ### Instruction:\n                {instruction}\n\n                ### Response:\n                the correct answer is"
   },
   "arithmetic": {
    "with_input": "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n                ### Instruction:\n                {instruction}\n\n                ### Input:\n                {input}\n\n                ### Response:\n                ",
    "without_input": "Below is an instruction that describes a task. Write a response that appropriately completes the request. \n\n                ### Instruction:\n                {instruction}\n\n                ### Response:\n                "
   }
  },
  "response_split": "### Response:"
 },
 "alpaca": {
  "train": {
   "with_input": "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n{output}",
   "without_input": "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n{output}"
  },
  "evaluate": {
   "commonsense": {
    "with_input": "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\nthe correct answer is",
    "without_input": "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\nthe correct answer is"
   },
   "arithmetic": {
    "with_input": "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    "without_input": "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
   }
  },
  "response_split": "### Response:"
 }
})json";
// clang-format on

}  // namespace perft::inline PERFT_ABI
