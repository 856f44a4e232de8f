#pragma once
// The exceptions perft throws, and the two helpers that raise them with a composed message.

#include <cstddef>      // std::size_t
#include <span>         // shapes and lists in messages
#include <sstream>      // message composition; only on the failing path
#include <stdexcept>    // std::runtime_error
#include <string>       // messages
#include <string_view>  // pieces of messages
#include <type_traits>  // std::is_convertible_v
#include <utility>      // std::forward

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

/// Base of everything perft throws. The text is one line: what, where, what was expected, what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An argument's shape or size contradicts the operation's contract.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// An argument's value is outside its range (an id ≥ V, top-k > experts, rank 0).
class ValueError : public Error {
 public:
  using Error::Error;
};

/// A file is missing, truncated, corrupt or contradicts itself; the text names the file and the place in it.
class IoError : public Error {
 public:
  using Error::Error;
};

/// The operation is right but this build, machine or file format does not offer it.
class UnsupportedError : public Error {
 public:
  using Error::Error;
};

/// A number that must be finite is not; the text names where it was first seen.
class NonFiniteError : public Error {
 public:
  using Error::Error;
};

namespace detail {

template <class T>
void append_piece(std::ostringstream& out, const T& piece) {
  if constexpr (requires { std::span(piece); } && !std::is_convertible_v<const T&, std::string_view>) {
    out << '[';
    const char* separator = "";
    for (const auto& item : piece) {
      out << separator << item;
      separator = ", ";
    }
    out << ']';
  } else {
    out << piece;
  }
}

template <class... Pieces>
std::string concat(const Pieces&... pieces) {
  std::ostringstream out;
  (append_piece(out, pieces), ...);
  return out.str();
}

}  // namespace detail

/// Throws E with the pieces joined into one line; lists (shapes) are printed as [a, b].
template <class E = Error, class... Pieces>
[[noreturn]] void fail(const Pieces&... pieces) {
  throw E(detail::concat(pieces...));
}

/// Throws E unless `condition`; the message is only composed on failure.
template <class E = Error, class... Pieces>
inline void check(bool condition, const Pieces&... pieces) {
  if (!condition) [[unlikely]] {
    fail<E>(pieces...);
  }
}

}  // namespace perft::inline PERFT_ABI
