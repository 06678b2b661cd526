// Names and snippets out of files made fit for a message.
#pragma once

#include <string>
#include <string_view>

namespace kvc {

// Valid UTF-8: control bytes and bytes that are no UTF-8 are written as \x1b;
// cut after about 80 bytes, with "...".
std::string printable(std::string_view text);

// What a JSON reader's exception tells, without the names of its parts: "line 2, column 20: unexpected ','; expected
// string literal".
std::string json_fault(std::string_view message);

}  // namespace kvc
