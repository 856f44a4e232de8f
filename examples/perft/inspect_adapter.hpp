#pragma once
// What an adapter folder holds: its configuration, and per layer and place the experts, ranks and norms of its
// matrices.

#include <algorithm>    // std::max
#include <cmath>        // std::sqrt
#include <cstdint>      // counts
#include <map>          // rows of the table
#include <string>       // names
#include <string_view>  // names
#include <utility>      // std::pair

#include "perft/io/mapped_file.hpp"
#include "perft/io/safetensors.hpp"
#include "perft/peft/adapter_config.hpp"

namespace perft::cli {

/// The matrices of one layer at one place ("mlp.perft", "self_attn.q_proj", "mlp.experts.up_proj"), all experts
/// together.
struct AdapterPlace {
  std::int64_t experts = 0;  // pairs of A and B
  std::int64_t downs = 0, ups = 0, routers = 0;
  std::int64_t least_rank = 0, most_rank = 0;
  std::int64_t parameters = 0;
  double down_squares = 0, up_squares = 0, router_squares = 0;  // Σ of squared elements of A (W1), B (W2), the router
};

struct AdapterContents {
  AdapterConfig config;
  std::map<std::pair<std::int64_t, std::string>, AdapterPlace> places;  // by layer and place
  std::int64_t tensors = 0, parameters = 0, bytes = 0;
};

namespace detail {

/// An adapter tensor's name, taken apart.
struct AdapterName {
  std::int64_t layer = 0;
  std::string place;        // without the expert's number
  std::int64_t expert = 0;  // 0 where there is one
  std::string matrix;       // lora_A, lora_B, w1, w2 or router
};

/// "model.layers.3.mlp.perft.experts.1.lora_A.weight" -> {3, "mlp.perft", 1, "lora_A"}; nothing if it is no such name.
inline std::optional<AdapterName> split_adapter_name(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  constexpr std::string_view kSuffix = ".weight";
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) {
    return std::nullopt;
  }
  std::vector<std::string> parts;
  name = name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size());
  for (std::size_t dot = 0; dot != std::string_view::npos; name.remove_prefix(dot == name.npos ? 0 : dot + 1)) {
    dot = name.find('.');
    parts.emplace_back(name.substr(0, dot));
  }
  const auto is_number = [](const std::string& text) {
    return !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == std::string::npos;
  };
  if (parts.size() < 3 || !is_number(parts.front())) {
    return std::nullopt;
  }
  AdapterName out;
  out.layer = std::stoll(parts.front());
  out.matrix = parts.back();
  for (std::size_t i = 1; i + 1 < parts.size(); ++i) {
    if (is_number(parts[i])) {
      out.expert = std::stoll(parts[i]);
    } else if (parts[i] != "experts" || parts[i - 1] != "perft") {
      out.place += (out.place.empty() ? "" : ".") + parts[i];
    }
  }
  const bool known = out.matrix == "lora_A" || out.matrix == "lora_B" || out.matrix == "w1" || out.matrix == "w2" ||
                     (out.matrix == "router" && out.place == "mlp.perft");
  return known ? std::optional(out) : std::nullopt;
}

inline double sum_of_squares(const TensorEntry& entry) {
  double sum = 0;
  for (const double value : read_as<double>(entry)) {
    check<IoError>(std::isfinite(value), entry.path, ": tensor ", in_quotes(entry.name),
                   " holds a number that is not finite; train the adapter again or use another checkpoint of it");
    sum += value * value;
  }
  return sum;
}

}  // namespace detail

/// Reads `dir`. Throws IoError, naming file and tensor or key: what parse_adapter_config and SafetensorsFile::open
/// refuse, a tensor that no adapter has, a rank other than the configuration's, an A without its B, a number that is
/// not finite.
inline AdapterContents read_adapter_contents(const std::string& dir) {
  AdapterContents contents;
  const std::string config_path = dir + "/adapter_config.json";
  contents.config = parse_adapter_config(parse_json_strict(read_text_file(config_path), config_path), config_path);
  const AdapterSpec& spec = contents.config.spec;
  const std::string path = dir + "/adapter_model.safetensors";
  const SafetensorsFile file = SafetensorsFile::open(path);
  for (const TensorEntry& entry : file.tensors()) {
    const auto name = detail::split_adapter_name(entry.name);
    check<IoError>(name.has_value(), path, ": tensor ", in_quotes(entry.name),
                   " is not one of an adapter; remove it or use the right file");
    check<IoError>(entry.shape.size() == 2, path, ": tensor ", in_quotes(entry.name), " has shape ", entry.shape,
                   ", expected a matrix; write the adapter again");
    AdapterPlace& place = contents.places[{name->layer, name->place}];
    const double squares = detail::sum_of_squares(entry);
    if (name->matrix == "router") {
      ++place.routers;
      place.router_squares += squares;
    } else {
      const bool down = name->matrix == "lora_A" || name->matrix == "w1";
      const std::int64_t rank = entry.shape[down ? 0 : 1];
      const auto layer = static_cast<std::size_t>(name->layer);
      const auto expert = static_cast<std::size_t>(name->expert);
      const bool listed = spec.ranks.empty() || (layer < spec.ranks.size() && expert < spec.ranks[layer].size());
      const std::int64_t expected = listed ? spec.rank_of(name->layer, name->expert) : 0;
      check<IoError>(rank == expected, path, ": tensor ", in_quotes(entry.name), " has rank ", rank, ", expected ",
                     expected, " from adapter_config.json; check that both belong together");
      place.least_rank = place.downs + place.ups == 0 ? rank : std::min(place.least_rank, rank);
      place.most_rank = std::max(place.most_rank, rank);
      ++(down ? place.downs : place.ups);
      (down ? place.down_squares : place.up_squares) += squares;
    }
    place.parameters += entry.elements();
    contents.parameters += entry.elements();
    contents.bytes += static_cast<std::int64_t>(entry.bytes);
    ++contents.tensors;
  }
  for (auto& [where, place] : contents.places) {
    check<IoError>(place.downs == place.ups, path, ": layer ", where.first, ", ", where.second, " has ", place.downs,
                   " matrices A and ", place.ups, " matrices B, expected as many of each; write the adapter again");
    place.experts = place.downs;
  }
  check<IoError>(contents.tensors > 0, path, ": holds no tensors, expected those of an adapter; write it again");
  return contents;
}

/// The --json object.
inline OrderedJson adapter_json(const AdapterContents& a) {
  OrderedJson json = {{"kind", "adapter"}};
  json.update(adapter_config_json(a.config.spec, a.config.base.value_or(BaseFacts{})));
  json["base_model_type"] = a.config.base_model_type;
  if (!a.config.base) {
    json.erase("base");
  }
  json["tensors"] = a.tensors;
  json["parameters"] = a.parameters;
  json["bytes"] = a.bytes;
  json["places"] = OrderedJson::array();
  for (const auto& [where, place] : a.places) {
    OrderedJson row = {{"layer", where.first},
                       {"place", where.second},
                       {"experts", place.experts},
                       {"least_rank", place.least_rank},
                       {"most_rank", place.most_rank},
                       {"parameters", place.parameters},
                       {"norm_down", std::sqrt(place.down_squares)},
                       {"norm_up", std::sqrt(place.up_squares)}};
    if (place.routers > 0) {
      row["norm_router"] = std::sqrt(place.router_squares);
    }
    json["places"].push_back(std::move(row));
  }
  return json;
}

}  // namespace perft::cli
