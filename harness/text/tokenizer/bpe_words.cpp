// How a BpeTokenizer turns words into tokens: symbols, merges, and a cache of words met before.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <string_view>

#include "harness/core/error.h"
#include "harness/core/utf8.h"
#include "harness/text/tokenizer/bpe_scratch.h"
#include "harness/text/tokenizer/space_mark.h"
#include "harness/text/tokenizer/unicode.h"

namespace kvc {

void BpeTokenizer::encode_characters(std::string_view text, bool space_first, Scratch& scratch, Output& out) const {
  size_t start = 0;
  bool after_space = space_first;  // and so no cut before a space that begins the text, unless at every one
  if (space_first && spaces_.cut_at_every && !text.empty() && space_at(text, 0) > 0) {
    encode_word("", true, scratch);
    for (const WordPiece& piece : scratch.pieces) out.ids.push_back(piece.id), out.ends.push_back(0);
    space_first = false;
  }
  const auto finish = [&](size_t end) {
    if (end == start) return;
    if (space_first) {  // not the word that the cache knows
      encode_word(text.substr(0, end), true, scratch);
      for (const WordPiece& piece : scratch.pieces) out.ids.push_back(piece.id), out.ends.push_back(piece.end);
      space_first = false;
    } else {
      append_word(text.substr(start, end - start), start, scratch, out);
    }
    start = end;
  };
  for (size_t i = 0; i < text.size();) {
    const size_t space = space_at(text, i);
    if (space > 0 && (spaces_.cut_at_every || (cuts_at_spaces_ && !after_space))) finish(i);
    after_space = space > 0;
    i += std::max<size_t>(space, 1);
  }
  finish(text.size());
}

void BpeTokenizer::append_word(std::string_view word, size_t start, Scratch& scratch, Output& out) const {
  const bool cacheable = WordCache::takes(word);
  const auto known = cacheable ? scratch.cache.find(word) : std::nullopt;
  if (!known) {
    encode_word(word, false, scratch);
    if (cacheable) scratch.cache.insert(word, scratch.pieces);
  }
  for (const WordPiece& piece : known.value_or(scratch.pieces)) {
    out.ids.push_back(piece.id);
    out.ends.push_back(static_cast<int64_t>(start + piece.end));
  }
}

void BpeTokenizer::encode_word(std::string_view word, bool space_first, Scratch& scratch) const {
  scratch.pieces.clear();
  if (word.size() >= static_cast<size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw Error(ErrorKind::kData, fmt::format("text holds a word of {} bytes", word.size()), "", "split the text");
  }
  if (split_.whole_words_first) {
    const auto found = words_.find(std::string(word));
    if (found != words_.end()) {
      scratch.pieces.push_back({static_cast<std::int32_t>(found->second), static_cast<std::uint32_t>(word.size())});
      return;
    }
  }
  scratch.symbols.clear();
  if (alphabet_ == BpeAlphabet::kBytes) {
    add_byte_symbols(word, scratch);
  } else {
    add_character_symbols(word, space_first, scratch);
  }
  if (scratch.symbols.empty()) return;
  scratch.symbols.back().next = -1;
  merge(scratch);
  for (std::int32_t i = 0; i >= 0; i = scratch.symbols[static_cast<size_t>(i)].next) {
    const Scratch::Symbol& symbol = scratch.symbols[static_cast<size_t>(i)];
    scratch.pieces.push_back({symbol.id, symbol.end});
  }
}

void BpeTokenizer::add_byte_symbols(std::string_view word, Scratch& scratch) const {
  bool after_unknown = false;
  for (size_t i = 0; i < word.size(); ++i) {
    const std::int32_t id = byte_ids_[static_cast<unsigned char>(word[i])];
    if (id >= 0) {
      scratch.add_symbol(id, i + 1);
    } else if (unknown_ >= 0) {
      const bool fuse = fuse_unknown_ && after_unknown;
      if (fuse) scratch.symbols.back().end = static_cast<std::uint32_t>(i + 1);
      if (!fuse) scratch.add_symbol(unknown_, i + 1);
    }
    after_unknown = id < 0;
  }
}

void BpeTokenizer::add_character_symbols(std::string_view word, bool space_first, Scratch& scratch) const {
  const auto add = [&](char32_t c, std::string_view bytes, size_t start) {
    const auto found = character_ids_.find(c);
    if (found != character_ids_.end()) {
      scratch.add_symbol(found->second, start + bytes.size());
      return;
    }
    for (size_t i = 0; i < bytes.size(); ++i) {
      scratch.add_symbol(byte_ids_[static_cast<unsigned char>(bytes[i])], start + i + 1);
    }
  };
  if (space_first) {
    add(kSpaceMarkPoint, kSpaceMark, 0);
    for (Scratch::Symbol& symbol : scratch.symbols) symbol.end = 0;  // it is not in the text
  }
  for (size_t i = 0; i < word.size();) {
    const size_t length = utf8_length(word, i);
    if (length == 0) {
      scratch.add_symbol(byte_ids_[static_cast<unsigned char>(word[i])], i + 1);
    } else {
      const char32_t c = code_point_at(word, i, length);
      add(c == ' ' ? kSpaceMarkPoint : c, word.substr(i, length), i);
    }
    i += std::max<size_t>(length, 1);
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

}  // namespace kvc
