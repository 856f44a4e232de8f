// Writing adapter folders, and what reads their configuration again.

#include <catch2/catch.hpp>
#include <limits>
#include <string>

#include "io/temp_folder.hpp"
#include "peft/support/fake_adapter.hpp"
#include "perft/peft/adapter_io.hpp"

using harness::error_text;
using io_test::TempFolder;
using peft_test::Fake;
using peft_test::kBase;
using peft_test::perft_s;
using perft::DType;
using perft::IoError;

TEST_CASE("saving: sorted by name, F32, as files hold them; loading gives the same bits, saving again the same bytes") {
  const TempFolder one, two;
  Fake fake;
  perft::save_adapter<float>(fake, perft_s(), kBase, one.path());
  CHECK(one.files() == 2);
  const auto file = perft::SafetensorsFile::open(one.path("adapter_model.safetensors"));
  REQUIRE(file.tensors().size() == 2);
  CHECK(file.tensors()[0].name == "x.lora_A.weight");
  CHECK(file.tensors()[1].name == "x.lora_B.weight");
  CHECK(file.tensors()[1].shape == std::vector<std::int64_t>{4, 2});
  CHECK(file.tensors()[1].dtype == DType::f32);

  Fake other(0.5);
  perft::load_adapter_weights<float>(other, one.path("adapter_model.safetensors"));
  CHECK(harness::Bits().add(other.a.value()).add(other.b.value()) ==
        harness::Bits().add(fake.a.value()).add(fake.b.value()));
  perft::save_adapter<float>(other, perft_s(), kBase, two.path());
  for (const char* name : {"adapter_model.safetensors", "adapter_config.json"}) {
    CHECK(io_test::read_bytes(one.path(name)) == io_test::read_bytes(two.path(name)));
  }
  const auto config = perft::read_adapter_config(one.path(), kBase);
  CHECK(config.spec.method == perft::Method::kPerftS);
  CHECK(config.spec.rank == 2);
}

TEST_CASE("saving: a number that is not finite is refused, and no file is left") {
  const TempFolder folder;
  Fake fake;
  fake.b.mutable_value().mutable_span()[7] = std::numeric_limits<float>::infinity();
  CHECK(error_text<perft::NonFiniteError>([&] { perft::save_adapter<float>(fake, perft_s(), kBase, folder.path()); }) ==
        "tensor 'x.lora_B.weight' is not finite and is not saved; lower the learning rate");
  CHECK(folder.files() == 0);
}

TEST_CASE("adapter files hold what is the adapter's, whatever is trained") {
  const TempFolder folder;
  Fake fake;
  fake.a.set_trainable(false);
  fake.frozen.set_trainable(true);
  perft::save_adapter<float>(fake, perft_s(), kBase, folder.path());
  const std::string path = folder.path("adapter_model.safetensors");
  const auto file = perft::SafetensorsFile::open(path);
  REQUIRE(file.tensors().size() == 2);
  CHECK(file.find("x.lora_A.weight") != nullptr);
  CHECK(file.find("x.lora_B.weight") != nullptr);
  Fake other(0.5);
  other.b.set_trainable(false);
  perft::load_adapter_weights<float>(other, path);
  CHECK(harness::values(other.b.value()) == harness::values(fake.b.value()));
}

TEST_CASE("read_adapter_config names the file it opened") {
  const TempFolder folder;
  CHECK(error_text<IoError>([&] {
          perft::read_adapter_config(folder.path(), kBase);
        }).starts_with(folder.path("adapter_config.json") + ": "));
  folder.write("adapter_config.json", "{\"format\": ");
  CHECK(error_text<IoError>([&] {
          perft::read_adapter_config(folder.path(), kBase);
        }).starts_with(folder.path("adapter_config.json")));
  Fake fake;
  perft::save_adapter<float>(fake, perft_s(), kBase, folder.path());
  CHECK(error_text<IoError>([&] {
          perft::read_adapter_config(folder.path(), {"olmoe", 4, 1, 10, 2});
        }) == folder.path("adapter_config.json") +
                  ": base: hidden_size is 3, expected the model's 4; use the model the adapter was trained on");
}
