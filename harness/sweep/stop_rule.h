// Which cells of a sweep still need another document: the rule decides, the runner only asks, before each document, and
// measures nothing that the rule does not want.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness/sweep/record.h"

namespace kvc {

struct RuledCell {
  std::string id;
  std::string label;  // for messages
  Json cell;          // as Record::cell
};

struct RuledDocument {
  std::string id;
  std::map<std::string, std::int64_t> n_questions;  // that a cell's task can ask, by cell id
};

// Cells of one model, data set and seed, and their documents in the order in which they are measured.
struct RuledBlock {
  std::vector<RuledCell> cells;
  std::vector<RuledDocument> documents;
};

class StopRule {
 public:
  virtual ~StopRule() = default;
  // A record that is on disk, done or failed, in any order. Throws Error(kData) for one that cannot be judged.
  virtual void add(const Record& record) = 0;
  // Told from the records of the documents before this one alone, so that a run that was killed in the middle of a
  // document goes on as if it had not been. Of a document further on: whether the cell wants documents as things are.
  virtual bool wants(const std::string& cell_id, const std::string& document_id) = 0;
  // {CELL_ID: {...}} of cells that want no further document: what stopped.json says of them.
  virtual Json stopped() = 0;
};

using MakeStopRule = std::function<std::unique_ptr<StopRule>(const RuledBlock&)>;

// The order in which documents are measured under a rule: shuffled by `seed`, the same on every machine, and the same
// for two documents whatever others there are.
std::vector<std::string> shuffled_documents(std::vector<std::string> ids, std::uint64_t seed);

// stopped.json of a results folder, {CELL_ID: {...}}; empty where there is none. Throws Error(kData) for another file.
Json stopped_cells(const std::string& folder);

}  // namespace kvc
