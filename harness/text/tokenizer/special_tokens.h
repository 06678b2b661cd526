// Which special and added tokens a prompt holds: the border between control and data, the same for every kind of
// tokenizer.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/text/tokenizer/tokenizer.h"

namespace kvc {

struct SpecialToken {
  std::string spelling;
  int64_t id = 0;
  bool strip_left = false, strip_right = false;  // takes the white space on that side with it
  bool in_data = false;                          // matched in data too: see is_plain_token()
};

// Whether an added token that is not special is matched in data as well: a letter, a run of blanks, a word of a trade.
// `tokenizers` (split_special_tokens), sentencepiece and llama.cpp (parse_special off) match every one of them. Here
// those that are spelled as markup, "<think>" or "[INST]", are not: a document cannot open a thought or a turn.
bool is_plain_token(std::string_view spelling);

// Text between special tokens, as one string.
struct TextRun {
  std::string_view text;
  int64_t base = 0;             // where it starts in the concatenated segments
  std::vector<size_t> borders;  // offsets in `text` where data and control meet, ascending
};

class SpecialTokens {
 public:
  SpecialTokens() = default;
  // No spelling may be empty.
  explicit SpecialTokens(std::vector<SpecialToken> tokens);

  // Walks through the segments in order: runs of text (never empty) and special tokens with the offset at which they
  // end. Spellings count in control segments, those of `in_data` tokens in data too, each wholly within one segment;
  // the longest that fits.
  void read(const std::vector<Segment>& segments, const std::function<void(const TextRun&)>& on_text,
            const std::function<void(int64_t id, int64_t end)>& on_special) const;

 private:
  const SpecialToken* at(std::string_view text, size_t offset, bool control) const;

  std::array<std::vector<SpecialToken>, 256> by_first_byte_;  // longest first
  bool any_in_data_ = false;
};

}  // namespace kvc
