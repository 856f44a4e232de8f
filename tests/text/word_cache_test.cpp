#include "perft/text/word_cache.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

using namespace perft;

namespace {

std::vector<std::int32_t> found(const WordCache& cache, std::string_view word) {
  const auto ids = cache.find(word);
  return {ids.begin(), ids.end()};
}

}  // namespace

TEST_CASE("a word comes back with its own ids, or not at all") {
  WordCache cache;
  for (std::int32_t i = 0; i < 100000; ++i) {
    const std::vector<std::int32_t> ids = {i, -i};
    cache.put("w" + std::to_string(i), ids);
  }
  int hits = 0;
  int wrong = 0;
  for (std::int32_t i = 0; i < 100000; ++i) {
    const auto ids = found(cache, "w" + std::to_string(i));
    hits += ids.empty() ? 0 : 1;
    wrong += ids.empty() || ids == std::vector<std::int32_t>{i, -i} ? 0 : 1;
  }
  CHECK(wrong == 0);
  CHECK(hits > 20000);  // 2^15 slots; a poor hash would leave most of them empty
  CHECK(found(cache, "absent").empty());
}

TEST_CASE("words and ids of every length up to the limits are kept, longer ones are not") {
  WordCache cache;
  for (std::size_t bytes = 1; bytes < 40; ++bytes) {
    for (std::size_t count = 0; count < 12; ++count) {
      const std::string word(bytes, static_cast<char>('a' + count));
      const std::vector<std::int32_t> ids(count, 7);
      cache.put(word, ids);
      const bool kept = bytes <= 28 && count > 0 && count <= 8;
      CHECK(found(cache, word) == (kept ? ids : std::vector<std::int32_t>()));
    }
  }
  cache.put("", std::vector<std::int32_t>{1});
  CHECK(found(cache, std::string(1, '\0')).empty());
}

TEST_CASE("the hash sees every byte and the length") {
  std::set<std::uint64_t> hashes;
  std::size_t words = 0;
  for (std::size_t bytes = 0; bytes < 24; ++bytes) {
    hashes.insert(hash_bytes(std::string(bytes, '\0')));
    ++words;
    for (std::size_t at = 0; at < bytes; ++at) {
      std::string word(bytes, '\0');
      word[at] = 'x';
      hashes.insert(hash_bytes(word));
      ++words;
    }
  }
  CHECK(hashes.size() == words);
}
