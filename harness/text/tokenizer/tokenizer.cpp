#include "harness/text/tokenizer/tokenizer.h"

namespace kvc {

std::string Tokenizer::decode(const std::vector<int64_t>& ids) const {
  std::string text;
  for (const int64_t id : ids) {
    if (id < vocab_size() && !is_special(id)) text += token_bytes(id);  // beyond: padding rows of the embedding
  }
  if (drops_first_space() && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

}  // namespace kvc
