#include "perft/io/append_file.hpp"

#include <catch2/catch.hpp>  // test cases
#include <string>            // texts

#include "io/file_size_limit.hpp"
#include "io/temp_folder.hpp"

using perft::AppendFile;
using perft::IoError;

TEST_CASE("what does not fit is not half there: the file is as it was before") {
  const io_test::TempFolder folder;
  const std::string path = folder.path("lines");
  AppendFile file(path);
  file.append("one\n");
  std::string message;
  {
    const io_test::FileSizeLimit limit(10);
    message = io_test::message_of<IoError>([&] { file.append("a line that is too long\n"); });
  }
  CHECK(message == path + ": cannot write to the file: File too large; free space or raise the limit");
  CHECK(io_test::read_bytes(path) == "one\n");
  file.append("two\n");
  CHECK_NOTHROW(file.sync());
  CHECK(io_test::read_bytes(path) == "one\ntwo\n");
  file.truncate(4);
  CHECK(io_test::read_bytes(path) == "one\n");
}

TEST_CASE("a file that cannot be opened is refused by name") {
  const io_test::TempFolder folder;
  CHECK(io_test::message_of<IoError>([&] { AppendFile file(folder.path("no/lines")); }) ==
        folder.path("no/lines") +
            ": cannot open the file for writing: No such file or directory; check the folder and its permissions");
}
