#include "harness/sweep/shard.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

constexpr const char* kForms = "write --shard 3/16 (the third of 16), --shard auto or --shard auto/16";

[[noreturn]] void refuse_shard(const std::string& fact, const std::string& text, const std::string& mend) {
  throw Error(ErrorKind::kUsage, fact, "--shard " + text, mend);
}

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

class Scheduler {
 public:
  Scheduler(const std::string& text, std::optional<std::int64_t> count, const Environment& environment)
      : text_(text), count_(count), environment_(environment) {}

  Shard shard() const {
    if (has("SLURM_ARRAY_TASK_ID")) return slurm_array();
    if (has("JOB_COMPLETION_INDEX")) return indexed_job();
    for (const auto& [rank, size] :
         {std::pair("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), std::pair("PMI_RANK", "PMI_SIZE")}) {
      if (has(rank)) return checked(number(rank) + 1, has(size) ? std::optional(number(size)) : std::nullopt, rank);
    }
    refuse_shard(
        "no scheduler says which shard this is: SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX, OMPI_COMM_WORLD_RANK and "
        "PMI_RANK are not set",
        text_, "name the shard: --shard 3/16");
  }

 private:
  bool has(const char* name) const { return environment_(name) != nullptr; }

  std::int64_t number(const char* name) const {
    const char* value = environment_(name);
    const auto parsed = whole_number(value == nullptr ? "" : value);
    if (!parsed || *parsed < 0) {
      refuse_shard(fmt::format("{} must be a whole number from 0; got '{}'", name, value == nullptr ? "" : value),
                   text_, "name the shard: --shard 3/16");
    }
    return *parsed;
  }

  // The array's first index need not be 0; an array with holes does not say which shards its tasks are.
  Shard slurm_array() const {
    if (!has("SLURM_ARRAY_TASK_COUNT") || !has("SLURM_ARRAY_TASK_MIN")) {
      refuse_shard("SLURM_ARRAY_TASK_ID is set, but SLURM_ARRAY_TASK_COUNT or SLURM_ARRAY_TASK_MIN is not", text_,
                   "name the number of shards: --shard $SLURM_ARRAY_TASK_ID/16");
    }
    const std::int64_t count = number("SLURM_ARRAY_TASK_COUNT"), first = number("SLURM_ARRAY_TASK_MIN");
    if (has("SLURM_ARRAY_TASK_MAX") && number("SLURM_ARRAY_TASK_MAX") - first + 1 != count) {
      refuse_shard(fmt::format("the Slurm array has {} tasks between {} and {}: it has holes", count, first,
                               number("SLURM_ARRAY_TASK_MAX")),
                   text_, "name the number of shards: --shard $SLURM_ARRAY_TASK_ID/16");
    }
    return checked(number("SLURM_ARRAY_TASK_ID") - first + 1, count, "SLURM_ARRAY_TASK_ID");
  }

  Shard indexed_job() const {
    return checked(number("JOB_COMPLETION_INDEX") + 1, std::nullopt, "JOB_COMPLETION_INDEX");
  }

  Shard checked(std::int64_t index, std::optional<std::int64_t> known, const char* source) const {
    if (!known && !count_) {
      refuse_shard(fmt::format("the shard index is set ({}), but the shard count is not", source), text_,
                   "name the number of shards: --shard auto/16");
    }
    if (known && count_ && *known != *count_) {
      refuse_shard(fmt::format("the scheduler runs {} tasks, but {} shards were asked for", *known, *count_), text_,
                   "start as many tasks as there are shards, or name the shard: --shard 3/16");
    }
    const Shard shard{index, count_.value_or(known.value_or(0))};
    if (shard.count < 1 || shard.count > kMaxShards || index < 1 || index > shard.count) {
      refuse_shard(fmt::format("{} makes this shard {} of {}", source, index, shard.count), text_,
                   "name the shard: --shard 3/16");
    }
    return shard;
  }

  const std::string& text_;
  std::optional<std::int64_t> count_;
  const Environment& environment_;
};

}  // namespace

std::string Shard::name() const {
  return fmt::format("{}-of-{}", index, count);
}

std::string Shard::text() const {
  return fmt::format("{}/{}", index, count);
}

Shard parse_shard(const std::string& text, const Environment& environment) {
  if (text == "auto") return Scheduler(text, std::nullopt, environment).shard();
  const size_t slash = text.find('/');
  const std::string left = text.substr(0, slash);
  const auto count = slash == std::string::npos ? std::nullopt : whole_number(std::string_view(text).substr(slash + 1));
  if (!count) refuse_shard(fmt::format("a shard must be INDEX/COUNT; got '{}'", text), text, kForms);
  if (*count < 1 || *count > kMaxShards) {
    refuse_shard(fmt::format("the number of shards must be 1 to {}; got {}", kMaxShards, *count), text, kForms);
  }
  if (left == "auto") return Scheduler(text, count, environment).shard();
  const auto index = whole_number(left);
  if (!index) refuse_shard(fmt::format("a shard must be INDEX/COUNT; got '{}'", text), text, kForms);
  if (*index < 1 || *index > *count) {
    refuse_shard(fmt::format("the shard must be 1 to {}; got {}", *count, *index), text, kForms);
  }
  return {*index, *count};
}

std::int64_t shard_of(const Json& model, const Json& dataset, std::uint64_t seed, const std::string& document_id,
                      std::int64_t count) {
  Json unit = {{"model", model}, {"dataset", dataset}, {"seed", seed}, {"document", document_id}};
  if (unit["dataset"].is_object()) unit["dataset"].erase("path");
  // derive_seed hashes once more: the last bits of FNV-1a alone are poor for small counts.
  const std::uint64_t hash = derive_seed(0, stable_hash(canonical_json(unit)));
  return static_cast<std::int64_t>((hash >> 16) % static_cast<std::uint64_t>(count)) + 1;
}

}  // namespace kvc
