// A sweep measured in parts: which documents belong to which part. The unit is (model, data set, seed, document), so
// that prefill and queries stay shared. Which shard a unit belongs to depends on these four alone, and not on where the
// data lies: it is the same on every machine, and a document that is added later moves no other.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "harness/core/config_text.h"

namespace kvc {

struct Shard {
  std::int64_t index = 1;  // 1..count
  std::int64_t count = 1;

  std::string name() const;  // "3-of-16", its folder's name
  std::string text() const;  // "3/16"
  bool operator==(const Shard&) const = default;
};

constexpr std::int64_t kMaxShards = 100000;

using Environment = std::function<const char*(const char*)>;  // std::getenv

// "3/16"; "auto" takes index and count from the scheduler's environment (a Slurm array, or the rank and size of Open
// MPI or PMI); "auto/16" the index alone (Kubernetes' JOB_COMPLETION_INDEX has no count). Throws Error(kUsage).
Shard parse_shard(const std::string& text, const Environment& environment);

// The shard, 1..count, of one document. `model` and `dataset` as in a cell.
std::int64_t shard_of(const Json& model, const Json& dataset, std::uint64_t seed, const std::string& document_id,
                      std::int64_t count);

}  // namespace kvc
