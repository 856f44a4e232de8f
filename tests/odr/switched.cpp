// The third translation unit: everything again, built with the other setting of PERFT_ONEDNN.
#include <typeinfo>  // the mangled name

#include "facts.hpp"
#include "perft/perft.hpp"

LibraryFacts facts_of_switched() {
  return {&perft::ThreadPool::global(), typeid(perft::Error).name()};
}
