// Text to token ids and back.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvc {

// A piece of a prompt. Only in control pieces does the spelling of a special token ("<|im_start|>") mean that token; in
// data it is plain text. Neighbouring text is tokenized together, as if it were one string.
struct Segment {
  std::string text;
  bool control = false;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of the segments read as one text. `ends`, if given, receives for each id the byte offset in the concatenated
  // text at which the token ends. Adds nothing (no BOS). Bytes that are no UTF-8 are data like others.
  virtual std::vector<int64_t> encode(const std::vector<Segment>& segments, std::vector<int64_t>* ends) const = 0;
  std::vector<int64_t> encode(const std::vector<Segment>& segments) const { return encode(segments, nullptr); }
  // The text as data: no special tokens.
  std::vector<int64_t> encode_text(std::string_view text) const {
    return encode({Segment{std::string(text), false}}, nullptr);
  }

  // The bytes of one token; a special token gives its spelling. Throws Error(kData) for an id outside the vocabulary.
  virtual std::string token_bytes(int64_t id) const = 0;
  virtual bool is_special(int64_t id) const = 0;
  // SentencePiece vocabularies begin a text with a space that is not in it; decoding leaves out one leading space.
  virtual bool drops_first_space() const { return false; }
  // Bytes of the ids one after the other, special tokens left out; so are ids from vocab_size() on, which embeddings
  // padded with rows have. Throws Error(kData) for a negative id.
  std::string decode(const std::vector<int64_t>& ids) const;

  virtual int64_t vocab_size() const = 0;
  virtual std::optional<int64_t> bos() const = 0;
  // Ids that end a generation: end of text and end of turn.
  virtual std::vector<int64_t> end_ids() const = 0;
};

}  // namespace kvc
