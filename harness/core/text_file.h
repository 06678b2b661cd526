// A whole file in memory, or what stands on standard input; names of files.
#pragma once

#include <cstddef>
#include <string>

namespace kvc {

// The bytes of the file; "-" reads standard input. Throws Error(kData): no such file, a folder, unreadable, or more
// than `max_bytes`.
std::string read_text_file(const std::string& path, std::size_t max_bytes = std::size_t{1} << 30U);

// The last part of a path, also of one that ends in a slash: "models/qwen/" gives "qwen".
std::string last_name(const std::string& path);

}  // namespace kvc
