// What a results folder tells of a sweep without its models: which blocks are measured to the end. A finished sweep, or
// the part of it that one model has, needs no weights.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>

#include "harness/sweep/shard.h"
#include "harness/sweep/stop_rule.h"
#include "harness/sweep/sweep_blocks.h"

namespace kvc {

// What a data set's documents depend on, wherever its file lies.
Json content_of(const Json& dataset_identity);

// Whether a document belongs to the part that is measured; everything does without a shard.
bool is_ours(const std::optional<Shard>& shard, const Block& block, const std::string& document);

// What documents.json says of a block, {model_file, documents: id -> task key -> questions...}; null where it knows
// nothing, or the documents of other data.
Json known_block(const Json& documents, const Block& block);

// The block's rule, told what `folder` has of it: records that are done. `tasks` as Block::tasks.
std::unique_ptr<StopRule> rule_of(const MakeStopRule& make, const Block& block, const Json& tasks,
                                  const std::string& folder);

// Whether all cells of the known documents are done or not wanted by `rule` (null: all are wanted).
bool is_measured(const Json& known, const Block& block, const std::optional<Shard>& shard, StopRule* rule);

// The models of which something is to be measured, and those whose file or folder was replaced since it was: what
// run_sweep() loads. One that is measured to the end and not there any more is not among them. Reads all records;
// writes nothing.
std::set<const SweepModel*> models_to_load(const SweepConfig& config, const std::optional<Shard>& shard,
                                           const MakeStopRule& make_rule);

}  // namespace kvc
