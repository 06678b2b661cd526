// Byte-pair encoding: text is cut into words, the symbols of each word are merged pair by pair, lowest rank first,
// leftmost first among equals (Sennrich et al. 2016). Two alphabets:
//  - bytes (GPT-2, Llama 3, Qwen, SmolLM; Radford et al. 2019): expressions cut the words, symbols are bytes;
//  - characters (SentencePiece's BPE; Llama 2, Mistral): a space is the character U+2581, symbols are characters, one
//    that the vocabulary lacks is its UTF-8 bytes' tokens <0x00> to <0xFF>.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "harness/text/tokenizer/merge_table.h"
#include "harness/text/tokenizer/pre_tokenizer.h"
#include "harness/text/tokenizer/special_tokens.h"
#include "harness/text/tokenizer/tokenizer.h"
#include "harness/text/tokenizer/word_cache.h"

namespace kvc {

enum class TokenKind : std::uint8_t {
  kNormal,       // reached by merges
  kControl,      // "<|im_start|>": recognised in control segments only, left out by decode()
  kUserDefined,  // "<think>", "ö": text for decode(); in data too where is_plain_token()
  kByte,         // "<0x0A>" of a character alphabet
  kUnused,       // never encoded
};

enum class BpeAlphabet : std::uint8_t { kBytes, kCharacters };

struct BpeMerge {
  std::string left, right;
  std::uint32_t rank = 0;
};

// What a character alphabet does with spaces.
struct SpaceRule {
  enum class First : std::uint8_t {
    kNever,
    kEveryRun,   // a space is put in front of the text and of what follows a special token
    kTextStart,  // in front of the text only, and not where it begins with a special token
  };
  First first = First::kEveryRun;
  bool unless_there = false;  // not where the text begins with a space of its own
  bool cut_at_every = false;  // words never reach over the start of a space
};

struct BpeVocabulary {
  std::vector<std::string>
      tokens;                    // by id; empty: no token has this id. Normal ones in the alphabet, others as they are
  std::vector<TokenKind> kinds;  // as many
  std::vector<BpeMerge> merges;
  BpeAlphabet alphabet = BpeAlphabet::kBytes;
  SplitRecipe split;                                    // of a byte alphabet
  SpaceRule spaces;                                     // of a character alphabet
  std::unordered_set<int64_t> strip_left, strip_right;  // special tokens that take the white space beside them
  std::optional<int64_t> unknown;  // of a byte alphabet: what bytes without a token become; nullopt: they are left out
  bool fuse_unknown = false;       // neighbours become one
  std::optional<int64_t> bos;
  std::vector<int64_t> end_ids;
  std::string where;                                         // file, for messages
  std::string tokens_key = "tokens", merges_key = "merges";  // how the file calls them, for messages
};

// "left right" as files write a merge. Throws Error(kData) naming key and rank when it is not two pieces.
BpeMerge parse_merge(const std::string& text, size_t rank, const std::string& key, const std::string& where);

// Thread-safe. A byte for which a byte alphabet has no token becomes the unknown token or is left out, as the models'
// own tokenizers do (SmolLM2 has none for 21 bytes that ordinary text does not hold: six control characters and lead
// bytes of unassigned planes); lost_bytes() names them.
class BpeTokenizer final : public Tokenizer {
 public:
  // Throws Error(kData) naming key and index: counts that differ, duplicate token, merge of unknown pieces, to an
  // unknown or a control token, or given twice; a byte spelled by a control token; a character alphabet without all
  // byte tokens; id out of range; an expression that is not supported.
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
  bool drops_first_space() const override;

  std::optional<int64_t> find_token(const std::string& spelling) const;
  std::vector<unsigned char> lost_bytes() const;
  // Throws Error(kData) when a byte of ordinary text has no token; `key` and `where` are for the message.
  void check_ordinary_bytes(const std::string& key, const std::string& where) const;

 private:
  struct Scratch;
  struct Output {
    std::vector<int64_t> ids;
    std::vector<int64_t> ends;
  };
  void add_tokens(const BpeVocabulary& vocabulary);
  void add_bytes(const BpeVocabulary& vocabulary);
  void add_merges(const BpeVocabulary& vocabulary);
  void encode_run(const TextRun& run, Scratch& scratch, Output& out) const;
  void encode_words(std::string_view text, Scratch& scratch, Output& out) const;
  void encode_characters(std::string_view text, bool space_first, Scratch& scratch, Output& out) const;
  void append_word(std::string_view word, size_t start, Scratch& scratch, Output& out) const;
  void encode_word(std::string_view word, bool space_first, Scratch& scratch) const;
  void add_byte_symbols(std::string_view word, Scratch& scratch) const;
  void add_character_symbols(std::string_view word, bool space_first, Scratch& scratch) const;
  void merge(Scratch& scratch) const;

  BpeAlphabet alphabet_;
  SplitRecipe split_;
  SpaceRule spaces_;
  std::int32_t unknown_ = -1;
  bool fuse_unknown_ = false;
  bool cuts_at_spaces_ = true;      // of a character alphabet: no merge reaches over the start of a space
  std::vector<std::string> bytes_;  // by id
  std::vector<TokenKind> kinds_;
  std::unordered_map<std::string, int64_t> ids_;    // spelling in the file -> id
  std::unordered_map<std::string, int64_t> words_;  // bytes of normal tokens -> id; filled when whole words come first
  std::array<std::int32_t, 256> byte_ids_{};        // -1: the vocabulary has no such byte
  std::unordered_map<char32_t, std::int32_t> character_ids_;
  SpecialTokens specials_;
  MergeTable merges_;
  PreTokenizer pre_tokenizer_;
  std::optional<int64_t> bos_;
  std::vector<int64_t> end_ids_;
  mutable MemoryPool<Scratch> pool_;
};

}  // namespace kvc
