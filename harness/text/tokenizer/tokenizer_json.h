// Defensive parser for tokenizer.json: untrusted input, checked for size, nesting and shape.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "harness/text/tokenizer/bpe_tokenizer.h"

namespace kvc {

struct TokenizerJson {
  nlohmann::json rest;                                  // the file without the two big lists
  std::vector<std::pair<std::string, int64_t>> tokens;  // model.vocab
  std::vector<BpeMerge> merges;                         // model.merges, written as "a b" or as ["a", "b"]
};

// Reads the file. Throws Error(kData): no such file, more than 64 MiB, not JSON, nested more than 64 levels deep, a
// duplicate key, an id that is not an integer of 0 or more, a merge that is not a pair.
TokenizerJson read_tokenizer_json(const std::string& path);
TokenizerJson parse_tokenizer_json(const std::string& text, const std::string& where);

}  // namespace kvc
