// The safetensors reader of the tests, on files written here byte by byte.

#include "support/golden.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>

namespace {

/// A file in the temporary folder that goes away with the test.
struct TemporaryFile {
  explicit TemporaryFile(const std::string& header, const std::string& data, std::uint64_t claimed = UINT64_MAX)
      : path(std::filesystem::temp_directory_path() /
             ("perft_golden_test_" + std::to_string(std::random_device()()) + ".safetensors")) {
    const std::uint64_t size = claimed == UINT64_MAX ? header.size() : claimed;
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&size), sizeof size);
    out << header << data;
  }

  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  ~TemporaryFile() { std::filesystem::remove(path); }

  std::filesystem::path path;
};

template <class T>
std::string raw(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}

}  // namespace

TEST_CASE("read_golden: dtypes, shapes, order of the data and metadata", "[support]") {
  const std::string header =
      R"({"__metadata__":{"k":"v"},"f":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]},)"
      R"("i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[16,20]},)"
      R"("d":{"dtype":"F64","shape":[],"data_offsets":[20,28]},"s":{"dtype":"I32","shape":[1],"data_offsets":[28,32]}})";
  const TemporaryFile file(header, raw<std::int64_t>({-100}) + raw<float>({1.5F, -0.25F}) +
                                       raw<std::uint16_t>({0x3f80, 0xc000}) + raw<double>({0.1}) +
                                       raw<std::int32_t>({-7}));
  const auto golden = support::read_golden(file.path);
  CHECK(golden.tensors.size() == 5);
  CHECK(golden.metadata.at("k") == "v");
  CHECK(golden.at("f").shape == std::vector<std::size_t>{2, 1});
  CHECK(golden.at("f").dtype == "F32");
  CHECK(golden.values("f") == std::vector<double>{1.5, -0.25});
  CHECK(golden.integers("i") == std::vector<std::int64_t>{-100});
  CHECK(golden.values("b") == std::vector<double>{1.0, -2.0});
  CHECK(golden.scalar("d") == 0.1);
  CHECK(golden.integers("s") == std::vector<std::int64_t>{-7});
  CHECK_THROWS_WITH(golden.at("x"), Catch::EndsWith("no tensor x"));
  CHECK_THROWS_WITH(golden.scalar("f"), Catch::EndsWith("f is not a single float"));
}

TEST_CASE("read_golden: prefixes select and are cut off", "[support]") {
  const TemporaryFile file(
      R"({"grad.a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      raw<float>({2.0F}));
  const auto found = support::read_golden(file.path).with_prefix("grad.");
  CHECK(found.size() == 1);
  CHECK(found.at("a") == std::vector<double>{2.0});
}

TEST_CASE("read_golden: files that do not add up are refused", "[support]") {
  const auto one = [](const std::string& entry) { return R"({"t":)" + entry + "}"; };
  const std::string data = raw<float>({1.0F, 2.0F});
  CHECK_THROWS_WITH(support::read_golden("no/such/file"), "no/such/file: cannot be opened");
  CHECK_THROWS_WITH(support::read_golden(TemporaryFile("{}", "", 1000).path), Catch::EndsWith("truncated header"));
  CHECK_THROWS_WITH(
      support::read_golden(TemporaryFile(one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,12]})"), data).path),
      Catch::EndsWith("t ends outside"));
  CHECK_THROWS_WITH(
      support::read_golden(TemporaryFile(one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"), data).path),
      Catch::EndsWith("t has not as many bytes as its shape says"));
  CHECK_THROWS_WITH(
      support::read_golden(TemporaryFile(one(R"({"dtype":"F8","shape":[8],"data_offsets":[0,8]})"), data).path),
      "no reader for dtype F8");
}
