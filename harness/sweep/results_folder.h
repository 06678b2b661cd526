// The folder of one sweep's results while it is written: locked against a second writer, and what of it is measured
// already.
//   <cell id>.jsonl      records, one line per document
//   config.json          the sweep as understood
//   documents.json       which documents each data set has, so that a finished sweep need not load a model to know it
//   self_proof.json      what the self-proof found
//   texts/queries.jsonl  notes of query sources, one line per source and document: texts that self_study can replay
//   .lock                held while a sweep writes
#pragma once

#include <map>
#include <string>

#include "harness/sweep/record.h"

namespace kvc {

class ResultsFolder {
 public:
  // Creates the folder, checks that it can be written to, and locks it. Throws Error(kUsage) when another process holds
  // it, Error(kData) when it cannot be written to.
  explicit ResultsFolder(std::string path);
  ~ResultsFolder();
  ResultsFolder(const ResultsFolder&) = delete;
  ResultsFolder& operator=(const ResultsFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

  // Provenance of the last "done" record of each document of the cell; failed ones are not in it. Throws Error(kData)
  // for a broken record or one that belongs to another cell.
  std::map<std::string, Json> done(const std::string& cell_id) const;
  // On disk when it returns; a signal waits for it.
  void append(const Record& record) const;
  void append_texts(const Json& line) const;  // to texts/queries.jsonl

  // A whole JSON file; null when it is missing. Throws Error(kData) when it is no JSON.
  Json read_json(const std::string& name) const;
  void write_json(const std::string& name, const Json& value) const;

 private:
  std::string path_;
  int lock_ = -1;
};

}  // namespace kvc
