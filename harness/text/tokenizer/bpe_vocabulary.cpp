// How a BpeTokenizer is built from a vocabulary that nobody has checked yet.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/core/utf8.h"
#include "harness/text/tokenizer/bpe_scratch.h"
#include "harness/text/tokenizer/space_mark.h"
#include "harness/text/tokenizer/unicode.h"

namespace kvc {
namespace {

constexpr const char* kRedownload = "the file is damaged or of another kind; fetch or convert it again";

// "<0x0A>" -> 10.
std::optional<unsigned char> byte_of(std::string_view spelling) {
  if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling[5] != '>') return std::nullopt;
  unsigned value = 0;
  for (const char c : spelling.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + static_cast<unsigned>(digit);
  }
  return static_cast<unsigned char>(value);
}

}  // namespace

BpeMerge parse_merge(const std::string& text, size_t rank, const std::string& key, const std::string& where) {
  const size_t space = text.find(' ');
  if (space == std::string::npos || space == 0 || space + 1 == text.size() ||
      text.find(' ', space + 1) != std::string::npos) {
    throw Error(ErrorKind::kData,
                fmt::format("{}[{}] '{}' is not two pieces with a space between", key, rank, printable(text)), where,
                kRedownload);
  }
  return {text.substr(0, space), text.substr(space + 1), static_cast<std::uint32_t>(rank)};
}

BpeTokenizer::BpeTokenizer(BpeVocabulary vocabulary)
    : alphabet_(vocabulary.alphabet),
      split_(vocabulary.split),
      spaces_(vocabulary.spaces),
      kinds_(vocabulary.kinds),
      merges_(vocabulary.merges.size()),
      pre_tokenizer_(vocabulary.split.expressions, vocabulary.where),
      bos_(vocabulary.bos),
      end_ids_(vocabulary.end_ids) {
  const auto bad = [&](const std::string& fact) { throw Error(ErrorKind::kData, fact, vocabulary.where, kRedownload); };
  const size_t n_tokens = vocabulary.tokens.size();
  if (n_tokens == 0) bad(fmt::format("{} is empty", vocabulary.tokens_key));
  if (n_tokens > static_cast<size_t>(std::numeric_limits<std::int32_t>::max())) {
    bad(fmt::format("{} has {} tokens", vocabulary.tokens_key, n_tokens));
  }
  if (kinds_.size() != n_tokens) {
    bad(fmt::format("{} has {} tokens, but there are {} token types", vocabulary.tokens_key, n_tokens, kinds_.size()));
  }
  const auto check_id = [&](const char* what, int64_t id) {
    if (id < 0 || id >= static_cast<int64_t>(n_tokens) || vocabulary.tokens[static_cast<size_t>(id)].empty()) {
      bad(fmt::format("{} token id {} is outside the vocabulary of {} tokens", what, id, n_tokens));
    }
  };
  if (bos_) check_id("begin-of-text", *bos_);
  if (vocabulary.unknown) {
    check_id("unknown", *vocabulary.unknown);
    unknown_ = static_cast<std::int32_t>(*vocabulary.unknown);
    fuse_unknown_ = vocabulary.fuse_unknown;
  }
  for (const int64_t id : end_ids_) check_id("end", id);
  add_tokens(vocabulary);
  add_bytes(vocabulary);
  add_merges(vocabulary);
}

void BpeTokenizer::add_tokens(const BpeVocabulary& vocabulary) {
  const auto bad = [&](size_t id, const std::string& fact) {
    throw Error(ErrorKind::kData, fmt::format("{}[{}] {}", vocabulary.tokens_key, id, fact), vocabulary.where,
                kRedownload);
  };
  std::vector<SpecialToken> specials;
  ids_.reserve(vocabulary.tokens.size());
  bytes_.reserve(vocabulary.tokens.size());
  byte_ids_.fill(-1);
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& spelling = vocabulary.tokens[id];
    bytes_.push_back(spelling);
    if (spelling.empty()) continue;
    const auto [other, is_new] = ids_.emplace(spelling, static_cast<int64_t>(id));
    if (!is_new) bad(id, fmt::format("'{}' is also token {}", printable(spelling), other->second));
    switch (kinds_[id]) {
      case TokenKind::kControl:
      case TokenKind::kUserDefined:
        specials.push_back({spelling, static_cast<int64_t>(id),
                            vocabulary.strip_left.contains(static_cast<int64_t>(id)),
                            vocabulary.strip_right.contains(static_cast<int64_t>(id)),
                            kinds_[id] == TokenKind::kUserDefined && is_plain_token(spelling)});
        break;
      case TokenKind::kByte: {
        const auto byte = byte_of(spelling);
        if (!byte) bad(id, fmt::format("'{}' is a byte token, but not spelled like <0x0A>", printable(spelling)));
        byte_ids_[*byte] = static_cast<std::int32_t>(id);
        bytes_[id] = std::string(1, static_cast<char>(*byte));
        break;
      }
      case TokenKind::kNormal:
      case TokenKind::kUnused:
        if (alphabet_ == BpeAlphabet::kBytes) {
          // A normal token outside the byte alphabet cannot be reached by merges of bytes; it reads as itself.
          const std::optional<std::string> bytes = bytes_of_spelling(spelling);
          if (bytes && split_.whole_words_first && kinds_[id] == TokenKind::kNormal) {
            words_.emplace(*bytes, static_cast<int64_t>(id));
          }
          bytes_[id] = bytes.value_or(spelling);
        } else {
          bytes_[id] = with_spaces(spelling);
        }
    }
  }
  specials_ = SpecialTokens(std::move(specials));
}

void BpeTokenizer::add_bytes(const BpeVocabulary& vocabulary) {
  const auto bad = [&](const std::string& fact) { throw Error(ErrorKind::kData, fact, vocabulary.where, kRedownload); };
  if (alphabet_ == BpeAlphabet::kBytes) {
    for (size_t b = 0; b < 256; ++b) {
      const auto found = ids_.find(spell_byte(static_cast<unsigned char>(b)));
      byte_ids_[b] = found == ids_.end() ? -1 : static_cast<std::int32_t>(found->second);
      if (byte_ids_[b] >= 0 && kinds_[static_cast<size_t>(byte_ids_[b])] == TokenKind::kControl) {
        bad(fmt::format("{}[{}] is a control token, but also the byte 0x{:02x} of any text", vocabulary.tokens_key,
                        byte_ids_[b], b));
      }
    }
    return;
  }
  if (const auto lost = lost_bytes(); !lost.empty()) {
    bad(fmt::format("{} has no token <0x{:02X}>: characters without a token could not be spelled",
                    vocabulary.tokens_key, lost[0]));
  }
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& spelling = vocabulary.tokens[id];
    if (kinds_[id] != TokenKind::kNormal || spelling.empty() || utf8_length(spelling, 0) != spelling.size()) continue;
    character_ids_[code_point_at(spelling, 0, spelling.size())] = static_cast<std::int32_t>(id);
  }
}

// Encoding leaves out bytes that have no token; of these none may occur in ordinary text.
void BpeTokenizer::check_ordinary_bytes(const std::string& key, const std::string& where) const {
  for (const unsigned char byte : lost_bytes()) {
    if (byte == '\n' || (byte >= 0x20 && byte < 0x7F) || (byte >= 0x80 && byte < 0xC0)) {
      throw Error(ErrorKind::kData, fmt::format("{} has no token for the byte 0x{:02x}", key, byte), where,
                  kRedownload);
    }
  }
}

void BpeTokenizer::add_merges(const BpeVocabulary& vocabulary) {
  for (size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const BpeMerge& pair = vocabulary.merges[i];
    const auto bad = [&](const std::string& fact) {
      throw Error(
          ErrorKind::kData,
          fmt::format("{}[{}] '{} {}' {}", vocabulary.merges_key, i, printable(pair.left), printable(pair.right), fact),
          vocabulary.where, kRedownload);
    };
    const auto id_of = [&](const std::string& spelling) {
      const auto found = ids_.find(spelling);
      if (found == ids_.end()) bad(fmt::format("needs '{}', which is not a token", printable(spelling)));
      return static_cast<std::uint32_t>(found->second);
    };
    const std::string both = pair.left + pair.right;
    const std::uint32_t merged = id_of(both);
    if (kinds_[merged] == TokenKind::kControl) bad("gives a control token: any text could act as control");
    if (!merges_.insert(id_of(pair.left), id_of(pair.right), pair.rank, merged)) bad("is there twice");
    if (alphabet_ == BpeAlphabet::kCharacters && holds_inner_space(both)) cuts_at_spaces_ = false;
  }
}

}  // namespace kvc
