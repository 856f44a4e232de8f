// One tokenizer used by several threads at once: apart, so that ThreadSanitizer need not run the rest.

#include <catch2/catch.hpp>
#include <string>
#include <thread>
#include <vector>

#include "text/fixture.hpp"

using namespace perft;
using text_test::olmoe;
using Ids = std::vector<std::int32_t>;

TEST_CASE("one tokenizer serves several threads") {
  const std::string path = text_test::fixture("olmoe/golden.json");
  const Json rows = parse_json(read_text_file(path), path);
  std::vector<std::string> wrong(4);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int repeat = 0; repeat < 3; ++repeat) {
        for (const Json& row : rows) {
          const auto& text = row.at("text").get_ref<const std::string&>();
          if (olmoe().encode(text) != row.at("ids").get<Ids>()) wrong[t] = text;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<std::string>(4));
}
