// Seeded draws and percentiles, the same on every machine: the standard library's distributions differ between them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvc {

// splitmix64 (Steele et al., 2014).
class Draws {
 public:
  explicit Draws(std::uint64_t seed) : state_(seed) {}
  // 0 .. n-1
  size_t below(size_t n) {
    return static_cast<size_t>(static_cast<double>(next() >> 11) * 0x1p-53 * static_cast<double>(n));
  }

 private:
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  std::uint64_t state_;
};

// Linearly interpolated, 0 <= p <= 1, of at least one value.
inline double percentile(const std::vector<double>& sorted, double p) {
  const double place = p * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace kvc
