// Seeded draws and percentiles, the same on every machine: the standard library's distributions differ between them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
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

// Of lists of one length all resamples draw alike: which of n values each of `draws` resamples takes, `lanes` resamples
// side by side, so that their sums do not wait for one another.
class Resamples {
 public:
  static constexpr size_t kLanes = 8;

  Resamples(size_t n, std::int64_t draws, std::uint64_t seed) : n_(n), draws_(static_cast<size_t>(draws)) {
    Draws next(seed);
    places_.resize((draws_ + kLanes - 1) / kLanes * kLanes * n_);
    for (size_t draw = 0; draw < draws_; ++draw) {
      std::uint32_t* const block = places_.data() + draw / kLanes * kLanes * n_ + draw % kLanes;
      for (size_t i = 0; i < n_; ++i) block[i * kLanes] = static_cast<std::uint32_t>(next.below(n_));
    }
  }

  // Sum of each resample of `values`, which are n; added in the order of the draws.
  std::vector<double> sums(const std::vector<double>& values) const {
    std::vector<double> sums(draws_);
    for (size_t first = 0; first < draws_; first += kLanes) {
      const std::uint32_t* place = places_.data() + first * n_;
      std::array<double, kLanes> lane{};
      for (size_t i = 0; i < n_; ++i, place += kLanes) {
        for (size_t k = 0; k < kLanes; ++k) lane[k] += values[place[k]];
      }
      std::copy_n(lane.begin(), std::min(kLanes, draws_ - first), sums.begin() + static_cast<std::ptrdiff_t>(first));
    }
    return sums;
  }

  size_t n() const { return n_; }
  size_t draws() const { return draws_; }

 private:
  size_t n_, draws_;
  std::vector<std::uint32_t> places_;
};

// The resamples of `n` values; kept for the next list of that length.
inline const Resamples& resamples_of(size_t n, std::int64_t draws, std::uint64_t seed) {
  thread_local std::unique_ptr<Resamples> last;
  thread_local std::uint64_t last_seed = 0;
  if (last == nullptr || last->n() != n || last->draws() != static_cast<size_t>(draws) || last_seed != seed) {
    last = std::make_unique<Resamples>(n, draws, seed);
    last_seed = seed;
  }
  return *last;
}

// Linearly interpolated, 0 <= p <= 1, of at least one value, in any order; changes the order.
inline double percentile(std::vector<double>& values, double p) {
  const double place = p * static_cast<double>(values.size() - 1);
  const auto below = values.begin() + static_cast<std::ptrdiff_t>(place);
  std::nth_element(values.begin(), below, values.end());
  const double low = *below;
  const double high = below + 1 == values.end() ? low : *std::min_element(below + 1, values.end());
  return low + (place - std::floor(place)) * (high - low);
}

}  // namespace kvc
