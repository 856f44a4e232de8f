#include "perft/io/read_back.hpp"

#include <catch2/catch.hpp>  // test cases
#include <string>            // texts

#include "io/temp_folder.hpp"

using perft::IoError;
using perft::ReadBack;

TEST_CASE("what is read back may come in pieces of any size, larger than the buffer too") {
  const io_test::TempFolder folder;
  std::string text((std::size_t{5} << 19U) + 3, 'a');
  for (std::size_t i = 0; i < text.size(); i += 101) {
    text[i] = static_cast<char>(i);
  }
  const std::string path = folder.write("f", text);
  ReadBack file(path);
  CHECK(file.path() == path);
  file.write("");
  file.write(text.substr(0, 7));
  file.write(std::string_view(text).substr(7));
  file.commit();

  const std::size_t last = text.size() - 1;
  text[last] ^= 1;
  ReadBack other(path);
  CHECK(io_test::message_of<IoError>([&] { other.write(text); }) ==
        path + ": reading it back, byte " + std::to_string(last) +
            " is not the one that was written; check disk and memory, or write to another disk");
}
