#include "perft/io/hub_folder.hpp"

#include <catch2/catch.hpp>  // test cases
#include <filesystem>        // folders
#include <string>            // texts
#include <vector>            // lists

#include "io/temp_folder.hpp"
#include "perft/io/safetensors_writer.hpp"

using io_test::TempFolder;
using perft::HubFolder;
using perft::IoError;
using perft::UnsupportedError;

namespace {

/// A shard holding one-byte tensors of these names; the byte is the name's first letter.
void write_shard(const std::string& path, const std::vector<std::string>& names) {
  std::vector<perft::TensorToWrite> tensors;
  for (const std::string& name : names) tensors.push_back({name, perft::DType::u8, {1}, name.data(), 1});
  perft::write_safetensors(path, tensors);
}

std::string refusal(const std::string& dir) {
  return io_test::message_of<IoError>([&] { HubFolder::open(dir); });
}

}  // namespace

TEST_CASE("a folder with one file") {
  const TempFolder folder;
  folder.write("config.json", R"({"model_type": "olmoe"})");
  write_shard(folder.path("model.safetensors"), {"b", "c", "a"});
  const HubFolder hub = HubFolder::open(folder.path());
  CHECK(hub.dir() == folder.path());
  CHECK(hub.config_json()["model_type"] == "olmoe");
  CHECK(hub.config_path() == folder.path("config.json"));
  CHECK(hub.weights_path() == folder.path("model.safetensors"));
  REQUIRE(hub.all().size() == 3);
  CHECK(hub.all()[0].name == "a");
  CHECK(hub.all()[2].name == "c");
  REQUIRE(hub.find("b") != nullptr);
  CHECK(static_cast<char>(hub.find("b")->data[0]) == 'b');
  CHECK(hub.find("bb") == nullptr);
  CHECK(hub.find("d") == nullptr);
  CHECK(HubFolder::open(folder.path() + "/").all().size() == 3);
}

TEST_CASE("a folder with shards") {
  const TempFolder folder;
  folder.write("config.json", "{}");
  write_shard(folder.path("model-1.safetensors"), {"a", "d"});
  write_shard(folder.path("model-2.safetensors"), {"c", "b"});
  folder.write("model.safetensors.index.json",
               R"({"metadata": {"total_size": 4}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors",
                   "c": "model-2.safetensors", "d": "model-1.safetensors"}})");
  const HubFolder hub = HubFolder::open(folder.path());
  CHECK(hub.weights_path() == folder.path("model.safetensors.index.json"));
  REQUIRE(hub.all().size() == 4);
  for (const char* name : {"a", "b", "c", "d"}) {
    REQUIRE(hub.find(name) != nullptr);
    CHECK(static_cast<char>(hub.find(name)->data[0]) == name[0]);
  }
  CHECK(hub.find("a")->path == folder.path("model-1.safetensors"));
  CHECK(hub.find("a")->file == hub.find("d")->file);

  // Where both layouts lie side by side, the single file counts.
  write_shard(folder.path("model.safetensors"), {"x"});
  CHECK(HubFolder::open(folder.path()).all().size() == 1);
}

TEST_CASE("folders that are none, or incomplete") {
  const TempFolder folder;
  CHECK(refusal(folder.path("none")) ==
        folder.path("none") + ": no such folder, expected a model folder; check the path");
  CHECK(refusal(folder.write("file", "")) ==
        folder.path("file") + ": is not a folder, expected a model folder; check the path");
  CHECK(refusal(folder.path()) ==
        folder.path("config.json") +
            ": cannot open the file: No such file or directory; check the path and its permissions");
  folder.write("config.json", "{");
  CHECK(refusal(folder.path()) == folder.path("config.json") + ": not valid JSON at byte 2; fix or replace the file");
  folder.write("config.json", "{}");
  CHECK(refusal(folder.path()) == folder.path() +
                                      ": has neither model.safetensors nor model.safetensors.index.json; "
                                      "check the path or download the weights");
  for (const char* name : {"pytorch_model.bin.index.json", "pytorch_model.bin"}) {
    folder.write(name, "");
    CHECK(io_test::message_of<UnsupportedError>([&] { HubFolder::open(folder.path()); }) ==
          folder.path(name) +
              ": pickled weights are not read, expected model.safetensors; convert with transformers' "
              "save_pretrained(safe_serialization=True)");
  }
  write_shard(folder.path("model.safetensors"), {"a"});
  CHECK(HubFolder::open(folder.path()).all().size() == 1);  // an old file beside the new one does no harm
}

TEST_CASE("an index that lies is refused by shard and tensor") {
  struct Case {
    std::string index;
    std::string file;  // the message starts with its path
    std::string message;
  };

  const TempFolder folder;
  folder.write("config.json", "{}");
  const std::string index = folder.path("model.safetensors.index.json");
  write_shard(folder.path("1.safetensors"), {"a", "b"});
  write_shard(folder.path("2.safetensors"), {"c"});
  write_shard(folder.path("3.safetensors"), {"c", "d"});
  folder.write("broken.safetensors", "1234");
  std::filesystem::create_directory(folder.path("sub"));
  write_shard(folder.path("sub/1.safetensors"), {"c"});
  const std::string unseen = ", expected a file name inside the folder; do not use this checkpoint unseen";
  const std::vector<Case> table = {
      {"[]", "model.safetensors.index.json",
       ": has no object weight_map, expected tensor names with their shards; download it again"},
      {R"({"weight_map": []})", "model.safetensors.index.json",
       ": has no object weight_map, expected tensor names with their shards; download it again"},
      {R"({"weight_map": {"a": 1}})", "model.safetensors.index.json",
       ": weight_map \"a\" is not a string, expected a file name"},
      {R"({"weight_map": {"a": "1.safetensors", "a": "2.safetensors"}})", "model.safetensors.index.json",
       ": key \"a\" appears twice in one object, expected once; fix or replace the file"},
      {R"({"weight_map": {"c": "sub/1.safetensors"}})", "model.safetensors.index.json",
       ": weight_map \"c\" names \"sub/1.safetensors\"" + unseen},
      {R"({"weight_map": {"c": "../x"}})", "model.safetensors.index.json",
       ": weight_map \"c\" names \"../x\"" + unseen},
      {R"({"weight_map": {"c": "/etc/passwd"}})", "model.safetensors.index.json",
       ": weight_map \"c\" names \"/etc/passwd\"" + unseen},
      {R"({"weight_map": {"c": "x\\y"}})", "model.safetensors.index.json",
       ": weight_map \"c\" names \"x\\\\y\"" + unseen},
      {R"({"weight_map": {"c": ".."}})", "model.safetensors.index.json", ": weight_map \"c\" names \"..\"" + unseen},
      {R"({"weight_map": {"c": ""}})", "model.safetensors.index.json", ": weight_map \"c\" names \"\"" + unseen},
      {R"({"weight_map": {"a": "1.safetensors", "b": "1.safetensors", "z": "9.safetensors"}})", "9.safetensors",
       ": shard listed in " + index + " is missing, expected 1 tensors in it; download it"},
      {R"({"weight_map": {"a": "broken.safetensors"}})", "broken.safetensors",
       ": has 4 bytes, expected at least the 8 of a safetensors header length; download or write it again"},
      {R"({"weight_map": {"a": "1.safetensors", "b": "1.safetensors", "z": "1.safetensors"}})", "1.safetensors",
       ": tensor \"z\" is listed in " + index + " but absent, expected it here; download the shard again"},
      {R"({"weight_map": {"a": "1.safetensors"}})", "1.safetensors",
       ": tensor \"b\" is not listed in " + index + ", expected every tensor there; download the folder again"},
      {R"({"weight_map": {"c": "2.safetensors", "d": "3.safetensors"}})", "3.safetensors",
       ": tensor \"c\" is in shard 2.safetensors too, expected in one; download both again"},
      {R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}})", "1.safetensors",
       ": tensor \"b\" is listed in " + index + " as part of 2.safetensors; download the folder again"},
  };
  for (const Case& lie : table) {
    folder.write("model.safetensors.index.json", lie.index);
    CHECK(refusal(folder.path()) == folder.path(lie.file) + lie.message);
  }
}
