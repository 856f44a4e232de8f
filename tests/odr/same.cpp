// The second translation unit with everything, built exactly as main.cpp.
#include <typeinfo>  // the mangled name

#include "facts.hpp"
#include "perft/perft.hpp"

LibraryFacts facts_of_same() {
  return {&perft::ThreadPool::global(), typeid(perft::Error).name()};
}
