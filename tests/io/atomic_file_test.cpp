#include "perft/io/atomic_file.hpp"

#include <sys/stat.h>  // mode, mkfifo, umask

#include <catch2/catch.hpp>  // test cases
#include <filesystem>        // links
#include <string>            // texts

#include "io/file_size_limit.hpp"
#include "io/temp_folder.hpp"

using io_test::FileSizeLimit;
using io_test::read_bytes;
using io_test::TempFolder;
using perft::AtomicFile;
using perft::IoError;
using perft::write_text_atomically;

TEST_CASE("a committed file has its bytes, the mode of the umask, and no temporary beside it") {
  const TempFolder folder;
  const mode_t mask = ::umask(027);
  {
    AtomicFile file(folder.path("out"));
    CHECK(file.path() == folder.path("out"));
    file.write("one ");
    file.write("twothree", 3);
    CHECK_FALSE(std::filesystem::exists(folder.path("out")));
    file.commit();
    CHECK_THROWS_WITH(file.commit(), folder.path("out") + ": committed twice or after a failed write; open it again");
    CHECK_THROWS_WITH(file.write("x"),
                      folder.path("out") + ": written to after it was committed or failed; open it again");
  }
  ::umask(mask);
  CHECK(read_bytes(folder.path("out")) == "one two");
  CHECK(folder.files() == 1);

  struct stat info {};

  REQUIRE(::stat(folder.path("out").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777U) == 0640U);
}

TEST_CASE("an uncommitted file leaves the target as it was and nothing else") {
  const TempFolder folder;
  folder.write("out", "old");
  {
    AtomicFile file(folder.path("out"));
    file.write("new");
  }
  CHECK(read_bytes(folder.path("out")) == "old");
  CHECK(folder.files() == 1);
  write_text_atomically(folder.path("out"), "new");
  CHECK(read_bytes(folder.path("out")) == "new");
  CHECK(folder.files() == 1);
}

TEST_CASE("two files of one name at a time do not disturb each other") {
  const TempFolder folder;
  AtomicFile first(folder.path("out"));
  AtomicFile second(folder.path("out"));
  first.write("first");
  second.write("second");
  second.commit();
  first.commit();
  CHECK(read_bytes(folder.path("out")) == "first");
  CHECK(folder.files() == 1);
}

TEST_CASE("a link's target is replaced, not the link") {
  const TempFolder folder;
  folder.write("real", "old");
  std::filesystem::create_symlink("real", folder.path("link"));
  write_text_atomically(folder.path("link"), "new");
  CHECK(std::filesystem::is_symlink(folder.path("link")));
  CHECK(read_bytes(folder.path("real")) == "new");
}

TEST_CASE("a link that dangles is followed: what it names is made, the link stays") {
  const TempFolder folder;
  std::filesystem::create_symlink("real", folder.path("link"));
  write_text_atomically(folder.path("link"), "new");
  CHECK(std::filesystem::is_symlink(folder.path("link")));
  CHECK(read_bytes(folder.path("real")) == "new");
  std::filesystem::create_symlink("loop", folder.path("loop"));
  CHECK(io_test::message_of<IoError>([&] { AtomicFile file(folder.path("loop")); }) ==
        folder.path("loop") + ": cannot follow the link: Too many levels of symbolic links");
}

TEST_CASE("a signal handler can remove what is being written, and nothing that is finished") {
  const TempFolder folder;
  AtomicFile open(folder.path("open"));
  open.write("half");
  write_text_atomically(folder.path("done"), "whole");
  CHECK(folder.files() == 2);
  perft::remove_temporaries();
  CHECK(folder.files() == 1);
  CHECK(read_bytes(folder.path("done")) == "whole");
}

TEST_CASE("a short write is one error and leaves nothing behind") {
  const TempFolder folder;
  folder.write("out", "old");
  const std::string big(100'000, 'x');
  std::string message;
  {
    const FileSizeLimit limit(50'000);
    message = io_test::message_of<IoError>([&] { write_text_atomically(folder.path("out"), big); });
  }
  CHECK(message == folder.path("out") +
                       ": cannot write to the file: File too large; nothing was left behind, free space or raise the "
                       "limit and try again");
  CHECK(read_bytes(folder.path("out")) == "old");
  CHECK(folder.files() == 1);
}

TEST_CASE("targets that cannot be written are refused by name") {
  const TempFolder folder;
  const auto refusal = [](const std::string& path) {
    return io_test::message_of<IoError>([&] { AtomicFile file(path); });
  };
  CHECK(refusal(folder.path("no/out")) ==
        folder.path("no/out") + ": cannot create the file: No such file or directory; create its folder first");
  CHECK(refusal(folder.path()) == folder.path() + ": is a folder, expected the name of a file to write");
  CHECK(refusal("/dev/full") == "/dev/full: is a device or a pipe, expected the name of a regular file to write");
  CHECK(refusal("") == "the name of the output file is empty; give one");
  REQUIRE(::mkfifo(folder.path("pipe").c_str(), 0600) == 0);
  CHECK(refusal(folder.path("pipe")) ==
        folder.path("pipe") + ": is a device or a pipe, expected the name of a regular file to write");
  const std::string long_name(300, 'x');
  CHECK(refusal(folder.path(long_name)) ==
        folder.path(long_name) +
            ": cannot create the file: File name too long; check the folder's permissions and free space");
  CHECK(folder.files() == 1);  // the pipe
}
