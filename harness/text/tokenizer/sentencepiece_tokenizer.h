// SentencePiece vocabularies (tokenizer.model: Llama 2, Mistral) through the sentencepiece library.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/text/tokenizer/folder_tokens.h"
#include "harness/text/tokenizer/sentencepiece_model.h"
#include "harness/text/tokenizer/special_tokens.h"
#include "harness/text/tokenizer/tokenizer.h"

namespace kvc {

// The library sees one word at a time (a word begins with its spaces), which gives the same tokens as the whole text
// wherever no piece holds a space behind another character; otherwise it sees the text between special tokens.
//
// A space is put in front of the text and of what follows a special token where the model says so (add_dummy_prefix):
// "<s>[INST] hi [/INST]" gives <s>, " [", "INST", ... as Meta's own code, llama.cpp and the converted tokenizer.json of
// Llama 2 do. Control and unknown pieces and the folder's special tokens are recognised in control segments only; of
// user-defined pieces and other added tokens see is_plain_token(). A byte that is no UTF-8 is that byte's token.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  // `bytes`: the file. bos() is nullopt where the folder says add_bos_token = false. end_ids(): the folder's, its
  // eos_token, the end tokens by name, and the model's own. Throws Error(kData) as read_sentencepiece_model() does, and
  // for added tokens or ids that contradict the model.
  SentencePieceTokenizer(std::string_view bytes, const FolderTokens& folder, const std::string& where);
  ~SentencePieceTokenizer() override;

  using Tokenizer::encode;
  std::vector<int64_t> encode(const std::vector<Segment>& segments, std::vector<int64_t>* ends) const override;
  std::string token_bytes(int64_t id) const override;
  bool is_special(int64_t id) const override;
  int64_t vocab_size() const override;
  std::optional<int64_t> bos() const override;
  std::vector<int64_t> end_ids() const override;
  bool drops_first_space() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvc
