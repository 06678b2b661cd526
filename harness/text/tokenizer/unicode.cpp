#include "harness/text/tokenizer/unicode.h"

#include <algorithm>
#include <bitset>
#include <iterator>

namespace kvc {
namespace {

enum class Category : std::uint8_t { kLu, kLl, kLm, kLo, kMn, kMc, kNd, kNo, kPd, kPo, kSm, kSo, kCf };

struct PointRange {
  char32_t first, last;
};
struct NewerRange {
  char32_t first, last;
  Category category;
};

#include "harness/text/tokenizer/unicode_ranges.inc"

// Characters of three and of four bytes; all older than Unicode 14.
struct Stand {
  std::string_view three, four;
};
constexpr Stand kStand[] = {
    {"\u1E9E", "\U00010400"},  // Lu
    {"\u1E9F", "\U00010428"},  // Ll
    {"\u3005", "\U00016B40"},  // Lm
    {"\u3042", "\U00020000"},  // Lo
    {"\u20D0", "\U00010A01"},  // Mn
    {"\u0903", "\U00011000"},  // Mc
    {"\u0966", "\U000104A0"},  // Nd
    {"\u2460", "\U00010107"},  // No
    {"\u2010", "\U00010EAD"},  // Pd
    {"\u2020", "\U00010100"},  // Po
    {"\u2200", "\U0001D6C1"},  // Sm
    {"\u2300", "\U0001F600"},  // So
    {"\u200B", "\U000110BD"},  // Cf
};

template <class Range, size_t N>
const Range* find_range(const Range (&ranges)[N], char32_t c) {
  const Range* after = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                                        [](char32_t point, const Range& range) { return point < range.first; });
  if (after == std::begin(ranges)) return nullptr;
  const Range* range = after - 1;
  return c <= range->last ? range : nullptr;
}

// Which blocks of 64 code points hold one of the ranges: nearly all text is told apart by one bit.
constexpr size_t kBlocks = 0x110000 / 64;
template <class Range, size_t N>
std::bitset<kBlocks> blocks_of(const Range (&ranges)[N]) {
  std::bitset<kBlocks> blocks;
  for (const Range& range : ranges) {
    for (char32_t block = range.first / 64; block <= range.last / 64; ++block) blocks.set(block);
  }
  return blocks;
}

}  // namespace

bool is_white_space(char32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string_view older_equivalent(char32_t c) {
  static const std::bitset<kBlocks> blocks = blocks_of(kNewer);
  if (!blocks[c / 64]) return {};
  const NewerRange* range = find_range(kNewer, c);
  if (range == nullptr) return {};
  const Stand& stand = kStand[static_cast<size_t>(range->category)];
  return c < 0x10000 ? stand.three : stand.four;
}

bool is_inert_in_nfc(char32_t c) {
  static const std::bitset<kBlocks> blocks = blocks_of(kInert);
  return blocks[c / 64] && find_range(kInert, c) != nullptr;
}

}  // namespace kvc
