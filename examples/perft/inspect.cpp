// perft inspect: what a model or adapter folder holds, and the load of its experts on a text.

#include "inspect.hpp"

#include <fmt/format.h>  // tables
#include <algorithm>     // std::minmax_element

#include <filesystem>  // which kind of folder
#include <iostream>    // results
#include <string>      // lines

#include "digits.hpp"
#include "engine.hpp"
#include "inspect_adapter.hpp"
#include "inspect_model.hpp"
#include "inspect_router.hpp"

namespace perft::cli {
namespace {

/// "8", or "4-16" where ranks differ.
std::string rank_text(std::int64_t least, std::int64_t most) {
  return least == most ? std::to_string(least) : fmt::format("{}-{}", least, most);
}

void print_model(const ModelContents& m) {
  const ModelConfig& c = m.config;
  std::cout << fmt::format(
      "{} model, {} layers\n"
      "  width {}, {} heads of {} ({} for keys and values), {} experts of width {}, {} per token\n"
      "  vocabulary {}, context {}, embeddings {}\n\n",
      family_name(c.family), c.num_hidden_layers, c.hidden_size, c.num_attention_heads, c.head_dim,
      c.num_key_value_heads, c.num_experts, c.intermediate_size, c.num_experts_per_tok, c.vocab_size,
      c.max_position_embeddings, c.tie_word_embeddings ? "tied to the head" : "not tied");
  std::cout << fmt::format("{:<10} {:>8} {:>16} {:>7} {:>18}  {}\n", "role", "tensors", "parameters", "%", "bytes",
                           "dtype");
  const auto row = [&](const char* name, std::int64_t tensors, std::int64_t parameters, std::int64_t bytes,
                       const std::string& dtype) {
    const double share = 100 * static_cast<double>(parameters) / static_cast<double>(m.parameters);
    std::cout << fmt::format("{:<10} {:>8} {:>16} {:>7.2f} {:>18}", name, with_commas(tensors), with_commas(parameters),
                             share, with_commas(bytes))
              << (dtype.empty() ? "" : "  " + dtype) << '\n';
  };
  std::int64_t tensors = 0;
  for (std::size_t r = 0; r < kRoles.size(); ++r) {
    const RoleTotal& role = m.roles[r];
    row(kRoles[r], role.tensors, role.parameters, role.bytes,
        role.tensors == 0 ? "tied" : fmt::format("{}", fmt::join(role.dtypes, ", ")));
    tensors += role.tensors;
  }
  row("total", tensors, m.parameters, m.bytes, "");
  std::cout << fmt::format(
      "\n{} parameters ({:.2f} %) are active per token: all but the experts it does not choose\n\n",
      with_commas(m.active_parameters),
      100 * static_cast<double>(m.active_parameters) / static_cast<double>(m.parameters));
  for (const auto& [path, file] : m.files) {
    std::cout << fmt::format("{}: {} tensors, {} bytes\n", path, with_commas(file.tensors), with_commas(file.bytes));
  }
}

void print_adapter(const AdapterContents& a) {
  const AdapterSpec& spec = a.config.spec;
  std::cout << fmt::format("{} adapter for {}, delta {}, alpha {}, dropout {}\n", method_name(spec.method),
                           a.config.base_model_type, spec.delta == DeltaForm::kLora ? "lora" : "parallel",
                           spec.effective_alpha(), spec.dropout);
  if (spec.method == perft::Method::kPerftR) {
    std::cout << fmt::format("  {} of {} experts per token, router weights {}\n", spec.top_k, spec.experts,
                             spec.router_weights == perft::RouterWeights::kOwn ? "own" : "authors-olmoe");
  }
  if (!spec.targets.empty()) {
    std::cout << fmt::format("  targets {}\n", fmt::join(spec.targets, ", "));
  }
  const bool router = spec.method == perft::Method::kPerftR;
  std::cout << fmt::format("\n{:>5}  {:<22} {:>7} {:>6} {:>12} {:>11} {:>11}{}\n", "layer", "place", "experts", "rank",
                           "parameters", spec.delta == DeltaForm::kLora ? "|A|" : "|W1|",
                           spec.delta == DeltaForm::kLora ? "|B|" : "|W2|", router ? "    |router|" : "");
  for (const auto& [where, place] : a.places) {
    std::cout << fmt::format("{:>5}  {:<22} {:>7} {:>6} {:>12} {:>11.5g} {:>11.5g}", where.first, where.second,
                             place.experts, rank_text(place.least_rank, place.most_rank), with_commas(place.parameters),
                             std::sqrt(place.down_squares), std::sqrt(place.up_squares))
              << (router ? fmt::format(" {:>11.5g}", std::sqrt(place.router_squares)) : "") << '\n';
  }
  std::cout << fmt::format("\n{} parameters in {} tensors, {} bytes\n", with_commas(a.parameters), a.tensors,
                           with_commas(a.bytes));
}

void print_router(const RouterLoad& load) {
  std::cout << fmt::format("\nexpert load over {} tokens of {} rows", with_commas(load.text.tokens),
                           with_commas(load.text.rows));
  if (load.text.truncated > 0) {
    std::cout << fmt::format(" ({} cut at the model's context)", load.text.truncated);
  }
  const double even = 1.0 / static_cast<double>(load.layers.front().experts.counts.size());
  std::cout << fmt::format("; an even share is {:.2f} %\n\n{:>5} {:>9} {:>9} {:>8} {:>5} {:>8}\n", 100 * even, "layer",
                           "least %", "most %", "entropy", "dead", "aux");
  for (std::size_t i = 0; i < load.layers.size(); ++i) {
    const LayerLoad& layer = load.layers[i];
    const std::vector<double> shares = layer.experts.shares();
    const auto [least, most] = std::minmax_element(shares.begin(), shares.end());
    std::cout << fmt::format("{:>5} {:>9.3f} {:>9.3f} {:>8.4f} {:>5} {:>8.4f}\n", i, 100 * *least, 100 * *most,
                             layer.experts.entropy(), layer.experts.dead(), layer.aux);
  }
  std::cout << fmt::format("{:>5} {:>9} {:>9} {:>8} {:>5} {:>8.4f}\n", "all", "", "", "", "", load.aux);
}

OrderedJson router_json(const RouterLoad& load) {
  OrderedJson json = {{"rows", load.text.rows},
                      {"tokens", load.text.tokens},
                      {"truncated", load.text.truncated},
                      {"aux", load.aux},
                      {"layers", OrderedJson::array()}};
  for (std::size_t i = 0; i < load.layers.size(); ++i) {
    const LayerLoad& layer = load.layers[i];
    const std::vector<double> shares = layer.experts.shares();
    const auto [least, most] = std::minmax_element(shares.begin(), shares.end());
    json["layers"].push_back({{"layer", i},
                              {"least_share", *least},
                              {"most_share", *most},
                              {"entropy", layer.experts.entropy()},
                              {"dead", layer.experts.dead()},
                              {"aux", layer.aux},
                              {"shares", shares}});
  }
  return json;
}

}  // namespace

int run_inspect(const InspectOptions& options) {
  std::error_code ignored;
  const auto has = [&](const char* name) {
    return std::filesystem::exists(std::filesystem::path(options.dir) / name, ignored);
  };
  if (has("adapter_config.json")) {
    check<IoError>(!has("config.json"), options.dir,
                   ": holds config.json and adapter_config.json, expected a model or an adapter; keep them apart");
    check<IoError>(!options.router, options.dir,
                   ": is an adapter folder, expected a model folder; --router runs the base");
    const AdapterContents contents = read_adapter_contents(options.dir);
    for (const std::string& text : contents.config.notes) {
      note(text);
    }
    if (options.json) {
      std::cout << adapter_json(contents).dump() << '\n';
    } else {
      print_adapter(contents);
    }
    return 0;
  }
  const ModelContents contents = read_model_contents(options.dir);
  OrderedJson json = model_json(contents);
  if (!options.json) {
    print_model(contents);
  }
  if (options.router) {
    const RouterLoad load = run_router(options);
    json["router"] = router_json(load);
    if (!options.json) {
      print_router(load);
    }
  }
  if (options.json) {
    std::cout << json.dump() << '\n';
  }
  return 0;
}

}  // namespace perft::cli
