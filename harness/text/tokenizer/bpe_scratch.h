// Working memory of one call of BpeTokenizer::encode().
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/text/tokenizer/bpe_tokenizer.h"
#include "harness/text/tokenizer/nfc.h"

namespace kvc {

struct BpeTokenizer::Scratch {
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
  void add_symbol(std::int32_t id, size_t end) {
    const auto index = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({id, index - 1, index + 1, static_cast<std::uint32_t>(end)});
  }

  PreTokenizer::ScratchPtr pre;
  std::vector<size_t> word_ends;
  std::string normal;  // the text in normal form
  std::vector<NfcChange> changes;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::vector<WordPiece> pieces;  // of the last word encoded
  WordCache cache;
};

}  // namespace kvc
