// A whole file in memory, or what standard input gives; texts in several encodings; names of files.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace kvc {

// The bytes of the file; "-" reads standard input. Throws Error(kData): no such file, a folder, unreadable, or more
// than `max_bytes`.
std::string read_text_file(const std::string& path, std::size_t max_bytes = std::size_t{1} << 30U);

// How the bytes of a text are read. "bytes" leaves them as they are.
const std::vector<std::string>& text_encodings();  // utf-8, utf-16, latin-1, bytes

// A text given by a user, as UTF-8 without byte order mark. `encoding` is one of text_encodings(); UTF-16 without a
// byte order mark is little-endian unless its zero bytes say otherwise. Throws Error(kUsage) for another encoding,
// Error(kData) as read_text_file() does and for bytes that are no such text or hold U+0000: the message names their
// offset and what the file seems to be.
std::string read_document(const std::string& path, const std::string& encoding,
                          std::size_t max_bytes = std::size_t{1} << 30U);
// A data file in UTF-8, where a user cannot name an encoding: as read_document(), with advice that fits.
std::string read_utf8_file(const std::string& path, std::size_t max_bytes = std::size_t{1} << 30U);
// read_document() of bytes in memory; `where` is for messages.
std::string decode_text(std::string bytes, const std::string& encoding, const std::string& where);

// One name for a file or folder however its path is written: relative where it lies under the working directory, else
// `path` itself.
std::string short_path(const std::string& path);

// The last part of a path, also of one that ends in a slash: "models/qwen/" gives "qwen".
std::string last_name(const std::string& path);

}  // namespace kvc
