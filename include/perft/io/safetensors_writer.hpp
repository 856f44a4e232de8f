#pragma once
// Writing safetensors: same tensors in the same order give the same bytes; the file appears whole or not at all.

#include <cstddef>        // std::size_t
#include <cstdint>        // std::uint64_t
#include <cstring>        // std::memcpy
#include <optional>       // overflowing sizes
#include <span>           // lists
#include <string>         // names
#include <unordered_set>  // duplicate names
#include <utility>        // std::pair
#include <vector>         // specs

#include "perft/core/dtype.hpp"
#include "perft/core/error.hpp"
#include "perft/io/atomic_file.hpp"
#include "perft/io/json.hpp"
#include "perft/io/read_back.hpp"
#include "perft/io/safetensors.hpp"  // tensor_bytes, header limit

namespace perft::inline PERFT_ABI {

/// What a file says about one tensor.
struct TensorHeader {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;  // [] is a scalar
};

/// A tensor in memory, dense and row-major, to be written.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;  // [] is a scalar
  const void* data = nullptr;
  std::size_t bytes = 0;
};

/// Written in this order.
using SafetensorsMetadata = std::vector<std::pair<std::string, std::string>>;

/// Streams a file: all headers first, then each tensor's data in the same order, in pieces of any size, then commit.
/// Data sections need not be in memory at once. Contents depend on the arguments alone (no time, host or path); the
/// header is padded with spaces to a multiple of 8 bytes, so the data section is 8-aligned.
/// `File` is where the bytes go: an AtomicFile, or a ReadBack that compares a written file with the same bytes.
template <class File>
class BasicSafetensorsWriter {
 public:
  /// Throws ValueError if the tensors cannot be written (two of one name, a negative or overflowing shape, a name or
  /// metadata that is not UTF-8), IoError if the file cannot.
  BasicSafetensorsWriter(const std::string& path, std::span<const TensorHeader> tensors,
                         const SafetensorsMetadata& metadata = {})
      : file_(path) {
    const std::string header = compose(tensors, metadata);
    const std::uint64_t length = header.size();
    char prefix[8];
    std::memcpy(prefix, &length, 8);
    file_.write(prefix, 8);
    file_.write(header);
  }

  /// The next `bytes` bytes of the data section. Throws ValueError if it would exceed what the headers announced.
  void write(const void* data, std::size_t bytes) {
    check<ValueError>(bytes <= remaining_, file_.path(), ": ", bytes, " bytes to write, expected at most ", remaining_,
                      " after the headers given");
    file_.write(data, bytes);
    remaining_ -= bytes;
  }

  /// Throws ValueError if data is missing, IoError if the file cannot be finished.
  void commit() {
    check<ValueError>(remaining_ == 0, file_.path(), ": ", remaining_, " bytes of tensor data are missing, expected 0");
    file_.commit();
  }

 private:
  std::string compose(std::span<const TensorHeader> tensors, const SafetensorsMetadata& metadata) {
    const std::string& path = file_.path();
    OrderedJson header = OrderedJson::object();
    if (!metadata.empty()) {
      OrderedJson strings = OrderedJson::object();
      for (const auto& [key, value] : metadata) {
        check<ValueError>(!strings.contains(key), path, ": metadata key ", in_quotes(key),
                          " given twice, expected once");
        strings[key] = value;
      }
      header["__metadata__"] = std::move(strings);
    }
    std::unordered_set<std::string> names = {"__metadata__"};
    std::uint64_t offset = 0;
    for (const TensorHeader& tensor : tensors) {
      check<ValueError>(names.insert(tensor.name).second, path, ": tensor name ", in_quotes(tensor.name),
                        " given twice or reserved, expected distinct names");
      for (const std::int64_t extent : tensor.shape) {
        check<ValueError>(extent >= 0, path, ": tensor ", in_quotes(tensor.name), ": shape ", tensor.shape,
                          " has a negative extent, expected none");
      }
      const std::optional<std::int64_t> bytes = tensor_bytes(tensor.shape, tensor.dtype);
      check<ValueError>(bytes.has_value(), path, ": tensor ", in_quotes(tensor.name), ": shape ", tensor.shape,
                        " overflows, expected a product below 2^63");
      const std::uint64_t end = offset + static_cast<std::uint64_t>(*bytes);
      // push_back: ordered_json's operator[] searches linearly, and `names` has settled uniqueness.
      header.get_ref<OrderedJson::object_t&>().emplace_back(
          tensor.name,
          OrderedJson{{"dtype", dtype_name(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}});
      offset = end;
    }
    remaining_ = offset;
    std::string text;
    try {
      text = header.dump();
    } catch (const OrderedJson::exception&) {
      fail<ValueError>(path, ": a tensor name or metadata text is not UTF-8, expected UTF-8");
    }
    text.append((8 - text.size() % 8) % 8, ' ');
    check<ValueError>(text.size() <= SafetensorsFile::max_header_bytes, path, ": header of ", text.size(),
                      " bytes, expected at most ", SafetensorsFile::max_header_bytes, "; write fewer tensors per file");
    return text;
  }

  File file_;
  std::uint64_t remaining_ = 0;
};

using SafetensorsWriter = BasicSafetensorsWriter<AtomicFile>;
/// Its write() and commit() throw IoError where the file differs.
using SafetensorsReadBack = BasicSafetensorsWriter<ReadBack>;

/// Writes `tensors` in the order given. Throws as SafetensorsWriter does, and ValueError if a tensor's bytes are not
/// product(shape) · size.
template <class Writer = SafetensorsWriter>
void write_safetensors(const std::string& path, std::span<const TensorToWrite> tensors,
                       const SafetensorsMetadata& metadata = {}) {
  std::vector<TensorHeader> headers;
  headers.reserve(tensors.size());
  for (const TensorToWrite& tensor : tensors) {
    const std::optional<std::int64_t> expected = tensor_bytes(tensor.shape, tensor.dtype);
    check<ValueError>(expected && static_cast<std::size_t>(*expected) == tensor.bytes, path, ": tensor ",
                      in_quotes(tensor.name), ": has ", tensor.bytes, " bytes, expected those of ",
                      dtype_name(tensor.dtype), " ", tensor.shape);
    headers.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  Writer writer(path, headers, metadata);
  for (const TensorToWrite& tensor : tensors) {
    writer.write(tensor.data, tensor.bytes);
  }
  writer.commit();
}

/// Reads the file that write_safetensors wrote with the same arguments. Throws IoError where it differs from them.
inline void read_back_safetensors(const std::string& path, std::span<const TensorToWrite> tensors,
                                  const SafetensorsMetadata& metadata = {}) {
  write_safetensors<SafetensorsReadBack>(path, tensors, metadata);
}

}  // namespace perft::inline PERFT_ABI
