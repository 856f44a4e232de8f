// The option tables of the commands and the rules between options.

#include "option_rules.hpp"

#include <algorithm>    // std::min
#include <charconv>     // row numbers
#include <string_view>  // names
#include <vector>       // names

#include "config_file.hpp"
#include "perft/data/prompt.hpp"  // built-in template names

namespace perft::cli {

namespace {

constexpr std::int64_t kMostCount = 1'000'000'000;  // rows, steps, tokens: products of two stay below 2^63
constexpr std::int64_t kMostExperts = 65536;        // beyond any model; keeps products of sizes in range
constexpr std::int64_t kMostThreads = 1024;

bool not_negative(double x) {
  return x >= 0;
}

bool positive(double x) {
  return x > 0;
}

bool below_one(double x) {
  return x >= 0 && x < 1;
}

const std::vector<std::string> kDtypes = {"bf16", "f32", "f64"};
const std::vector<std::string> kMethods = {"perft-s", "perft-d", "perft-r", "perft-e", "lora", "full"};
const std::vector<std::string> kDeltas = {"lora", "parallel"};
const std::vector<std::string> kRouterWeights = {"own", "authors-olmoe"};
const std::vector<std::string> kRouterDtypes = {"f32", "bf16"};
const std::vector<std::string> kLoraTargets = {"q_proj", "k_proj",    "v_proj",  "o_proj",
                                               "gate",   "gate_proj", "up_proj", "down_proj"};

void describe_run(OptionTable& table, CommonOptions& options) {
  table.choice("dtype", options.dtype, kDtypes, "compute type (default bf16 if the machine has it, else f32)");
  table.choice("device", options.device, {"cpu", "cuda"}, "where to compute (default cpu)");
  table.integer("threads", options.threads, 1, "threads (default: all of the machine's)", kMostThreads);
}

void describe_config_file(OptionTable& table, std::string& target, const char* help) {
  Option& config = table.text("config", target, "FILE", help);
  config.expected = "the name of a .toml or .json file";
  config.set = [&target](const ConfigValue& value) {
    const auto* name = std::get_if<std::string>(&value);
    if (name == nullptr || !is_config_name(*name)) {
      return false;
    }
    target = *name;
    return true;
  };
}

void describe_config(OptionTable& table, CommonOptions& options) {
  describe_config_file(table, options.config, "options from a TOML or JSON file; the command line wins");
}

void describe_json(OptionTable& table, CommonOptions& options) {
  table.flag("json", options.json, "print one JSON object as the last line");
}

void describe_pad_rows(OptionTable& table, PadRows& target, const char* help) {
  table.choice("pad-rows", target, {"ignore", "hf"}, help);
}

void describe_prompt(OptionTable& table, std::string& target) {
  Option& prompt = table.text("prompt", target, "alpaca|perft-paper|FILE", "prompt template (default alpaca)");
  for (const std::string_view name : kPromptNames) {
    prompt.choices.emplace_back(name);
  }
  prompt.expected = joined(prompt.choices, " or ") + ", or a file (a name with . or / in it)";
  prompt.set = [&target](const ConfigValue& value) {
    const auto* name = std::get_if<std::string>(&value);
    if (name == nullptr || (!is_builtin_prompt(*name) && name->find_first_of("./") == std::string::npos)) {
      return false;
    }
    target = *name;
    return true;
  };
}

/// "4" or "0-9" as a range; nullopt for any other text.
std::optional<RowRange> row_range(std::string_view text) {
  const auto number = [](std::string_view digits) -> std::optional<std::int64_t> {
    std::int64_t value = 0;
    const char* end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, value);
    return error == std::errc() && stop == end && value >= 0 && value <= kMostCount ? std::optional(value)
                                                                                    : std::nullopt;
  };
  const std::size_t dash = text.find('-');
  const auto first = number(text.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : number(text.substr(dash + 1));
  return first && last && *first <= *last ? std::optional(RowRange{*first, *last}) : std::nullopt;
}

/// Whether a method has an option at all.
bool applies(Method method, std::string_view name) {
  if (name == "experts") {
    return method == Method::perft_d || method == Method::perft_r || method == Method::perft_e;
  }
  if (name == "top-k" || name == "router-weights" || name == "router-dtype") {
    return method == Method::perft_r;
  }
  if (name == "lora-targets") {
    return method == Method::lora;
  }
  if (name == "rank" || name == "alpha" || name == "dropout" || name == "delta") {
    return method != Method::full;
  }
  return true;
}

/// The options that not every method has.
constexpr std::string_view kMethodOptions[] = {"experts", "top-k",        "rank",           "alpha",       "dropout",
                                               "delta",   "lora-targets", "router-weights", "router-dtype"};

void require(OptionTable& table, const std::vector<std::string>& names) {
  std::vector<std::string> missing;
  for (const std::string& name : names) {
    if (Option& option = *table.find(name); !option.given) {
      missing.push_back(option.positional ? option.placeholder : option.spelled() + " " + option.placeholder);
    }
  }
  check<UsageError>(missing.empty(), "missing ", joined(missing));
}

/// `name` only makes sense together with `partner`.
void only_with(OptionTable& table, const char* name, const char* partner) {
  check<UsageError>(!table.given(name) || table.given(partner), "--", name, " is only for --", partner,
                    "; give both or neither");
}

/// The defaults of --experts, --top-k, --rank and --lora-targets, which depend on the method.
void fill_sizes(OptionTable& table, FinetuneOptions& options) {
  const auto fill = [&table](const char* name, auto& target, auto value) {
    if (!table.given(name)) {
      target = value;
    }
  };
  switch (options.method) {
    case Method::perft_s:
      options.experts = 1;
      break;
    case Method::perft_d:
      fill("experts", options.experts, 2);
      break;
    case Method::perft_r:
      fill("experts", options.experts, 4);
      fill("top-k", options.top_k, std::min(2, options.experts));
      break;
    case Method::perft_e:
      break;
    case Method::lora:
      fill("lora-targets", options.lora_targets, std::vector<std::string>{"q_proj", "v_proj"});
      break;
    case Method::full:
      options.rank = 0;
      options.dropout = 0;
      break;
  }
  fill("alpha", options.alpha, 2.0 * options.rank);
}

}  // namespace

void describe(OptionTable& table, FinetuneOptions& options) {
  table.text("model", options.model, "DIR", "folder of the base model (required)");
  table.list("data", options.data, "F.json[,...]", "rows to train on: JSON arrays or JSON Lines (required)");
  table.text("out", options.out, "DIR", "folder of the run, made with its parents (required)");
  table.choice("method", options.method, kMethods, "what is trained (required)").expected = joined(kMethods, " or ");
  table.integer("experts", options.experts, 1, "adapter experts M (perft-r: 4, perft-d: 2; perft-e: as the base)",
                kMostExperts);
  table.integer("top-k", options.top_k, 1, "adapter experts a token uses, perft-r (default 2)", kMostExperts);
  table.integer("rank", options.rank, 1, "rank r, or bottleneck of --delta parallel (default 8)", kMostExperts);
  table.real("alpha", options.alpha, positive, "a number above 0", "scale: delta is alpha/r B A x (default 2 r)");
  table.real("dropout", options.dropout, below_one, "a number in [0, 1)", "dropout of adapters (default 0.05)");
  table.choice("delta", options.delta, kDeltas, "form of an adapter expert (default lora)");
  Option& targets = table.list("lora-targets", options.lora_targets, "NAME[,...]",
                               "matrices that --method lora adapts (default q_proj,v_proj)");
  targets.choices = kLoraTargets;
  targets.expected = "one or more of " + joined(kLoraTargets) + " with commas between them, none twice";
  table.choice("router-weights", options.router_weights, kRouterWeights,
               "whose weights perft-r's experts get (default own)");
  table.choice("router-dtype", options.router_dtype, kRouterDtypes, "type of perft-r's router (default f32)");

  table.integer("epochs", options.epochs, 1, "passes over the rows (default 3)", kMostCount);
  table.integer("max-steps", options.max_steps, 1, "optimizer steps, the schedule's length too; wins over --epochs",
                kMostCount);
  table.integer("batch-size", options.batch_size, 1, "rows of an optimizer step (default 16)", kMostCount);
  table.integer("micro-batch-size", options.micro_batch_size, 1, "rows computed at once (default: as memory allows)",
                kMostCount);
  table.real("lr", options.lr, not_negative, "a number of at least 0",
             "peak learning rate (default 1e-5 for OLMoE, 2e-5 for Mixtral)");
  table.integer("warmup", options.warmup, 0, "warm-up steps before the linear decay (default 100)", kMostCount);
  table.real("weight-decay", options.weight_decay, not_negative, "a number of at least 0",
             "AdamW's weight decay (default 0)");
  table.real("clip", options.clip, not_negative, "a number of at least 0",
             "largest gradient norm, 0 for no limit (default 1.0)");
  table.integer("cutoff", options.cutoff, 1, "most tokens of a row, EOS included (default 256)", kMostCount);
  table.integer("val-size", options.val_size, 0, "rows held back for validation (default 120)", kMostCount);
  table.integer("eval-every", options.eval_every, 1, "steps between validations (default 80)", kMostCount);
  table.integer("save-every", options.save_every, 1, "steps between checkpoints (default 80)", kMostCount);
  table.integer("keep", options.keep, 1, "newest checkpoints to keep (default 3)", kMostCount);
  table.integer("seed", options.seed, 0, "seed of everything random (default 42)");

  describe_prompt(table, options.prompt);
  table.boolean("train-on-inputs", options.train_on_inputs, "learn the prompt too, not only the output (default true)");
  describe_pad_rows(table, options.pad_rows,
                    "may padding predict a token (default ignore; hf with --prompt perft-paper)");
  table.real("aux-coef", options.aux_coef, not_negative, "a number of at least 0",
             "load-balance coefficient, 0 for none (default: the model's)");
  table
      .real("memory-budget", options.memory_budget, positive, "a number above 0",
            "GB of activations a micro-batch may take; weights and optimizer state come on top (default: half of the "
            "memory)")
      .placeholder = "GB";
  table.flag("resume", options.resume, "go on from the newest complete checkpoint in --out");
  describe_run(table, options);
  describe_config(table, options);
  describe_json(table, options);
}

namespace {

/// The rules of finetune and plan, of which `required` must be given.
void settle_training(OptionTable& table, FinetuneOptions& options, bool complete,
                     const std::vector<std::string>& required) {
  if (table.given("method")) {
    const std::string method = to_string(options.method);
    for (const std::string_view name : kMethodOptions) {
      check<UsageError>(!table.given(name) || applies(options.method, name), "--", name, " does not apply to --method ",
                        method, "; leave it out");
    }
    check<UsageError>(options.method != Method::lora || options.delta == Delta::lora,
                      "--delta parallel does not apply to --method lora; leave it out");
    check<UsageError>(!table.given("alpha") || options.delta == Delta::lora,
                      "--alpha does not apply to --delta parallel, which has no scale; leave it out");
  }
  if (complete) {
    require(table, required);
    fill_sizes(table, options);
  }
  check<UsageError>(!(complete || (table.given("top-k") && table.given("experts"))) || options.top_k <= options.experts,
                    "--top-k ", options.top_k, " is more than --experts ", options.experts,
                    table.given("experts") ? "" : " (the default)", "; lower it or raise --experts");
  check<UsageError>(!options.micro_batch_size || !(complete || table.given("batch-size")) ||
                        *options.micro_batch_size <= options.batch_size,
                    "--micro-batch-size ", options.micro_batch_size.value_or(0), " is more than --batch-size ",
                    options.batch_size, table.given("batch-size") ? "" : " (the default)", "; lower it");
}

}  // namespace

void settle(OptionTable& table, FinetuneOptions& options, bool complete) {
  settle_training(table, options, complete, {"model", "data", "out", "method"});
  if (complete && !table.given("pad-rows")) {
    options.pad_rows = options.prompt == "perft-paper" ? PadRows::hf : PadRows::ignore;
  }
}

void describe(OptionTable& table, PlanOptions& options) {
  describe(table, static_cast<FinetuneOptions&>(options));
  table.keep({"model",
              "method",
              "experts",
              "top-k",
              "rank",
              "alpha",
              "dropout",
              "delta",
              "lora-targets",
              "router-weights",
              "router-dtype",
              "batch-size",
              "micro-batch-size",
              "cutoff",
              "memory-budget",
              "dtype",
              "device",
              "threads",
              "config",
              "json"});
}

void settle(OptionTable& table, PlanOptions& options, bool complete) {
  settle_training(table, options, complete, {"model", "method"});
}

void describe(OptionTable& table, DataOptions& options) {
  Option& action = table.choice("action", options.action, {"show", "report"},
                                "show: rows as tokens; report: what finetune says of the data before step 1");
  action.positional = true;
  action.placeholder = "ACTION";
  table.text("model", options.run.model, "DIR", "folder of the model: its tokenizer and EOS (required)");
  table.list("data", options.run.data, "F.json[,...]", "rows: JSON arrays or JSON Lines (required)");
  Option& rows =
      table.list("rows", options.row_numbers, "N[-N][,...]", "show: rows by their numbers from 0 (default 0-2)");
  rows.expected = "row numbers from 0, or ranges of them, with commas between them: 0,5,17 or 0-9";
  rows.set = [&options, as_list = rows.set](const ConfigValue& value) {
    if (!as_list(value)) {
      return false;
    }
    options.rows.clear();
    for (const std::string& item : options.row_numbers) {
      const auto range = row_range(item);
      if (!range) {
        return false;
      }
      options.rows.push_back(*range);
    }
    return true;
  };
  table.choice("split", options.part, {"train", "validation"}, "show: number only the rows of this part of the split");
  describe_prompt(table, options.run.prompt);
  table.integer("cutoff", options.run.cutoff, 1, "most tokens of a row, EOS included (default 256)", kMostCount);
  table.boolean("train-on-inputs", options.run.train_on_inputs,
                "learn the prompt too, not only the output (default true)");
  table.integer("val-size", options.run.val_size, 0, "rows held back for validation (default 120)", kMostCount);
  table.integer("seed", options.run.seed, 0, "seed of the split (default 42)");
  describe_config(table, options);
  describe_json(table, options);
}

void settle(OptionTable& table, DataOptions& options, bool complete) {
  const bool report = table.given("action") && options.action == DataAction::report;
  for (const char* name : {"rows", "split"}) {
    check<UsageError>(!report || !table.given(name), "--", name, " is only for perft data show; leave it out");
  }
  if (complete) {
    require(table, {"action", "model", "data"});
  }
}

void describe(OptionTable& table, SweepOptions& options) {
  describe_config_file(table, options.grid, "options to share and to cross, TOML or JSON (required)");
  table.text("out", options.out, "DIR", "folder of the runs, made with its parents (required)");
  table.text("model", options.model, "DIR", "folder of the base model, instead of the grid's");
  table.list("data", options.data, "F.json[,...]", "rows to train on, instead of the grid's");
  table.flag("list", options.list, "print the cells and what is left out, run nothing");
  describe_run(table, options);
  describe_json(table, options);
}

void settle(OptionTable& table, SweepOptions&, bool complete) {
  if (complete) {
    require(table, {"config", "out"});
  }
}

void describe(OptionTable& table, ScoreOptions& options) {
  table.text("model", options.model, "DIR", "folder of the base model (required)");
  table.text("adapter", options.adapter, "DIR", "folder of an adapter");
  table.text("input", options.input, "FILE", "batch: input_ids, attention_mask, perhaps labels (required)")
      .placeholder = "batch.safetensors";
  table.text("output", options.output, "FILE", "where the results go (required)").placeholder = "out.safetensors";
  table.flag("grads", options.grads, "add gradients, grad.<name>: the adapter's, or without one the base's");
  describe_pad_rows(table, options.pad_rows, "whether targets that padding predicts count (default hf)");
  table.real("aux-coef", options.aux_coef, not_negative, "a number of at least 0",
             "load-balance coefficient, 0 for none (default: the model's)");
  table.integer("steps", options.steps, 1, "AdamW steps to take on the batch", 1000000);
  table.real("lr", options.lr, not_negative, "a number of at least 0", "their learning rate (required with --steps)");
  table.real("clip", options.clip, not_negative, "a number of at least 0",
             "their largest gradient norm, 0 for no limit (default 1.0)");
  describe_run(table, options);
  describe_config(table, options);
  describe_json(table, options);
}

void settle(OptionTable& table, ScoreOptions&, bool complete) {
  if (complete) {
    require(table, {"model", "input", "output"});
    only_with(table, "lr", "steps");
    only_with(table, "clip", "steps");
    check<UsageError>(!table.given("steps") || table.given("lr"), "--steps needs --lr X");
  }
}

void describe(OptionTable& table, InspectOptions& options) {
  Option& dir = table.text("dir", options.dir, "DIR", "folder of a model or an adapter");
  dir.positional = true;
  table.flag("router", options.router, "show the load of every expert on the texts of --data");
  table.list("data", options.data, "F.json[,...]", "rows whose texts are used with --router");
  describe_run(table, options);
  describe_config(table, options);
  describe_json(table, options);
}

void settle(OptionTable& table, InspectOptions& options, bool complete) {
  if (complete) {
    require(table, {"dir"});
    check<UsageError>(options.router || !table.given("data"), "--data is only for --router; give both or neither");
    check<UsageError>(!options.router || table.given("data"), "--router needs --data F.json[,...]");
  }
}

void describe(OptionTable& table, TokenizeOptions& options) {
  table.text("model", options.model, "DIR", "folder with tokenizer.json (required)");
  table.flag("decode", options.decode, "read id arrays and print texts");
  table.flag("no-special-tokens", options.no_special_tokens, "do not add the special tokens of tokenizer.json");
  table.flag("keep-special-tokens", options.keep_special_tokens, "with --decode: print special tokens too");
  describe_config(table, options);
}

void settle(OptionTable& table, TokenizeOptions& options, bool complete) {
  check<UsageError>(!options.decode || !options.no_special_tokens,
                    "--no-special-tokens does not go with --decode, which leaves them out anyway");
  if (complete) {
    check<UsageError>(!options.keep_special_tokens || options.decode, "--keep-special-tokens is only for --decode");
    require(table, {"model"});
  }
}

RunConfig resolved_config(const FinetuneOptions& options) {
  FinetuneOptions copy = options;
  OptionTable table;
  describe(table, copy);
  RunConfig config;
  for (const Option& option : table.options()) {
    const bool how_to_start = option.name == "resume" || option.name == "config" || option.name == "json";
    const bool of_the_base = option.name == "experts" && copy.experts == 0;
    const bool without_scale = option.name == "alpha" && copy.delta == Delta::parallel;
    if (how_to_start || of_the_base || without_scale || !applies(copy.method, option.name)) {
      continue;
    }
    if (const std::optional<ConfigValue> value = option.get()) {
      config.add(option.name, *value);
    }
  }
  return config;
}

FinetuneOptions read_run_config(const std::string& path) {
  FinetuneOptions options;
  OptionTable table;
  describe(table, options);
  table.set_from_config(read_config_file(path), path);
  try {
    settle(table, options, true);
  } catch (const UsageError& error) {
    fail<IoError>(path, ": ", error.what());
  }
  return options;
}

std::string to_string(Method value) {
  return kMethods[static_cast<std::size_t>(value)];
}

}  // namespace perft::cli
