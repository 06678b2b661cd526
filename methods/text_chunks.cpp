#include "methods/text_chunks.h"

#include <fmt/format.h>

#include <algorithm>

#include "harness/core/error.h"

namespace kvc {
namespace {

// First tokens of the pieces that begin at a marker, ascending.
std::vector<int64_t> marked_tokens(const Tokenizer& tokenizer, const std::vector<int64_t>& tokens,
                                   const std::string& marker) {
  std::string text;
  std::vector<size_t> ends;  // of each token in the text
  for (const int64_t token : tokens) {
    text += tokenizer.token_bytes(token);
    ends.push_back(text.size());
  }
  std::vector<int64_t> begins;
  for (size_t at = text.find(marker); at != std::string::npos; at = text.find(marker, at + marker.size())) {
    const auto token = std::upper_bound(ends.begin(), ends.end(), at) - ends.begin();
    if (begins.empty() || begins.back() != token) begins.push_back(token);
  }
  return begins;
}

}  // namespace

std::vector<TextChunk> cut_into_chunks(const Tokenizer& tokenizer, const Context& context, const std::string& marker,
                                       int64_t size) {
  const std::vector<int64_t> tokens = context.article_tokens();
  std::vector<int64_t> begins = {0};
  if (!marker.empty()) {
    const std::vector<int64_t> marked = marked_tokens(tokenizer, tokens, marker);
    if (marked.empty()) {
      throw Error(ErrorKind::kData, fmt::format("the marker '{}' does not occur in the document", marker), "chunked",
                  "name a text that does, or leave 'marker' out for chunks of equal size");
    }
    begins.insert(begins.end(), marked.begin(), marked.end());
    begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
  }
  begins.push_back(static_cast<int64_t>(tokens.size()));
  std::vector<TextChunk> chunks;
  for (size_t i = 0; i + 1 < begins.size(); ++i) {
    const int64_t length = begins[i + 1] - begins[i];
    const int64_t n_pieces = (length + size - 1) / size;
    for (int64_t p = 0; p < n_pieces; ++p) {
      const int64_t from = length * p / n_pieces;
      chunks.push_back({begins[i] + from, length * (p + 1) / n_pieces - from});
    }
  }
  return chunks;
}

}  // namespace kvc
