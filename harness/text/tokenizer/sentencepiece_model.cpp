#include "harness/text/tokenizer/sentencepiece_model.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <optional>
#include <unordered_set>

#include "harness/core/error.h"
#include "harness/core/utf8.h"
#include "harness/text/tokenizer/special_tokens.h"

namespace kvc {
namespace {

constexpr size_t kLongestPiece = 256, kMostPieces = size_t{1} << 22U;

// Field numbers of sentencepiece_model.proto.
enum ModelField : std::uint32_t { kPieces = 1, kTrainer = 2, kNormalizer = 3 };
enum PieceField : std::uint32_t { kSpelling = 1, kScore = 2, kType = 3 };
enum TrainerField : std::uint32_t { kModelType = 3, kSpaceAsSuffix = 24 };
enum NormalizerField : std::uint32_t { kCharacterMap = 2, kAddPrefix = 3, kRemoveExtra = 4, kEscape = 5 };
constexpr std::uint64_t kBpe = 2;

struct Field {
  std::uint32_t number = 0, wire = 0;
  std::uint64_t value = 0;  // wire types 0, 1 and 5
  std::string_view bytes;   // wire type 2
};

// Protocol Buffers' wire format, one message.
class Wire {
 public:
  Wire(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  [[noreturn]] void bad(const std::string& fact) const {
    throw Error(ErrorKind::kData, fact, where_, "the file is damaged or no SentencePiece model; fetch it again");
  }
  std::optional<Field> next() {
    if (at_ == bytes_.size()) return std::nullopt;
    const std::uint64_t tag = varint();
    Field field{.number = static_cast<std::uint32_t>(tag >> 3U), .wire = static_cast<std::uint32_t>(tag & 7U)};
    if (field.number == 0 || tag > 0xFFFFFFFFU) bad(fmt::format("SentencePiece model: no field at byte {}", at_));
    switch (field.wire) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = fixed(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5:
        field.value = fixed(4);
        break;
      default:
        bad(fmt::format("SentencePiece model: unknown wire type {} at byte {}", field.wire, at_));
    }
    return field;
  }

 private:
  std::string_view take(std::uint64_t length) {
    if (length > bytes_.size() - at_) bad(fmt::format("SentencePiece model: cut short at byte {}", at_));
    const std::string_view taken = bytes_.substr(at_, length);
    at_ += taken.size();
    return taken;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
    bad(fmt::format("SentencePiece model: endless number at byte {}", at_));
  }
  std::uint64_t fixed(size_t length) {
    std::uint64_t value = 0;
    const std::string_view bytes = take(length);
    for (size_t i = 0; i < length; ++i) value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    return value;
  }

  std::string_view bytes_;
  size_t at_ = 0;
  const std::string& where_;
};

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7U) out.push_back(static_cast<char>(0x80U | (value & 0x7FU)));
  out.push_back(static_cast<char>(value));
}

void put_bytes(std::string& out, std::uint32_t number, std::string_view bytes) {
  put_varint(out, number << 3U | 2U);
  put_varint(out, bytes.size());
  out += bytes;
}

[[noreturn]] void unsupported(const std::string& fact, const std::string& where) {
  throw Error(ErrorKind::kData, fact, where, "take a model of the Llama 2 or Mistral kind");
}

SentencePieceModel::Piece read_piece(std::string_view bytes, size_t index, const std::string& where) {
  SentencePieceModel::Piece piece;
  Wire wire(bytes, where);
  while (const auto field = wire.next()) {
    if (field->number == kSpelling && field->wire == 2) piece.spelling = field->bytes;
    if (field->number == kScore && field->wire == 5) {
      piece.score = std::bit_cast<float>(static_cast<std::uint32_t>(field->value));
    }
    if (field->number == kType && field->wire == 0) {
      if (field->value < 1 || field->value > 6) wire.bad(fmt::format("piece {} has the type {}", index, field->value));
      piece.type = static_cast<SentencePieceModel::Type>(field->value);
    }
  }
  if (piece.spelling.empty()) wire.bad(fmt::format("piece {} is empty", index));
  if (piece.spelling.size() > kLongestPiece) {
    wire.bad(
        fmt::format("piece {} has {} bytes, at most {} are expected", index, piece.spelling.size(), kLongestPiece));
  }
  if (!std::isfinite(piece.score)) wire.bad(fmt::format("piece {} has a score that is not a number", index));
  for (size_t i = 0; i < piece.spelling.size();) {
    const size_t length = utf8_length(piece.spelling, i);
    if (length == 0) wire.bad(fmt::format("piece {} is not valid UTF-8", index));
    i += length;
  }
  return piece;
}

void check_trainer(std::string_view bytes, const std::string& where) {
  Wire wire(bytes, where);
  std::uint64_t type = 1;
  while (const auto field = wire.next()) {
    if (field->number == kModelType && field->wire == 0) type = field->value;
    if (field->number == kSpaceAsSuffix && field->value != 0) {
      unsupported("the SentencePiece model puts spaces behind words (treat_whitespace_as_suffix)", where);
    }
  }
  if (type != kBpe)
    unsupported(fmt::format("the SentencePiece model is of type {}; 2 (BPE) is supported", type), where);
}

struct NormalizerSettings {
  bool add_prefix = true, remove_extra = true, escape = true, character_map = false;
};

NormalizerSettings read_normalizer(std::string_view bytes, const std::string& where) {
  NormalizerSettings settings;
  Wire wire(bytes, where);
  while (const auto field = wire.next()) {
    if (field->number == kCharacterMap && !field->bytes.empty()) settings.character_map = true;
    if (field->number == kAddPrefix) settings.add_prefix = field->value != 0;
    if (field->number == kRemoveExtra) settings.remove_extra = field->value != 0;
    if (field->number == kEscape) settings.escape = field->value != 0;
  }
  return settings;
}

std::string library_piece(const SentencePieceModel::Piece& piece) {
  using Type = SentencePieceModel::Type;
  std::string out;
  put_bytes(out, kSpelling, piece.spelling);
  put_varint(out, kScore << 3U | 5U);
  const auto score = std::bit_cast<std::uint32_t>(piece.score);
  for (unsigned i = 0; i < 4; ++i) out.push_back(static_cast<char>(score >> (8 * i)));
  put_varint(out, kType << 3U);
  const bool markup = piece.type == Type::kUserDefined && !is_plain_token(piece.spelling);
  put_varint(out, static_cast<std::uint64_t>(markup ? Type::kControl : piece.type));
  return out;
}

}  // namespace

SentencePieceModel read_sentencepiece_model(std::string_view bytes, const std::string& where) {
  SentencePieceModel model;
  std::string_view trainer, normalizer;
  Wire wire(bytes, where);
  while (const auto field = wire.next()) {
    if (field->wire != 2) continue;
    if (field->number == kPieces) {
      if (model.pieces.size() >= kMostPieces) wire.bad("SentencePiece model: too many pieces");
      model.pieces.push_back(read_piece(field->bytes, model.pieces.size(), where));
    }
    if (field->number == kTrainer) trainer = field->bytes;
    if (field->number == kNormalizer) normalizer = field->bytes;
  }
  if (model.pieces.empty()) wire.bad("SentencePiece model: it has no pieces");
  std::unordered_set<std::string_view> seen;
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    if (!seen.insert(model.pieces[i].spelling).second) wire.bad(fmt::format("piece {} is there twice", i));
    put_bytes(model.for_library, kPieces, library_piece(model.pieces[i]));
  }
  check_trainer(trainer, where);
  const NormalizerSettings settings = read_normalizer(normalizer, where);
  if (settings.character_map || settings.remove_extra || !settings.escape) {
    unsupported("the SentencePiece model changes the text before it reads it", where);
  }
  model.space_first = settings.add_prefix;
  put_bytes(model.for_library, kTrainer, trainer);
  // Spaces in front are put there by SentencePieceTokenizer, which knows where text begins.
  std::string plain;
  for (const std::uint32_t number : {kAddPrefix, kRemoveExtra}) put_varint(plain, number << 3U), put_varint(plain, 0);
  put_varint(plain, kEscape << 3U), put_varint(plain, 1);
  put_bytes(model.for_library, kNormalizer, plain);
  return model;
}

}  // namespace kvc
