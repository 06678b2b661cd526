// JSON for a page: rounded numbers, nothing that could end a <script> element.
#pragma once

#include <string>

#include "harness/core/config_text.h"

namespace kvc {

// Appends `value` without spaces. Floating-point numbers have 6 significant digits, those that are not finite become
// null, "<" is written \u003c, and bytes that are no UTF-8 become U+FFFD.
void append_compact_json(const Json& value, std::string& text);
void append_compact_string(std::string_view value, std::string& text);

}  // namespace kvc
