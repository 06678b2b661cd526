// Records of several files brought together, one for each (cell, document).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "harness/sweep/record.h"

namespace kvc {

class RecordSet {
 public:
  // Every *.jsonl of the folder, by file name and line; warnings and errors as load_records.
  void add_folder(const std::string& folder, std::vector<std::string>& warnings);
  // A done record counts before a failed one, else the later. Throws Error(kData), with both places, when both are done
  // and differ.
  void add(Record record);

  const std::vector<Record>& list() const { return records_; }
  std::int64_t duplicates() const { return duplicates_; }  // done records that said the same as another
  std::vector<Record> take() { return std::move(records_); }

 private:
  std::vector<Record> records_;
  std::int64_t duplicates_ = 0;
  std::map<std::pair<std::string, std::string>, size_t> places_;  // (cell, document) -> index in records_
};

}  // namespace kvc
