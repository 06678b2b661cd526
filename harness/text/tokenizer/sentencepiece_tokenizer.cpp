#include "harness/text/tokenizer/sentencepiece_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <exception>
#include <unordered_map>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/core/utf8.h"
#include "harness/text/tokenizer/space_mark.h"
#include "harness/text/tokenizer/unicode.h"
#include "harness/text/tokenizer/word_cache.h"

namespace kvc {
namespace {

using Type = SentencePieceModel::Type;
constexpr const char* kFetchBoth = "the files of the folder do not fit together; fetch them again";

}  // namespace

struct SentencePieceTokenizer::Impl {
  struct Scratch {
    WordCache cache;
    std::vector<WordPiece> pieces;
    sentencepiece::ImmutableSentencePieceText text;
  };

  sentencepiece::SentencePieceProcessor processor;
  std::vector<std::string> bytes;  // by id
  std::vector<bool> control, byte;
  std::unordered_map<std::string, int64_t> ids;
  std::array<std::int32_t, 256> byte_ids{};
  SpecialTokens specials;
  bool space_first = true, cuts_at_spaces = true;
  std::optional<int64_t> bos;
  std::vector<int64_t> end_ids;
  mutable MemoryPool<Scratch> pool;

  void load(const SentencePieceModel& model, const std::string& where);
  void add_pieces(const SentencePieceModel& model, const FolderTokens& folder, const std::string& where);
  void add_roles(const FolderTokens& folder, const std::string& where);
  void encode_run(std::string_view text, Scratch& scratch, std::vector<int64_t>& out, std::vector<int64_t>& ends) const;
  void encode_piece(std::string_view text, bool space, Scratch& scratch) const;
  void encode_valid(std::string_view text, size_t offset, size_t added, Scratch& scratch) const;
};

// --- construction ----------------------------------------------------------------------------------------------------

void SentencePieceTokenizer::Impl::load(const SentencePieceModel& model, const std::string& where) {
  std::string reason;
  try {
    const auto status = processor.LoadFromSerializedProto(model.for_library);
    if (!status.ok()) reason = status.ToString();
  } catch (const std::exception& e) {
    reason = e.what();
  }
  if (reason.empty() && static_cast<size_t>(processor.GetPieceSize()) != model.pieces.size())
    reason = "pieces are lost";
  if (!reason.empty()) {
    throw Error(ErrorKind::kData, fmt::format("the sentencepiece library refuses the model: {}", reason), where,
                "the file is damaged or no SentencePiece model; fetch it again");
  }
}

void SentencePieceTokenizer::Impl::add_pieces(const SentencePieceModel& model, const FolderTokens& folder,
                                              const std::string& where) {
  std::vector<SpecialToken> list;
  byte_ids.fill(processor.unk_id());
  for (const auto& piece : model.pieces) {
    const auto id = static_cast<int64_t>(bytes.size());
    const bool special = piece.type == Type::kControl || piece.type == Type::kUnknown;
    ids.emplace(piece.spelling, id);
    control.push_back(special);
    byte.push_back(piece.type == Type::kByte);
    const bool plain = piece.type == Type::kUserDefined && is_plain_token(piece.spelling);  // the library finds it
    if (special || (piece.type == Type::kUserDefined && !plain)) list.push_back({piece.spelling, id});
    if ((piece.type == Type::kNormal || plain) && holds_inner_space(piece.spelling)) cuts_at_spaces = false;
    bytes.push_back(special ? piece.spelling : with_spaces(piece.spelling));
  }
  for (int b = 0; b < 256; ++b) {
    const auto found = ids.find(fmt::format("<0x{:02X}>", b));
    if (found == ids.end() || !byte[static_cast<size_t>(found->second)]) continue;
    byte_ids[static_cast<size_t>(b)] = static_cast<std::int32_t>(found->second);
    bytes[static_cast<size_t>(found->second)] = std::string(1, static_cast<char>(b));
  }
  for (const FolderToken& token : folder.added) {
    const auto bad = [&](const std::string& fact) {
      throw Error(ErrorKind::kData, fmt::format("added token {} '{}' {}", token.id, printable(token.spelling), fact),
                  where, kFetchBoth);
    };
    if (token.spelling.empty()) bad("is empty");
    const auto index = static_cast<size_t>(token.id);
    const auto [found, is_new] = ids.emplace(token.spelling, token.id);
    if (found->second != token.id) bad(fmt::format("is also token {}", found->second));
    if (is_new && index < model.pieces.size()) bad("has the id of another piece");
    if (is_new && index < bytes.size() && !bytes[index].empty()) bad("has the id of another added token");
    if (index >= bytes.size()) {
      bytes.resize(index + 1);
      control.resize(index + 1);
      byte.resize(index + 1);
    }
    if (is_new) bytes[index] = token.spelling;
    control[index] = control[index] || token.special;
    std::erase_if(list, [&](const SpecialToken& other) { return other.id == token.id; });
    list.push_back({token.spelling, token.id, token.strip_left, token.strip_right,
                    !token.special && is_plain_token(token.spelling)});
  }
  specials = SpecialTokens(std::move(list));
}

void SentencePieceTokenizer::Impl::add_roles(const FolderTokens& folder, const std::string& where) {
  const auto bad = [&](const std::string& fact) { throw Error(ErrorKind::kData, fact, where, kFetchBoth); };
  const auto find = [&](const std::optional<std::string>& spelling) -> std::optional<int64_t> {
    if (!spelling) return std::nullopt;
    const auto found = ids.find(*spelling);
    if (found == ids.end()) bad(fmt::format("'{}' of tokenizer_config.json is not a token", printable(*spelling)));
    return found->second;
  };
  const auto add_end = [&](int64_t id) {
    if (id < 0 || id >= static_cast<int64_t>(bytes.size())) {
      bad(fmt::format("end token id {} is outside the vocabulary of {} tokens", id, bytes.size()));
    }
    if (std::find(end_ids.begin(), end_ids.end(), id) == end_ids.end()) end_ids.push_back(id);
  };
  for (const int64_t id : folder.end_ids) add_end(id);
  const bool listed = !end_ids.empty();
  const auto eos = find(folder.eos_token);  // looked up, and so checked, either way
  if (eos && !listed) add_end(*eos);
  for (const std::string& name : end_token_names()) {
    if (listed) break;
    const auto found = ids.find(name);
    if (found != ids.end() && control[static_cast<size_t>(found->second)]) add_end(found->second);
  }
  if (processor.eos_id() >= 0 && !listed) add_end(processor.eos_id());
  if (end_ids.empty()) bad("no token ends a text: neither the model nor the folder's files name one");
  if (!folder.add_bos.value_or(true)) return;
  bos = find(folder.bos_token);
  if (!bos && processor.bos_id() >= 0) bos = processor.bos_id();
}

SentencePieceTokenizer::SentencePieceTokenizer(std::string_view file, const FolderTokens& folder,
                                               const std::string& where)
    : impl_(std::make_unique<Impl>()) {
  const SentencePieceModel model = read_sentencepiece_model(file, where);
  impl_->space_first = model.space_first;
  impl_->load(model, where);
  impl_->add_pieces(model, folder, where);
  impl_->add_roles(folder, where);
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

// --- encoding --------------------------------------------------------------------------------------------------------

std::vector<int64_t> SentencePieceTokenizer::encode(const std::vector<Segment>& segments,
                                                    std::vector<int64_t>* ends) const {
  const auto scratch = impl_->pool.lend([] { return std::make_unique<Impl::Scratch>(); });
  std::vector<int64_t> ids, offsets;
  impl_->specials.read(
      segments,
      [&](const TextRun& run) {
        const size_t first = offsets.size();
        impl_->encode_run(run.text, *scratch, ids, offsets);
        for (size_t i = first; i < offsets.size(); ++i) offsets[i] += run.base;
      },
      [&](int64_t id, int64_t end) {
        ids.push_back(id);
        offsets.push_back(end);
      });
  if (ends != nullptr) *ends = std::move(offsets);
  return ids;
}

void SentencePieceTokenizer::Impl::encode_run(std::string_view text, Scratch& scratch, std::vector<int64_t>& out,
                                              std::vector<int64_t>& ends) const {
  const auto word = [&](size_t start, size_t end) {
    const std::string_view piece = text.substr(start, end - start);
    const bool space = start == 0 && space_first;
    const bool cacheable = !space && WordCache::takes(piece);
    const auto known = cacheable ? scratch.cache.find(piece) : std::nullopt;
    if (!known) {
      encode_piece(piece, space, scratch);
      if (cacheable) scratch.cache.insert(piece, scratch.pieces);
    }
    for (const WordPiece& p : known.value_or(scratch.pieces)) {
      out.push_back(p.id);
      ends.push_back(static_cast<int64_t>(start + p.end));
    }
  };
  size_t start = 0;
  bool after_space = true;  // the first word begins with the text
  for (size_t i = 0; i < text.size();) {
    const size_t space = space_at(text, i);
    if (space > 0 && !after_space && cuts_at_spaces) {
      word(start, i);
      start = i;
    }
    after_space = space > 0;
    i += std::max<size_t>(space, 1);
  }
  if (start < text.size()) word(start, text.size());
}

// A word, in stretches of valid UTF-8. Offsets in the word.
void SentencePieceTokenizer::Impl::encode_piece(std::string_view text, bool space, Scratch& scratch) const {
  scratch.pieces.clear();
  if (text.size() >= (size_t{1} << 30U)) {
    throw Error(ErrorKind::kData, fmt::format("text holds a word of {} bytes", text.size()), "", "split the text");
  }
  size_t start = 0;
  std::string valid = space ? " " : "";
  const auto flush = [&](size_t added) {
    if (!valid.empty()) encode_valid(valid, start, added, scratch);
    valid.clear();
  };
  size_t added = space ? 1 : 0;
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_length(text, i);
    if (length > 0) {
      valid.append(text.substr(i, length));
      i += length;
      continue;
    }
    flush(std::exchange(added, 0));
    const std::int32_t id = byte_ids[static_cast<unsigned char>(text[i])];
    scratch.pieces.push_back({id, static_cast<std::uint32_t>(++i)});
    start = i;
  }
  flush(added);
}

// `text` stands at `offset` of the word, but for its first `added` bytes, which are not in the word.
void SentencePieceTokenizer::Impl::encode_valid(std::string_view text, size_t offset, size_t added,
                                                Scratch& scratch) const {
  const auto status = processor.Encode(text, scratch.text.mutable_proto());
  if (!status.ok()) {
    throw Error(ErrorKind::kData, fmt::format("the sentencepiece library cannot read a text: {}", status.ToString()),
                "", "");
  }
  size_t last = 0;
  for (size_t i = 0; i < scratch.text.pieces_size(); ++i) {
    const auto piece = scratch.text.pieces(static_cast<int>(i));
    const auto id = static_cast<std::int32_t>(piece.id());
    // Each byte token stands for one byte, though the library says that the last one of a character stands for all.
    last = byte[static_cast<size_t>(id)] ? last + 1 : piece.end();
    scratch.pieces.push_back({id, static_cast<std::uint32_t>(offset + (last > added ? last - added : 0))});
  }
}

// --- looking up ------------------------------------------------------------------------------------------------------

std::string SentencePieceTokenizer::token_bytes(int64_t id) const {
  if (id < 0 || id >= vocab_size()) {
    throw Error(ErrorKind::kData, fmt::format("token id {} is outside the vocabulary of {} tokens", id, vocab_size()),
                "", "the ids come from another model");
  }
  return impl_->bytes[static_cast<size_t>(id)];
}

bool SentencePieceTokenizer::is_special(int64_t id) const {
  return id >= 0 && id < vocab_size() && impl_->control[static_cast<size_t>(id)];
}

int64_t SentencePieceTokenizer::vocab_size() const {
  return static_cast<int64_t>(impl_->bytes.size());
}

std::optional<int64_t> SentencePieceTokenizer::bos() const {
  return impl_->bos;
}

std::vector<int64_t> SentencePieceTokenizer::end_ids() const {
  return impl_->end_ids;
}

bool SentencePieceTokenizer::drops_first_space() const {
  return impl_->space_first;
}

}  // namespace kvc
