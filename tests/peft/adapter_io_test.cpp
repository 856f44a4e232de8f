// Reading an adapter's weights; writing them: adapter_save_test.cpp.

#include "perft/peft/adapter_io.hpp"

#include <catch2/catch.hpp>
#include <limits>
#include <string>
#include <vector>

#include "io/temp_folder.hpp"
#include "peft/support/fake_adapter.hpp"

using harness::error_text;
using io_test::TempFolder;
using peft_test::Fake;
using perft::DType;
using perft::IoError;

namespace {

struct Named {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

std::vector<Named> good() {
  return {{"x.lora_A.weight", {2, 3}, {1, 2, 3, 4, 5, 6}}, {"x.lora_B.weight", {4, 2}, {1, 2, 3, 4, 5, 6, 7, 8}}};
}

std::string write(const TempFolder& folder, const std::vector<Named>& tensors) {
  std::vector<perft::TensorToWrite> list;
  for (const Named& t : tensors) list.push_back({t.name, DType::f32, t.shape, t.values.data(), t.values.size() * 4});
  perft::write_safetensors(folder.path("adapter_model.safetensors"), list);
  return folder.path("adapter_model.safetensors");
}

/// The error for tensors changed by `change`, without the file's name.
template <class Change>
std::string refusal(Change change) {
  const TempFolder folder;
  auto tensors = good();
  change(tensors);
  const std::string path = write(folder, tensors);
  Fake fake;
  const std::string text = error_text<IoError>([&] { perft::load_adapter_weights<float>(fake, path); });
  return text.starts_with(path + ": ") ? text.substr(path.size() + 2) : "names no file: " + text;
}

}  // namespace

TEST_CASE("adapter weights: values arrive, a transposed matrix the right way round, frozen ones are not asked for") {
  const TempFolder folder;
  Fake fake;
  perft::load_adapter_weights<float>(fake, write(folder, good()));
  CHECK(harness::values(fake.a.value()) == harness::Values{1, 2, 3, 4, 5, 6});
  CHECK(harness::values(fake.b.value()) == harness::Values{1, 3, 5, 7, 2, 4, 6, 8});
  CHECK(fake.b.value().shape() == perft::Shape{2, 4});
  CHECK(harness::values(fake.frozen.value()) == harness::values(Fake().frozen.value()));
}

TEST_CASE("adapter weights: BF16 and F16 are widened") {
  const TempFolder folder;
  const std::vector<perft::bf16> a{perft::bf16(1.5), perft::bf16(-2.0), perft::bf16(0.0),
                                   perft::bf16(3.0), perft::bf16(4.0),  perft::bf16(5.0)};
  std::vector<std::uint16_t> b;
  for (const double x : {1.0, 0.5, -4.0, 2.0, 0.25, 8.0, 3.0, -1.0}) b.push_back(harness::Half(x).bits);
  perft::write_safetensors(folder.path("w"),
                           std::vector<perft::TensorToWrite>{{"x.lora_A.weight", DType::bf16, {2, 3}, a.data(), 12},
                                                             {"x.lora_B.weight", DType::f16, {4, 2}, b.data(), 16}});
  Fake fake;
  perft::load_adapter_weights<float>(fake, folder.path("w"));
  CHECK(harness::values(fake.a.value()) == harness::Values{1.5, -2, 0, 3, 4, 5});
  CHECK(harness::values(fake.b.value()) == harness::Values{1, -4, 0.25, 3, 0.5, 2, 8, -1});
}

TEST_CASE("adapter weights: what does not fit is refused by file and tensor") {
  CHECK(refusal([](auto& t) { t.pop_back(); }) ==
        "tensor 'x.lora_B.weight' is missing; check adapter_config.json against the file");
  CHECK(refusal([](auto& t) {
          t.push_back({"x.extra", {1}, {0}});
        }) == "tensor 'x.extra' is not one of this adapter's; remove it or use the right file");
  CHECK(refusal([](auto& t) {
          t.push_back({"base", {2}, {0, 0}});
        }) == "tensor 'base' is not one of this adapter's; remove it or use the right file");
  CHECK(refusal([](auto& t) { t[1].shape = {2, 4}; }) == "tensor 'x.lora_B.weight' is [2, 4], expected [4, 2]");
  CHECK(refusal([](auto& t) {
          t[0] = {"x.lora_A.weight", {6}, {1, 2, 3, 4, 5, 6}};
        }) == "tensor 'x.lora_A.weight' is [6], expected [2, 3]");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    CHECK(refusal([&](auto& t) { t[1].values[7] = bad; }) ==
          "tensor 'x.lora_B.weight' holds a number that is not finite; train the adapter again or use another "
          "checkpoint of it");
  }
  const TempFolder folder;
  const std::vector<std::int64_t> a(6), b(8);
  perft::write_safetensors(folder.path("w"),
                           std::vector<perft::TensorToWrite>{{"x.lora_A.weight", DType::i64, {2, 3}, a.data(), 48},
                                                             {"x.lora_B.weight", DType::i64, {4, 2}, b.data(), 64}});
  Fake fake;
  CHECK(error_text<IoError>([&] { perft::load_adapter_weights<float>(fake, folder.path("w")); }) ==
        folder.path("w") + ": tensor 'x.lora_B.weight' is I64, expected F32, BF16 or F16");
}
