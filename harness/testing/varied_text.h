// A text of any size that holds what tokenizers get wrong, made from the recipe in golden/tokenizers/text.json. The
// same walk as scripts/golden/varied_text.py, so that ids for megabytes can be judged by a hash.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

#include "harness/core/config_text.h"

namespace kvc {

// SplitMix64 (Steele et al. 2014).
class SplitMix {
 public:
  explicit SplitMix(std::uint64_t seed) : state_(seed) {}
  std::uint64_t below(std::uint64_t n) {
    state_ += 0x9E3779B97F4A7C15U;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return (z ^ (z >> 31U)) % n;
  }

 private:
  std::uint64_t state_;
};

inline void append_character(std::string& out, std::uint64_t c) {
  const auto tail = [&](unsigned shift) { out.push_back(static_cast<char>(0x80U | ((c >> shift) & 0x3FU))); };
  if (c < 0x80) {
    out.push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out.push_back(static_cast<char>(0xC0U | (c >> 6U))), tail(0);
  } else if (c < 0x10000) {
    out.push_back(static_cast<char>(0xE0U | (c >> 12U))), tail(6), tail(0);
  } else {
    out.push_back(static_cast<char>(0xF0U | (c >> 18U))), tail(12), tail(6), tail(0);
  }
}

inline void append_part(const Json& recipe, SplitMix& random, std::string& out) {
  const Json &groups = recipe.at("groups"), &blocks = recipe.at("blocks"), &separators = recipe.at("separators");
  const std::uint64_t kind = random.below(groups.size() + 3);
  if (kind < groups.size()) {
    out += groups[kind][random.below(groups[kind].size())].get_ref<const std::string&>();
  } else if (kind == groups.size()) {
    const std::uint64_t count = 1 + random.below(20);
    for (std::uint64_t i = 0; i < count; ++i) out.push_back(static_cast<char>('0' + random.below(10)));
  } else if (kind == groups.size() + 1) {
    const Json& block = blocks[random.below(blocks.size())];
    const auto low = block[0].get<std::uint64_t>(), high = block[1].get<std::uint64_t>();
    const std::uint64_t count = 1 + random.below(6);
    for (std::uint64_t i = 0; i < count; ++i) append_character(out, low + random.below(high - low + 1));
  } else {
    const bool capital = random.below(3) == 0;
    const std::uint64_t count = 1 + random.below(12);
    for (std::uint64_t i = 0; i < count; ++i) {
      out.push_back(static_cast<char>((i == 0 && capital ? 'A' : 'a') + random.below(26)));
    }
  }
  out += separators[random.below(separators.size())].get_ref<const std::string&>();
}

inline std::string varied_text(const Json& recipe) {
  SplitMix random(recipe.at("seed").get<std::uint64_t>());
  const auto size = recipe.at("bytes").get<size_t>();
  std::string text;
  while (text.size() < size) append_part(recipe, random, text);
  return text;
}

// A file of harness/testing/golden/tokenizers.
inline Json tokenizer_golden(const std::string& name) {
  std::ifstream file(std::string(KVC_SOURCE_DIR) + "/harness/testing/golden/tokenizers/" + name);
  return Json::parse(file);
}

}  // namespace kvc
