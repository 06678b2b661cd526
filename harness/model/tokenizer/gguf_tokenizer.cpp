#include "harness/model/tokenizer/gguf_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "harness/core/error.h"
#include "harness/model/tokenizer/bpe_tokenizer.h"

namespace kvc {
namespace {

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kMerges = "tokenizer.ggml.merges";
constexpr const char* kConvertAgain = "the file is damaged or of another kind; fetch or convert it again";

[[noreturn]] void bad(const GgufFile& file, const std::string& fact, const std::string& mend = kConvertAgain) {
  throw Error(ErrorKind::kData, fact, file.path(), mend);
}

// GGUF's token types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
TokenKind kind_of(const GgufFile& file, std::int64_t type, size_t index) {
  if (type == 1 || type == 2 || type == 5) return TokenKind::kNormal;
  if (type == 3) return TokenKind::kControl;
  if (type == 4) return TokenKind::kUserDefined;
  if (type == 6)
    bad(file, fmt::format("{}[{}] is a byte token, which a byte-level vocabulary does not have", kTypes, index));
  bad(file, fmt::format("{}[{}] is {}, known are 1 to 6", kTypes, index, type));
}

std::vector<TokenKind> read_kinds(const GgufFile& file, size_t n_tokens) {
  const auto types = file.integers(kTypes);
  if (types.size() != n_tokens) {
    bad(file, fmt::format("{} has {} entries, but {} has {}", kTypes, types.size(), kTokens, n_tokens));
  }
  std::vector<TokenKind> kinds;
  for (size_t i = 0; i < types.size(); ++i) kinds.push_back(kind_of(file, types[i], i));
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
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    if (const auto id = read_id(file, key, vocabulary.tokens.size())) add(*id);
  }
  for (const char* name : {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>"}) {
    const auto found = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), name);
    const auto index = static_cast<size_t>(found - vocabulary.tokens.begin());
    if (found != vocabulary.tokens.end() && vocabulary.kinds[index] == TokenKind::kControl) {
      add(static_cast<std::int64_t>(index));
    }
  }
  if (ids.empty()) bad(file, "no token ends a text: tokenizer.ggml.eos_token_id is missing");
  return ids;
}

// Encoding leaves out bytes that have no token; of these none may occur in ordinary text.
void check_ordinary_bytes(const GgufFile& file, const BpeTokenizer& tokenizer) {
  for (const unsigned char byte : tokenizer.lost_bytes()) {
    if (byte == '\n' || (byte >= 0x20 && byte < 0x7F) || (byte >= 0x80 && byte < 0xC0)) {
      bad(file, fmt::format("{} has no token for the byte 0x{:02x}", kTokens, byte));
    }
  }
}

}  // namespace

std::unique_ptr<Tokenizer> make_gguf_tokenizer(const GgufFile& file) {
  const std::string model = file.string("tokenizer.ggml.model");
  if (model != "gpt2") {
    bad(file, fmt::format("tokenizer.ggml.model is '{}'; only 'gpt2' (byte-level BPE) is supported", model),
        "take a model with a byte-level vocabulary: Llama 3, Qwen 2 or 3, SmolLM");
  }
  BpeVocabulary vocabulary;
  vocabulary.where = file.path();
  vocabulary.tokens_key = kTokens;
  vocabulary.merges_key = kMerges;
  vocabulary.tokens = file.strings(kTokens);
  vocabulary.kinds = read_kinds(file, vocabulary.tokens.size());
  vocabulary.merges = file.strings(kMerges);
  vocabulary.pre_tokenizer = file.string("tokenizer.ggml.pre");
  vocabulary.bos = read_id(file, "tokenizer.ggml.bos_token_id", vocabulary.tokens.size());
  // Files without the key come from before it was written; Llama 3 is the one of these families that begins with BOS.
  const bool add_bos = vocabulary.pre_tokenizer == "llama-bpe";
  if (!file.find_boolean("tokenizer.ggml.add_bos_token").value_or(add_bos)) vocabulary.bos.reset();
  vocabulary.end_ids = read_end_ids(file, vocabulary);
  auto tokenizer = std::make_unique<BpeTokenizer>(std::move(vocabulary));
  check_ordinary_bytes(file, *tokenizer);
  return tokenizer;
}

}  // namespace kvc
