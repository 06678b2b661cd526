#include "harness/text/tokenizer/nfc.h"

#include <gtest/gtest.h>

#include <chrono>

namespace kvc {
namespace {

struct Normal {
  std::string text;
  std::vector<NfcChange> changes;
  bool changed = false;
};

Normal normal(const std::string& text, const std::vector<size_t>& borders = {}) {
  Normal result;
  result.changed = normalize_nfc(text, borders, result.text, result.changes);
  if (!result.changed) result.text = text;
  return result;
}

TEST(Nfc, HandMadeCases) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", ""},
      {"plain", "plain"},
      {"e\u0301", "\u00e9"},
      {"\u00e9", "\u00e9"},
      {"ae\u0301b", "a\u00e9b"},
      {"A\u030a \u212b", "\u00c5 \u00c5"},  // the sign for angstrom is the letter
      {"q\u0307\u0323", "q\u0323\u0307"},   // marks in the order of their classes
      {"\u1e9b\u0323", "\u1e9b\u0323"},     // nothing to join
      {"\u0344", "\u0308\u0301"},           // taken apart, never put together
      {"\u0958", "\u0915\u093c"},           // excluded from composition
      {"\u1112\u1161\u11ab", "\ud55c"},     // Hangul
      {"\uac00\u11a8", "\uac01"},
      {"\ud55c\u11ab", "\ud55c\u11ab"},        // the syllable has its last consonant
      {"\U0001d15e", "\U0001d157\U0001d165"},  // a note
      {"\u0301e", "\u0301e"},                  // a mark with nothing before it
      {"e\u0301\u0301", "\u00e9\u0301"},
      {"e\u200d\u0301", "e\u200d\u0301"},  // a joiner is no mark
      {"\xff"
       "e\u0301\xc3",
       "\xff\u00e9\xc3"},    // bytes that are no UTF-8 stay
      {"\uf900", "\u8c48"},  // a compatibility ideograph
  };
  for (const auto& [text, expected] : cases) {
    EXPECT_EQ(normal(text).text, expected);
    EXPECT_EQ(normal(text).changed, text != expected) << text;
    EXPECT_EQ(normal(expected).text, expected);
  }
}

TEST(Nfc, NothingJoinsOverABorder) {
  EXPECT_EQ(normal("xe\u0301", {2}).text, "xe\u0301");
  EXPECT_FALSE(normal("xe\u0301", {2}).changed);
  EXPECT_EQ(normal("xe\u0301", {1}).text, "x\u00e9");
  EXPECT_EQ(normal("e\u0301|e\u0301", {3, 5}).text, "\u00e9|e\u0301");
}

TEST(Nfc, OffsetsLeadBack) {
  const std::string text = "ae\u0301b\u1112\u1161\u11abc";  // 1 + 3 + 1 + 9 + 1 bytes
  const Normal result = normal(text);
  ASSERT_EQ(result.text,
            "a\u00e9"
            "b\ud55c"
            "c");  // 1 + 2 + 1 + 3 + 1
  const std::vector<size_t> expected = {0, 1, 4, 4, 5, 14, 14, 14, 15};
  NfcOffsets offsets(result.changes);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(offsets.original(i), expected[i]) << i;
}

TEST(Nfc, LongRunsOfMarksAreNotQuadratic) {
  std::string text = "a";
  for (int i = 0; i < 200'000; ++i) text += i % 2 == 0 ? "\u0323" : "\u0301";
  const auto start = std::chrono::steady_clock::now();
  const Normal result = normal(text);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  EXPECT_TRUE(result.text.starts_with("\u1ea1\u0323"));
}

}  // namespace
}  // namespace kvc
