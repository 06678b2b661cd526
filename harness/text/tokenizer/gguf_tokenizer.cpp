#include "harness/text/tokenizer/gguf_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "harness/core/error.h"
#include "harness/text/tokenizer/bpe_tokenizer.h"
#include "harness/text/tokenizer/folder_tokens.h"
#include "harness/text/tokenizer/score_merges.h"

namespace kvc {
namespace {

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kMerges = "tokenizer.ggml.merges";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr const char* kConvertAgain = "the file is damaged or of another kind; fetch or convert it again";

[[noreturn]] void bad(const GgufFile& file, const std::string& fact, const std::string& mend = kConvertAgain) {
  throw Error(ErrorKind::kData, fact, file.path(), mend);
}

// GGUF's token types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
TokenKind kind_of(const GgufFile& file, BpeAlphabet alphabet, std::int64_t type, size_t index) {
  const bool bytes = alphabet == BpeAlphabet::kBytes;
  if (type == 1) return TokenKind::kNormal;
  if (type == 2) return bytes ? TokenKind::kNormal : TokenKind::kControl;
  if (type == 3) return TokenKind::kControl;
  if (type == 4) return TokenKind::kUserDefined;
  if (type == 5) return bytes ? TokenKind::kNormal : TokenKind::kUnused;
  if (type == 6 && bytes)
    bad(file, fmt::format("{}[{}] is a byte token, which a byte-level vocabulary does not have", kTypes, index));
  if (type == 6) return TokenKind::kByte;
  bad(file, fmt::format("{}[{}] is {}, known are 1 to 6", kTypes, index, type));
}

std::vector<TokenKind> read_kinds(const GgufFile& file, BpeAlphabet alphabet, size_t n_tokens) {
  const auto types = file.integers(kTypes);
  if (types.size() != n_tokens) {
    bad(file, fmt::format("{} has {} entries, but {} has {}", kTypes, types.size(), kTokens, n_tokens));
  }
  std::vector<TokenKind> kinds;
  for (size_t i = 0; i < types.size(); ++i) kinds.push_back(kind_of(file, alphabet, types[i], i));
  return kinds;
}

std::optional<std::int64_t> read_id(const GgufFile& file, const std::string& key, size_t n_tokens) {
  const auto id = file.find_integer(key);
  if (id && (*id < 0 || *id >= static_cast<std::int64_t>(n_tokens))) {
    bad(file, fmt::format("{} is {}, outside the vocabulary of {} tokens", key, *id, n_tokens));
  }
  return id;
}

std::vector<std::int64_t> read_end_ids(const GgufFile& file, const BpeVocabulary& vocabulary) {
  std::vector<std::int64_t> ids;
  const auto add = [&](std::int64_t id) {
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  };
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (const auto id = read_id(file, key, vocabulary.tokens.size())) add(*id);
  }
  for (const std::string& name : end_token_names()) {
    const auto found = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), name);
    const auto index = static_cast<size_t>(found - vocabulary.tokens.begin());
    if (found != vocabulary.tokens.end() && vocabulary.kinds[index] == TokenKind::kControl) {
      add(static_cast<std::int64_t>(index));
    }
  }
  if (ids.empty()) bad(file, "no token ends a text: tokenizer.ggml.eos_token_id is missing");
  return ids;
}

void read_byte_level(const GgufFile& file, BpeVocabulary& vocabulary) {
  vocabulary.merges_key = kMerges;
  const std::vector<std::string> merges = file.strings(kMerges);
  for (size_t i = 0; i < merges.size(); ++i) {
    vocabulary.merges.push_back(parse_merge(merges[i], i, kMerges, file.path()));
  }
  vocabulary.split = split_recipe(file.string("tokenizer.ggml.pre"), file.path());
}

void read_sentencepiece(const GgufFile& file, BpeVocabulary& vocabulary) {
  const std::vector<double> scores = file.numbers(kScores);
  if (scores.size() != vocabulary.tokens.size()) {
    bad(file,
        fmt::format("{} has {} entries, but {} has {}", kScores, scores.size(), kTokens, vocabulary.tokens.size()));
  }
  if (file.find_boolean("tokenizer.ggml.remove_extra_whitespaces").value_or(false) ||
      file.has("tokenizer.ggml.precompiled_charsmap")) {
    bad(file, "the tokenizer changes the text before it reads it (remove_extra_whitespaces, precompiled_charsmap)",
        "take a Llama or Mistral model; their vocabularies leave text as it is");
  }
  vocabulary.merges_key = kScores;
  vocabulary.merges = merges_of_scores(vocabulary.tokens, vocabulary.kinds, scores, file.path());
  if (!file.find_boolean("tokenizer.ggml.add_space_prefix").value_or(true)) {
    vocabulary.spaces.first = SpaceRule::First::kNever;
  }
}

}  // namespace

std::unique_ptr<Tokenizer> make_gguf_tokenizer(const GgufFile& file) {
  const std::string model = file.string("tokenizer.ggml.model");
  if (model != "gpt2" && model != "llama") {
    bad(file,
        fmt::format("tokenizer.ggml.model is '{}'; 'gpt2' (byte-level BPE) and 'llama' (SentencePiece) are supported",
                    model),
        "take a model of one of these: Llama, Qwen 2 or 3, SmolLM, Mistral");
  }
  BpeVocabulary vocabulary;
  vocabulary.alphabet = model == "gpt2" ? BpeAlphabet::kBytes : BpeAlphabet::kCharacters;
  vocabulary.where = file.path();
  vocabulary.tokens_key = kTokens;
  vocabulary.tokens = file.strings(kTokens);
  const auto empty = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), "");
  if (empty != vocabulary.tokens.end()) {
    bad(file, fmt::format("{}[{}] is empty", kTokens, empty - vocabulary.tokens.begin()));
  }
  vocabulary.kinds = read_kinds(file, vocabulary.alphabet, vocabulary.tokens.size());
  vocabulary.bos = read_id(file, "tokenizer.ggml.bos_token_id", vocabulary.tokens.size());
  vocabulary.end_ids = read_end_ids(file, vocabulary);
  if (vocabulary.alphabet == BpeAlphabet::kBytes) {
    read_byte_level(file, vocabulary);
  } else {
    read_sentencepiece(file, vocabulary);
  }
  // Files without the key come from before it was written; of the byte-level families Llama 3 begins with BOS.
  const bool add_bos = model == "llama" || file.find_string("tokenizer.ggml.pre") == "llama-bpe";
  if (!file.find_boolean("tokenizer.ggml.add_bos_token").value_or(add_bos)) vocabulary.bos.reset();
  auto tokenizer = std::make_unique<BpeTokenizer>(std::move(vocabulary));
  tokenizer->check_ordinary_bytes(kTokens, file.path());
  return tokenizer;
}

}  // namespace kvc
