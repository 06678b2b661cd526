// Everything that is measured on one document: prefill once, queries once per source, one compaction per method for all
// its budgets, then the tasks.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/api/read_document.h"
#include "harness/model/device_care.h"
#include "harness/sweep/ask_together.h"
#include "harness/sweep/cell_failure.h"
#include "harness/sweep/cell_plugins.h"
#include "harness/sweep/record.h"
#include "harness/sweep/reference_store.h"

namespace kvc {

struct DocumentJob {
  const Model& model;
  const Document& document;
  std::vector<const PlannedCell*>
      cells;        // still to be measured; all of one seed, each with a question its task accepts
  Json provenance;  // copied into every record
  std::function<void(const Record&)> sink;        // called the moment a record is there; what it throws ends the run
  std::function<void(const std::string&)> stage;  // what is under way
  // Called with {document_id, queries, seed, notes} of every query source that has notes, e.g. texts it had written.
  std::function<void(const Json&)> keep_texts = {};
  ReferenceStore* references = nullptr;  // answers of full caches from earlier runs; nullptr: none are kept
  DeviceCare device = DeviceCare::of(model.decoder().devices());
  AskTogether together = {};
};

// Every cell gives exactly one record, done or failed. The caches that a method makes for several targets are asked in
// batches; the records of a batch come when it is done, each with an equal share of its seconds, and where a batch
// fails its caches are asked one by one. What a plug-in or LibTorch throws becomes a failed record; too little memory
// on a GPU too, and the next cell has what the failed one gave back. Throws DeviceLost.
void measure_document(const DocumentJob& job);

// The questions of a document that a task can ask.
std::vector<Question> accepted_questions(const Task& task, const Document& document);

// The seed of one purpose ("queries", "method", "ask") on a document: the same for all cells of the document, whichever
// of them are measured.
std::uint64_t document_seed(std::uint64_t seed, const std::string& purpose, const std::string& document_id);

// One Compaction of the cell's method for the cell's target alone, as a sweep makes it; `queries` as the cell's source
// made them with document_seed(seed, "queries", ...). Throws what spread() and compact() throw.
Compaction compact_cell(const Model& model, const ReadDocument& read, const PlannedCell& cell,
                        const LayerQueries* queries, const std::string& document_id);

// Adds to each answer what a judge needs of its question. Throws Error(kInternal) when there are not as many answers as
// questions.
void complete_answers(const std::vector<Question>& questions, std::vector<Json>& answers);

}  // namespace kvc
