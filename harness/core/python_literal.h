// Python's way to write lists, dictionaries, texts and numbers, as repr() does: data sets and models write so where
// JSON was meant.
#pragma once

#include <optional>
#include <string_view>

#include "harness/core/config_text.h"

namespace kvc {

// The literal at the beginning of `text` (leading blanks are skipped) as JSON; `used` is where it ends. A tuple is read
// as a list, None as null. Nothing where there is none, or one nested deeper than 32 levels. Keys must be texts.
std::optional<Json> read_python_literal(std::string_view text, size_t& used);

}  // namespace kvc
