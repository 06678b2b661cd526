#include "harness/text/tokenizer/streaming_decoder.h"

#include <utility>

#include "harness/core/utf8.h"

namespace kvc {

std::string StreamingDecoder::feed(int64_t id) {
  if (id >= tokenizer_.vocab_size()) return "";  // a padding row of the embedding
  std::string bytes = tokenizer_.token_bytes(id);
  if (tokenizer_.is_special(id) || bytes.empty()) return "";
  if (std::exchange(at_start_, false) && tokenizer_.drops_first_space() && bytes.front() == ' ') bytes.erase(0, 1);
  pending_ += bytes;
  return take_complete();
}

std::string StreamingDecoder::take_complete() {
  std::string text;
  size_t offset = 0;
  while (offset < pending_.size()) {
    const size_t length = utf8_length(pending_, offset);
    if (length > 0) {
      text.append(pending_, offset, length);
      offset += length;
      continue;
    }
    const Utf8Start start = utf8_start(pending_, offset);
    if (offset + start.length == pending_.size() && start.can_continue) break;
    text += kReplacementCharacter;
    offset += start.length;
  }
  pending_.erase(0, offset);
  return text;
}

std::string StreamingDecoder::flush() {
  at_start_ = true;
  const bool cut_short = !std::exchange(pending_, {}).empty();
  return cut_short ? std::string(kReplacementCharacter) : "";
}

}  // namespace kvc
