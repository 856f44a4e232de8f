#include "perft/io/safetensors.hpp"

#include <catch2/catch.hpp>  // test cases
#include <cstdint>           // integers
#include <string>            // texts
#include <vector>            // tables

#include "io/temp_folder.hpp"

using io_test::safetensors_bytes;
using io_test::TempFolder;
using perft::DType;
using perft::IoError;
using perft::SafetensorsFile;
using perft::TensorEntry;
using perft::UnsupportedError;

namespace {

/// The header the safetensors package (Python, 0.8.0) wrote for the tensors of the test below.
const std::string reference_header =
    R"({"__metadata__":{"format":"pt"},"ids":{"dtype":"I64","shape":[1,3],"data_offsets":[0,24]},)"
    R"("w.f64":{"dtype":"F64","shape":[],"data_offsets":[24,32]},"empty":{"dtype":"F32","shape":[0,4],"data_offsets":[32,32]},)"
    R"("w.f32":{"dtype":"F32","shape":[2,2],"data_offsets":[32,48]},"i32":{"dtype":"I32","shape":[1],"data_offsets":[48,52]},)"
    R"("w.bf16":{"dtype":"BF16","shape":[3],"data_offsets":[52,58]},"w.f16":{"dtype":"F16","shape":[4],"data_offsets":[58,66]},)"
    R"("u8":{"dtype":"U8","shape":[2],"data_offsets":[66,68]},"mask":{"dtype":"BOOL","shape":[3],"data_offsets":[68,71]}}       )";

/// One entry of a header.
std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, int begin, int end) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

/// A header of these entries.
std::string header_of(const std::vector<std::string>& entries) {
  std::string header = "{";
  for (const std::string& text : entries) {
    if (header.size() > 1) header += ',';
    header += text;
  }
  header += '}';
  return header;
}

}  // namespace

TEST_CASE("a file of the reference implementation is read as it is") {
  const TempFolder folder;
  REQUIRE(reference_header.size() == 568);
  std::string data(71, '\0');
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i);
  const auto file = SafetensorsFile::open(folder.write("f.safetensors", safetensors_bytes(reference_header, data)));
  CHECK(file.path() == folder.path("f.safetensors"));
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
  const std::vector<std::string> names = {"ids", "w.f64", "empty", "w.f32", "i32", "w.bf16", "w.f16", "u8", "mask"};
  REQUIRE(file.tensors().size() == names.size());
  std::size_t offset = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const TensorEntry& tensor = file.tensors()[i];
    CHECK(tensor.name == names[i]);
    CHECK(file.find(names[i]) == &tensor);
    CHECK(tensor.path == file.path());
    CHECK(tensor.data == tensor.file->bytes().data() + 8 + 568 + offset);
    offset += tensor.bytes;
  }
  CHECK(offset == 71);
  CHECK(file.find("w.f64")->shape.empty());
  CHECK(file.find("w.f64")->elements() == 1);
  CHECK(file.find("empty")->shape == std::vector<std::int64_t>{0, 4});
  CHECK(file.find("empty")->elements() == 0);
  CHECK(file.find("w.bf16")->dtype == DType::bf16);
  CHECK(file.find("mask")->dtype == DType::boolean);
  CHECK(file.find("none") == nullptr);
}

TEST_CASE("tensors keep the mapping alive") {
  const TempFolder folder;
  TensorEntry tensor;
  {
    const auto bytes = safetensors_bytes(header_of({entry("a", "U8", "[2]", 0, 2)}), "xy");
    tensor = *SafetensorsFile::open(folder.write("f", bytes)).find("a");
  }
  CHECK(static_cast<char>(tensor.data[1]) == 'y');
}

TEST_CASE("a file without tensors is one") {
  const TempFolder folder;
  CHECK(SafetensorsFile::open(folder.write("f", safetensors_bytes("{}", ""))).tensors().empty());
  CHECK(SafetensorsFile::open(folder.write("g", safetensors_bytes("{\"__metadata__\":{}}  ", ""))).metadata().empty());
}

TEST_CASE("the data section may start at any byte and header order is free") {
  const TempFolder folder;
  for (std::size_t padding = 0; padding < 9; ++padding) {
    const std::string header =
        header_of({entry("b", "U8", "[1]", 4, 5), entry("a", "F32", "[1]", 0, 4)}) + std::string(padding, ' ');
    const auto file = SafetensorsFile::open(folder.write("f", safetensors_bytes(header, {"\0\0\x80\x3f!", 5})));
    const auto address = reinterpret_cast<std::uintptr_t>(file.find("a")->data);
    CHECK((address % 4 == 0) == ((8 + header.size()) % 4 == 0));
    CHECK(perft::read_as<float>(*file.find("a")) == std::vector<float>{1.0F});
    CHECK(file.tensors()[1].name == "b");
  }
}

TEST_CASE("every lie of a header is one line that names file and tensor") {
  struct Case {
    std::string header;
    std::size_t data;
    std::string message;
  };

  const std::string again = "; download or write the file again";
  const std::vector<Case> table = {
      {"", 0, ": header does not start with '{'; it is not a safetensors file"},
      {" {}", 0, ": header does not start with '{'; it is not a safetensors file"},
      {"{\"a\":", 0, ": header: not valid JSON at byte 6; fix or replace the file"},
      {"{} x", 0, ": header: not valid JSON at byte 4; fix or replace the file"},
      {"{\"\xff\":1}", 0, ": header: not valid JSON at byte 3; fix or replace the file"},
      {header_of({entry("a", "U8", "[1]", 0, 1), entry("a", "U8", "[1]", 0, 1)}), 1,
       ": header: key \"a\" appears twice in one object, expected once; fix or replace the file"},
      {R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1,
       ": header: key \"dtype\" appears twice in one object, expected once; fix or replace the file"},
      {R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1,
       ": header: JSON nests deeper than 3 levels; the file is corrupt or not what its name says"},
      {R"({"__metadata__":3})", 0, ": __metadata__ is not an object of strings; write the file again"},
      {R"({"__metadata__":{"n":3}})", 0,
       ": __metadata__ key \"n\" is not a string, expected one; write the file again"},
      {R"({"a":3})", 0, ": tensor \"a\": has no dtype, expected an object with dtype, shape and data_offsets" + again},
      {R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1,
       ": tensor \"a\": has no shape, expected an object with dtype, shape and data_offsets" + again},
      {R"({"a":{"dtype":"U8","shape":[1]}})", 1,
       ": tensor \"a\": has no data_offsets, expected an object with dtype, shape and data_offsets" + again},
      {R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,1]}})", 1,
       ": tensor \"a\": dtype is not a string, expected one such as \"F32\"" + again},
      {header_of({entry("a", "F33", "[1]", 0, 4)}), 4,
       ": tensor \"a\": unknown dtype \"F33\", expected one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL; write the file "
       "again"},
      {header_of({entry("a", "U8", "4", 0, 4)}), 4,
       ": tensor \"a\": shape is not an array, expected one of whole numbers" + again},
      {header_of({entry("a", "U8", "[-1]", 0, 1)}), 1,
       ": tensor \"a\": shape holds \"-1\", expected whole numbers from 0 to 2^63 - 1" + again},
      {header_of({entry("a", "U8", "[1.0]", 0, 1)}), 1,
       ": tensor \"a\": shape holds \"1.0\", expected whole numbers from 0 to 2^63 - 1" + again},
      {header_of({entry("a", "U8", "[9223372036854775808]", 0, 1)}), 1,
       ": tensor \"a\": shape holds \"9223372036854775808\", expected whole numbers from 0 to 2^63 - 1" + again},
      {header_of({entry("a", "U8", "[4294967296,4294967296]", 0, 0)}), 0,
       ": tensor \"a\": shape [4294967296, 4294967296] overflows, expected a product below 2^63" + again},
      {header_of({entry("a", "F64", "[1152921504606846976]", 0, 0)}), 0,  // 2^60 · 8 = 2^63
       ": tensor \"a\": shape [1152921504606846976] overflows, expected a product below 2^63" + again},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1,
       ": tensor \"a\": data_offsets is not a pair of whole numbers, expected [begin, end]" + again},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,-1]}})", 1,
       ": tensor \"a\": data_offsets is not a pair of whole numbers, expected [begin, end]" + again},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":{"0":0,"1":1}}})", 1,
       ": tensor \"a\": data_offsets is not a pair of whole numbers, expected [begin, end]" + again},
      {header_of({entry("a", "U8", "[1]", 1, 0)}), 1,
       ": tensor \"a\": data_offsets [1, 0] are outside the data section, expected begin <= end <= 1" + again},
      {header_of({entry("a", "U8", "[2]", 0, 2)}), 1,
       ": tensor \"a\": data_offsets [0, 2] are outside the data section, expected begin <= end <= 1 (the file may be "
       "truncated)" +
           again},
      {header_of({entry("a", "F32", "[2]", 0, 4)}), 4,
       ": tensor \"a\": data_offsets span 4 bytes, expected 8 (F32 [2])" + again},
      {header_of({entry("a", "U8", "[]", 0, 0)}), 0,
       ": tensor \"a\": data_offsets span 0 bytes, expected 1 (U8 [])" + again},
      {header_of({entry("a", "U8", "[4]", 0, 4), entry("b", "U8", "[3]", 3, 6)}), 6,
       ": tensor \"b\": data_offsets start at 3, expected 4 (overlaps another tensor); write the file again"},
      {header_of({entry("a", "U8", "[4]", 0, 4), entry("b", "U8", "[4]", 0, 4)}), 4,
       ": tensor \"b\": data_offsets start at 0, expected 4 (overlaps another tensor); write the file again"},
      {header_of({entry("a", "U8", "[1]", 0, 1), entry("b", "U8", "[1]", 2, 3)}), 3,
       ": tensor \"b\": data_offsets start at 2, expected 1 (bytes before it belong to no tensor); write the file "
       "again"},
      {header_of({entry("a", "U8", "[1]", 1, 2)}), 2,
       ": tensor \"a\": data_offsets start at 1, expected 0 (bytes before it belong to no tensor); write the file "
       "again"},
      {header_of({entry("a", "U8", "[1]", 0, 1)}), 3,
       ": 2 bytes after the last tensor, expected none; write the file again"},
      {"{}", 5, ": 5 bytes after the last tensor, expected none; write the file again"},
      {R"({"a\nb":{}})", 0,
       ": tensor \"a\\nb\": has no dtype, expected an object with dtype, shape and data_offsets" + again},
  };
  const TempFolder folder;
  for (const Case& lie : table) {
    const std::string path = folder.write("f", safetensors_bytes(lie.header, std::string(lie.data, '\0')));
    CHECK(io_test::message_of<IoError>([&] { SafetensorsFile::open(path); }) == path + lie.message);
  }
}

TEST_CASE("dtypes of the format that perft lacks are called unsupported") {
  const TempFolder folder;
  for (const std::string dtype : {"U16", "U32", "U64", "F8_E4M3", "F8_E5M2"}) {
    const std::string path = folder.write("f", safetensors_bytes(header_of({entry("a", dtype, "[]", 0, 0)}), ""));
    CHECK(io_test::message_of<UnsupportedError>([&] { SafetensorsFile::open(path); }) ==
          path + ": tensor \"a\": dtype " + dtype +
              " is not supported; convert it to F32, BF16 or F16 (integers to I64)");
  }
}

TEST_CASE("lengths that cannot be true are refused before anything is read") {
  const TempFolder folder;
  const auto refusal = [&](const std::string& bytes) {
    const std::string path = folder.write("f", bytes);
    return io_test::message_of<IoError>([&] { SafetensorsFile::open(path); }).substr(path.size());
  };
  const auto bytes_of = [](std::uint64_t length) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    return bytes;
  };
  CHECK(refusal("") ==
        ": has 0 bytes, expected at least the 8 of a safetensors header length; download or write it again");
  CHECK(refusal("1234567") ==
        ": has 7 bytes, expected at least the 8 of a safetensors header length; download or write it again");
  CHECK(refusal(bytes_of(3) + "{}") ==
        ": header of 3 bytes does not fit the file of 10 bytes; it is truncated, download or write it again");
  CHECK(refusal(bytes_of(100'000'000)) ==
        ": header of 100000000 bytes does not fit the file of 8 bytes; it is truncated, download or write it again");
  CHECK(refusal(bytes_of(100'000'001) + "{}") ==
        ": header length is 100000001, expected at most 100000000; it is not a safetensors file, or corrupt");
  CHECK(
      refusal(bytes_of(UINT64_MAX) + "{}") ==
      ": header length is 18446744073709551615, expected at most 100000000; it is not a safetensors file, or corrupt");
  CHECK_THROWS_WITH(
      SafetensorsFile::open(folder.path("none")),
      folder.path("none") + ": cannot open the file: No such file or directory; check the path and its permissions");
}

TEST_CASE("every truncation of a good file is an error") {
  const TempFolder folder;
  const std::string good =
      safetensors_bytes(header_of({entry("a", "F32", "[1]", 0, 4), entry("b", "U8", "[3]", 4, 7)}), "1234567");
  CHECK_NOTHROW(SafetensorsFile::open(folder.write("f", good)));
  for (std::size_t keep = 0; keep < good.size(); ++keep) {
    const std::string path = folder.write("f", good.substr(0, keep));
    CHECK_THROWS_AS(SafetensorsFile::open(path), IoError);
  }
}
