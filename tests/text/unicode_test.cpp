#include "perft/text/unicode.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace perft;
using Kind = Utf8Step::Kind;

TEST_CASE("the first ill-formed byte of a text is found") {
  CHECK(find_invalid_utf8("") == std::string_view::npos);
  CHECK(find_invalid_utf8("a\xC3\xA9\xE4\xBD\xA0\xF0\x9F\x99\x82") == std::string_view::npos);
  CHECK(find_invalid_utf8("ab\x80") == 2);
  CHECK(find_invalid_utf8("\xC0\x80") == 0);          // overlong
  CHECK(find_invalid_utf8("\xE0\x9F\xBF") == 0);      // overlong
  CHECK(find_invalid_utf8("x\xED\xA0\x80") == 1);     // surrogate
  CHECK(find_invalid_utf8("\xF4\x90\x80\x80") == 0);  // over U+10FFFF
  CHECK(find_invalid_utf8("\xF5\x80\x80\x80") == 0);  // no such lead byte
  CHECK(find_invalid_utf8("abc\xE4\xBD") == 3);       // ends early
  CHECK(find_invalid_utf8("\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF") == std::string_view::npos);
}

TEST_CASE("an ill-formed part is as long as the well-formed start of a character") {
  const auto step = [](std::string_view bytes) { return utf8_step(bytes, 0); };
  CHECK((step("\xF0\x9F\x99").kind == Kind::kIncomplete && step("\xF0\x9F\x99").length == 3));
  CHECK((step("\xF0\x9F\x99z").kind == Kind::kInvalid && step("\xF0\x9F\x99z").length == 3));
  CHECK((step("\xF0\x80").kind == Kind::kInvalid && step("\xF0\x80").length == 1));
  CHECK((step("\xE4").kind == Kind::kIncomplete && step("\xE4").length == 1));
  CHECK((step("\xC3(").kind == Kind::kInvalid && step("\xC3(").length == 1));
}

TEST_CASE("every code point survives encoding and decoding") {
  std::size_t wrong = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    const bool right = find_invalid_utf8(text) == std::string_view::npos && utf8_decode(text, 0) == c &&
                       utf8_length(text[0]) == text.size() && previous_character("x" + text, text.size() + 1) == 1;
    wrong += right ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("characters have the classes of the reference's regular expressions") {
  const auto of = [](char32_t c) { return static_cast<int>(CharacterClasses::get().of(c)); };
  CHECK(of(U'a') == (kLetter | kWord));
  CHECK(of(U'7') == (kNumber | kWord));
  CHECK(of(U'_') == kWord);
  CHECK(of(U'\'') == 0);
  CHECK(of(U' ') == kSpace);
  CHECK(of(U'\u00A0') == kSpace);
  CHECK(of(U'\u0085') == kSpace);
  CHECK(of(U'\u200B') == 0);                     // zero-width space is no white space
  CHECK(of(U'½') == kNumber);                    // \p{No} is no \w
  CHECK(of(U'\u0301') == (kWord | kNfcActive));  // a combining mark is neither letter nor number
  CHECK(of(U'你') == (kLetter | kWord));
  CHECK(of(U'\U0010FFFF') == 0);
  CHECK((of(U'\u0898') & kNfcActive) == 0);  // Unicode 14; the reference's NFC follows Unicode 9
}
