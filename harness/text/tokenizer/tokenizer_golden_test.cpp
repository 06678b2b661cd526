// Every construction of tokenizer against ids made by the public packages (scripts/golden/tokenizer_ids.py): small
// vocabularies of the repository, the demo model's, and, where KVC_TOKENIZERS names a folder that holds them, released
// ones that may not be passed on. What holds for every tokenizer and every text is tested here too.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>

#include "harness/core/stable_hash.h"
#include "harness/core/utf8.h"
#include "harness/testing/varied_text.h"
#include "harness/text/tokenizer/load_tokenizer.h"
#include "harness/text/tokenizer/nfc.h"
#include "harness/text/tokenizer/streaming_decoder.h"

namespace kvc {
namespace {

const std::string kTokenizerRoot = KVC_SOURCE_DIR;
const std::string kTokenizerGolden = kTokenizerRoot + "/harness/testing/golden/tokenizers/";

const Json& golden_ids() {
  static const Json json = tokenizer_golden("ids.json");
  return json;
}

const std::string& long_text() {
  static const std::string text = varied_text(tokenizer_golden("text.json").at("recipe"));
  return text;
}

std::string tokenizer_hash(const std::vector<int64_t>& ids) {
  return stable_hash(fmt::format("{}", fmt::join(ids, ",")));
}

// Path of the entry's tokenizer; empty: a released one that is not here.
std::string path_of(const Json& entry) {
  const std::string path = entry.at("path").get<std::string>();
  if (path == "demo") return kTokenizerRoot + "/models/smollm2-135m-instruct.gguf";
  if (!path.starts_with("released/")) return kTokenizerGolden + path;
  const char* folder = std::getenv("KVC_TOKENIZERS");
  return folder == nullptr ? "" : folder + path.substr(8);
}

// The tokenizers that are here, by name.
const std::map<std::string, std::unique_ptr<Tokenizer>>& tokenizers() {
  static const auto* all = [] {
    auto* list = new std::map<std::string, std::unique_ptr<Tokenizer>>;
    for (const auto& [name, entry] : golden_ids().at("tokenizers").items()) {
      if (const std::string path = path_of(entry); !path.empty()) list->emplace(name, load_tokenizer(path));
    }
    return list;
  }();
  return *all;
}

bool is_sentencepiece(const std::string& name) {
  return name.find("llama2") != std::string::npos;
}

bool is_nfc(const std::string& name) {
  return name.find("qwen") != std::string::npos;
}

void expect_stored(const std::vector<int64_t>& ids, const Json& stored, const std::string& name, const Json& text) {
  if (stored.is_array()) {
    EXPECT_EQ(ids, stored.get<std::vector<int64_t>>()) << name << " " << text.dump();
  } else {
    EXPECT_EQ(ids.size(), stored.at("count").get<size_t>()) << name << " " << text.dump();
    EXPECT_EQ(tokenizer_hash(ids), stored.at("hash").get<std::string>()) << name << " " << text.dump();
  }
}

TEST(TokenizerGolden, TheTextIsTheJudges) {
  EXPECT_GE(long_text().size(), size_t{2} << 20U);
  EXPECT_EQ(stable_hash(long_text()), tokenizer_golden("text.json").at("hash").get<std::string>());
}

TEST(TokenizerGolden, MegabytesGiveTheJudgesIds) {
  int compared = 0;
  for (const auto& [name, tokenizer] : tokenizers()) {
    const Json& entry = golden_ids().at("tokenizers").at(name);
    const std::vector<int64_t> ids = tokenizer->encode_text(long_text());
    EXPECT_EQ(ids.size(), entry.at("count").get<size_t>()) << name;
    EXPECT_EQ(tokenizer_hash(ids), entry.at("hash").get<std::string>()) << name;
    ++compared;
  }
  EXPECT_GE(compared, 10);
}

TEST(TokenizerGolden, HardLinesGiveTheJudgesIds) {
  ASSERT_GE(golden_ids().at("lines").size(), 200U);
  for (const auto& [name, tokenizer] : tokenizers()) {
    const Json& entry = golden_ids().at("tokenizers").at(name);
    if (!entry.contains("lines")) continue;
    for (size_t i = 0; i < golden_ids().at("lines").size(); ++i) {
      const Json& line = golden_ids().at("lines")[i];
      expect_stored(tokenizer->encode_text(line.get<std::string>()), entry.at("lines").at(i), name, line);
    }
  }
}

TEST(TokenizerGolden, SpecialTokensGiveTheJudgesIds) {
  int lines = 0;
  for (const auto& [name, tokenizer] : tokenizers()) {
    for (const Json& pair : golden_ids().at("tokenizers").at(name).value("control", Json::array())) {
      expect_stored(tokenizer->encode({{pair.at(0).get<std::string>(), true}}), pair.at(1), name, pair.at(0));
      ++lines;
    }
  }
  EXPECT_GE(lines, 200);
}

// --- laws ------------------------------------------------------------------------------------------------------------

// What decoding gives back: spaces for U+2581 in SentencePiece vocabularies, NFC where text is normalised.
std::string readable(const std::string& name, const std::string& text) {
  if (is_nfc(name)) {
    std::string normal;
    std::vector<NfcChange> changes;
    return normalize_nfc(text, {}, normal, changes) ? normal : text;
  }
  if (!is_sentencepiece(name)) return text;
  std::string plain;
  for (size_t i = 0; i < text.size();) {
    const bool mark = std::string_view(text).substr(i).starts_with(kSpaceMark);
    plain.push_back(mark ? ' ' : text[i]);
    i += mark ? kSpaceMark.size() : 1;
  }
  return plain;
}

// Vocabularies of the SmolLM kind lack some bytes.
bool lacks_bytes(const std::string& name) {
  return name.find("smollm") != std::string::npos;
}

TEST(TokenizerLaws, EveryCharacterComesBack) {
  std::string all = "a";
  for (std::uint64_t c = 0; c <= 0x10FFFF; ++c) {
    if (c < 0xD800 || c > 0xDFFF) append_character(all, c);
    if (c % 61 == 0) all += c % 2 == 0 ? " " : "x";
  }
  for (const auto& [name, tokenizer] : tokenizers()) {
    if (lacks_bytes(name)) continue;
    EXPECT_TRUE(tokenizer->decode(tokenizer->encode_text(all)) == readable(name, all)) << name;
  }
}

TEST(TokenizerLaws, TheTextComesBackAndStreamsInWholeCharacters) {
  const std::string text = "a" + long_text().substr(0, long_text().find("\n", 300'000));
  for (const auto& [name, tokenizer] : tokenizers()) {
    if (lacks_bytes(name)) continue;
    const std::vector<int64_t> ids = tokenizer->encode_text(text);
    EXPECT_TRUE(tokenizer->decode(ids) == readable(name, text)) << name;
    StreamingDecoder decoder(*tokenizer);
    std::string streamed;
    for (const int64_t id : ids) {
      const std::string part = decoder.feed(id);
      for (size_t i = 0; i < part.size();) {
        const size_t length = utf8_length(part, i);
        ASSERT_GT(length, 0U) << name;
        i += length;
      }
      streamed += part;
    }
    EXPECT_EQ(decoder.flush(), "") << name;
    EXPECT_TRUE(streamed == readable(name, text)) << name;
  }
}

TEST(TokenizerLaws, TokensEndWhereTheirBytesEnd) {
  const std::string text = long_text().substr(0, long_text().find("\n", 200'000));
  for (const auto& [name, tokenizer] : tokenizers()) {
    std::vector<int64_t> ends;
    const std::vector<int64_t> ids = tokenizer->encode({{text, false}}, &ends);
    ASSERT_EQ(ends.size(), ids.size()) << name;
    EXPECT_EQ(ends.back(), static_cast<int64_t>(text.size())) << name;
    EXPECT_TRUE(std::is_sorted(ends.begin(), ends.end())) << name;
    EXPECT_GE(ends.front(), 0) << name;
    if (is_nfc(name) || lacks_bytes(name)) continue;
    int64_t start = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      std::string bytes = tokenizer->token_bytes(ids[i]);
      if (start == 0 && tokenizer->drops_first_space() && bytes.starts_with(' ')) bytes.erase(0, 1);
      const std::string covered = text.substr(static_cast<size_t>(start), static_cast<size_t>(ends[i] - start));
      ASSERT_EQ(readable(name, covered), bytes) << name << " token " << i;
      start = ends[i];
    }
  }
}

TEST(TokenizerLaws, SpellingsOfSpecialTokensAreDataUnlessControl) {
  int specials = 0;
  for (const auto& [name, tokenizer] : tokenizers()) {
    for (int64_t id = 0; id < tokenizer->vocab_size(); ++id) {
      if (!tokenizer->is_special(id)) continue;
      const std::string spelling = tokenizer->token_bytes(id);
      for (const std::string& text : {spelling, "a" + spelling, spelling + "\n", " " + spelling + " b"}) {
        for (const int64_t got : tokenizer->encode_text(text)) EXPECT_FALSE(tokenizer->is_special(got)) << name << text;
        EXPECT_EQ(tokenizer->decode(tokenizer->encode({{"x", false}, {text, false}})), "x" + text) << name;
      }
      // Half in data, half in control, it is no token; whole in control it is.
      const std::vector<int64_t> split =
          tokenizer->encode({{spelling.substr(0, 1), false}, {spelling.substr(1), true}});
      EXPECT_EQ(split, tokenizer->encode_text(spelling)) << name << spelling;
      EXPECT_EQ(tokenizer->encode({{spelling, true}}), std::vector<int64_t>{id}) << name << spelling;
      ++specials;
    }
  }
  EXPECT_GE(specials, 40);
}

TEST(TokenizerLaws, AnyBytesAreTokens) {
  SplitMix random(5);
  for (const auto& [name, tokenizer] : tokenizers()) {
    if (lacks_bytes(name) || is_nfc(name)) continue;
    for (int round = 0; round < 200; ++round) {
      std::string bytes = "a";
      for (std::uint64_t i = random.below(40); i > 0; --i) {
        bytes.push_back(static_cast<char>(random.below(3) == 0 ? 'a' : random.below(256)));
      }
      std::vector<int64_t> ends;
      EXPECT_EQ(tokenizer->decode(tokenizer->encode({{bytes, false}}, &ends)), readable(name, bytes)) << name;
      EXPECT_TRUE(std::is_sorted(ends.begin(), ends.end())) << name;
      EXPECT_EQ(ends.back(), static_cast<int64_t>(bytes.size())) << name;
    }
  }
}

}  // namespace
}  // namespace kvc
