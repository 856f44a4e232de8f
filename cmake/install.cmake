# cmake --install puts the headers, the program and a package that find_package(perft CONFIG) understands.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(perft_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/perft)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/perft DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
foreach(library IN LISTS perft_libraries)
  string(REPLACE "perft_" "" export_name ${library})
  set_target_properties(${library} PROPERTIES EXPORT_NAME ${export_name})
  install(TARGETS ${library} EXPORT perftTargets)
endforeach()
install(EXPORT perftTargets NAMESPACE perft:: DESTINATION ${perft_package_dir})
if(TARGET perft_program)
  install(TARGETS perft_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/perftConfig.cmake.in ${PROJECT_BINARY_DIR}/perftConfig.cmake
                              INSTALL_DESTINATION ${perft_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/perftConfigVersion.cmake COMPATIBILITY SameMinorVersion
                                 ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/perftConfig.cmake ${PROJECT_BINARY_DIR}/perftConfigVersion.cmake
              ${CMAKE_CURRENT_LIST_DIR}/Findutf8proc.cmake ${CMAKE_CURRENT_LIST_DIR}/FindoneDNN.cmake
        DESTINATION ${perft_package_dir})
