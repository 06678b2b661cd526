// The first step of byte-level BPE: Unicode regular expressions cut text into words that are merged one by one.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kvc {

// What the models of one kind do before they merge.
struct SplitRecipe {
  std::vector<std::string>
      expressions;  // as tokenizer.json writes them (Oniguruma); each cuts the words that the one before left
  bool whole_words_first = false;  // a whole word that is a token is taken as it is, merges or not ("ignore_merges")
  bool nfc = false;                // text is brought to Unicode's normal form C first
};

// GPT-2's expression: what the pre-tokenizer "ByteLevel" of tokenizer.json means with use_regex.
extern const char* const kGpt2Expression;

// Recipes by the names of the GGUF key tokenizer.ggml.pre. Throws Error(kData) for another name, listing the known.
SplitRecipe split_recipe(const std::string& name, const std::string& where);
std::vector<std::string> split_recipe_names();

class PreTokenizer {
 public:
  // What one call needs for itself; the pre-tokenizer may be used by several threads, each with its own scratch.
  class Scratch;
  struct ScratchDeleter {
    void operator()(Scratch* scratch) const;
  };
  using ScratchPtr = std::unique_ptr<Scratch, ScratchDeleter>;

  // No expressions: the text is one word. Throws Error(kData) for an expression that Oniguruma refuses, is longer than
  // 16 KB or nested more than 50 times.
  PreTokenizer(const std::vector<std::string>& expressions, const std::string& where);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;

  ScratchPtr make_scratch() const;

  // Byte offsets at which the words of `text` end, ascending, the last one text.size(); empty for empty text. A byte
  // that is no UTF-8 is cut as if U+FFFD stood there. Linear in the text for the expressions of split_recipe(). Throws
  // Error(kData) where an expression of a file takes more than some ten million steps for one word.
  void split(std::string_view text, Scratch& scratch, std::vector<size_t>& ends) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvc
