#pragma once

// What the translation units of the link test tell each other about the library they were compiled with.

/// Addresses and names that are one per program if, and only if, two translation units mean the same library.
struct LibraryFacts {
  const void* thread_pool;  // a function-local static of an inline function
  const char* error_name;   // the mangled name of a class
};

LibraryFacts facts_of_main();
LibraryFacts facts_of_same();
LibraryFacts facts_of_switched();
