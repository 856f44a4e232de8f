"""Writes include/perft/text/unicode_tables.hpp from what the PyPI `tokenizers` package does.

The classes are read off the package's behaviour, not off a Unicode version: its regex engine and its NFC
follow different versions of Unicode, and what matters is to split and compose where it does.

    python3 tests/text/make_unicode_tables.py > include/perft/text/unicode_tables.hpp
"""
import unicodedata

import tokenizers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

LETTER, NUMBER, SPACE, WORD, NFC_ACTIVE = 1, 2, 4, 8, 16
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def regex_classes(flags):
    """\\p{L}, \\p{N} and \\s of the GPT-2 pattern: two characters stay in one piece if they share a class."""
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str
    for c in CODE_POINTS:
        if c == 0x20:
            flags[c] |= SPACE
        elif len(pieces(chr(c) + "a")) == 1:
            flags[c] |= LETTER
        elif len(pieces(chr(c) + "1")) == 1:
            flags[c] |= NUMBER
        elif len(pieces(chr(c) + "!")) != 1:
            flags[c] |= SPACE


def word_class(flags):
    """\\w, which decides whether a single_word token matches beside a character."""
    tokenizer = Tokenizer(models.BPE(vocab={"z": 0}, merges=[]))
    tokenizer.add_tokens([AddedToken("q", single_word=True, normalized=False)])
    for c in CODE_POINTS:
        if tokenizer.encode(chr(c) + "q").tokens != ["q"]:
            flags[c] |= WORD


def nfc_classes(flags):
    """Characters that NFC may change, reorder or compose with the one before, as far as the package knows them."""
    nfc = normalizers.NFC().normalize_str
    seconds = set()
    for c in CODE_POINTS:
        parts = unicodedata.normalize("NFD", chr(c))
        if len(parts) > 1 and nfc(parts) == unicodedata.normalize("NFC", parts):
            seconds.add(ord(unicodedata.normalize("NFD", chr(c))[-1]))
    seconds |= set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))  # Hangul vowels and tails
    for c in CODE_POINTS:
        s = chr(c)
        if nfc(s) != s or c in seconds:
            flags[c] |= NFC_ACTIVE
        elif unicodedata.combining(s):
            samples = ("a\u0301" + s, "a" + s + "\u0334", "a" + s + "\u0301")
            if all(nfc(t) == unicodedata.normalize("NFC", t) for t in samples):
                flags[c] |= NFC_ACTIVE


flags = [0] * 0x110000
regex_classes(flags)
word_class(flags)
nfc_classes(flags)
steps = [f"0x{c << 5 | flags[c]:x}" for c in range(0x110000) if c == 0 or flags[c] != flags[c - 1]]
lines, line = [], "   "
for item in steps:
    if len(line) + len(item) + 2 > 120:
        lines.append(line)
        line = "   "
    line += f" {item},"
lines.append(line)
print(f"""#pragma once
// Character classes as steps over the code points: each entry is first_code_point << 5 | flags, up to the next one.
// Written by tests/text/make_unicode_tables.py from what the PyPI package tokenizers {tokenizers.__version__} does; do not edit.

#include <cstdint>  // std::uint32_t

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {{
namespace detail {{

// clang-format off
/// Flags: 1 letter (\\p{{L}}), 2 number (\\p{{N}}), 4 white space (\\s), 8 word (\\w), 16 NFC may change it or join it leftwards.
inline constexpr std::uint32_t kCharacterSteps[] = {{
{chr(10).join(lines)}
}};
// clang-format on

}}  // namespace detail
}}  // namespace perft::inline PERFT_ABI""")
