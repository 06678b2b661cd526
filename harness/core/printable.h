// Escapes file content for messages.
#pragma once

#include <string>
#include <string_view>

namespace kvc {

// Valid UTF-8: control characters, those that turn the direction of writing, and bytes that are not UTF-8 are written
// byte by byte as \x1b; cut after about 80 bytes, with "...".
std::string printable(std::string_view text);

// The same of a longer text: line feeds stay, tabs become spaces, a carriage return before a line feed is left out; cut
// after about `most` bytes.
std::string printable_lines(std::string_view text, size_t most);

// What a JSON reader's exception tells, without the names of its parts: "line 2, column 20: unexpected ','; expected
// string literal".
std::string json_fault(std::string_view message);

}  // namespace kvc
