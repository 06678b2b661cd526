// Where a document is cut when it is compacted piece by piece.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/api/context.h"

namespace kvc {

// Article tokens [first, first + length), counted from the article's first token.
struct TextChunk {
  int64_t first = 0;
  int64_t length = 0;
  bool operator==(const TextChunk&) const = default;
};

// Chunks of at most `size` tokens that tile the article: no gap, no overlap, none empty. With a marker a chunk begins
// with the token in which each of its occurrences begins; text before the first is a chunk of its own. What is longer
// than `size` is cut into pieces of equal length, to one token. Throws Error(kData) when the marker does not occur.
std::vector<TextChunk> cut_into_chunks(const Tokenizer& tokenizer, const Context& context, const std::string& marker,
                                       int64_t size);

}  // namespace kvc
