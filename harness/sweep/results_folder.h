// The folder of one sweep's results while it is written: locked against a second writer, and what of it is measured
// already.
//   <cell id>.jsonl      records, one line per document
//   config.json          the sweep as understood
//   sweep.json           its cells, a hash of them, the shard, the program (coverage.h)
//   documents.json       which documents each data set has, so that a finished sweep need not load a model to know it
//   self_proof.json      what the self-proof found
//   texts/queries.jsonl  notes of query sources, one line per source and document: texts that self_study can replay
//   shards/K-of-N/       the same again for each part of a sweep that is measured in parts
//   .lock                held while a sweep writes; says who: "PID HOST TIME"
//
// The lock is flock(2). On a network file system it may hold on one machine only, so the file also says who wrote it
// last, and whoever finds another name there before it appends stops: of two copies of one job the later one goes on.
// That relies on what NFS promises, that a file opened anew shows what was written and closed before.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "harness/sweep/record.h"

namespace kvc {

// Who writes to a results folder now, "process 12 on node3"; nothing where nobody does or it cannot be told.
std::optional<std::string> writer_of(const std::string& folder);

// Provenance of the "done" record of each document of the cell, in the folder or its shards; failed ones are not in it.
// Throws Error(kData) for a broken record or one that belongs to another cell.
std::map<std::string, Json> done_documents(const std::string& folder, const std::string& cell_id);

class ResultsFolder {
 public:
  // Creates the folder, checks that it can be written to, and locks it. Throws Error(kUsage) when another process holds
  // it, Error(kData) when it cannot be written to. `sweep` is the folder whose records, and those of its shards, count
  // as measured; empty: the folder itself.
  explicit ResultsFolder(std::string path, std::string sweep = "");
  ~ResultsFolder();
  ResultsFolder(const ResultsFolder&) = delete;
  ResultsFolder& operator=(const ResultsFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

  // As done_documents() of the sweep's folder.
  std::map<std::string, Json> done(const std::string& cell_id) const { return done_documents(sweep_, cell_id); }
  // On disk when it returns; a signal waits for it. Throws Error(kData) when it cannot be written, Error(kUsage) when
  // another process took the folder over.
  void append(const Record& record) const;
  void append_texts(const Json& line) const;  // to texts/queries.jsonl

  // A whole JSON file; null when it is missing. Throws Error(kData) when it is no JSON.
  Json read_json(const std::string& name) const;
  void write_json(const std::string& name, const Json& value) const;

 private:
  void check_owner() const;

  std::string path_;
  std::string sweep_;
  std::string owner_;  // what .lock says
  int lock_ = -1;
};

}  // namespace kvc
