// Gives the precompiled header's target a source to compile; the header itself is listed in tests/CMakeLists.txt.
