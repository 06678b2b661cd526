#include "harness/sweep/known_blocks.h"

#include "harness/core/json_lines.h"
#include "harness/sweep/coverage.h"
#include "harness/sweep/file_stamp.h"
#include "harness/sweep/record_origin.h"
#include "harness/sweep/results_folder.h"
#include "harness/sweep/runner.h"

namespace kvc {

Json content_of(const Json& dataset_identity) {
  return data_of(Json{{"dataset", dataset_identity}});
}

bool is_ours(const std::optional<Shard>& shard, const Block& block, const std::string& document) {
  if (!shard) return true;
  return shard_of(block.model->cell, block.dataset_cell, block.seed, document, shard->count) == shard->index;
}

Json known_block(const Json& documents, const Block& block) {
  if (!documents.is_object() || !documents.contains(block.key)) return nullptr;
  const Json& known = documents.at(block.key);
  const bool same = content_of(known.value("dataset_identity", Json())) == content_of(block.dataset->identity());
  return same ? known : Json(nullptr);
}

std::unique_ptr<StopRule> rule_of(const MakeStopRule& make, const Block& block, const Json& tasks,
                                  const std::string& folder) {
  if (!make) return nullptr;
  std::unique_ptr<StopRule> rule = make(ruled_block(block, tasks));
  for (const PlannedCell& cell : block.cells) {
    const std::string file = folder + "/" + cell.id + ".jsonl";
    for (const Json& line : read_json_lines(file).values) {
      Record record = Record::from_json(line, file);
      record.place = file;
      if (record.status == "done") rule->add(record);  // what failed is tried again
    }
  }
  return rule;
}

bool is_measured(const Json& known, const Block& block, const std::optional<Shard>& shard, StopRule* rule) {
  if (known.is_null()) return false;
  for (const auto& [document, tasks] : known.at("documents").items()) {
    if (!is_ours(shard, block, document)) continue;
    for (const PlannedCell& cell : block.cells) {
      const std::string key = task_key(cell.cell.task);
      if (!tasks.contains(key)) return false;
      const bool missing = tasks.at(key) > 0 && !block.done.at(cell.id).contains(document);
      if (missing && (rule == nullptr || rule->wants(cell.id, document))) return false;
    }
  }
  return true;
}

std::set<const SweepModel*> models_to_load(const SweepConfig& config, const std::optional<Shard>& shard,
                                           const MakeStopRule& make_rule) {
  const std::string folder = records_folder(config, shard);
  const Json documents = read_json_of_run(folder + "/documents.json");
  std::set<const SweepModel*> models;
  for (const Block& block :
       make_blocks(config, [&](const std::string& cell) { return done_documents(config.results, cell); })) {
    const Json known = known_block(documents, block);
    const Json stamp = file_stamp(block.model->config.path);
    const bool replaced = !stamp.is_null() && known.is_object() && known.value("model_file", Json()) != stamp;
    const std::unique_ptr<StopRule> rule =
        known.is_null() ? nullptr : rule_of(make_rule, block, known.at("documents"), folder);
    if (replaced || !is_measured(known, block, shard, rule.get())) models.insert(block.model);
  }
  return models;
}

}  // namespace kvc
