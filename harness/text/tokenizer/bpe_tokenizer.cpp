#include "harness/text/tokenizer/bpe_tokenizer.h"

#include <fmt/format.h>

#include <string_view>

#include "harness/core/error.h"
#include "harness/core/utf8.h"
#include "harness/text/tokenizer/bpe_scratch.h"

namespace kvc {

BpeTokenizer::~BpeTokenizer() = default;

std::vector<int64_t> BpeTokenizer::encode(const std::vector<Segment>& segments, std::vector<int64_t>* ends) const {
  const auto scratch = pool_.lend([&] {
    auto fresh = std::make_unique<Scratch>();
    fresh->pre = pre_tokenizer_.make_scratch();
    return fresh;
  });
  Output out;
  specials_.read(
      segments, [&](const TextRun& run) { encode_run(run, *scratch, out); },
      [&](int64_t id, int64_t end) {
        out.ids.push_back(id);
        out.ends.push_back(end);
      });
  if (ends != nullptr) *ends = std::move(out.ends);
  return std::move(out.ids);
}

void BpeTokenizer::encode_run(const TextRun& run, Scratch& scratch, Output& out) const {
  const size_t first = out.ends.size();
  if (alphabet_ == BpeAlphabet::kCharacters) {
    const bool wanted = spaces_.first == SpaceRule::First::kEveryRun ||
                        (spaces_.first == SpaceRule::First::kTextStart && run.base == 0);
    const bool there = run.text.starts_with(' ') || run.text.starts_with(kSpaceMark);
    encode_characters(run.text, wanted && !(there && spaces_.unless_there), scratch, out);
  } else if (split_.nfc && normalize_nfc(run.text, run.borders, scratch.normal, scratch.changes)) {
    encode_words(scratch.normal, scratch, out);
    NfcOffsets offsets(scratch.changes);
    for (size_t i = first; i < out.ends.size(); ++i) {
      out.ends[i] = static_cast<int64_t>(offsets.original(static_cast<size_t>(out.ends[i])));
    }
  } else {
    encode_words(run.text, scratch, out);
  }
  for (size_t i = first; i < out.ends.size(); ++i) out.ends[i] += run.base;
}

void BpeTokenizer::encode_words(std::string_view text, Scratch& scratch, Output& out) const {
  pre_tokenizer_.split(text, *scratch.pre, scratch.word_ends);
  size_t start = 0;
  for (const size_t end : scratch.word_ends) {
    append_word(text.substr(start, end - start), start, scratch, out);
    start = end;
  }
}

std::string BpeTokenizer::token_bytes(int64_t id) const {
  if (id < 0 || id >= vocab_size()) {
    throw Error(ErrorKind::kData, fmt::format("token id {} is outside the vocabulary of {} tokens", id, vocab_size()),
                "", "the ids come from another model");
  }
  return bytes_[static_cast<size_t>(id)];
}

bool BpeTokenizer::is_special(int64_t id) const {
  return id >= 0 && id < vocab_size() && kinds_[static_cast<size_t>(id)] == TokenKind::kControl;
}

bool BpeTokenizer::drops_first_space() const {
  return alphabet_ == BpeAlphabet::kCharacters && spaces_.first != SpaceRule::First::kNever;
}

std::optional<int64_t> BpeTokenizer::find_token(const std::string& spelling) const {
  const auto found = ids_.find(spelling);
  return found == ids_.end() ? std::nullopt : std::optional<int64_t>(found->second);
}

std::vector<unsigned char> BpeTokenizer::lost_bytes() const {
  std::vector<unsigned char> list;
  for (size_t b = 0; b < 256; ++b) {
    if (byte_ids_[b] < 0) list.push_back(static_cast<unsigned char>(b));
  }
  return list;
}

}  // namespace kvc
