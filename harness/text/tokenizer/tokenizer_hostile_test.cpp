// Tokenizer files that are damaged, of another kind, or made to harm: an error that says what, where and what to do, or
// a tokenizer that works; never a crash, a hang, or memory out of proportion.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>

#include "harness/core/error.h"
#include "harness/core/text_file.h"
#include "harness/testing/temporary_folder.h"
#include "harness/testing/varied_text.h"
#include "harness/text/tokenizer/load_tokenizer.h"
#include "harness/text/tokenizer/score_merges.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

const std::string kGolden = std::string(KVC_SOURCE_DIR) + "/harness/testing/golden/tokenizers/";

// A folder of tokenizer files that goes when the test ends.
class Folder : public TemporaryFolder {
 public:
  // The message of load_tokenizer(), or "" where it works, and then reads a text too.
  std::string outcome() const {
    try {
      const auto tokenizer = load_tokenizer(path());
      for (const bool control : {false, true}) {
        for (const int64_t id :
             tokenizer->encode({{"Hello  w\u00f6rld 123\n\u4f60\U0001f600<|im_end|></s>\xff", control}})) {
          EXPECT_LT(id, tokenizer->vocab_size());
          tokenizer->token_bytes(id);
        }
      }
      return "";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kData) << e.what();
      EXPECT_FALSE(e.mend().empty()) << e.what();
      EXPECT_THAT(e.where(), HasSubstr(path()));
      EXPECT_LT(std::string(e.what()).size(), 2000U);
      EXPECT_FALSE(std::string(e.what()).empty());
      return e.what();
    }
  }
};

std::string file(const std::string& name) {
  return read_text_file(kGolden + name, size_t{1} << 26U);
}

const Json& qwen() {
  static const Json tree = Json::parse(file("qwen/tokenizer.json"));
  return tree;
}

const Json& llama2() {
  static const Json tree = Json::parse(file("llama2_always/tokenizer.json"));
  return tree;
}

struct Case {
  std::string message;
  std::function<void(Json&)> damage;
};

std::function<void(Json&)> put(const std::string& pointer, const Json& value) {
  return [=](Json& tree) { tree[Json::json_pointer(pointer)] = value; };
}

void expect_messages(const Json& tree, const std::vector<Case>& cases) {
  const Folder folder;
  folder.write("tokenizer_config.json", R"({"eos_token": null})");
  folder.write("config.json", R"({"eos_token_id": 2})");
  folder.write("tokenizer.json", tree.dump());
  EXPECT_EQ(folder.outcome(), "");
  for (const Case& c : cases) {
    Json damaged = tree;
    c.damage(damaged);
    folder.write("tokenizer.json", damaged.dump());
    EXPECT_THAT(folder.outcome(), HasSubstr(c.message));
  }
}

TEST(HostileTokenizerJson, NamesWhatIsWrongInAByteLevelFile) {
  const Json split = qwen().at("pre_tokenizer").at("pretokenizers").at(0);
  expect_messages(
      qwen(), {
                  {"model is missing", [](Json& t) { t.erase("model"); }},
                  {"model is not an object", put("/model", 7)},
                  {"model is of type 'Unigram'", put("/model/type", "Unigram")},
                  {"drops merges at random", put("/model/dropout", 0.1)},
                  {"continuing_subword_prefix", put("/model/continuing_subword_prefix", "##")},
                  {"model.unk_token is not text", put("/model/unk_token", 3)},
                  {"unk_token '<nil>', which is not a token", put("/model/unk_token", "<nil>")},
                  {"spells bytes in two ways", put("/model/byte_fallback", true)},
                  {"model.ignore_merges is neither true nor false", put("/model/ignore_merges", "yes")},
                  {"model.vocab['x1'] is -1", put("/model/vocab/x1", -1)},
                  {"model.vocab['x1'] is not a number", put("/model/vocab/x1", "7")},
                  {"model.vocab['x1'] is not a number", put("/model/vocab/x1", 1.5)},
                  {"model.vocab['x1'] is not a number", put("/model/vocab/x1", nullptr)},
                  {"model.vocab['x1']", put("/model/vocab/x1", Json::array({1}))},
                  {"the id 4194304", put("/model/vocab/x1", 4194304)},
                  {"18446744073709551615", put("/model/vocab/x1", 18446744073709551615U)},
                  {"gives the id 5 to ", put("/model/vocab/x1", 5)},
                  {"model.merges[0] is not a pair", put("/model/merges/0", Json::array({"a"}))},
                  {"model.merges[0] is not a pair", put("/model/merges/0", Json::array({"a", "b", "c"}))},
                  {"model.merges[0] is not a pair", put("/model/merges/0", Json::array({"", "b"}))},
                  {"model.merges[0] is not a pair", put("/model/merges/0", 5)},
                  {"model.merges[0]", put("/model/merges/0", "a b c")},
                  {"which is not a token", put("/model/merges/0", Json::array({"zq", "qz"}))},
                  {"is there twice", [](Json& t) { t["model"]["merges"].push_back(t["model"]["merges"][0]); }},
                  {"gives a control token", put("/model/merges/0", Json::array({"<|im_end", "|>"}))},
                  {"normalizer is 'NFKC'", put("/normalizer/type", "NFKC")},
                  {"normalizer.type is not text", put("/normalizer", Json::object())},
                  {"Split, Digits, ByteLevel and Metaspace are supported", put("/pre_tokenizer/type", "Whitespace")},
                  {"has the behavior 'Removed'", put("/pre_tokenizer/pretokenizers/0/behavior", "Removed")},
                  {"respelled", put("/pre_tokenizer/pretokenizers/2", split)},
                  {"add_prefix_space", put("/pre_tokenizer/pretokenizers/1/add_prefix_space", true)},
                  {"the pre-tokenizer's expression", put("/pre_tokenizer/pretokenizers/0/pattern/Regex", "(a")},
                  {"the pre-tokenizer's expression", put("/pre_tokenizer/pretokenizers/0/pattern/Regex", "[z-a]")},
                  {"the pre-tokenizer's expression",
                   put("/pre_tokenizer/pretokenizers/0/pattern/Regex", std::string(99999, '('))},
                  {"pretokenizers is not a list", put("/pre_tokenizer/pretokenizers", "x")},
                  {"neither byte-level nor", put("/pre_tokenizer", nullptr)},
                  {"does not undo ByteLevel", put("/decoder/type", "WordPiece")},
                  {"added_tokens is not a list", put("/added_tokens", Json::object())},
                  {"added_tokens[0].id is not a token id", put("/added_tokens/0/id", -1)},
                  {"added_tokens[0].id is not a token id", put("/added_tokens/0/id", 99999999999)},
                  {"added_tokens[0].content is not text", put("/added_tokens/0/content", nullptr)},
                  {"is empty", put("/added_tokens/0/content", "")},
                  {"single word", put("/added_tokens/0/single_word", true)},
                  {"is also token", put("/added_tokens/0/content", "<|im_end|>")},
                  {"token 3 is", put("/added_tokens/0/id", 3)},
                  {"no token for the byte 0x61",
                   [](Json& t) {
                     t["model"]["vocab"].erase("a");
                     t["model"]["merges"] = Json::array();
                   }},
              });
}

TEST(HostileTokenizerJson, NamesWhatIsWrongInASentencePieceFile) {
  expect_messages(llama2(), {
                                {"byte_fallback", put("/model/byte_fallback", false)},
                                {"neither byte-level nor", put("/model/ignore_merges", true)},
                                {"otherwise than U+2581", put("/pre_tokenizer/replacement", "_")},
                                {"replacement is not text", put("/pre_tokenizer/replacement", 1)},
                                {"pre_tokenizer.split is neither", put("/pre_tokenizer/split", 1)},
                                {"neither byte-level nor", put("/normalizer", {{"type", "NFC"}})},
                                {"puts something else", put("/normalizer", {{"type", "Prepend"}, {"prepend", "_"}})},
                                {"has no token <0x41>", [](Json& t) { t["model"]["vocab"].erase("<0x41>"); }},
                            });
}

TEST(HostileTokenizerJson, TextThatIsNoTokenizer) {
  const Folder folder;
  folder.write("config.json", R"({"eos_token_id": 0})");
  std::string nested(100'000, '[');
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no JSON at byte"},
      {"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"},
      {"<!DOCTYPE html>", "a web page"},
      {"[]", "not a JSON object"},
      {"7", "not a JSON object"},
      {"{", "no JSON at byte"},
      {nested, "nested more than 64 levels"},
      {R"({"a":)" + nested, "nested more than 64 levels"},
      {R"({"model":{"vocab":{"a":)" + nested, "model.vocab['a']"},
      {R"({"model":{"merges":[)" + nested, "model.merges[0] is not a pair"},
      {R"({"model":{"type":"BPE","type":"BPE"}})", "'type' is there twice"},
      {R"({"model":{"vocab":{"a":0},"vocab":{"b":0}}})", "'vocab' is there twice"},
      {R"({"model":{"vocab":{"a":0,"a":1},"merges":[]},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false}})",
       "'a' is also token 0"},
      {R"({"version": )" + std::string(1'000'000, '9') + "}", "no JSON at byte"},
      {R"({"version": 1e)" + std::string(1'000'000, '9') + "}", "no JSON at byte"},
      {"{\"a\": \"\xff\"}", "no JSON at byte"},
  };
  for (const auto& [text, message] : cases) {
    folder.write("tokenizer.json", text);
    EXPECT_THAT(folder.outcome(), HasSubstr(message)) << text.substr(0, 60);
  }
  std::filesystem::resize_file(folder.path() + "/tokenizer.json", size_t{65} << 20U);
  EXPECT_THAT(folder.outcome(), HasSubstr("larger than 67108864 bytes"));
}

// --- the folder's other files ----------------------------------------------------------------------------------------

TEST(HostileFolder, NamesFileAndKey) {
  struct Wrong {
    std::string name, text, message;
  };
  const std::vector<Wrong> cases = {
      {"tokenizer_config.json", "[]", "not a JSON object"},
      {"tokenizer_config.json", R"({"bos_token": 5})", "bos_token is not a token"},
      {"tokenizer_config.json", R"({"eos_token": {"x": 1}})", "eos_token is not a token"},
      {"tokenizer_config.json", R"({"eos_token": "<|nothing|>"})",
       "'<|nothing|>' of tokenizer_config.json is not a token"},
      {"tokenizer_config.json", R"({"add_bos_token": "yes"})", "add_bos_token is neither true nor false"},
      {"tokenizer_config.json", R"({"add_bos_token": true})", "no file names the token"},
      {"tokenizer_config.json", R"({"added_tokens_decoder": []})", "added_tokens_decoder is not an object"},
      {"tokenizer_config.json", R"({"added_tokens_decoder": {"-4": {"content": "a"}}})", "the key '-4'"},
      {"tokenizer_config.json", R"({"added_tokens_decoder": {"99999999999999999999": {"content": "a"}}})",
       "not a token id"},
      {"tokenizer_config.json", R"({"added_tokens_decoder": {"5": {}}})", "added_tokens_decoder.5 has no content"},
      {"tokenizer_config.json", R"({"added_tokens_decoder": {"5": {"content": "zz"}}})", "token 5 is"},
      {"tokenizer_config.json", R"({"added_tokens_decoder": {"4000000": {"content": ""}}})", "is empty"},
      {"generation_config.json", R"({"eos_token_id": "2"})", "eos_token_id is not a token id"},
      {"generation_config.json", R"({"eos_token_id": [2, -1]})", "eos_token_id is not a token id"},
      {"generation_config.json", R"({"eos_token_id": 4000000})", "end token id 4000000 is outside"},
      {"config.json", R"({"eos_token_id": [[2]]})", "eos_token_id is not a token id"},
      {"config.json", R"({"bos_token_id": 1e99})", "bos_token_id is not a token id"},
      {"added_tokens.json", R"({"<x>": "5"})", "is not a token id"},
  };
  for (const std::string name : {"qwen/tokenizer.json", "llama2/tokenizer.model"}) {
    for (const Wrong& wrong : cases) {
      if (name.starts_with("llama2") && wrong.text == R"({"add_bos_token": true})") continue;  // the model names it
      const Folder folder;
      folder.write(std::filesystem::path(name).filename(), file(name));
      folder.write(wrong.name, wrong.text);
      const std::string outcome = folder.outcome();
      if (wrong.message == "token 5 is" && name.starts_with("llama2")) {
        EXPECT_THAT(outcome, HasSubstr("has the id of another piece"));
      } else {
        EXPECT_THAT(outcome, HasSubstr(wrong.message)) << name << " " << wrong.text;
      }
    }
  }
  const Folder empty;
  EXPECT_THAT(empty.outcome(), HasSubstr("neither tokenizer.json nor tokenizer.model"));
  empty.write("tokenizer.model", "IQ== 0\nIg== 1\n");
  EXPECT_THAT(empty.outcome(), HasSubstr("list of ranks"));
}

// --- any bytes -------------------------------------------------------------------------------------------------------

// Cut short, bytes changed, stretches doubled or taken out. How many of the damaged files still gave a tokenizer.
int load_damaged(const std::string& name, const std::string& from, int rounds) {
  const std::string sound = file(from);
  const Folder folder;
  folder.write("config.json", R"({"eos_token_id": 2})");
  SplitMix random(11);
  int sane = 0;
  for (int round = 0; round < rounds; ++round) {
    std::string bytes = sound;
    for (std::uint64_t edits = 1 + random.below(4); edits > 0; --edits) {
      const size_t at = random.below(bytes.size());
      switch (random.below(5)) {
        case 0:
          bytes.resize(at + 1);
          break;
        case 1:
          bytes[at] = static_cast<char>(random.below(256));
          break;
        case 2:
          bytes[at] = "{}[]\",:0-9tf\\"[random.below(13)];
          break;
        case 3:
          bytes.erase(at, 1 + random.below(40));
          break;
        default:
          bytes.insert(at, bytes.substr(random.below(bytes.size()), 1 + random.below(40)));
      }
      if (bytes.empty()) bytes = "x";
    }
    folder.write(name, bytes);
    if (folder.outcome().empty()) ++sane;
  }
  return sane;
}

TEST(HostileBytes, DamagedFilesAreErrorsOrTokenizers) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_LT(load_damaged("tokenizer.json", "qwen/tokenizer.json", 300), 300);
  EXPECT_LT(load_damaged("tokenizer.json", "llama2_first/tokenizer.json", 300), 300);
  EXPECT_LT(load_damaged("tokenizer.model", "llama2/tokenizer.model", 500), 500);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(HostileSentencePiece, NamesThePieceOrByte) {
  const std::string sound = file("llama2/tokenizer.model");
  const auto field = [](char number, const std::string& bytes) {  // of wire type 2
    return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
  };
  const auto piece = [&](const std::string& spelling, const std::string& more = "") {
    return field(1, field(1, spelling) + more);
  };
  using namespace std::string_literals;
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "it has no pieces"},
      {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "endless number"},
      {"\x0a\x7f", "cut short"},
      {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "cut short"},
      {"\x00\x01"s, "no field at byte"},
      {"\x0b", "unknown wire type 3"},
      {sound + piece(""), "is empty"},
      {sound + piece("<s>"), "is there twice"},
      {sound + piece("\xff"), "is not valid UTF-8"},
      {sound + piece("zzq", "\x18\x07"), "has the type 7"},
      {sound + piece("zzq", "\x15\x00\x00\xc0\x7f"s), "has a score that is not a number"},
      {sound + field(2, "\x18\x01"), "of type 1"},
      {sound + field(2, "\x18\x02\xc0\x01\x01"), "treat_whitespace_as_suffix"},
      {sound + field(3, "\x20\x01"), "changes the text"},
      {sound + field(3, "\x12\x02gg\x20\x00"s), "changes the text"},
  };
  for (const auto& [bytes, message] : cases) {
    const Folder folder;
    folder.write("tokenizer.model", bytes);
    EXPECT_THAT(folder.outcome(), HasSubstr(message));
  }
  const Folder folder;
  for (size_t size = 0; size < sound.size(); size += 1 + sound.size() / 150) {
    folder.write("tokenizer.model", sound.substr(0, size));
    folder.outcome();
  }
}

// Every run of a letter is a token, so that every place in it is a cut.
TEST(HostileScores, MergesAreNoMultipleOfTheFile) {
  std::vector<std::string> tokens;
  for (char letter = 'a'; letter < 'i'; ++letter) {
    for (size_t length = 1; length <= 256; ++length) tokens.emplace_back(length, letter);
  }
  const auto merges = [&](size_t n) {
    const std::vector<std::string> some(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(n));
    return merges_of_scores(some, std::vector<TokenKind>(n, TokenKind::kNormal), std::vector<double>(n, 0.0), "test");
  };
  EXPECT_EQ(merges(256).size(), 255U * 256 / 2);
  EXPECT_THROW(merges(tokens.size()), Error);
}

}  // namespace
}  // namespace kvc
