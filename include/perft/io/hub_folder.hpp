#pragma once
// A model folder as on the hub: config.json and the tensors of one or several safetensors files, as one table.

#include <algorithm>    // std::sort, std::lower_bound
#include <cstddef>      // std::size_t
#include <filesystem>   // existence
#include <map>          // shards and what they should hold
#include <string>       // names
#include <string_view>  // names
#include <utility>      // std::move
#include <vector>       // tensors

#include "perft/core/error.hpp"
#include "perft/io/json.hpp"
#include "perft/io/mapped_file.hpp"
#include "perft/io/safetensors.hpp"

namespace perft::inline PERFT_ABI {

/// An opened model folder. Weights come from model.safetensors, else from the shards of model.safetensors.index.json
/// (transformers' order of preference).
class HubFolder {
 public:
  /// Throws IoError: no folder, no or bad config.json, no weights, or an index that lies (a shard or a tensor missing,
  /// a tensor not listed or in two shards, a shard outside the folder). UnsupportedError for pytorch_model.bin alone.
  static HubFolder open(const std::string& dir) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    check<IoError>(fs::exists(dir, ignored), dir, ": no such folder, expected a model folder; check the path");
    check<IoError>(fs::is_directory(dir, ignored), dir, ": is not a folder, expected a model folder; check the path");
    HubFolder folder;
    folder.dir_ = dir;
    folder.config_path_ = folder.inside("config.json");
    folder.config_ = parse_json_strict(read_text_file(folder.config_path_), folder.config_path_);
    const std::string single = folder.inside("model.safetensors");
    const std::string index = folder.inside("model.safetensors.index.json");
    if (fs::exists(single, ignored)) {
      folder.weights_path_ = single;
      folder.tensors_ = SafetensorsFile::open(single).tensors();
    } else if (fs::exists(index, ignored)) {
      folder.weights_path_ = index;
      folder.open_shards();
    } else {
      for (const char* old : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
        check<UnsupportedError>(!fs::exists(folder.inside(old), ignored), folder.inside(old),
                                ": pickled weights are not read, expected model.safetensors; convert with "
                                "transformers' save_pretrained(safe_serialization=True)");
      }
      fail<IoError>(dir,
                    ": has neither model.safetensors nor model.safetensors.index.json; check the path or download "
                    "the weights");
    }
    std::sort(folder.tensors_.begin(), folder.tensors_.end(),
              [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; });
    return folder;
  }

  const std::string& dir() const { return dir_; }

  const std::string& config_path() const { return config_path_; }

  /// config.json, parsed.
  const Json& config_json() const { return config_; }

  /// The file that says which tensors there are, for messages: model.safetensors, or the index of its shards.
  const std::string& weights_path() const { return weights_path_; }

  /// Every tensor of every shard, sorted by name.
  const std::vector<TensorEntry>& all() const { return tensors_; }

  /// Null if there is none of that name.
  const TensorEntry* find(std::string_view name) const {
    const auto at = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                     [](const TensorEntry& entry, std::string_view key) { return entry.name < key; });
    return at != tensors_.end() && at->name == name ? &*at : nullptr;
  }

 private:
  HubFolder() = default;

  std::string inside(const std::string& name) const { return (std::filesystem::path(dir_) / name).string(); }

  void open_shards() {
    const std::string& index = weights_path_;
    const Json json = parse_json_strict(read_text_file(index), index);
    check<IoError>(json.is_object() && json.contains("weight_map") && json["weight_map"].is_object(), index,
                   ": has no object weight_map, expected tensor names with their shards; download it again");
    std::map<std::string, std::string> where;        // tensor -> shard
    std::map<std::string, std::size_t> shard_names;  // shard -> tensors listed
    for (const auto& [tensor, shard] : json["weight_map"].items()) {
      check<IoError>(shard.is_string(), index, ": weight_map ", in_quotes(tensor),
                     " is not a string, expected a file name");
      const auto& name = shard.get_ref<const std::string&>();
      check<IoError>(is_plain_name(name), index, ": weight_map ", in_quotes(tensor), " names ", in_quotes(name),
                     ", expected a file name inside the folder; do not use this checkpoint unseen");
      where.emplace(tensor, name);
      ++shard_names[name];
    }
    std::map<std::string, std::string> found;  // tensor -> shard
    for (const auto& [name, listed] : shard_names) {
      const std::string path = inside(name);
      std::error_code ignored;
      check<IoError>(std::filesystem::exists(path, ignored), path, ": shard listed in ", index,
                     " is missing, expected ", listed, " tensors in it; download it");
      const SafetensorsFile shard = SafetensorsFile::open(path);
      for (const TensorEntry& entry : shard.tensors()) {
        const auto [first, is_new] = found.emplace(entry.name, name);
        check<IoError>(is_new, path, ": tensor ", in_quotes(entry.name), " is in shard ", first->second,
                       " too, expected in one; download both again");
        const auto promised = where.find(entry.name);
        check<IoError>(promised != where.end(), path, ": tensor ", in_quotes(entry.name), " is not listed in ", index,
                       ", expected every tensor there; download the folder again");
        check<IoError>(promised->second == name, path, ": tensor ", in_quotes(entry.name), " is listed in ", index,
                       " as part of ", promised->second, "; download the folder again");
        tensors_.push_back(entry);
      }
    }
    for (const auto& [tensor, name] : where) {
      check<IoError>(found.contains(tensor), inside(name), ": tensor ", in_quotes(tensor), " is listed in ", index,
                     " but absent, expected it here; download the shard again");
    }
  }

  static bool is_plain_name(std::string_view name) {
    return !name.empty() && name != "." && name != ".." &&
           name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
  }

  std::string dir_;
  std::string config_path_;
  std::string weights_path_;
  Json config_;
  std::vector<TensorEntry> tensors_;
};

}  // namespace perft::inline PERFT_ABI
