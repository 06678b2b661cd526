// Byte-level byte-pair encoding (GPT-2, Llama 3, Qwen, SmolLM): text is cut into words by an expression, each word's
// bytes are merged pair by pair, lowest rank first, leftmost first among equals (Sennrich et al. 2016; Radford et al.
// 2019).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "harness/model/tokenizer/merge_table.h"
#include "harness/model/tokenizer/pre_tokenizer.h"
#include "harness/model/tokenizer/tokenizer.h"

namespace kvc {

enum class TokenKind : std::uint8_t {
  kNormal,       // spelled in the byte alphabet, reached by merges
  kControl,      // "<|im_start|>": recognised in control segments only, left out by decode()
  kUserDefined,  // "<think>": recognised in control segments only, but text for decode()
};

// All that a tokenizer is made of, not yet believed.
struct BpeVocabulary {
  std::vector<std::string> tokens;  // by id; normal ones in the byte alphabet, the others as they are
  std::vector<TokenKind> kinds;     // as many
  std::vector<std::string> merges;  // "left right", by rank
  std::string pre_tokenizer;        // name, see PreTokenizer
  std::optional<int64_t> bos;
  std::vector<int64_t> end_ids;
  std::string where;                                         // file, for messages
  std::string tokens_key = "tokens", merges_key = "merges";  // how the file calls them, for messages
};

// Thread-safe. A byte for which the vocabulary has no token is left out, as the models' own tokenizers do (SmolLM2 has
// none for 21 bytes that ordinary text does not hold: six control characters and lead bytes of unassigned planes);
// lost_bytes() names them.
class BpeTokenizer final : public Tokenizer {
 public:
  // Throws Error(kData) naming key and index: counts that differ, empty or duplicate token, merge that is no pair, of
  // unknown pieces, to an unknown or a control token, or given twice; a byte spelled by a control token; id out of
  // range; unknown pre-tokenizer.
  explicit BpeTokenizer(BpeVocabulary vocabulary);
  ~BpeTokenizer() override;

  using Tokenizer::encode;
  // Linear in the text up to a logarithm, whatever the length of its words.
  std::vector<int64_t> encode(const std::vector<Segment>& segments, std::vector<int64_t>* ends) const override;

  std::string token_bytes(int64_t id) const override;
  bool is_special(int64_t id) const override;  // control tokens
  int64_t vocab_size() const override { return static_cast<int64_t>(bytes_.size()); }
  std::optional<int64_t> bos() const override { return bos_; }
  std::vector<int64_t> end_ids() const override { return end_ids_; }

  std::optional<int64_t> find_token(const std::string& spelling) const;
  std::vector<unsigned char> lost_bytes() const;

 private:
  struct Scratch;
  struct Special {
    std::string spelling;
    int64_t id;
  };
  struct Output {
    std::vector<int64_t> ids;
    std::vector<int64_t> ends;
  };
  // Borrows a scratch for one call, so that threads share no cache and one thread keeps it warm.
  class Lease;

  void add_tokens(const BpeVocabulary& vocabulary);
  void add_merges(const BpeVocabulary& vocabulary);
  const Special* special_at(std::string_view text, size_t offset) const;
  void encode_text_into(std::string_view text, int64_t base, Scratch& scratch, Output& out) const;
  void encode_word(std::string_view word, Scratch& scratch) const;
  void merge(Scratch& scratch) const;

  std::vector<std::string> bytes_;  // by id
  std::vector<TokenKind> kinds_;
  std::unordered_map<std::string, int64_t> ids_;    // spelling in the file -> id
  std::unordered_map<std::string, int64_t> words_;  // bytes of normal tokens -> id; filled when whole words come first
  std::array<std::int32_t, 256> byte_ids_{};        // -1: the vocabulary has no such byte
  std::array<std::vector<Special>, 256> specials_;  // by first byte, longest first
  MergeTable merges_;
  PreTokenizer pre_tokenizer_;
  std::optional<int64_t> bos_;
  std::vector<int64_t> end_ids_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> idle_;
};

}  // namespace kvc
