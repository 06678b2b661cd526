// The ways of cutting words that GGUF files call by name.
#include <fmt/format.h>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/text/tokenizer/pre_tokenizer.h"

namespace kvc {

const char* const kGpt2Expression = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

// Every digit alone first, then GPT-2's expression on what lies between, in one pass: blanks before a digit are blanks
// at the end of their piece, so they stay together.
constexpr const char* kSmollm = R"(\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\p{L}\p{N}\s]+|\s+(?![^\p{N}\s])|\s+)";

constexpr const char* kLlama3Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|)"
    R"(\s+(?!\S)|\s+)";

constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|)"
    R"(\s+(?!\S)|\s+)";

// Mistral's later vocabularies: words end where a capital follows a small letter.
constexpr const char* kTekken = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
                                R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
                                R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// What llama.cpp takes for a file that says "default" (llama-vocab.cpp): these four in turn.
constexpr const char* kDefaultPunctuation = R"([\p{P}\$\+<=>\^~\|]+)";
constexpr const char* kDefaultWords = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))";
constexpr const char* kDefaultNumbers = R"(\p{N}+)";
constexpr const char* kDefaultTriples = "[0-9][0-9][0-9]";

struct Known {
  const char* name;
  std::vector<std::string> expressions;
  bool whole_words_first, nfc;
};
constexpr bool kWhole = true, kNfc = true;

const std::vector<Known>& known() {
  static const std::vector<Known> list = {
      {"default", {kDefaultPunctuation, kDefaultWords, kDefaultNumbers, kDefaultTriples}, false, false},
      {"gpt2", {kGpt2Expression}, false, false},
      {"gpt-2", {kGpt2Expression}, false, false},
      {"llama-bpe", {kLlama3Words}, kWhole, false},
      {"llama3", {kLlama3Words}, kWhole, false},
      {"llama-v3", {kLlama3Words}, kWhole, false},
      {"qwen2", {kQwen2}, false, kNfc},
      {"deepseek-r1-qwen", {kQwen2}, false, kNfc},
      {"smollm", {kSmollm}, false, false},
      {"tekken", {kTekken}, kWhole, false},
  };
  return list;
}

}  // namespace

SplitRecipe split_recipe(const std::string& name, const std::string& where) {
  for (const Known& one : known()) {
    if (name == one.name) return {one.expressions, one.whole_words_first, one.nfc};
  }
  throw Error(ErrorKind::kData, fmt::format("unknown pre-tokenizer '{}'", printable(name)), where,
              suggest_name(name, split_recipe_names()));
}

std::vector<std::string> split_recipe_names() {
  std::vector<std::string> list;
  for (const Known& one : known()) list.emplace_back(one.name);
  return list;
}

}  // namespace kvc
