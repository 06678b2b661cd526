// Spaces inside the pieces of a vocabulary, as written or as U+2581.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "harness/core/utf8.h"

namespace kvc {

// Bytes of the space at text[offset], as written or as U+2581; 0: none there.
inline size_t space_at(std::string_view text, size_t offset) {
  if (text[offset] == ' ') return 1;
  return text.substr(offset).starts_with(kSpaceMark) ? kSpaceMark.size() : 0;
}

// The piece with plain spaces for U+2581.
inline std::string with_spaces(std::string_view piece) {
  std::string text;
  for (size_t i = 0; i < piece.size();) {
    const size_t space = space_at(piece, i);
    text.push_back(space > 0 ? ' ' : piece[i]);
    i += std::max<size_t>(space, 1);
  }
  return text;
}

// Whether a U+2581 begins in the middle of the piece.
inline bool holds_inner_space(std::string_view piece) {
  size_t start = 0;
  while (piece.substr(start).starts_with(kSpaceMark)) start += kSpaceMark.size();
  return piece.find(kSpaceMark, start) != std::string_view::npos;
}

}  // namespace kvc
