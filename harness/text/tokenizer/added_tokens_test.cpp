// Tokens that were added to a vocabulary and are not special, against ids made by `tokenizers` (split_special_tokens)
// and `sentencepiece` (scripts/golden/added_tokens.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "harness/core/config_text.h"
#include "harness/core/text_file.h"
#include "harness/text/tokenizer/load_tokenizer.h"
#include "harness/text/tokenizer/special_tokens.h"

namespace kvc {
namespace {

const std::string kAddedGolden = std::string(KVC_SOURCE_DIR) + "/harness/testing/golden/";

const Json& added_golden() {
  static const Json stored = Json::parse(read_text_file(kAddedGolden + "added_tokens.json"));
  return stored;
}

class AddedTokens : public ::testing::Test {
 protected:
  ~AddedTokens() override { std::filesystem::remove_all(folder_); }

  // The small tokenizer of a case, with its tokens added.
  std::unique_ptr<Tokenizer> tokenizer_of(const Json& one) const {
    const std::filesystem::path original = kAddedGolden + "tokenizers/" + one.at("tokenizer").get<std::string>();
    std::filesystem::remove_all(folder_);
    std::filesystem::copy(original, folder_, std::filesystem::copy_options::recursive);
    if (one.contains("model_appendix_hex")) {
      std::ofstream(folder_ / "tokenizer.model", std::ios::binary | std::ios::app)
          << from_hex(one.at("model_appendix_hex"));
    } else {
      Json tree = Json::parse(read_text_file((folder_ / "tokenizer.json").string()));
      for (const Json& token : one.at("added_tokens")) tree["added_tokens"].push_back(token);
      std::ofstream(folder_ / "tokenizer.json") << tree.dump();
    }
    return load_tokenizer(folder_.string());
  }
  static std::string from_hex(const std::string& hex) {
    std::string bytes;
    for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    return bytes;
  }

  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("kvc_added_tokens_" + std::to_string(::getpid()));
};

TEST_F(AddedTokens, InADocumentGiveTheJudgesIds) {
  ASSERT_EQ(added_golden().at("cases").size(), 7U);
  for (const Json& one : added_golden().at("cases")) {
    const auto tokenizer = tokenizer_of(one);
    for (size_t i = 0; i < added_golden().at("texts").size(); ++i) {
      const std::string text = added_golden().at("texts").at(i).get<std::string>();
      EXPECT_EQ(tokenizer->encode_text(text), one.at("ids").at(i).get<std::vector<int64_t>>())
          << one.at("tokenizer") << " " << added_golden().at("texts").at(i).dump();
    }
  }
}

TEST_F(AddedTokens, EndWhereTheirBytesEnd) {
  const auto tokenizer = tokenizer_of(added_golden().at("cases").at(0));
  std::vector<int64_t> ends;
  const std::vector<int64_t> ids = tokenizer->encode({{"a\xC5\x91", false}, {"b", true}, {"\xC5\x91", false}}, &ends);
  EXPECT_EQ(ids.size(), 4U);
  EXPECT_THAT(ends, ::testing::ElementsAre(1, 3, 4, 6));
  EXPECT_EQ(tokenizer->decode(ids),
            "a\xC5\x91"
            "b\xC5\x91");
}

// A document cannot open a thought or a turn.
TEST(PlainTokens, MarkupIsNone) {
  for (const char* markup : {"<think>", "</think>", "<tool_call>", "<|x|>", "[INST]", "[/INST]"})
    EXPECT_FALSE(is_plain_token(markup)) << markup;
  for (const char* plain : {"\xC3\xB6", "    ", "\n\n", "blue whale", "<", "[]", "<a", "a>"})
    EXPECT_TRUE(is_plain_token(plain)) << plain;
}

}  // namespace
}  // namespace kvc
