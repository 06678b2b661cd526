// The first step of byte-level BPE: a Unicode regular expression cuts text into words that are merged one by one.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kvc {

class PreTokenizer {
 public:
  // What one call needs for itself; the pre-tokenizer may be used by several threads, each with its own scratch.
  class Scratch;
  struct ScratchDeleter {
    void operator()(Scratch* scratch) const;
  };
  using ScratchPtr = std::unique_ptr<Scratch, ScratchDeleter>;

  // Names as in the GGUF key tokenizer.ggml.pre: "default", "gpt2", "llama-bpe", "qwen2", "smollm". Throws Error(kData)
  // for another one, listing these.
  PreTokenizer(const std::string& name, const std::string& where);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;

  static std::vector<std::string> names();
  // Llama 3: a whole word that is a token is taken as it is, merges or not.
  bool whole_words_first() const;

  ScratchPtr make_scratch() const;

  // Byte offsets at which the words of `text` end, ascending, the last one text.size(); empty for empty text. A byte
  // that is no UTF-8 is cut as if U+FFFD stood there. Linear in the text.
  void split(std::string_view text, Scratch& scratch, std::vector<size_t>& ends) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvc
