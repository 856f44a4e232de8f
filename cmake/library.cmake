# The library's targets: all INTERFACE, no compiler flags of ours in any of them.
#   perft::perft  core … nn, peft, models: the standard library alone (and oneDNN where switched on)
#   perft::io     perft::perft + nlohmann-json: whatever reaches perft/io/json.hpp
#   perft::text   perft::io + utf8proc: tokenizers and everything above them; perft::text serves every header
list(APPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}")

find_package(Threads REQUIRED)

add_library(perft INTERFACE)
add_library(perft::perft ALIAS perft)
target_compile_features(perft INTERFACE cxx_std_20)
target_include_directories(
  perft INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
target_link_libraries(perft INTERFACE Threads::Threads)

set(PERFT_HAS_ONEDNN OFF)
if(PERFT_ONEDNN STREQUAL "AUTO")
  find_package(oneDNN QUIET MODULE)
  set(PERFT_HAS_ONEDNN ${oneDNN_FOUND})
elseif(PERFT_ONEDNN)
  find_package(oneDNN REQUIRED MODULE)
  set(PERFT_HAS_ONEDNN ON)
endif()
if(PERFT_HAS_ONEDNN)
  target_link_libraries(perft INTERFACE oneDNN::dnnl ${CMAKE_DL_LIBS})
  target_compile_definitions(perft INTERFACE PERFT_ONEDNN=1)
endif()
message(STATUS "perft: oneDNN ${PERFT_HAS_ONEDNN}")

set(perft_libraries perft)
find_package(nlohmann_json 3.10 QUIET CONFIG)
find_package(utf8proc QUIET MODULE)
if(nlohmann_json_FOUND)
  add_library(perft_io INTERFACE)
  add_library(perft::io ALIAS perft_io)
  target_link_libraries(perft_io INTERFACE perft nlohmann_json::nlohmann_json)
  list(APPEND perft_libraries perft_io)
  if(utf8proc_FOUND)
    add_library(perft_text INTERFACE)
    add_library(perft::text ALIAS perft_text)
    target_link_libraries(perft_text INTERFACE perft_io utf8proc::utf8proc)
    list(APPEND perft_libraries perft_text)
  endif()
endif()

# Stops the configuration with the remedy when something of perft's own needs the headers above `nn`.
function(perft_require_text what)
  if(NOT TARGET perft::text)
    message(FATAL_ERROR "${what} needs nlohmann-json and utf8proc; scripts/setup.sh installs them, or switch it off")
  endif()
endfunction()
