// Event files: the record format byte by byte, what a resumed run keeps, and a torn tail.

#include "perft/io/event_file.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <string>

#include "io/temp_folder.hpp"
#include "perft/core/error.hpp"

using perft::EventFile;

namespace {

std::string bytes_of(const std::string& path) {
  return perft::read_text_file(path);
}

}  // namespace

TEST_CASE("event_file: CRC-32C and its mask are those of TFRecord") {
  // RFC 3720, B.4: 32 zero bytes have the CRC 0x8A9136AA; masked: rotated right by 15, plus 0xA282EAD8.
  const std::uint32_t crc = 0x8A9136AAU;
  CHECK(perft::detail::masked_crc32c(std::string(32, '\0')) == ((crc >> 15) | (crc << 17)) + 0xA282EAD8U);
}

TEST_CASE("event_file: the file begins with its version, and an event is what tensorflow.Event says") {
  const io_test::TempFolder folder;
  const std::string path = folder.path("events.out.tfevents.perft");
  EventFile file(path, -1, 1.5);
  const std::string head = bytes_of(path);
  // length 24, CRC, wall_time 1.5, file_version "brain.Event:2", CRC
  CHECK(head.size() == 8 + 4 + 24 + 4);
  CHECK(head.substr(0, 8) == std::string("\x18\0\0\0\0\0\0\0", 8));
  CHECK(head.substr(12, 9) == std::string("\x09\0\0\0\0\0\0\xF8\x3F", 9));
  CHECK(head.substr(21, 15) ==
        "\x1A\x0D"
        "brain.Event:2");
  file.write(300, 2.0, {{"loss", 0.5}});
  const std::string event = bytes_of(path).substr(head.size() + 12);
  // wall_time 2.0, step 300 as a varint, summary { value { tag "loss", simple_value 0.5 } }
  CHECK(event.substr(0, 9) == std::string("\x09\0\0\0\0\0\0\0\x40", 9));
  CHECK(event.substr(9, 3) == "\x10\xAC\x02");
  CHECK(event.substr(12, 15) == std::string("\x2A\x0D\x0A\x0B\x0A\x04loss\x15\0\0\0\x3F", 15));
  CHECK(event.size() == 27 + 4);
}

TEST_CASE("event_file: a resumed run keeps whole records up to its step and nothing after") {
  const io_test::TempFolder folder;
  const std::string path = folder.path("events.out.tfevents.perft");
  std::size_t up_to_two = 0;
  {
    EventFile file(path, -1, 1.0);
    file.write(1, 2.0, {{"a", 1.0}});
    file.write(2, 3.0, {{"a", 2.0}, {"b", 3.0}});
    up_to_two = bytes_of(path).size();
    file.write(200, 4.0, {{"a", 4.0}});
  }
  const std::string whole = bytes_of(path);
  EventFile(path, 199, 9.0);
  CHECK(bytes_of(path) == whole.substr(0, up_to_two));
  std::ofstream(path, std::ios::binary) << whole.substr(0, whole.size() - 1);  // killed while writing
  EventFile(path, 1000, 9.0);
  CHECK(bytes_of(path) == whole.substr(0, up_to_two));
  std::string damaged = whole;
  damaged[whole.size() - 6] ^= 1;
  std::ofstream(path, std::ios::binary) << damaged;
  EventFile(path, 1000, 9.0);
  CHECK(bytes_of(path) == whole.substr(0, up_to_two));
  EventFile(path, -1, 1.0);
  CHECK(bytes_of(path) == whole.substr(0, 40));
}

TEST_CASE("event_file: a folder that is not there is one clear error") {
  CHECK_THROWS_WITH(EventFile("/nonexistent/events.out.tfevents.x", -1, 0.0),
                    "/nonexistent/events.out.tfevents.x: cannot open the file for writing: No such file or directory; "
                    "check the folder and its permissions");
}
