// What happened in one cell on one document: the line that is appended to results/<sweep>/<cell id>.jsonl the moment it
// is measured. It holds everything a report needs and nothing derived from other records.
#pragma once

#include <string>
#include <vector>

#include "harness/core/config_text.h"

namespace kvc {

struct Record {
  static constexpr int kVersion = 1;

  std::string cell_id;      // hash of the canonical JSON of `cell`
  std::string document_id;  // dataset's id of the document
  std::string status;       // "done" or "failed"
  std::string error;        // the three-part message of a failed record

  // {model, dataset, task, queries, method, target, seed}: each an object {name, options...} with every default written
  // out; `queries` and `target` are null where the method takes none.
  Json cell = Json::object();
  // {model: its identity, dataset: its identity, self_proof} and what run_info() says
  Json provenance = Json::object();
  // {context_tokens, compactable_tokens, question_tokens...}, {entries_before, entries_after} over all layers and
  // heads, {kept_fraction} measured over the compactable span, {compaction_ratio} its inverse, {bytes_before,
  // bytes_after, bytes_ratio, allocated_bytes_after} of the whole cache, {head_len_min, head_len_mean, head_len_max} of
  // the compact cache, {n_queries} per KV head, {peak_bytes} resident at one time in the stages this record is made of
  // (what the program held before, weights above all, included), on a GPU {peak_device_bytes} that tensors held
  // likewise; {reference_peak_bytes, reference_peak_device_bytes} while the full cache's own answers were made.
  // {peak_of_process} true where the system keeps no mark that can be set back: peak_bytes is the process's so far
  // then. In older records it always was. Of a failed record as much as was known: context_tokens, compactable_tokens
  // and the peaks
  Json sizes = Json::object();
  // {prefill_s, queries_s, compaction_shared_s, compaction_s, ask_s}; what several cells share is given whole in each
  Json seconds = Json::object();
  // One object per question: {question_id, gold_option | gold_answer (and other_answers), n_options, extra} and the
  // task's own fields
  std::vector<Json> answers;
  // The method's notes: counts of numerical fallbacks and the like
  Json notes = Json::object();
  // What the task says of the document as a whole, e.g. heads: numbers per layer and KV head. Not in older records.
  Json task_notes = Json::object();

  // Where it was read from, "results/x/0f3a.jsonl, record 3", for messages; not written.
  std::string place = {};

  Json to_json() const;
  // Throws Error(kData) naming the missing field.
  static Record from_json(Json json, const std::string& where);
};

// The folders in which a sweep's records stand: `folder` itself, and shards/K-of-N in it, in the order of N and K.
std::vector<std::string> record_folders(const std::string& folder);

// All records of a sweep (every *.jsonl in the folder and in its shards), one for each (cell, document), in a stable
// order. Of several records of one (cell, document) a done one counts before a failed one, else the later; done ones
// that say the same are one. Lines that are no JSON (torn by a kill) are left out and named in `warnings`, as are
// records of several states of the program. Throws Error(kData): no such folder; a line that is JSON but no record; two
// done records of one (cell, document) that differ; records of different weights or data under one name.
std::vector<Record> load_records(const std::string& folder, std::vector<std::string>& warnings);

}  // namespace kvc
