// Ids to text one by one, for output that appears while a model generates. A character whose bytes are spread over
// several tokens appears when its last byte has come.
#pragma once

#include <cstdint>
#include <string>

#include "harness/text/tokenizer/tokenizer.h"

namespace kvc {

// All that feed() and flush() return, one after the other, is valid UTF-8 and equals Tokenizer::decode() of the ids
// with bytes that are no UTF-8 replaced by U+FFFD, one for each longest start of a character (Unicode 15, section 3.9).
class StreamingDecoder {
 public:
  // `tokenizer` must outlive the decoder.
  explicit StreamingDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // The text that has become complete with this id; often empty. Special tokens give nothing. Throws Error(kData) for
  // an id outside the vocabulary.
  std::string feed(int64_t id);
  // What is left at the end: U+FFFD for a character that was never completed. The decoder is then as new.
  std::string flush();

 private:
  std::string take_complete();

  const Tokenizer& tokenizer_;
  std::string pending_;  // bytes not yet returned
  bool at_start_ = true;
};

}  // namespace kvc
