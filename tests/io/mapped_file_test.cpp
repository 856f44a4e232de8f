#include "perft/io/mapped_file.hpp"

#include <sys/stat.h>  // mkfifo

#include <algorithm>         // std::equal
#include <catch2/catch.hpp>  // test cases
#include <memory>            // shared mappings
#include <string>            // texts

#include "io/temp_folder.hpp"

using io_test::TempFolder;
using perft::IoError;
using perft::map_file;

TEST_CASE("a mapped file shows the file's bytes and outlives other owners") {
  const TempFolder folder;
  std::string text(10'000, 'a');
  text[9'999] = 'z';
  std::shared_ptr<const perft::MappedFile> file = map_file(folder.write("f", text));
  const std::shared_ptr<const perft::MappedFile> second = file;
  file.reset();
  CHECK(second->path() == folder.path("f"));
  REQUIRE(second->size() == text.size());
  CHECK(std::equal(text.begin(), text.end(), second->bytes().begin(),
                   [](char c, std::byte b) { return static_cast<std::byte>(c) == b; }));
}

TEST_CASE("an empty file maps to no bytes") {
  const TempFolder folder;
  CHECK(map_file(folder.write("empty", ""))->bytes().empty());
}

TEST_CASE("what cannot be mapped is refused by name and reason") {
  const TempFolder folder;
  CHECK_THROWS_WITH(
      map_file(folder.path("none")),
      folder.path("none") + ": cannot open the file: No such file or directory; check the path and its permissions");
  CHECK_THROWS_AS(map_file(folder.path("none")), IoError);
  CHECK_THROWS_WITH(map_file(folder.path()), folder.path() + ": is a folder, expected a file; name a file in it");
  REQUIRE(::mkfifo(folder.path("pipe").c_str(), 0600) == 0);  // must not wait for a writer
  CHECK_THROWS_WITH(map_file(folder.path("pipe")),
                    folder.path("pipe") + ": is not a regular file and cannot be mapped; copy it to a file first");
}

TEST_CASE("text is read whole") {
  const TempFolder folder;
  for (const std::size_t size : {0U, 1U, 65'535U, 65'536U, 65'537U, 200'000U}) {
    std::string text(size, 'x');
    for (std::size_t i = 0; i < size; i += 7) text[i] = static_cast<char>('a' + i % 26);
    CHECK(perft::read_text_file(folder.write("t", text)) == text);
  }
  CHECK_THROWS_WITH(
      perft::read_text_file(folder.path("none")),
      folder.path("none") + ": cannot open the file: No such file or directory; check the path and its permissions");
  CHECK_THROWS_WITH(perft::read_text_file(folder.path()), folder.path() + ": cannot read the file: Is a directory");
}
