// Links translation units that include all of perft: equal switches must merge into one library, different ones must
// stay apart (a silent merge would run one unit's code against the other's layouts).
#include <cstdio>       // the result
#include <string_view>  // comparison of names
#include <typeinfo>     // the mangled name

#include "facts.hpp"
#include "perft/perft.hpp"
#include "perft/perft.hpp"  // a second time: the umbrella guards itself

LibraryFacts facts_of_main() {
  return {&perft::ThreadPool::global(), typeid(perft::Error).name()};
}

namespace {

bool equal(const LibraryFacts& a, const LibraryFacts& b) {
  return a.thread_pool == b.thread_pool && std::string_view(a.error_name) == b.error_name;
}

}  // namespace

int main() {
  int failures = 0;
  if (!equal(facts_of_main(), facts_of_same())) {
    std::puts("odr: two units with the same switches have two libraries");
    ++failures;
  }
#ifdef PERFT_ODR_SWITCHED
  const LibraryFacts ours = facts_of_main();
  const LibraryFacts other = facts_of_switched();
  if (ours.thread_pool == other.thread_pool || std::string_view(ours.error_name) == other.error_name) {
    std::puts("odr: units with different PERFT_ONEDNN were merged; config.hpp must put every switch into PERFT_ABI");
    ++failures;
  }
#endif
  return failures;
}
