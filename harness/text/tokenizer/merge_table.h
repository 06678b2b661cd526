// Which pairs of tokens merge, as a flat hash table: the innermost look-up of byte-pair encoding.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvc {

// (left id, right id) -> rank and id of what they merge to. Open addressing: one or two cache lines a look-up.
class MergeTable {
 public:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  struct Entry {
    std::uint64_t pair = kEmpty;
    std::uint32_t rank = 0;
    std::uint32_t id = 0;
  };
  explicit MergeTable(size_t n_merges) : slots_(std::bit_ceil(2 * n_merges + 2)), mask_(slots_.size() - 1) {}

  // False when the pair is there already. At most n_merges pairs.
  bool insert(std::uint32_t left, std::uint32_t right, std::uint32_t rank, std::uint32_t id) {
    const std::uint64_t pair = key(left, right);
    size_t slot = hash(pair) & mask_;
    for (; slots_[slot].pair != kEmpty; slot = (slot + 1) & mask_) {
      if (slots_[slot].pair == pair) return false;
    }
    slots_[slot] = {pair, rank, id};
    return true;
  }

  // nullptr: the pair does not merge.
  const Entry* find(std::uint32_t left, std::uint32_t right) const {
    const std::uint64_t pair = key(left, right);
    for (size_t slot = hash(pair) & mask_;; slot = (slot + 1) & mask_) {
      if (slots_[slot].pair == pair) return &slots_[slot];
      if (slots_[slot].pair == kEmpty) return nullptr;
    }
  }

 private:
  static std::uint64_t key(std::uint32_t left, std::uint32_t right) { return (std::uint64_t{left} << 32U) | right; }
  static size_t hash(std::uint64_t pair) {
    pair *= 0x9E3779B97F4A7C15U;
    return static_cast<size_t>(pair ^ (pair >> 29U));
  }
  std::vector<Entry> slots_;
  size_t mask_;
};

}  // namespace kvc
