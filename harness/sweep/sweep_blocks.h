// A sweep's cells with the plug-ins they stand for, in blocks of one model, seed and data set.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness/api/dataset.h"
#include "harness/core/stable_hash.h"
#include "harness/sweep/document_run.h"
#include "harness/sweep/stop_rule.h"
#include "harness/sweep/sweep_config.h"

namespace kvc {

// Cells with the plug-ins they stand for; one instance of each plug-in with its options.
class CellPlugins {
 public:
  // Throws Error(kUsage) for an unknown plug-in or option.
  PlannedCell planned(const Cell& cell);
  std::shared_ptr<const Dataset> dataset(const Json& part) { return datasets_.get(part); }

 private:
  template <class Interface>
  class Instances {
   public:
    std::shared_ptr<const Interface> get(const Json& part) {
      if (part.is_null()) return nullptr;
      auto& instance = instances_[canonical_json(part)];
      if (instance == nullptr) {
        Json options = part;
        options.erase("name");
        instance = Registry<Interface>::instance().create(part.at("name").get<std::string>(), options);
      }
      return instance;
    }

   private:
    std::map<std::string, std::shared_ptr<const Interface>> instances_;
  };

  Instances<Dataset> datasets_;
  Instances<Task> tasks_;
  Instances<QuerySource> sources_;
  Instances<CompactionMethod> methods_;
  Instances<BudgetRule> budgets_;
};

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
