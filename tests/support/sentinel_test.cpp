// Guarded buffers: every overrun within the guard zones is seen, and nothing else is.

#include "support/sentinel.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>

#include "perft/core/dtype.hpp"

using support::Guarded;

TEST_CASE("Guarded: writing every element touches no sentinel", "[support]") {
  for (const std::size_t count : {0U, 1U, 7U, 64U}) {
    for (const std::size_t misalign : {0U, 1U, 3U}) {
      Guarded<float> buffer(count, misalign);
      CHECK(buffer.check());
      CHECK(buffer.size() == count);
      CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64 == misalign * sizeof(float));
      for (auto& value : buffer.span()) value = 0.0F;
      CHECK(buffer.check());
    }
  }
}

TEST_CASE("Guarded: a byte written anywhere in a guard zone is seen", "[support]") {
  // The zones are part of the buffer's own allocation, so these writes are no undefined behaviour.
  for (const std::size_t count : {0U, 5U}) {
    Guarded<float> buffer(count, count % 2);
    auto* const first = reinterpret_cast<unsigned char*>(buffer.data());
    auto* const end = first + count * sizeof(float);
    constexpr std::ptrdiff_t guard = Guarded<float>::kGuardBytes;
    for (std::ptrdiff_t i = 0; i < guard; ++i) {
      for (unsigned char* at : {first - 1 - i, end + i}) {
        const unsigned char before = *at;
        *at = static_cast<unsigned char>(before ^ 1U);
        CHECK_FALSE(buffer.check());
        *at = before;
        CHECK(buffer.check());
      }
    }
  }
}

TEST_CASE("Guarded: a copied neighbourhood and a constant fill are seen, with their place", "[support]") {
  Guarded<double> buffer(4);
  auto* const p = reinterpret_cast<unsigned char*>(buffer.data());
  for (int i = 0; i < 8; ++i) p[32 + i] = p[40 + i];  // one element past the end, taken from one further
  CHECK(buffer.check().message == "written 1 bytes past the last element");
  Guarded<double> other(4);
  auto* const q = reinterpret_cast<unsigned char*>(other.data());
  q[-8] = 0;
  CHECK_FALSE(other.check());
  CHECK(other.check().message == "written 8 bytes before the first element");
}

TEST_CASE("Guarded: unwritten elements are NaN", "[support]") {
  Guarded<float> f(3);
  Guarded<double> d(3);
  Guarded<perft::bf16> b(3, 5);
  CHECK(std::isnan(f[2]));
  CHECK(std::isnan(d[0]));
  CHECK(std::isnan(static_cast<float>(b[1])));
}

TEST_CASE("Guarded: a misalignment of a whole line or more is refused", "[support]") {
  CHECK_THROWS_WITH(Guarded<float>(1, 16), "Guarded: misalign is 64 bytes or more");
  CHECK_NOTHROW(Guarded<float>(1, 15));
}
