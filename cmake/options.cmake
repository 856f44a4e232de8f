# Switches of the build. Everything that is not the library is on only where perft is the project being built.

set(PERFT_ONEDNN AUTO CACHE STRING "oneDNN as a GEMM backend: AUTO (when found), ON (required) or OFF")
set_property(CACHE PERFT_ONEDNN PROPERTY STRINGS AUTO ON OFF)
option(PERFT_TESTS "Build the tests and register the checks of the tree" ${PROJECT_IS_TOP_LEVEL})
option(PERFT_BENCH "Build the benchmarks (needs Google Benchmark)" ${PROJECT_IS_TOP_LEVEL})
option(PERFT_EXAMPLES "Build the program and the examples" ${PROJECT_IS_TOP_LEVEL})
option(PERFT_WERROR "Warnings are errors in perft's own targets" ${PROJECT_IS_TOP_LEVEL})
option(PERFT_SANITIZER_TESTS "Register the sanitizer builds as tests; scripts/test.sh switches it on" OFF)
option(PERFT_PARALLEL_TESTS_ONLY "Build only the test files that start threads; the tsan preset switches it on" OFF)

if(PROJECT_IS_TOP_LEVEL)
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
  endif()
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  find_program(PERFT_CCACHE ccache)
  if(PERFT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
    # Without this sloppiness ccache refuses every file that uses a precompiled header.
    set(CMAKE_CXX_COMPILER_LAUNCHER
        "${CMAKE_COMMAND};-E;env;CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime;${PERFT_CCACHE}")
  endif()
endif()

set(PERFT_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wdouble-promotion -Wold-style-cast -Wnon-virtual-dtor)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 sees overlapping copies in `"literal" + std::string` (its bug 105651).
  list(APPEND PERFT_WARNINGS -Wno-restrict)
endif()
if(PERFT_WERROR)
  list(APPEND PERFT_WARNINGS -Werror)
endif()

# Marks a target as perft's own: strict warnings, no compiler extensions. Never called on what users link.
function(perft_own_target target)
  target_compile_options(${target} PRIVATE ${PERFT_WARNINGS})
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
endfunction()
