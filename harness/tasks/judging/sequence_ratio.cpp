#include "harness/tasks/judging/sequence_ratio.h"

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "harness/tasks/judging/answer_words.h"

namespace kvc {
namespace {

struct Block {
  size_t a = 0, b = 0, size = 0;
};

class Matcher {
 public:
  Matcher(std::vector<char32_t> a, std::vector<char32_t> b) : a_(std::move(a)), b_(std::move(b)) {
    for (size_t i = 0; i < b_.size(); ++i) places_[b_[i]].push_back(i);
    if (b_.size() < 200) return;
    const size_t most = b_.size() / 100 + 1;
    std::erase_if(places_, [&](const auto& entry) { return entry.second.size() > most; });
  }

  double ratio() const {
    if (a_.empty() && b_.empty()) return 1;
    return 2.0 * static_cast<double>(matched()) / static_cast<double>(a_.size() + b_.size());
  }

 private:
  struct Span {
    size_t a_begin, a_end, b_begin, b_end;
  };

  size_t matched() const {
    size_t sum = 0;
    std::vector<Span> spans = {{0, a_.size(), 0, b_.size()}};
    while (!spans.empty()) {
      const Span span = spans.back();
      spans.pop_back();
      const Block block = longest(span);
      if (block.size == 0) continue;
      sum += block.size;
      spans.push_back({span.a_begin, block.a, span.b_begin, block.b});
      spans.push_back({block.a + block.size, span.a_end, block.b + block.size, span.b_end});
    }
    return sum;
  }

  // The longest block of the span; of several the one that begins first in a, then in b.
  Block longest(const Span& span) const {
    Block best{span.a_begin, span.b_begin, 0};
    std::unordered_map<size_t, size_t> lengths, next;  // of the blocks that end at a place of b
    for (size_t i = span.a_begin; i < span.a_end; ++i) {
      next.clear();
      const auto found = places_.find(a_[i]);
      if (found != places_.end()) {
        for (const size_t j : found->second) {
          if (j < span.b_begin) continue;
          if (j >= span.b_end) break;
          const auto before = j == 0 ? lengths.end() : lengths.find(j - 1);
          const size_t size = (before == lengths.end() ? 0 : before->second) + 1;
          next[j] = size;
          if (size > best.size) best = {i + 1 - size, j + 1 - size, size};
        }
      }
      std::swap(lengths, next);
    }
    while (best.a > span.a_begin && best.b > span.b_begin && a_[best.a - 1] == b_[best.b - 1]) {
      --best.a;
      --best.b;
      ++best.size;
    }
    while (best.a + best.size < span.a_end && best.b + best.size < span.b_end &&
           a_[best.a + best.size] == b_[best.b + best.size]) {
      ++best.size;
    }
    return best;
  }

  std::vector<char32_t> a_, b_;
  std::unordered_map<char32_t, std::vector<size_t>> places_;
};

}  // namespace

double sequence_ratio(const std::string& a, const std::string& b) {
  return Matcher(code_points(a), code_points(b)).ratio();
}

}  // namespace kvc
