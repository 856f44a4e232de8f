#pragma once
// A small safetensors reader that shares no code with perft/io: what a golden file says cannot depend on the library
// that is held against it.

#include <algorithm>          // std::sort
#include <bit>                // std::bit_cast
#include <cstdint>            // fixed-width integers
#include <cstring>            // std::memcpy
#include <filesystem>         // std::filesystem::path
#include <fstream>            // files
#include <iterator>           // std::istreambuf_iterator
#include <map>                // tensors by name
#include <nlohmann/json.hpp>  // the header
#include <stdexcept>          // std::runtime_error
#include <string>             // names
#include <vector>             // values

namespace support {

/// One tensor. Floating types are widened to double in `values`, I64 and I32 to int64 in `integers`; the other is
/// empty.
struct GoldenTensor {
  std::string dtype;
  std::vector<std::size_t> shape;
  std::vector<double> values;
  std::vector<std::int64_t> integers;
};

/// Where tests/fixtures/golden lies: PERFT_FIXTURES if the build defines it (the path of tests/fixtures), else
/// beside this header.
inline std::filesystem::path golden_folder() {
#ifdef PERFT_FIXTURES
  return std::filesystem::path(PERFT_FIXTURES) / "golden";
#else
  return std::filesystem::path(__FILE__).parent_path().parent_path() / "fixtures" / "golden";
#endif
}

/// <family>/<name>.safetensors of golden_folder().
struct GoldenVariant {
  std::string family, name;
};

/// How many golden files there are (tests/fixtures/golden/README.md).
constexpr std::size_t kGoldenFiles = 44;

/// Every golden file, found by listing the folder, in the order of their paths. Throws std::runtime_error unless there
/// are kGoldenFiles: a loop over none would pass.
inline std::vector<GoldenVariant> golden_variants() {
  std::vector<std::filesystem::path> files;
  for (const auto& family : std::filesystem::directory_iterator(golden_folder())) {
    if (!family.is_directory()) continue;
    for (const auto& file : std::filesystem::directory_iterator(family.path())) {
      if (file.path().extension() == ".safetensors") files.push_back(file.path());
    }
  }
  if (files.size() != kGoldenFiles) {
    throw std::runtime_error(golden_folder().string() + ": " + std::to_string(files.size()) + " golden files, not " +
                             std::to_string(kGoldenFiles));
  }
  std::sort(files.begin(), files.end());
  std::vector<GoldenVariant> variants;
  for (const auto& file : files) variants.push_back({file.parent_path().filename().string(), file.stem().string()});
  return variants;
}

struct GoldenFile {
  std::string path;
  std::map<std::string, std::string> metadata;
  std::map<std::string, GoldenTensor> tensors;

  bool has(const std::string& name) const { return tensors.contains(name); }

  /// Throws std::runtime_error naming the file if there is no such tensor.
  const GoldenTensor& at(const std::string& name) const {
    const auto found = tensors.find(name);
    if (found == tensors.end()) throw std::runtime_error(path + ": no tensor " + name);
    return found->second;
  }

  const std::vector<double>& values(const std::string& name) const { return at(name).values; }

  const std::vector<std::int64_t>& integers(const std::string& name) const { return at(name).integers; }

  /// The value of a tensor of shape [1].
  double scalar(const std::string& name) const {
    const auto& v = values(name);
    if (v.size() != 1) throw std::runtime_error(path + ": " + name + " is not a single float");
    return v[0];
  }

  /// The tensors whose names start with `prefix`, by the rest of the name.
  std::map<std::string, std::vector<double>> with_prefix(const std::string& prefix) const {
    std::map<std::string, std::vector<double>> found;
    for (const auto& [name, tensor] : tensors) {
      if (name.starts_with(prefix)) found[name.substr(prefix.size())] = tensor.values;
    }
    return found;
  }
};

namespace detail {

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path.string() + ": cannot be opened");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

template <class T>
T load_as(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

inline GoldenTensor decode(const std::string& dtype, const char* begin, std::size_t bytes) {
  GoldenTensor tensor;
  tensor.dtype = dtype;
  const auto each = [&](std::size_t size, auto append) {
    for (std::size_t i = 0; i + size <= bytes; i += size) append(begin + i);
  };
  if (dtype == "F32") {
    each(4, [&](const char* p) { tensor.values.push_back(static_cast<double>(load_as<float>(p))); });
  } else if (dtype == "F64") {
    each(8, [&](const char* p) { tensor.values.push_back(load_as<double>(p)); });
  } else if (dtype == "BF16") {
    each(2, [&](const char* p) {
      const auto bits = static_cast<std::uint32_t>(load_as<std::uint16_t>(p)) << 16;
      tensor.values.push_back(static_cast<double>(std::bit_cast<float>(bits)));
    });
  } else if (dtype == "I64") {
    each(8, [&](const char* p) { tensor.integers.push_back(load_as<std::int64_t>(p)); });
  } else if (dtype == "I32") {
    each(4, [&](const char* p) { tensor.integers.push_back(load_as<std::int32_t>(p)); });
  } else {
    throw std::runtime_error("no reader for dtype " + dtype);
  }
  return tensor;
}

}  // namespace detail

/// Reads a whole safetensors file (8-byte little-endian header length, JSON header, data). Throws std::runtime_error
/// on anything that does not add up.
inline GoldenFile read_golden(const std::filesystem::path& path) {
  const std::string bytes = detail::read_bytes(path);
  if (bytes.size() < 8) throw std::runtime_error(path.string() + ": too short for a safetensors file");
  const auto header_size = detail::load_as<std::uint64_t>(bytes.data());
  if (header_size > bytes.size() - 8) throw std::runtime_error(path.string() + ": truncated header");
  const auto header = nlohmann::json::parse(bytes.data() + 8, bytes.data() + 8 + header_size);
  const std::size_t data = 8 + header_size;

  GoldenFile file;
  file.path = path.string();
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      file.metadata = entry.get<std::map<std::string, std::string>>();
      continue;
    }
    const auto begin = entry.at("data_offsets").at(0).get<std::size_t>();
    const auto end = entry.at("data_offsets").at(1).get<std::size_t>();
    if (begin > end || end > bytes.size() - data) throw std::runtime_error(file.path + ": " + name + " ends outside");
    auto tensor = detail::decode(entry.at("dtype").get<std::string>(), bytes.data() + data + begin, end - begin);
    tensor.shape = entry.at("shape").get<std::vector<std::size_t>>();
    std::size_t count = 1;
    for (const auto extent : tensor.shape) count *= extent;
    if (tensor.values.size() + tensor.integers.size() != count) {
      throw std::runtime_error(file.path + ": " + name + " has not as many bytes as its shape says");
    }
    file.tensors.emplace(name, std::move(tensor));
  }
  return file;
}

inline GoldenFile read_golden(const GoldenVariant& variant) {
  return read_golden(golden_folder() / variant.family / (variant.name + ".safetensors"));
}

/// Prefixes of the batches in a golden file: left-padded, and where it has them right-padded and not padded.
inline std::vector<std::string> golden_batches(const GoldenFile& golden) {
  std::vector<std::string> prefixes;
  for (const char* prefix : {"", "right.", "nopad."}) {
    if (golden.has(std::string(prefix) + "logits")) prefixes.emplace_back(prefix);
  }
  return prefixes;
}

}  // namespace support
