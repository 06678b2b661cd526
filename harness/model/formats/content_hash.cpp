#include "harness/model/formats/content_hash.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

namespace kvc {
namespace {

constexpr uint64_t kChunkBytes = 1 << 20;  // fixed, so that the result does not depend on the number of threads
constexpr uint64_t kOdd1 = 0x9e3779b97f4a7c15U, kOdd2 = 0xc2b2ae3d27d4eb4fU;

// MurmurHash3's 64-bit finaliser: every input bit reaches every output bit.
uint64_t mix(uint64_t x) {
  x = (x ^ x >> 33) * 0xff51afd7ed558ccdU;
  x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53U;
  return x ^ x >> 33;
}

uint64_t absorb(uint64_t state, uint64_t word) {
  return std::rotl((state ^ word * kOdd2), 31) * kOdd1;
}

uint64_t hash_chunk(const std::byte* at, uint64_t size) {
  std::array<uint64_t, 4> lanes = {1, 2, 3, 4};  // four chains, as one would wait for each multiplication
  std::array<uint64_t, 4> words;
  uint64_t done = 0;
  for (; done + sizeof(words) <= size; done += sizeof(words)) {
    std::memcpy(words.data(), at + done, sizeof(words));
    for (size_t i = 0; i < 4; ++i) lanes[i] = absorb(lanes[i], words[i]);
  }
  words = {};
  std::memcpy(words.data(), at + done, size - done);
  for (size_t i = 0; i < 4; ++i) lanes[i] = absorb(lanes[i], words[i]);
  uint64_t state = size;
  for (const uint64_t lane : lanes) state = absorb(state, mix(lane));
  return mix(state);
}

}  // namespace

std::string content_hash(std::span<const std::byte> bytes,
                         const std::function<void(std::span<const std::byte>)>& done) {
  const uint64_t chunks = (bytes.size() + kChunkBytes - 1) / kChunkBytes;
  std::vector<uint64_t> hashes(chunks);
  at::parallel_for(0, static_cast<int64_t>(chunks), 4, [&](int64_t begin, int64_t end) {
    for (auto c = static_cast<uint64_t>(begin); c < static_cast<uint64_t>(end); ++c) {
      const uint64_t start = c * kChunkBytes;
      const std::span<const std::byte> chunk =
          bytes.subspan(start, std::min<uint64_t>(kChunkBytes, bytes.size() - start));
      hashes[c] = hash_chunk(chunk.data(), chunk.size());
      if (done) done(chunk);
    }
  });
  uint64_t state = bytes.size();
  for (const uint64_t hash : hashes) state = absorb(state, hash);
  return fmt::format("{:016x}", mix(state));
}

}  // namespace kvc
