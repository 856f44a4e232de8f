#include "perft/io/safetensors_writer.hpp"

#include <catch2/catch.hpp>  // test cases
#include <cstdint>           // integers
#include <filesystem>        // removal
#include <string>            // texts
#include <vector>            // tensors

#include "io/file_size_limit.hpp"
#include "io/temp_folder.hpp"

using io_test::FileSizeLimit;
using io_test::read_bytes;
using io_test::TempFolder;
using perft::DType;
using perft::read_back_safetensors;
using perft::SafetensorsFile;
using perft::SafetensorsWriter;
using perft::TensorHeader;
using perft::TensorToWrite;
using perft::ValueError;
using perft::write_safetensors;

namespace {

const std::vector<float> floats = {1.0F, -2.5F, 0.1F};
const std::vector<std::int64_t> ids = {7, -100};

std::vector<TensorToWrite> two_tensors() {
  return {{"w", DType::f32, {3, 1}, floats.data(), 12}, {"ids", DType::i64, {2}, ids.data(), 16}};
}

}  // namespace

TEST_CASE("a written file is byte for byte what was given, in that order, with an 8-aligned data section") {
  const TempFolder folder;
  write_safetensors(folder.path("f"), two_tensors(), {{"z", "last"}, {"a", "first\n"}});
  const std::string header =
      R"({"__metadata__":{"z":"last","a":"first\n"},"w":{"dtype":"F32","shape":[3,1],"data_offsets":[0,12]},)"
      R"("ids":{"dtype":"I64","shape":[2],"data_offsets":[12,28]}})";
  std::string data(28, '\0');
  std::memcpy(data.data(), floats.data(), 12);
  std::memcpy(data.data() + 12, ids.data(), 16);
  const std::string padding((8 - header.size() % 8) % 8, ' ');
  CHECK(read_bytes(folder.path("f")) == io_test::safetensors_bytes(header + padding, data));
  write_safetensors(folder.path("g"), two_tensors(), {{"z", "last"}, {"a", "first\n"}});
  CHECK(read_bytes(folder.path("g")) == read_bytes(folder.path("f")));
  CHECK(folder.files() == 2);
}

TEST_CASE("headers are padded to 8 whatever their length") {
  const TempFolder folder;
  for (std::size_t length = 1; length <= 9; ++length) {
    write_safetensors(folder.path("f"),
                      std::vector<TensorToWrite>{{std::string(length, 'n'), DType::u8, {0}, nullptr, 0}});
    CHECK(read_bytes(folder.path("f")).size() % 8 == 0);
    CHECK(SafetensorsFile::open(folder.path("f")).tensors().size() == 1);
  }
}

TEST_CASE("what is written is read back") {
  const TempFolder folder;
  write_safetensors(folder.path("f"), two_tensors(), {{"k", "v"}});
  const SafetensorsFile file = SafetensorsFile::open(folder.path("f"));
  REQUIRE(file.tensors().size() == 2);
  CHECK(file.metadata().at("k") == "v");
  CHECK(file.tensors()[0].shape == std::vector<std::int64_t>{3, 1});
  CHECK(perft::read_as<float>(*file.find("w")) == floats);
  CHECK(perft::read_as<std::int64_t>(*file.find("ids")) == ids);
  write_safetensors(folder.path("f"), std::vector<TensorToWrite>{});
  CHECK(SafetensorsFile::open(folder.path("f")).tensors().empty());
  CHECK(file.metadata().at("k") == "v");  // the replaced file stays mapped
  CHECK(perft::read_as<float>(*file.find("w")) == floats);
}

TEST_CASE("data may come in pieces") {
  const TempFolder folder;
  const std::vector<TensorHeader> headers = {{"w", DType::f32, {3, 1}}, {"ids", DType::i64, {2}}};
  {
    SafetensorsWriter writer(folder.path("f"), headers);
    writer.write(floats.data(), 5);
    writer.write(reinterpret_cast<const char*>(floats.data()) + 5, 7);
    CHECK_THROWS_WITH(writer.commit(), folder.path("f") + ": 16 bytes of tensor data are missing, expected 0");
    writer.write(ids.data(), 16);
    CHECK_THROWS_WITH(writer.write(ids.data(), 1),
                      folder.path("f") + ": 1 bytes to write, expected at most 0 after the headers given");
    writer.commit();
  }
  write_safetensors(folder.path("g"), two_tensors());
  CHECK(read_bytes(folder.path("f")) == read_bytes(folder.path("g")));
  { SafetensorsWriter abandoned(folder.path("h"), headers); }
  CHECK(folder.files() == 2);
}

TEST_CASE("what cannot be written is refused and leaves nothing") {
  const TempFolder folder;
  const std::string path = folder.path("f");
  const auto refusal = [&](const std::vector<TensorToWrite>& tensors, const perft::SafetensorsMetadata& metadata = {}) {
    return io_test::message_of<ValueError>([&] { write_safetensors(path, tensors, metadata); });
  };
  const float x = 0;
  CHECK(refusal({{"a", DType::f32, {1}, &x, 4}, {"a", DType::f32, {1}, &x, 4}}) ==
        path + ": tensor name \"a\" given twice or reserved, expected distinct names");
  CHECK(refusal({{"__metadata__", DType::f32, {1}, &x, 4}}) ==
        path + ": tensor name \"__metadata__\" given twice or reserved, expected distinct names");
  CHECK(refusal({{"a", DType::f32, {2}, &x, 4}}) == path + ": tensor \"a\": has 4 bytes, expected those of F32 [2]");
  CHECK(refusal({{"a", DType::f32, {-1, -1}, &x, 4}}) ==
        path + ": tensor \"a\": shape [-1, -1] has a negative extent, expected none");
  CHECK(refusal({}, {{"k", "1"}, {"k", "2"}}) == path + ": metadata key \"k\" given twice, expected once");
  CHECK(refusal({{"\xff", DType::f32, {1}, &x, 4}}) ==
        path + ": a tensor name or metadata text is not UTF-8, expected UTF-8");
  CHECK(refusal({}, {{"k", "\xff"}}) == path + ": a tensor name or metadata text is not UTF-8, expected UTF-8");
  CHECK(io_test::message_of<ValueError>([&] {
          const std::vector<TensorHeader> headers = {{"a", DType::f32, {INT64_MAX}}};
          const SafetensorsWriter writer(path, headers);
        }) == path + ": tensor \"a\": shape [9223372036854775807] overflows, expected a product below 2^63");
  CHECK(folder.files() == 0);
}

TEST_CASE("a disk that fills up is one error and leaves the old file") {
  const TempFolder folder;
  folder.write("f", "old");
  const std::vector<char> big(100'000, 'x');
  const std::vector<TensorToWrite> tensors = {{"a", DType::u8, {100'000}, big.data(), big.size()}};
  std::string message;
  {
    const FileSizeLimit small(50'000);
    message = io_test::message_of<perft::IoError>([&] { write_safetensors(folder.path("f"), tensors); });
  }
  CHECK(message.starts_with(folder.path("f") + ": cannot write to the file: File too large;"));
  CHECK(read_bytes(folder.path("f")) == "old");
  CHECK(folder.files() == 1);
}

TEST_CASE("a file read back is what was written, and any other byte, a missing or an extra one is named") {
  const TempFolder folder;
  const std::string path = folder.path("f");
  write_safetensors(path, two_tensors(), {{"k", "v"}});
  CHECK_NOTHROW(read_back_safetensors(path, two_tensors(), {{"k", "v"}}));
  const std::string whole = read_bytes(path);
  const auto differs = [&](const std::string& bytes) {
    folder.write("f", bytes);
    return io_test::message_of<perft::IoError>([&] { read_back_safetensors(path, two_tensors(), {{"k", "v"}}); });
  };
  const std::string advice = "; check disk and memory, or write to another disk";
  for (std::size_t at : {std::size_t{0}, std::size_t{9}, whole.size() - 28, whole.size() - 1}) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x40);
    CHECK(differs(bytes) ==
          path + ": reading it back, byte " + std::to_string(at) + " is not the one that was written" + advice);
  }
  CHECK(differs(whole.substr(0, whole.size() - 16)) == path + ": reading it back ends after " +
                                                           std::to_string(whole.size() - 16) +
                                                           " bytes, more were written" + advice);
  CHECK(differs(whole + "x") ==
        path + ": reading it back, it is longer than the " + std::to_string(whole.size()) + " bytes written" + advice);
  std::filesystem::remove(path);
  CHECK(io_test::message_of<perft::IoError>([&] { read_back_safetensors(path, two_tensors()); }) ==
        path + ": cannot open the file: No such file or directory; check the path and its permissions");
}
