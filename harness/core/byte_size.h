// Sizes in bytes as people write them: "64 MiB", "1.5 GB", "800 kB", "4096 B".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kvc {

// Rounded down to whole bytes; nothing where the text does not end in a unit of bytes or has no number before it.
std::optional<int64_t> parse_bytes(std::string_view text);

// In the largest unit of 1024s in which the number is whole: what parse_bytes() reads back.
std::string bytes_as_text(int64_t bytes);

}  // namespace kvc
