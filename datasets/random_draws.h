// Seeded draws for data sets that build their texts. Made from the standard's portable engine alone: the standard's
// distributions differ between libraries, and a text must not.
#pragma once

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace kvc {

class RandomDraws {
 public:
  explicit RandomDraws(std::uint64_t seed) : engine_(seed) {}
  // 0 .. n - 1; n > 0.
  size_t below(size_t n) { return static_cast<size_t>(engine_() % n); }
  double unit() { return static_cast<double>(engine_() >> 11) * 0x1.0p-53; }  // [0, 1)
  template <class T>
  void shuffle(std::vector<T>& list) {
    for (size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[below(i)]);
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace kvc
