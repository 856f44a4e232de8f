# Checks of the tree as ctest entries: layers, formatting, headers alone, linking, packaging, sanitizer builds.
set(tools ${PROJECT_SOURCE_DIR}/tools)

function(perft_check name)
  add_test(NAME check.${name} COMMAND ${ARGN} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(check.${name} PROPERTIES LABELS check TIMEOUT 900 SKIP_RETURN_CODE 77)
endfunction()

perft_check(layers python3 ${tools}/check_layers.py)
perft_check(text python3 ${tools}/check_text.py)
perft_check(umbrella python3 ${tools}/umbrella.py)
perft_check(contamination python3 ${tools}/check_contamination.py)
perft_check(the_checks python3 ${tools}/test_checks.py)
perft_check(format bash ${tools}/check_format.sh)
perft_check(headers bash ${tools}/check_headers.sh ${CMAKE_CXX_COMPILER} ${PERFT_WARNINGS})

# The longest check by far: it starts first, and runs two compilers itself.
set_tests_properties(check.headers PROPERTIES COST 1000 PROCESSORS 2 TIMEOUT 1800)

# Two translation units with everything, and a third built with the other oneDNN switch, in one program.
add_executable(odr_test odr/main.cpp odr/same.cpp)
target_link_libraries(odr_test PRIVATE perft::text)
perft_own_target(odr_test)
find_package(oneDNN QUIET MODULE)
if(PERFT_HAS_ONEDNN OR oneDNN_FOUND)
  add_library(odr_switched OBJECT odr/switched.cpp)
  target_compile_features(odr_switched PRIVATE cxx_std_20)
  target_include_directories(odr_switched PRIVATE ${PROJECT_SOURCE_DIR}/include)
  target_link_libraries(odr_switched PRIVATE Threads::Threads nlohmann_json::nlohmann_json utf8proc::utf8proc)
  if(NOT PERFT_HAS_ONEDNN)
    target_compile_definitions(odr_switched PRIVATE PERFT_ONEDNN=1)
    target_link_libraries(odr_switched PRIVATE oneDNN::dnnl)
  endif()
  perft_own_target(odr_switched)
  target_link_libraries(odr_test PRIVATE odr_switched)
  target_compile_definitions(odr_test PRIVATE PERFT_ODR_SWITCHED)
endif()
add_test(NAME check.odr COMMAND odr_test)
set_tests_properties(check.odr PROPERTIES LABELS check TIMEOUT 60)

# Both ways of using the library from another project, with nothing but the standard library and with everything.
foreach(route IN ITEMS subdirectory package)
  perft_check(consumer_${route} bash ${CMAKE_CURRENT_SOURCE_DIR}/consumer/run.sh ${route} ${PROJECT_SOURCE_DIR}
              ${PROJECT_BINARY_DIR} ${CMAKE_CXX_COMPILER})
endforeach()

if(PERFT_SANITIZER_TESTS)
  foreach(preset IN ITEMS asan tsan)
    perft_check(${preset} bash ${PROJECT_SOURCE_DIR}/scripts/sanitize.sh ${preset})
    set_tests_properties(check.${preset} PROPERTIES TIMEOUT 2400 RUN_SERIAL TRUE LABELS "check;sanitizer")
  endforeach()
endif()
