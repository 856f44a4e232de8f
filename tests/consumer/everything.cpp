// A user of everything.
#include "perft/perft.hpp"

int main() {
  return perft::parse_json("[1, 2, 3]", "a string").size() == 3 ? 0 : 1;
}
