#include "harness/text/tokenizer/bpe_tokenizer.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "harness/core/error.h"
#include "harness/core/utf8.h"
#include "harness/testing/checks.h"

namespace kvc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// 256 bytes (token id = byte), then what the merges give, then control tokens, then user-defined ones.
BpeVocabulary vocabulary(const std::vector<std::string>& merges, const std::vector<std::string>& control = {},
                         const std::vector<std::string>& user_defined = {}) {
  BpeVocabulary v;
  for (int b = 0; b < 256; ++b) v.tokens.push_back(spell_byte(static_cast<unsigned char>(b)));
  for (std::string merge : merges) {
    v.merges.push_back(parse_merge(merge, v.merges.size(), "merges", "test"));
    merge.erase(merge.find(' '), 1);
    if (std::find(v.tokens.begin(), v.tokens.end(), merge) == v.tokens.end()) v.tokens.push_back(merge);
  }
  v.kinds.assign(v.tokens.size(), TokenKind::kNormal);
  v.tokens.insert(v.tokens.end(), control.begin(), control.end());
  v.kinds.resize(v.tokens.size(), TokenKind::kControl);
  v.tokens.insert(v.tokens.end(), user_defined.begin(), user_defined.end());
  v.kinds.resize(v.tokens.size(), TokenKind::kUserDefined);
  v.split = split_recipe("gpt2", "test");
  v.where = "test";
  return v;
}

// One merge at a time: the lowest rank anywhere in the word, the leftmost of equals.
std::vector<std::string> merge_naively(std::vector<std::string> pieces, const std::vector<std::string>& merges) {
  for (;;) {
    size_t best_rank = merges.size(), best = 0;
    for (size_t i = 0; i + 1 < pieces.size(); ++i) {
      const auto rank = static_cast<size_t>(std::find(merges.begin(), merges.end(), pieces[i] + " " + pieces[i + 1]) -
                                            merges.begin());
      if (rank < best_rank) best_rank = rank, best = i;
    }
    if (best_rank == merges.size()) return pieces;
    pieces[best] += pieces[best + 1];
    pieces.erase(pieces.begin() + static_cast<int64_t>(best) + 1);
  }
}

TEST(BpeTokenizer, MergesLikeTheNaiveLoop) {
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::string> pieces = {"a", "b", "c"}, merges;
    for (int i = 0; i < 12; ++i) {
      const std::string merge = pieces[random() % pieces.size()] + " " + pieces[random() % pieces.size()];
      if (std::find(merges.begin(), merges.end(), merge) != merges.end()) continue;
      merges.push_back(merge);
      std::string piece = merge;
      piece.erase(piece.find(' '), 1);
      pieces.push_back(piece);
    }
    const BpeTokenizer tokenizer(vocabulary(merges));
    for (int word = 0; word < 40; ++word) {
      std::string text;
      std::vector<std::string> letters;
      for (size_t n = 1 + random() % 80; n > 0; --n) {
        text.push_back("abc"[random() % 3]);
        letters.emplace_back(1, text.back());
      }
      std::vector<std::string> got;
      for (const int64_t id : tokenizer.encode_text(text)) got.push_back(tokenizer.token_bytes(id));
      EXPECT_EQ(got, merge_naively(letters, merges)) << text;
    }
  }
}

TEST(BpeTokenizer, AnyBytesSurvive) {
  const BpeTokenizer gpt2(vocabulary({"a b", "\u00c3 \u00a9"}));  // the second merge is the two bytes of e acute
  std::mt19937 random(2);
  std::vector<std::string> texts = {"\xFF",
                                    "\x80",
                                    "a\xC3",
                                    "\xC3\xA9\xC3",
                                    "\xED\xA0\x80",
                                    "\xF4\x90\x80\x80",
                                    "\xC0\xAF",
                                    "\xF8\x88\x80\x80\x80",
                                    std::string("\0\0", 2),
                                    "ab\xE2\x82",
                                    " \xFF 1\xFE\xFE\n"};
  for (int i = 0; i < 500; ++i) {
    std::string text;
    for (size_t n = random() % 40; n > 0; --n)
      text.push_back(static_cast<char>(random() % (i % 2 == 0 ? 256 : 4) + (i % 2 == 0 ? 0 : 0xBF)));
    texts.push_back(text);
  }
  for (const std::string name : {"gpt2", "smollm", "llama-bpe", "qwen2"}) {
    BpeVocabulary v = vocabulary({"a b", "\u00c3 \u00a9"});
    v.split = split_recipe(name, "test");
    const BpeTokenizer tokenizer(v);
    for (const std::string& text : texts) {
      std::vector<int64_t> ends;
      const std::vector<int64_t> ids = tokenizer.encode({Segment{text, false}}, &ends);
      EXPECT_EQ(tokenizer.decode(ids), text);
      int64_t end = 0;
      for (size_t i = 0; i < ids.size(); ++i) {
        end += static_cast<int64_t>(tokenizer.token_bytes(ids[i]).size());
        ASSERT_EQ(ends[i], end);
      }
    }
  }
  EXPECT_THAT(gpt2.encode_text("\xC3\xA9\xC3"), ElementsAre(257, 0xC3));
}

TEST(BpeTokenizer, LeavesOutBytesWithoutTokens) {
  BpeVocabulary v = vocabulary({"a b"});
  v.tokens[4] = "other";
  const BpeTokenizer tokenizer(v);
  EXPECT_THAT(tokenizer.lost_bytes(), ElementsAre(4));
  std::vector<int64_t> ends;
  EXPECT_THAT(tokenizer.encode({{"c\x04 d\x04", false}}, &ends), ElementsAre('c', ' ', 'd'));
  EXPECT_THAT(ends, ElementsAre(1, 3, 4));
  EXPECT_THAT(tokenizer.encode_text("\x04"), IsEmpty());
}

TEST(BpeTokenizer, UnknownTokensStandForBytesWithoutTokens) {
  BpeVocabulary v = vocabulary({"a b"}, {"<unk>"});
  v.tokens[4] = "other";
  v.unknown = 257;
  std::vector<int64_t> ends;
  EXPECT_THAT(BpeTokenizer(v).encode({{"ab\x04\x04 ab\x04", false}}, &ends), ElementsAre(256, 257, 257, ' ', 256, 257));
  EXPECT_THAT(ends, ElementsAre(2, 3, 4, 5, 7, 8));
  v.fuse_unknown = true;
  EXPECT_THAT(BpeTokenizer(v).encode({{"\x04\x04\x04", false}}, &ends), ElementsAre(257));
  EXPECT_THAT(ends, ElementsAre(3));
  v.unknown = 999;
  EXPECT_THROW(BpeTokenizer{v}, Error);
}

// --- segments --------------------------------------------------------------------------------------------------------

TEST(BpeTokenizer, HearsSpecialTokensInControlOnly) {
  const BpeTokenizer tokenizer(vocabulary({"a b"}, {"<s>", "<s>>", "<e>"}, {"<think>"}));
  const int64_t s = 257, longer = 258, e = 259, think = 260;
  EXPECT_THAT(tokenizer.encode({{"<s>ab<e>", true}}), ElementsAre(s, 256, e));
  EXPECT_THAT(tokenizer.encode({{"<s>", false}}), ElementsAre('<', 's', '>'));
  EXPECT_THAT(tokenizer.encode({{"<s>>", true}}), ElementsAre(longer));  // the longest that fits
  EXPECT_THAT(tokenizer.encode({{"<s><s>", true}}), ElementsAre(s, s));
  EXPECT_THAT(tokenizer.encode({{"<think>", true}, {"<think>", false}}),
              ElementsAre(think, '<', 't', 'h', 'i', 'n', 'k', '>'));
  // Not even across a border: half of the spelling is data.
  EXPECT_THAT(tokenizer.encode({{"<s", true}, {">", false}}), ElementsAre('<', 's', '>'));
  EXPECT_THAT(tokenizer.encode({{"<", false}, {"s>", true}}), ElementsAre('<', 's', '>'));
  EXPECT_TRUE(tokenizer.is_special(s));
  EXPECT_FALSE(tokenizer.is_special(think));
  EXPECT_FALSE(tokenizer.is_special(-1));
  EXPECT_EQ(tokenizer.decode({s, 256, think, e}), "ab<think>");
}

TEST(BpeTokenizer, ReadsNeighboursAsOneText) {
  const BpeTokenizer tokenizer(vocabulary({"a b"}, {"<s>"}));
  std::vector<int64_t> ends;
  EXPECT_THAT(tokenizer.encode({{"<s>xa", true}, {"", false}, {"b", false}, {"a", true}, {"<s>b", true}}, &ends),
              ElementsAre(257, 'x', 256, 'a', 257, 'b'));
  EXPECT_THAT(ends, ElementsAre(3, 4, 6, 7, 10, 11));
  EXPECT_THAT(tokenizer.encode({}, &ends), IsEmpty());
  EXPECT_THAT(ends, IsEmpty());
}

// Llama 3 takes a whole word that is a token; a control token is no word, however it is spelled.
TEST(BpeTokenizer, WholeWordsAreNeverControl) {
  BpeVocabulary v = vocabulary({"a b", "b c"}, {"STOP"});
  v.split = split_recipe("llama-bpe", "test");
  v.tokens.push_back("abc");  // no merge leads there
  v.kinds.push_back(TokenKind::kNormal);
  const BpeTokenizer llama(v);
  EXPECT_THAT(llama.encode_text("abc"), ElementsAre(259));
  EXPECT_THAT(llama.encode_text("STOP"), ElementsAre('S', 'T', 'O', 'P'));
  v.split = split_recipe("qwen2", "test");
  EXPECT_THAT(BpeTokenizer(v).encode_text("abc"), ElementsAre(256, 'c'));
}

// --- cost ------------------------------------------------------------------------------------------------------------

double seconds_of(const BpeTokenizer& tokenizer, const std::string& text) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(tokenizer.decode(tokenizer.encode_text(text)), text);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A quadratic loop over 200,000 symbols takes minutes; a sort takes tenths of a second.
TEST(BpeTokenizer, LongWordsAreNotQuadratic) {
  for (const std::string name : {"smollm", "gpt2", "llama-bpe", "qwen2"}) {
    BpeVocabulary v = vocabulary({"a a", "aa aa", "aaaa aaaa", "\u0120 \u0120", "\u00ff \u00ff"});
    v.split = split_recipe(name, "test");
    const BpeTokenizer tokenizer(v);
    const size_t n = 200'000;
    EXPECT_LT(seconds_of(tokenizer, std::string(n, 'a')), 5) << name;
    EXPECT_LT(seconds_of(tokenizer, std::string(n, ' ') + "x"), 5) << name;
    EXPECT_LT(seconds_of(tokenizer, std::string(n, '\n') + "x"), 5) << name;
    EXPECT_LT(seconds_of(tokenizer, std::string(n, '1')), 5) << name;
    EXPECT_LT(seconds_of(tokenizer, std::string(n, '\xFF')), 5) << name;
    EXPECT_LT(seconds_of(tokenizer, std::string(n, '\'')), 5) << name;
  }
  const BpeTokenizer tokenizer(vocabulary({"a a", "aa aa", "aaaa aaaa"}));
  EXPECT_EQ(tokenizer.encode_text(std::string(100'000, 'a')).size(), 12'500U);
}

TEST(BpeTokenizer, ManyThreadsAgree) {
  const BpeTokenizer tokenizer(vocabulary({"a b", "ab c", "\u0120 a"}));
  std::string text;
  for (int i = 0; i < 3000; ++i) text += fmt::format(" abc{} a{}b", i % 7, i);
  const std::vector<int64_t> expected = tokenizer.encode_text(text);
  std::vector<std::vector<int64_t>> got(4);
  std::vector<std::thread> threads;
  for (auto& ids : got) threads.emplace_back([&] { ids = tokenizer.encode_text(text); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& ids : got) EXPECT_EQ(ids, expected);
}

// More words than the cache holds: it starts anew, and nothing else changes.
TEST(BpeTokenizer, TheCacheMayOverflow) {
  const BpeTokenizer tokenizer(vocabulary({"a b", "ab c"}));
  std::string text;
  for (int i = 0; i < 70'000; ++i) {
    text.push_back(' ');
    for (int n = i; n > 0; n /= 26) text.push_back(static_cast<char>('a' + n % 26));
  }
  const std::vector<int64_t> first = tokenizer.encode_text(text);
  EXPECT_EQ(tokenizer.decode(first), text);
  EXPECT_EQ(tokenizer.encode_text(text), first);
}

// --- errors ----------------------------------------------------------------------------------------------------------

TEST(BpeTokenizer, RefusesForeignIds) {
  const BpeTokenizer tokenizer(vocabulary({"a b"}));
  for (const int64_t id : {int64_t{-1}, int64_t{257}, int64_t{1} << 40}) {
    try {
      (void)tokenizer.token_bytes(id);
      FAIL() << id;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kData);
    } catch (...) {
      FAIL() << "another exception";
    }
  }
}

TEST(BpeTokenizer, PaddingRowsOfTheEmbeddingHaveNoText) {
  const BpeTokenizer tokenizer(vocabulary({"a b"}));
  const std::vector<int64_t> ids = tokenizer.encode_text("ab");
  EXPECT_EQ(tokenizer.decode({257, ids.at(0), 300}), "ab");
  EXPECT_THROW((void)tokenizer.decode({-1}), Error);
}

TEST(BpeTokenizer, NamesTheBadId) {
  BpeVocabulary v = vocabulary({"a b"});
  v.end_ids = {0, 257};
  EXPECT_THAT(error_of([&] { const BpeTokenizer tokenizer(v); }),
              HasSubstr("end token id 257 is outside the vocabulary of 257 tokens"));
}

TEST(Utf8, AgreesWithTheDefinition) {
  // Every code point encodes to a well-formed sequence; surrogates and everything shorter are refused.
  int64_t well_formed = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    std::string text;
    if (c < 0x80)
      text = {static_cast<char>(c)};
    else if (c < 0x800)
      text = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
    else if (c < 0x10000)
      text = {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
              static_cast<char>(0x80 | (c & 63))};
    else
      text = {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
              static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
    const bool surrogate = c >= 0xD800 && c < 0xE000;
    well_formed += utf8_length(text, 0) == text.size() ? 1 : 0;
    ASSERT_EQ(utf8_length(text, 0), surrogate ? 0 : text.size()) << static_cast<std::uint32_t>(c);
    if (text.size() > 1) {
      ASSERT_EQ(utf8_length(text.substr(0, text.size() - 1), 0), 0U);
    }
  }
  EXPECT_EQ(well_formed, 0x110000 - 0x800);
  // Of all four-byte strings with these leads, exactly the code points above U+FFFF are well-formed.
  int64_t count = 0;
  for (int lead = 0xF0; lead < 0x100; ++lead) {
    for (int second = 0; second < 256; ++second) {
      count +=
          utf8_length(std::string{static_cast<char>(lead), static_cast<char>(second), '\x80', '\x80'}, 0) == 4 ? 1 : 0;
    }
  }
  EXPECT_EQ(count, 0x100000 / 4096);
}

TEST(Utf8, TheByteAlphabetGoesBothWays) {
  for (int b = 0; b < 256; ++b) {
    EXPECT_EQ(bytes_of_spelling(spell_byte(static_cast<unsigned char>(b))), std::string(1, static_cast<char>(b)));
  }
  EXPECT_EQ(spell_byte(' '), "\u0120");
  EXPECT_EQ(bytes_of_spelling(" "), std::nullopt);
  EXPECT_EQ(bytes_of_spelling("\u4f60"), std::nullopt);
  EXPECT_EQ(bytes_of_spelling("a\xFF"), std::nullopt);
}

}  // namespace
}  // namespace kvc
