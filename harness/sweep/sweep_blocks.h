// A sweep's cells with the plug-ins they stand for, in blocks of one model, seed and data set.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness/sweep/document_run.h"
#include "harness/sweep/stop_rule.h"
#include "harness/sweep/sweep_config.h"

namespace kvc {

struct Block {
  const SweepModel* model = nullptr;
  Json dataset_cell;
  std::uint64_t seed = 0;
  std::shared_ptr<const Dataset> dataset;
  std::vector<PlannedCell> cells;
  std::map<std::string, std::map<std::string, Json>> done;  // cell id -> document id -> provenance
  std::string key;                                          // in documents.json
  std::vector<Document> documents;                          // empty until load_documents()
  Json tasks = Json::object();                              // document id -> task key -> questions it can ask

  // The cells of a document that have a question to ask and are not done.
  std::vector<const PlannedCell*> missing_cells(const Document& document) const;
};

// Blocks in the order in which they are measured; `config` must outlive them. `done` says what of a cell is measured.
// Throws Error(kUsage) for a method and a task that do not go together.
std::vector<Block> make_blocks(const SweepConfig& config,
                               const std::function<std::map<std::string, Json>(const std::string& cell_id)>& done);

// The block as a rule sees it, documents shuffled by its seed; `tasks` as Block::tasks.
RuledBlock ruled_block(const Block& block, const Json& tasks);

// Reads the documents and counts the questions of each task. Throws Error(kData).
void load_documents(Block& block, const Tokenizer& tokenizer);

}  // namespace kvc
