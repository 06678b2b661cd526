// Working memory of tokenizers: words met before, and a pool that lends such memory to one call at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace kvc {

// A token of a word; `end`: offset in the word.
struct WordPiece {
  std::int32_t id;
  std::uint32_t end;
};

class WordCache {
 public:
  static bool takes(std::string_view word) { return word.size() <= kMostBytes; }

  std::optional<std::span<const WordPiece>> find(std::string_view word) const {
    const auto found = words_.find(word);
    if (found == words_.end()) return std::nullopt;
    return std::span(pieces_).subspan(found->second.first, found->second.second);
  }
  // The word must not be there yet. A full cache starts anew.
  void insert(std::string_view word, std::span<const WordPiece> pieces) {
    if (words_.size() >= kMostWords) {
      words_.clear();
      pieces_.clear();
    }
    words_.emplace(word, std::pair(pieces_.size(), pieces.size()));
    pieces_.insert(pieces_.end(), pieces.begin(), pieces.end());
  }

 private:
  static constexpr size_t kMostBytes = 48, kMostWords = size_t{1} << 16U;
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  std::unordered_map<std::string, std::pair<size_t, size_t>, Hash, std::equal_to<>> words_;
  std::vector<WordPiece> pieces_;  // one word after the other
};

// Threads that work at the same time share no memory, and one that comes back finds it warm.
template <class Memory>
class MemoryPool {
 public:
  class Lease {
   public:
    Lease(MemoryPool& pool, std::unique_ptr<Memory> memory) : pool_(pool), memory_(std::move(memory)) {}
    ~Lease() {
      const std::lock_guard lock(pool_.mutex_);
      pool_.idle_.push_back(std::move(memory_));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Memory& operator*() const { return *memory_; }

   private:
    MemoryPool& pool_;
    std::unique_ptr<Memory> memory_;
  };

  template <class Make>
  Lease lend(Make make) {
    std::unique_ptr<Memory> memory;
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        memory = std::move(idle_.back());
        idle_.pop_back();
      }
    }
    if (!memory) memory = make();
    return Lease(*this, std::move(memory));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Memory>> idle_;
};

}  // namespace kvc
