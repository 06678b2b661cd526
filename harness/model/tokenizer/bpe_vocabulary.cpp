// How a BpeTokenizer is built from a vocabulary that nobody has checked yet.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include "harness/core/error.h"
#include "harness/model/tokenizer/bpe_tokenizer.h"
#include "harness/model/tokenizer/utf8.h"

namespace kvc {
namespace {

constexpr const char* kRedownload = "the file is damaged or of another kind; fetch or convert it again";

// A spelling for messages: no control characters, no invalid UTF-8, not endless.
std::string shown(std::string_view spelling) {
  std::string text;
  for (size_t i = 0; i < spelling.size() && text.size() < 60;) {
    const size_t length = utf8_length(spelling, i);
    if (length == 0 || (length == 1 && (spelling[i] < 0x20 || spelling[i] == 0x7F))) {
      text += fmt::format("\\x{:02x}", static_cast<unsigned char>(spelling[i]));
      ++i;
    } else {
      text.append(spelling.substr(i, length));
      i += length;
    }
  }
  return text.size() < 60 ? text : text + "...";
}

}  // namespace

void BpeTokenizer::add_tokens(const BpeVocabulary& vocabulary) {
  const auto bad = [&](size_t id, const std::string& fact) {
    throw Error(ErrorKind::kData, fmt::format("{}[{}] {}", vocabulary.tokens_key, id, fact), vocabulary.where,
                kRedownload);
  };
  ids_.reserve(vocabulary.tokens.size());
  bytes_.reserve(vocabulary.tokens.size());
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& spelling = vocabulary.tokens[id];
    if (spelling.empty()) bad(id, "is empty");
    const auto [other, is_new] = ids_.emplace(spelling, static_cast<int64_t>(id));
    if (!is_new) bad(id, fmt::format("'{}' is also token {}", shown(spelling), other->second));
    if (kinds_[id] == TokenKind::kNormal) {
      // A normal token outside the byte alphabet cannot be reached by merges of bytes; it reads as itself.
      const std::optional<std::string> bytes = bytes_of_spelling(spelling);
      if (bytes && pre_tokenizer_.whole_words_first()) words_.emplace(*bytes, static_cast<int64_t>(id));
      bytes_.push_back(bytes.value_or(spelling));
    } else {
      bytes_.push_back(spelling);
      specials_[static_cast<unsigned char>(spelling[0])].push_back({spelling, static_cast<int64_t>(id)});
    }
  }
  for (auto& list : specials_) {
    std::sort(list.begin(), list.end(),
              [](const Special& a, const Special& b) { return a.spelling.size() > b.spelling.size(); });
  }
  for (size_t b = 0; b < 256; ++b) {
    const auto found = ids_.find(spell_byte(static_cast<unsigned char>(b)));
    byte_ids_[b] = found == ids_.end() ? -1 : static_cast<std::int32_t>(found->second);
    if (byte_ids_[b] >= 0 && kinds_[static_cast<size_t>(byte_ids_[b])] == TokenKind::kControl) {
      bad(static_cast<size_t>(byte_ids_[b]),
          fmt::format("is a control token, but also the byte 0x{:02x} of any text", b));
    }
  }
}

void BpeTokenizer::add_merges(const BpeVocabulary& vocabulary) {
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const std::string& merge_text = vocabulary.merges[rank];
    const auto bad = [&](const std::string& fact) {
      throw Error(ErrorKind::kData, fmt::format("{}[{}] '{}' {}", vocabulary.merges_key, rank, shown(merge_text), fact),
                  vocabulary.where, kRedownload);
    };
    const size_t space = merge_text.find(' ');
    if (space == std::string::npos || space == 0 || space + 1 == merge_text.size() ||
        merge_text.find(' ', space + 1) != std::string::npos) {
      bad("is not two pieces with a space between");
    }
    const auto id_of = [&](const std::string& spelling) {
      const auto found = ids_.find(spelling);
      if (found == ids_.end()) bad(fmt::format("needs '{}', which is no token", shown(spelling)));
      return static_cast<std::uint32_t>(found->second);
    };
    const std::string left = merge_text.substr(0, space), right = merge_text.substr(space + 1);
    const std::uint32_t merged = id_of(left + right);
    if (kinds_[merged] == TokenKind::kControl) bad("gives a control token: any text could act as control");
    if (!merges_.insert(id_of(left), id_of(right), static_cast<std::uint32_t>(rank), merged)) bad("is there twice");
  }
}

}  // namespace kvc
