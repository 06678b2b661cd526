// Which special tokens a prompt holds: the border between control and data, the same for every kind of tokenizer.
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
};

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
  // end. Spellings count in control segments only, each wholly within one; the longest that fits.
  void read(const std::vector<Segment>& segments, const std::function<void(const TextRun&)>& on_text,
            const std::function<void(int64_t id, int64_t end)>& on_special) const;

 private:
  const SpecialToken* at(std::string_view text, size_t offset) const;

  std::array<std::vector<SpecialToken>, 256> by_first_byte_;  // longest first
};

}  // namespace kvc
