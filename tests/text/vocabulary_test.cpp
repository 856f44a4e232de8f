#include "perft/text/vocabulary.hpp"

#include <catch2/catch.hpp>

using namespace perft;

TEST_CASE("a vocabulary maps both ways, with holes, and keeps added tokens apart") {
  Vocabulary vocabulary;
  CHECK(vocabulary.size() == 0);
  CHECK(vocabulary.add("a", 3, true));
  CHECK(vocabulary.add("<x>", 5, false));
  CHECK_FALSE(vocabulary.add("a", 4, true));
  CHECK_FALSE(vocabulary.add("b", 3, true));
  CHECK(vocabulary.size() == 6);
  CHECK(vocabulary.entries() == 2);
  CHECK(vocabulary.find("a") == 3);
  CHECK(vocabulary.find("b") == -1);
  CHECK(vocabulary.find("<x>") == 5);
  CHECK(vocabulary.find_in_model("a") == 3);
  CHECK(vocabulary.find_in_model("<x>") == -1);
  CHECK(vocabulary.has(3));
  CHECK_FALSE(vocabulary.has(4));
  CHECK_FALSE(vocabulary.has(6));
  CHECK_FALSE(vocabulary.has(-1));
  CHECK(vocabulary.token(5) == "<x>");
}

TEST_CASE("ids are bounded by the number of tokens") {
  CHECK(Vocabulary::id_limit(0) == 65536);
  CHECK(Vocabulary::id_limit(257) == 65536 + 16 * 257);
  CHECK(Vocabulary::id_limit(50280) == 870016);
  CHECK(Vocabulary::id_limit(std::size_t{1} << 20) == 1 << 24);
  CHECK(Vocabulary::id_limit(static_cast<std::size_t>(-1)) == 1 << 24);
}
