#pragma once
// What an adapter folder holds: its configuration, and per layer and place the experts, ranks and norms of its
// matrices.

#include <algorithm>    // std::max
#include <cmath>        // std::sqrt
#include <cstdint>      // counts
#include <map>          // rows of the table
#include <set>          // tensors that were expected
#include <string>       // names
#include <string_view>  // names
#include <utility>      // std::pair
#include <vector>       // shapes

#include "adapter_layout.hpp"
#include "perft/io/safetensors.hpp"
#include "perft/peft/adapter_config.hpp"

namespace perft::cli {

/// The matrices of one layer at one place ("mlp.perft", "self_attn.q_proj", "mlp.experts.up_proj"), all experts
/// together.
struct AdapterPlace {
  std::int64_t experts = 0;  // pairs of A and B
  std::int64_t routers = 0;
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

inline double sum_of_squares(const TensorEntry& entry) {
  double sum = 0;
  for (const double value : read_as<double>(entry)) {
    check<IoError>(std::isfinite(value), entry.path, ": tensor ", in_quotes(entry.name),
                   " holds a number that is not finite; train the adapter again or use another checkpoint of it");
    sum += value * value;
  }
  return sum;
}

inline void add_to(AdapterPlace& place, const AdapterMatrix& matrix, const TensorEntry& entry) {
  const double squares = sum_of_squares(entry);
  place.parameters += entry.elements();
  if (matrix.part == AdapterPart::router) {
    ++place.routers;
    place.router_squares += squares;
  } else if (matrix.part == AdapterPart::down) {
    place.least_rank = place.experts == 0 ? matrix.rank : std::min(place.least_rank, matrix.rank);
    place.most_rank = std::max(place.most_rank, matrix.rank);
    ++place.experts;
    place.down_squares += squares;
  } else {
    place.up_squares += squares;
  }
}

}  // namespace detail

/// Reads `dir`. Throws IoError, naming file and tensor or key: what parse_adapter_config and SafetensorsFile::open
/// refuse, a tensor missing, of another shape than the configuration calls for, or not one of it, a number that is not
/// finite.
inline AdapterContents read_adapter_contents(const std::string& dir) {
  AdapterContents contents;
  const std::string config_path = dir + "/adapter_config.json";
  contents.config = read_adapter_config(dir);
  const AdapterConfig& config = contents.config;
  const std::string path = dir + "/adapter_model.safetensors";
  const SafetensorsFile file = SafetensorsFile::open(path);
  const BaseFacts base = base_of(config, file);
  check_base(config, base, config_path);
  const AdapterSpec& spec = config.spec;
  check<IoError>(spec.method != perft::Method::kPerftE || spec.experts == 0 || spec.experts == base.num_experts,
                 config_path, ": experts is ", spec.experts, ", expected the base's ", base.num_experts,
                 " (or 0); correct the file");
  AdapterWidths widths(base);
  std::set<std::string_view> used;
  for_each_matrix(spec, base, [&](const AdapterMatrix& matrix) {
    const TensorEntry* entry = file.find(matrix.name);
    check<IoError>(entry != nullptr, path, ": tensor ", in_quotes(matrix.name),
                   " is missing; check adapter_config.json against the file");
    const std::vector<std::int64_t> expected = widths.shape_of(matrix, entry->shape);
    check<IoError>(entry->shape == expected, path, ": tensor ", in_quotes(entry->name), " is ", entry->shape,
                   ", expected ", expected, " from adapter_config.json; check that both belong together");
    check<IoError>(entry->dtype == DType::f32 || entry->dtype == DType::bf16 || entry->dtype == DType::f16, path,
                   ": tensor ", in_quotes(entry->name), " is ", dtype_name(entry->dtype),
                   ", expected F32, BF16 or F16; write the adapter again");
    detail::add_to(contents.places[{matrix.layer, matrix.place}], matrix, *entry);
    used.insert(entry->name);
    contents.parameters += entry->elements();
    contents.bytes += static_cast<std::int64_t>(entry->bytes);
    ++contents.tensors;
  });
  check<IoError>(contents.tensors > 0, path, ": holds no tensors, expected those of an adapter; write it again");
  for (const TensorEntry& entry : file.tensors()) {
    check<IoError>(used.count(entry.name) > 0, path, ": tensor ", in_quotes(entry.name),
                   " is not one of this adapter's; remove it or use the right file");
  }
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
