#pragma once
// Reading safetensors: a file's tensors as views into its mapping, after everything the header claims was checked.
// Format: u64 little-endian header length, JSON header, data (https://github.com/huggingface/safetensors).

#include <algorithm>      // std::sort
#include <cstddef>        // std::byte
#include <cstdint>        // fixed-width integers
#include <cstring>        // std::memcpy
#include <map>            // metadata
#include <memory>         // shared mappings
#include <optional>       // unknown dtypes, overflow
#include <span>           // bytes
#include <string>         // names
#include <string_view>    // header text
#include <unordered_map>  // name -> tensor
#include <vector>         // tensors

#include "perft/core/dtype.hpp"
#include "perft/core/error.hpp"
#include "perft/io/json.hpp"
#include "perft/io/mapped_file.hpp"
#include "perft/io/tensor_entry.hpp"

namespace perft::inline PERFT_ABI {

/// A checked safetensors file.
class SafetensorsFile {
 public:
  /// As the reference implementation: longer headers are taken for corruption.
  static constexpr std::uint64_t max_header_bytes = 100'000'000;

  /// Maps `path` and checks it: header length, JSON (strictly: no duplicate keys), dtypes, shapes, sizes, and that the
  /// tensors tile the data section without gap, overlap or rest. Throws IoError (UnsupportedError for dtypes of the
  /// format that perft lacks), one line that names the file and the tensor.
  static SafetensorsFile open(const std::string& path) {
    SafetensorsFile result;
    result.path_ = path;
    result.file_ = map_file(path);
    const std::span<const std::byte> bytes = result.file_->bytes();
    check<IoError>(bytes.size() >= 8, path, ": has ", bytes.size(),
                   " bytes, expected at least the 8 of a safetensors header length; download or write it again");
    std::uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, bytes.data(), 8);
    check<IoError>(header_bytes <= max_header_bytes, path, ": header length is ", header_bytes, ", expected at most ",
                   max_header_bytes, "; it is not a safetensors file, or corrupt");
    check<IoError>(header_bytes <= bytes.size() - 8, path, ": header of ", header_bytes,
                   " bytes does not fit the file of ", bytes.size(),
                   " bytes; it is truncated, download or write it again");
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8,
                                static_cast<std::size_t>(header_bytes));
    check<IoError>(text.starts_with('{'), path, ": header does not start with '{'; it is not a safetensors file");
    constexpr int header_depth = 3;  // header, tensor, shape
    const Json header = parse_json_strict(text, path + ": header", header_depth);
    result.read_header(header, bytes.subspan(8 + static_cast<std::size_t>(header_bytes)));
    return result;
  }

  const std::string& path() const { return path_; }

  /// In the order of their data.
  const std::vector<TensorEntry>& tensors() const { return tensors_; }

  /// Null if there is none of that name.
  const TensorEntry* find(const std::string& name) const {
    const auto at = index_.find(name);
    return at == index_.end() ? nullptr : &tensors_[at->second];
  }

  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  SafetensorsFile() = default;

  void read_header(const Json& header, std::span<const std::byte> data) {
    for (const auto& [key, value] : header.items()) {
      if (key == "__metadata__") {
        read_metadata(value);
      } else {
        tensors_.push_back(read_entry(key, value, data));
      }
    }
    std::sort(tensors_.begin(), tensors_.end(), [](const TensorEntry& a, const TensorEntry& b) {
      return a.data != b.data ? a.data < b.data : (a.bytes != b.bytes ? a.bytes < b.bytes : a.name < b.name);
    });
    const std::byte* expected = data.data();
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const TensorEntry& tensor = tensors_[i];
      check<IoError>(tensor.data == expected, path_, ": tensor ", in_quotes(tensor.name), ": data_offsets start at ",
                     tensor.data - data.data(), ", expected ", expected - data.data(),
                     tensor.data < expected ? " (overlaps another tensor)" : " (bytes before it belong to no tensor)",
                     "; write the file again");
      expected += tensor.bytes;
      index_.emplace(tensor.name, i);
    }
    const auto rest = (data.data() + data.size()) - expected;
    check<IoError>(rest == 0, path_, ": ", rest, " bytes after the last tensor, expected none; write the file again");
  }

  void read_metadata(const Json& value) {
    check<IoError>(value.is_object(), path_, ": __metadata__ is not an object of strings; write the file again");
    for (const auto& [key, text] : value.items()) {
      check<IoError>(text.is_string(), path_, ": __metadata__ key ", in_quotes(key),
                     " is not a string, expected one; write the file again");
      metadata_.emplace(key, text.get<std::string>());
    }
  }

  TensorEntry read_entry(const std::string& name, const Json& value, std::span<const std::byte> data) const {
    const auto reject = [&](const auto&... pieces) {
      fail<IoError>(path_, ": tensor ", in_quotes(name), ": ", pieces..., "; download or write the file again");
    };
    const auto member = [&](const char* key) -> const Json& {
      if (!value.is_object() || !value.contains(key)) {
        reject("has no ", key, ", expected an object with dtype, shape and data_offsets");
      }
      return value[key];
    };
    TensorEntry entry;
    entry.name = name;
    entry.file = file_;
    entry.path = path_;
    const Json& dtype = member("dtype");
    if (!dtype.is_string()) {
      reject("dtype is not a string, expected one such as \"F32\"");
    }
    entry.dtype = read_dtype(name, dtype.get_ref<const std::string&>());
    const Json& shape = member("shape");
    if (!shape.is_array()) {
      reject("shape is not an array, expected one of whole numbers");
    }
    for (const Json& extent : shape) {
      if (!is_count(extent)) {
        reject("shape holds ", in_quotes(extent.dump(-1, ' ', true)), ", expected whole numbers from 0 to 2^63 - 1");
      }
      entry.shape.push_back(extent.get<std::int64_t>());
    }
    const Json& offsets = member("data_offsets");
    if (!offsets.is_array() || offsets.size() != 2 || !is_count(offsets[0]) || !is_count(offsets[1])) {
      reject("data_offsets is not a pair of whole numbers, expected [begin, end]");
    }
    const auto begin = offsets[0].get<std::size_t>();
    const auto end = offsets[1].get<std::size_t>();
    if (begin > end || end > data.size()) {
      reject("data_offsets [", begin, ", ", end,
             "] are outside the data section, expected begin <= end <= ", data.size(),
             begin <= end ? " (the file may be truncated)" : "");
    }
    entry.data = data.data() + begin;
    entry.bytes = end - begin;
    const std::optional<std::int64_t> expected = tensor_bytes(entry.shape, entry.dtype);
    if (!expected) {
      reject("shape ", entry.shape, " overflows, expected a product below 2^63");
    }
    if (static_cast<std::size_t>(*expected) != entry.bytes) {
      reject("data_offsets span ", entry.bytes, " bytes, expected ", *expected, " (", dtype_name(entry.dtype), " ",
             entry.shape, ")");
    }
    return entry;
  }

  DType read_dtype(const std::string& tensor, const std::string& name) const {
    if (const std::optional<DType> known = dtype_from_name(name)) {
      return *known;
    }
    const bool of_the_format = name == "U16" || name == "U32" || name == "U64" || name == "C64" ||
                               name.starts_with("F8_") || name.starts_with("F6_") || name == "F4";
    if (of_the_format) {
      fail<UnsupportedError>(path_, ": tensor ", in_quotes(tensor), ": dtype ", name,
                             " is not supported; convert it to F32, BF16 or F16 (integers to I64)");
    }
    fail<IoError>(path_, ": tensor ", in_quotes(tensor), ": unknown dtype ", in_quotes(name),
                  ", expected one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL; write the file again");
  }

  static bool is_count(const Json& value) {
    return value.is_number_unsigned() && value.get<std::uint64_t>() <= std::uint64_t{INT64_MAX};
  }

  std::string path_;
  std::shared_ptr<const MappedFile> file_;
  std::vector<TensorEntry> tensors_;
  std::unordered_map<std::string, std::size_t> index_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace perft::inline PERFT_ABI
