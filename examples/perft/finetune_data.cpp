// What fine-tuning needs before a model is loaded.

#include "finetune_data.hpp"

#include <algorithm>  // std::any_of
#include <iterator>   // std::back_inserter
#include <limits>     // no limit
#include <map>        // roles
#include <set>        // layers of a role
#include <sstream>    // parts of names

#include <fmt/format.h>

#include "digits.hpp"
#include "model_files.hpp"
#include "perft/data/order.hpp"
#include "perft/data/rows.hpp"
#include "report_error.hpp"

namespace perft::cli {

namespace {

/// "model.layers.3.mlp.perft.experts.2.lora_A.weight" -> {"mlp.perft.experts.*.lora_A", 3}; −1 outside a layer.
std::pair<std::string, std::int64_t> role_of(const std::string& name) {
  std::istringstream parts(name);
  std::string role;
  std::int64_t layer = -1;
  std::string previous;
  for (std::string part; std::getline(parts, part, '.'); previous = part) {
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    if (part == "model" || part == "layers" || part == "weight") {
      continue;
    }
    if (number && previous == "layers") {
      layer = std::stoll(part);
      continue;
    }
    role += (role.empty() ? "" : ".") + (number ? std::string("*") : part);
  }
  return {role, layer};
}

}  // namespace

EncodeOptions encode_options(const FinetuneOptions& options, const ModelConfig& config) {
  EncodeOptions encode;
  encode.cutoff = options.cutoff;
  encode.train_on_inputs = options.train_on_inputs;
  encode.eos_id = end_of_row(options.model, config);
  check<IoError>(encode.eos_id >= 0, options.model,
                 ": no eos_token_id in generation_config.json or config.json; add one");
  return encode;
}

RowSplit split_for(const FinetuneOptions& options, std::int64_t rows) {
  try {
    return split_rows(rows, options.val_size, static_cast<std::uint64_t>(options.seed));
  } catch (const ValueError& error) {
    fail<IoError>(options.data.front(), ": ", error.what());
  }
}

FinetuneData load_data(const FinetuneOptions& options, const ModelConfig& config) {
  const EncodeOptions encode = encode_options(options, config);
  FinetuneData data;
  std::vector<Row> rows;
  for (const std::string& file : options.data) {
    std::vector<Row> of_file = read_rows({file});
    data.files.emplace_back(file, static_cast<std::int64_t>(of_file.size()));
    std::move(of_file.begin(), of_file.end(), std::back_inserter(rows));
  }
  std::vector<EncodedRow> encoded =
      encode_for(options.model, config, rows, options.data.front(), options.prompt, encode, data.stats);
  const RowSplit split = split_for(options, static_cast<std::int64_t>(encoded.size()));
  data.duplicates = find_duplicates(rows, encoded, split);
  for (const std::int64_t i : split.train) {
    data.train.push_back(std::move(encoded[static_cast<std::size_t>(i)]));
  }
  for (const std::int64_t i : split.validation) {
    data.validation.push_back(std::move(encoded[static_cast<std::size_t>(i)]));
  }
  const auto learns = [](const EncodedRow& row) { return trained_tokens(row) > 0; };
  check<IoError>(std::any_of(data.train.begin(), data.train.end(), learns), options.data.front(),
                 ": data: none of the ", data.train.size(),
                 " rows left to train on keeps a label; raise --cutoff or lower --val-size");
  check<IoError>(data.validation.empty() || std::any_of(data.validation.begin(), data.validation.end(), learns),
                 options.data.front(), ": data: none of the ", data.validation.size(),
                 " held-back rows keeps a label; raise --cutoff, or give --val-size 0 to train without validation");
  return data;
}

std::string plan_table(const MicroBatchPlan& plan, const FinetuneOptions& options, std::int64_t budget) {
  const char* recompute = plan.recompute == Recompute::kNone     ? "nothing"
                          : plan.recompute == Recompute::kGateUp ? "the experts' gate and up projections"
                                                                 : "whole layers";
  const auto gb = [](std::int64_t bytes) { return static_cast<double>(bytes) * 1e-9; };
  return fmt::format("micro-batch        {:>14}   (of {} rows; {} computed again for backward)\n", plan.rows,
                     options.batch_size, recompute) +
         (plan.rows < options.batch_size && *options.aux_coef != 0
              ? fmt::format(
                    "{:34}(aux is taken of {} rows at a time: give --micro-batch-size to repeat this elsewhere)\n", "",
                    plan.rows)
              : "") +
         fmt::format("activations     {:>14.3f} GB   (planned peak; budget {:.3f} GB{})\n", gb(plan.bytes), gb(budget),
                     plan.bytes > budget ? ", which even this exceeds: lower --micro-batch-size or --cutoff" : "");
}

std::string rows_table(const FinetuneData& data, const FinetuneOptions& options) {
  const EncodeStats& s = data.stats;
  std::string out;
  out += fmt::format("rows               {:>14}   ({} to train, {} held back)\n", with_commas(s.rows),
                     with_commas(static_cast<std::int64_t>(data.train.size())),
                     with_commas(static_cast<std::int64_t>(data.validation.size())));
  if (data.files.size() > 1) {
    for (const auto& [file, rows] : data.files) {
      out += fmt::format("{:>33}   from {}\n", with_commas(rows), one_line(file));
    }
  }
  out += fmt::format("tokens             {:>14}   (longest row {})\n", with_commas(s.tokens), s.longest);
  out +=
      fmt::format("trained tokens     {:>14}   ({:.1f} %)\n", with_commas(s.trained_tokens), 100 * s.trained_share());
  out += fmt::format("truncated rows     {:>14}   (cutoff {} tokens)\n", with_commas(s.truncated), options.cutoff);
  out += fmt::format("rows without EOS   {:>14}\n", with_commas(s.without_eos));
  if (s.without_label > 0) {
    out += fmt::format("rows without label {:>14}\n", with_commas(s.without_label));
  }
  if (s.seam_differs > 0) {
    out += fmt::format("seams that differ  {:>14}   (prompt alone and prompt + answer tokenise differently)\n",
                       with_commas(s.seam_differs));
  }
  const auto warn = [&out](const char* name, std::int64_t count, const std::string& meaning) {
    if (count > 0) {
      out += fmt::format("{:<18} {:>14}   ({})\n", name, with_commas(count), meaning);
    }
  };
  warn("repeated rows", data.duplicates.repeated,
       "to train, each equal to an earlier one: they weigh more than others");
  const std::string of_held_back =
      fmt::format("of the {} held back ", with_commas(static_cast<std::int64_t>(data.validation.size())));
  warn("held back, known", data.duplicates.seen_rows,
       of_held_back + "are also trained: the validation loss is better than that of unknown rows");
  warn("held back, asked", data.duplicates.seen_prompts,
       of_held_back + "have a prompt that is trained with another answer");
  return out;
}

OrderedJson rows_json(const FinetuneData& data) {
  const EncodeStats& s = data.stats;
  OrderedJson files = OrderedJson::array();
  for (const auto& [file, rows] : data.files) {
    files.push_back({{"file", file}, {"rows", rows}});
  }
  return {{"rows", s.rows},
          {"train", data.train.size()},
          {"validation", data.validation.size()},
          {"files", files},
          {"tokens", s.tokens},
          {"longest", s.longest},
          {"trained_tokens", s.trained_tokens},
          {"trained_share", s.trained_share()},
          {"truncated", s.truncated},
          {"without_eos", s.without_eos},
          {"without_label", s.without_label},
          {"seam_differs", s.seam_differs},
          {"repeated", data.duplicates.repeated},
          {"held_back_known", data.duplicates.seen_rows},
          {"held_back_asked", data.duplicates.seen_prompts}};
}

std::string data_table(const FinetuneData& data, const FinetuneOptions& options) {
  std::string out = rows_table(data, options);
  out += fmt::format("padding rows       {:>14}   (hf: a row's first token is scored on padding; ignore: it is not)\n",
                     options.pad_rows == PadRows::hf ? "hf" : "ignore");
  return out;
}

std::string trained_table(const std::vector<TrainedTensor>& tensors, std::int64_t base_parameters) {
  struct Group {
    std::set<std::int64_t> layers;
    std::int64_t tensors = 0;
    std::int64_t parameters = 0;
  };

  std::map<std::string, Group> groups;
  std::int64_t total = 0;
  for (const TrainedTensor& tensor : tensors) {
    const auto [role, layer] = role_of(tensor.name);
    Group& group = groups[role];
    if (layer >= 0) {
      group.layers.insert(layer);
    }
    ++group.tensors;
    group.parameters += tensor.parameters;
    total += tensor.parameters;
  }
  check<ValueError>(total > 0, "nothing is trained");
  std::string out =
      fmt::format("{:<34} {:>6} {:>8} {:>14} {:>9}\n", "trained", "layers", "tensors", "parameters", "% of base");
  const auto line = [&](const std::string& role, std::size_t layers, std::int64_t count, std::int64_t parameters) {
    out += fmt::format("{:<34} {:>6} {:>8} {:>14} {:>9.4f}\n", role, layers, count, with_commas(parameters),
                       100.0 * static_cast<double>(parameters) / static_cast<double>(base_parameters));
  };
  std::set<std::int64_t> layers;
  for (const auto& [role, group] : groups) {
    line(role, group.layers.size(), group.tensors, group.parameters);
    layers.insert(group.layers.begin(), group.layers.end());
  }
  line("all", layers.size(), static_cast<std::int64_t>(tensors.size()), total);
  return out;
}

}  // namespace perft::cli
