#pragma once
// Copying what lies beside the weights of a model, and finished results.

#include <algorithm>   // std::equal
#include <filesystem>  // what is there
#include <string>      // paths

#include "perft/io/atomic_file.hpp"
#include "perft/io/mapped_file.hpp"
#include "perft/io/read_back.hpp"

namespace perft::cli {

/// What a hub folder holds beside its weights; the configuration, which makes a model of them, is the last.
inline constexpr const char* kFilesBesideWeights[] = {"tokenizer.json", "tokenizer_config.json",
                                                      "generation_config.json", "config.json"};

/// Copies a file as it is, straight from its mapping, and compares the copy; an absent file is skipped, and so is one
/// that is there already. Throws IoError.
inline void copy_if_there(const std::string& from, const std::string& to, const std::string& name) {
  if (!std::filesystem::exists(from + "/" + name)) {
    return;
  }
  const auto source = map_file(from + "/" + name);
  const std::string target = to + "/" + name;
  if (std::filesystem::exists(target)) {
    const auto present = map_file(target);
    if (std::equal(source->bytes().begin(), source->bytes().end(), present->bytes().begin(), present->bytes().end())) {
      return;
    }
  }
  AtomicFile file(target);
  file.write(source->bytes().data(), source->bytes().size());
  file.commit();
  ReadBack copy(target);
  copy.write(source->bytes().data(), source->bytes().size());
  copy.commit();
}

}  // namespace perft::cli
