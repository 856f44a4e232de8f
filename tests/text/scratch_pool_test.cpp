#include "perft/text/scratch_pool.hpp"

#include <catch2/catch.hpp>
#include <optional>

using namespace perft;

TEST_CASE("scratch memory is lent to one at a time and used again") {
  ScratchPool pool;
  const BpeScratch* first = nullptr;
  {
    const ScratchPool::Lease a(pool);
    const ScratchPool::Lease b(pool);
    first = &*a;
    CHECK(first != &*b);
  }
  const ScratchPool::Lease again(pool);
  CHECK(&*again == first);  // the one given back last, whose cache is warm
}
