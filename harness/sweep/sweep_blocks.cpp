#include "harness/sweep/sweep_blocks.h"

#include <fmt/format.h>

#include <algorithm>

#include "harness/sweep/coverage.h"

namespace kvc {
namespace {

Block empty_block(const SweepConfig& config, const Cell& cell) {
  Block block;
  block.key = block_key(cell);
  block.model = &*std::find_if(config.models.begin(), config.models.end(),
                               [&](const SweepModel& m) { return m.cell == cell.model; });
  block.dataset_cell = cell.dataset;
  block.seed = cell.seed;
  block.dataset = config.plugins->get<Dataset>(cell.dataset);
  return block;
}

void refuse_text_method(const PlannedCell& planned, const std::string& where) {
  if (!planned.task->compacts_online() || planned.method->compacts_cache()) return;
  throw Error(
      ErrorKind::kUsage,
      fmt::format("method '{}' works on a text before it is read; task '{}' compacts a cache while it is written",
                  planned.cell.method.value("name", ""), planned.cell.task.value("name", "")),
      where, "take methods on the cache, and full_cache for no compaction; other methods in another sweep");
}

}  // namespace

std::vector<const PlannedCell*> Block::missing_cells(const Document& document) const {
  std::vector<const PlannedCell*> list;
  const Json& counts = tasks.at(document.id);
  for (const PlannedCell& cell : cells) {
    if (counts.at(task_key(cell.cell.task)) > 0 && !done.at(cell.id).contains(document.id)) list.push_back(&cell);
  }
  return list;
}

std::vector<Block> make_blocks(const SweepConfig& config,
                               const std::function<std::map<std::string, Json>(const std::string& cell_id)>& done) {
  std::vector<Block> blocks;
  for (const Cell& cell : expand(config)) {
    if (blocks.empty() || blocks.back().key != block_key(cell)) blocks.push_back(empty_block(config, cell));
    Block& block = blocks.back();
    block.cells.push_back(config.plugins->planned(cell));
    refuse_text_method(block.cells.back(), config.path);
    block.done[block.cells.back().id] = done(block.cells.back().id);
  }
  return blocks;
}

RuledBlock ruled_block(const Block& block, const Json& tasks) {
  RuledBlock ruled;
  for (const PlannedCell& cell : block.cells) ruled.cells.push_back({cell.id, cell.label, cell.cell.to_json()});
  std::vector<std::string> ids;
  for (const auto& [id, counts] : tasks.items()) ids.push_back(id);
  for (const std::string& id : shuffled_documents(ids, block.seed)) {
    RuledDocument document{id, {}};
    for (const PlannedCell& cell : block.cells)
      document.n_questions[cell.id] = tasks.at(id).value(task_key(cell.cell.task), std::int64_t{0});
    ruled.documents.push_back(std::move(document));
  }
  return ruled;
}

void load_documents(Block& block, const Tokenizer& tokenizer) {
  const auto count_tokens = [&](std::string_view text) {
    return static_cast<int64_t>(tokenizer.encode_text(text).size());
  };
  block.documents = block.dataset->load({block.seed, count_tokens});
  block.tasks = Json::object();
  for (const Document& document : block.documents) {
    Json counts = Json::object();
    for (const PlannedCell& cell : block.cells) {
      const std::string key = task_key(cell.cell.task);
      if (!counts.contains(key)) counts[key] = accepted_questions(*cell.task, document).size();
    }
    block.tasks[document.id] = std::move(counts);
  }
}

}  // namespace kvc
