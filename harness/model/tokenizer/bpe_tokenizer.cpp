#include "harness/model/tokenizer/bpe_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string_view>

#include "harness/core/error.h"
#include "harness/model/tokenizer/utf8.h"

namespace kvc {
namespace {

constexpr size_t kCachedWordBytes = 48;
constexpr size_t kCachedWords = 1U << 16U;

constexpr const char* kRedownload = "the file is damaged or of another kind; fetch or convert it again";

struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

}  // namespace

// --- working memory --------------------------------------------------------------------------------------------------

struct BpeTokenizer::Scratch {
  // Tokens [first, first + count) of a word of the cache.
  struct Span {
    std::uint32_t first, count;
  };
  // A symbol of the word being merged, in a doubly linked list; -1: none. `end`: offset in the word.
  struct Symbol {
    std::int32_t id, previous, next;
    std::uint32_t end;
  };
  // A possible merge of the symbol at `left` with its successor. Outdated ones stay in the heap and are recognised by
  // their ids.
  struct Candidate {
    std::uint32_t rank;
    std::int32_t left;
    std::int32_t left_id, right_id;
    std::uint32_t merged;
    // Heap order: smallest rank on top, then leftmost.
    bool operator<(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
  };
  struct Piece {
    std::int32_t id;
    std::uint32_t end;
  };

  PreTokenizer::ScratchPtr pre;
  std::vector<size_t> word_ends;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::vector<Piece> pieces;  // of the last word encoded
  std::unordered_map<std::string, Span, TextHash, std::equal_to<>> cache;
  std::vector<Piece> cached;  // the cache's pieces, one word after the other
};

class BpeTokenizer::Lease {
 public:
  explicit Lease(const BpeTokenizer& owner) : owner_(owner) {
    {
      const std::lock_guard lock(owner_.mutex_);
      if (!owner_.idle_.empty()) {
        scratch_ = std::move(owner_.idle_.back());
        owner_.idle_.pop_back();
      }
    }
    if (!scratch_) {
      scratch_ = std::make_unique<Scratch>();
      scratch_->pre = owner_.pre_tokenizer_.make_scratch();
    }
  }
  ~Lease() {
    const std::lock_guard lock(owner_.mutex_);
    owner_.idle_.push_back(std::move(scratch_));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Scratch& operator*() const { return *scratch_; }

 private:
  const BpeTokenizer& owner_;
  std::unique_ptr<Scratch> scratch_;
};

// --- construction ----------------------------------------------------------------------------------------------------

BpeTokenizer::BpeTokenizer(BpeVocabulary vocabulary)
    : kinds_(vocabulary.kinds),
      merges_(vocabulary.merges.size()),
      pre_tokenizer_(vocabulary.pre_tokenizer, vocabulary.where),
      bos_(vocabulary.bos),
      end_ids_(vocabulary.end_ids) {
  const auto bad = [&](const std::string& fact) { throw Error(ErrorKind::kData, fact, vocabulary.where, kRedownload); };
  if (vocabulary.tokens.empty()) bad(fmt::format("{} is empty", vocabulary.tokens_key));
  if (vocabulary.tokens.size() > static_cast<size_t>(std::numeric_limits<std::int32_t>::max())) {
    bad(fmt::format("{} has {} tokens", vocabulary.tokens_key, vocabulary.tokens.size()));
  }
  if (kinds_.size() != vocabulary.tokens.size()) {
    bad(fmt::format("{} has {} tokens, but there are {} token types", vocabulary.tokens_key, vocabulary.tokens.size(),
                    kinds_.size()));
  }
  const auto check_id = [&](const char* what, int64_t id) {
    if (id < 0 || id >= static_cast<int64_t>(vocabulary.tokens.size())) {
      bad(fmt::format("{} token id {} is outside the vocabulary of {} tokens", what, id, vocabulary.tokens.size()));
    }
  };
  if (bos_) check_id("begin-of-text", *bos_);
  for (const int64_t id : end_ids_) check_id("end", id);
  add_tokens(vocabulary);
  add_merges(vocabulary);
}

// --- encoding --------------------------------------------------------------------------------------------------------

BpeTokenizer::~BpeTokenizer() = default;

std::vector<int64_t> BpeTokenizer::encode(const std::vector<Segment>& segments, std::vector<int64_t>* ends) const {
  Lease lease(*this);
  Output out;
  std::string pending;  // text since the last special token
  int64_t base = 0;     // where `pending` starts in the whole
  const auto flush = [&] {
    encode_text_into(pending, base, *lease, out);
    base += static_cast<int64_t>(pending.size());
    pending.clear();
  };
  for (const Segment& segment : segments) {
    if (!segment.control) {
      pending += segment.text;
      continue;
    }
    for (size_t i = 0; i < segment.text.size();) {
      const Special* special = special_at(segment.text, i);
      if (special == nullptr) {
        pending.push_back(segment.text[i++]);
        continue;
      }
      flush();
      i += special->spelling.size();
      base += static_cast<int64_t>(special->spelling.size());
      out.ids.push_back(special->id);
      out.ends.push_back(base);
    }
  }
  flush();
  if (ends != nullptr) *ends = std::move(out.ends);
  return std::move(out.ids);
}

const BpeTokenizer::Special* BpeTokenizer::special_at(std::string_view text, size_t offset) const {
  for (const Special& special : specials_[static_cast<unsigned char>(text[offset])]) {
    if (text.substr(offset).starts_with(special.spelling)) return &special;
  }
  return nullptr;
}

void BpeTokenizer::encode_text_into(std::string_view text, int64_t base, Scratch& scratch, Output& out) const {
  pre_tokenizer_.split(text, *scratch.pre, scratch.word_ends);
  const auto append = [&](const Scratch::Piece* pieces, size_t count, size_t start) {
    for (size_t i = 0; i < count; ++i) {
      out.ids.push_back(pieces[i].id);
      out.ends.push_back(base + static_cast<int64_t>(start + pieces[i].end));
    }
  };
  size_t start = 0;
  for (const size_t end : scratch.word_ends) {
    const std::string_view word = text.substr(start, end - start);
    const bool cacheable = word.size() <= kCachedWordBytes;
    const auto found = cacheable ? scratch.cache.find(word) : scratch.cache.end();
    if (found != scratch.cache.end()) {
      append(scratch.cached.data() + found->second.first, found->second.count, start);
    } else {
      encode_word(word, scratch);
      append(scratch.pieces.data(), scratch.pieces.size(), start);
      if (cacheable) {
        if (scratch.cache.size() >= kCachedWords) {
          scratch.cache.clear();
          scratch.cached.clear();
        }
        scratch.cache.emplace(word, Scratch::Span{static_cast<std::uint32_t>(scratch.cached.size()),
                                                  static_cast<std::uint32_t>(scratch.pieces.size())});
        scratch.cached.insert(scratch.cached.end(), scratch.pieces.begin(), scratch.pieces.end());
      }
    }
    start = end;
  }
}

void BpeTokenizer::encode_word(std::string_view word, Scratch& scratch) const {
  scratch.pieces.clear();
  if (word.size() > static_cast<size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw Error(ErrorKind::kData, fmt::format("text holds a word of {} bytes", word.size()), "", "split the text");
  }
  if (pre_tokenizer_.whole_words_first()) {
    const auto found = words_.find(std::string(word));
    if (found != words_.end()) {
      scratch.pieces.push_back({static_cast<std::int32_t>(found->second), static_cast<std::uint32_t>(word.size())});
      return;
    }
  }
  scratch.symbols.clear();
  for (size_t i = 0; i < word.size(); ++i) {
    const std::int32_t id = byte_ids_[static_cast<unsigned char>(word[i])];
    if (id < 0) continue;
    const auto index = static_cast<std::int32_t>(scratch.symbols.size());
    scratch.symbols.push_back({id, index - 1, index + 1, static_cast<std::uint32_t>(i + 1)});
  }
  if (scratch.symbols.empty()) return;
  scratch.symbols.back().next = -1;
  merge(scratch);
  for (std::int32_t i = 0; i >= 0; i = scratch.symbols[static_cast<size_t>(i)].next) {
    const Scratch::Symbol& symbol = scratch.symbols[static_cast<size_t>(i)];
    scratch.pieces.push_back({symbol.id, symbol.end});
  }
}

void BpeTokenizer::merge(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  heap.clear();
  const auto at = [&](std::int32_t i) -> Scratch::Symbol& { return symbols[static_cast<size_t>(i)]; };
  const auto propose = [&](std::int32_t left) {
    if (left < 0 || at(left).next < 0) return false;
    const std::int32_t left_id = at(left).id, right_id = at(at(left).next).id;
    const MergeTable::Entry* entry =
        merges_.find(static_cast<std::uint32_t>(left_id), static_cast<std::uint32_t>(right_id));
    if (entry == nullptr) return false;
    heap.push_back({entry->rank, left, left_id, right_id, entry->id});
    return true;
  };
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(symbols.size()); ++i) propose(i);
  std::make_heap(heap.begin(), heap.end());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    Scratch::Symbol& left = at(best.left);
    if (left.id != best.left_id || left.next < 0 || at(left.next).id != best.right_id) continue;
    const std::int32_t gone = left.next;
    left.id = static_cast<std::int32_t>(best.merged);
    left.end = at(gone).end;
    left.next = at(gone).next;
    at(gone).id = -1;  // no candidate names it any more
    if (left.next >= 0) at(left.next).previous = best.left;
    if (propose(best.left)) std::push_heap(heap.begin(), heap.end());
    if (propose(left.previous)) std::push_heap(heap.begin(), heap.end());
  }
}

// --- looking up ------------------------------------------------------------------------------------------------------

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
