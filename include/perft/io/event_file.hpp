#pragma once
// TensorBoard event files: scalars by step, appended while a run goes on, readable by the tensorboard package.

#include <array>        // the CRC's table
#include <cstdint>      // fixed-width integers
#include <cstring>      // std::memcpy
#include <string>       // records
#include <string_view>  // names
#include <utility>      // pairs
#include <vector>       // scalars

#include "perft/io/append_file.hpp"
#include "perft/io/mapped_file.hpp"  // read_text_file

namespace perft::inline PERFT_ABI {

namespace detail {

/// CRC-32C (Castagnoli), rotated and offset as TFRecord stores it.
inline std::uint32_t masked_crc32c(std::string_view bytes) {
  static const std::array<std::uint32_t, 256> table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) {
        crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0U);
      }
      t[i] = crc;
    }
    return t;
  }();
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const char c : bytes) {
    crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(c)) & 0xFFU];
  }
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U;
}

template <class T>
void append_little_endian(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

inline void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) {
    out.push_back(static_cast<char>(value | 0x80));
  }
  out.push_back(static_cast<char>(value));
}

/// A protobuf field of wire type 2: a string or a message.
inline void append_bytes_field(std::string& out, std::uint64_t field, std::string_view bytes) {
  append_varint(out, field << 3 | 2);
  append_varint(out, bytes.size());
  out.append(bytes);
}

/// A TFRecord: length, its CRC, the bytes, theirs.
inline std::string record(std::string_view event) {
  std::string out;
  append_little_endian(out, static_cast<std::uint64_t>(event.size()));
  append_little_endian(out, masked_crc32c(out));
  out.append(event);
  append_little_endian(out, masked_crc32c(event));
  return out;
}

/// tensorflow.Event with wall_time (1, double) and step (2, varint).
inline std::string event_head(double wall_time, std::int64_t step) {
  std::string event;
  event.push_back(0x09);
  append_little_endian(event, wall_time);
  if (step != 0) {
    event.push_back(0x10);
    append_varint(event, static_cast<std::uint64_t>(step));
  }
  return event;
}

/// The step of an event that this header wrote.
inline std::int64_t event_step(std::string_view event) {
  std::uint64_t step = 0;
  if (event.size() > 9 && event[9] == 0x10) {
    for (std::size_t i = 10, shift = 0; i < event.size() && shift < 64; ++i, shift += 7) {
      step |= static_cast<std::uint64_t>(event[i] & 0x7F) << shift;
      if ((event[i] & 0x80) == 0) {
        break;
      }
    }
  }
  return static_cast<std::int64_t>(step);
}

/// How many bytes of `file` are whole records of steps up to `last`, from the start.
inline std::size_t bytes_up_to(std::string_view file, std::int64_t last) {
  std::size_t at = 0;
  for (;;) {
    std::uint64_t length = 0;
    if (file.size() - at < 16) {
      return at;
    }
    std::memcpy(&length, file.data() + at, 8);
    if (length > file.size() - at - 16) {
      return at;
    }
    const std::string_view event = file.substr(at + 12, static_cast<std::size_t>(length));
    if (record(event) != file.substr(at, 16 + event.size()) || event_step(event) > last) {
      return at;
    }
    at += 16 + event.size();
  }
}

}  // namespace detail

/// One named number of an event.
using EventScalar = std::pair<std::string, double>;

/// Appends events to a file whose name must hold "tfevents". One write(2) per event.
class EventFile {
 public:
  /// Keeps what an earlier run wrote up to `last_step` (−1: nothing) and cuts off the rest, a torn record included.
  /// Throws IoError if the file cannot be read or opened.
  EventFile(const std::string& path, std::int64_t last_step, double wall_time) : file_(path) {
    const std::size_t kept = last_step < 0 ? 0 : detail::bytes_up_to(read_text_file(path), last_step);
    file_.truncate(kept);
    if (kept == 0) {
      std::string event = detail::event_head(wall_time, 0);
      detail::append_bytes_field(event, 3, "brain.Event:2");
      file_.append(detail::record(event));
    }
  }

  /// `wall_time` in seconds since 1970. Numbers are stored in float, as TensorBoard shows them. Throws IoError if the
  /// event cannot be written.
  void write(std::int64_t step, double wall_time, const std::vector<EventScalar>& scalars) {
    std::string summary;
    for (const auto& [tag, number] : scalars) {
      std::string value;
      detail::append_bytes_field(value, 1, tag);
      value.push_back(0x15);  // simple_value (2), float
      detail::append_little_endian(value, static_cast<float>(number));
      detail::append_bytes_field(summary, 1, value);
    }
    std::string event = detail::event_head(wall_time, step);
    detail::append_bytes_field(event, 5, summary);
    file_.append(detail::record(event));
  }

  /// Makes what was written durable. Throws IoError.
  void sync() { file_.sync(); }

 private:
  AppendFile file_;
};

}  // namespace perft::inline PERFT_ABI
