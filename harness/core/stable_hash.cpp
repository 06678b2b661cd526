#include "harness/core/stable_hash.h"

#include <fmt/format.h>

namespace kvc {

std::string canonical_json(const Json& value) {
  return nlohmann::json::parse(value.dump()).dump();
}

std::string stable_hash(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : text) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3ull;
  }
  return fmt::format("{:016x}", hash);
}

std::uint64_t derive_seed(std::uint64_t seed, std::string_view purpose) {
  const std::string digits = stable_hash(fmt::format("{}/{}", seed, purpose));
  return std::stoull(digits, nullptr, 16);
}

}  // namespace kvc
