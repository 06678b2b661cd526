// A number and what it counts, in English: for messages and pages.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvc {

// "1 document", "3 documents", "0 entries", "2 batches"; of a phrase its last word: "2 more tables".
std::string count(int64_t n, std::string_view noun);

// The noun alone: "document" for 1, "documents" for 3.
std::string noun_of(int64_t n, std::string_view noun);

}  // namespace kvc
