// A tokenizer.model (SentencePiece's ModelProto), validated before the sentencepiece library parses it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvc {

struct SentencePieceModel {
  enum class Type : std::uint8_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
  struct Piece {
    std::string spelling;
    float score = 0;
    Type type = Type::kNormal;
  };
  std::vector<Piece> pieces;
  bool space_first = true;  // add_dummy_prefix
  // What the library is given: the pieces, with user-defined ones that are spelled as markup (is_plain_token()) as
  // control, so that it never finds them in text; the trainer's settings; and a normaliser that changes nothing but
  // spaces to U+2581.
  std::string for_library;
};

// Throws Error(kData) when the bytes are no such file, or the model is of a kind that Llama and Mistral do not have: no
// BPE; text changed before it is read (character map, extra spaces removed, spaces behind words); a piece empty, longer
// than 256 bytes, no UTF-8 or given twice.
SentencePieceModel read_sentencepiece_model(std::string_view bytes, const std::string& where);

}  // namespace kvc
