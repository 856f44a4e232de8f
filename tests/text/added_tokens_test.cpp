#include "perft/text/added_tokens.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

using namespace perft;

namespace {

AddedToken token(int id, const std::string& content) {
  AddedToken result;
  result.id = id;
  result.content = content;
  return result;
}

/// "text" as it is, <id> for a token, pieces separated by |.
std::string split(const std::vector<AddedToken>& tokens, std::string_view text) {
  AddedTokenMatcher matcher;
  for (const AddedToken& t : tokens) matcher.add(t.content, t);
  std::string out;
  matcher.split(
      text, [&](std::size_t at, std::size_t size) { out += std::string(text.substr(at, size)) + "|"; },
      [&](std::int32_t id) { out += "<" + std::to_string(id) + ">|"; });
  return out;
}

}  // namespace

TEST_CASE("the leftmost match wins, then the longest") {
  const std::vector<AddedToken> tokens = {token(1, "  "), token(2, "    "), token(3, "ab"), token(4, "bcd")};
  CHECK(split(tokens, "") == "");
  CHECK(split(tokens, "x") == "x|");
  CHECK(split(tokens, "       x") == "<2>|<1>| x|");
  CHECK(split(tokens, "abcd") == "<3>|cd|");
  CHECK(split(tokens, "xbcdab") == "x|<4>|<3>|");
  CHECK(split(tokens, "bc") == "bc|");
}

TEST_CASE("single_word matches only beside characters that are no words") {
  AddedToken t = token(1, "be");
  t.single_word = true;
  CHECK(split({t}, "be") == "<1>|");
  CHECK(split({t}, "to be, or") == "to |<1>|, or|");
  CHECK(split({t}, "maybe") == "maybe|");
  CHECK(split({t}, "been") == "been|");
  CHECK(split({t}, "be_") == "be_|");
  CHECK(split({t}, "ébe") == "ébe|");
  CHECK(split({t}, "be\u0301") == "be\u0301|");
}

TEST_CASE("lstrip and rstrip take the white space along") {
  AddedToken left = token(1, "<l>");
  left.lstrip = true;
  AddedToken right = token(2, "<r>");
  right.rstrip = true;
  CHECK(split({left, right}, "a \u3000\n<l> b") == "a|<1>| b|");
  CHECK(split({left, right}, "a <r> \tb") == "a |<2>|b|");
  CHECK(split({left, right}, "<r>  <l>") == "<2>|<1>|");
  CHECK(split({left, right}, " <l> <l>") == "<1>|<1>|");
  CHECK(split({left, right}, "  ") == "  |");
}

TEST_CASE("white space that rstrip took does not hide a token in it, as in the reference") {
  AddedToken right = token(2, "<r>");
  right.rstrip = true;
  CHECK(split({token(1, "  "), right}, "<r>   x") == "<2>|<1>| x|");
}

TEST_CASE("a pattern is added once") {
  AddedTokenMatcher matcher;
  CHECK(matcher.add("x", token(1, "x")));
  CHECK_FALSE(matcher.add("x", token(2, "x")));
  CHECK(matcher.add("xy", token(3, "xy")));
}
