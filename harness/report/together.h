// A benchmark's parts as one table: RULER's tasks, LongBench's files. Its mean is the number that papers compare, and
// its pairs are decided by all documents of all parts.
#pragma once

#include <string>
#include <vector>

#include "harness/report/grouped_records.h"

namespace kvc {

// For every model and task that asks two parts of a benchmark or more, data sets of one name and the same options but
// for another task or file: the records of all of them. `parts` has their data sets, `dataset` the options that they
// share, and a document's name begins with its part's. `tables` are as group_records gives them and must outlive the
// result. Task head_errors maps one data set's heads and is left out.
std::vector<TableRecords> tables_together(const std::vector<TableRecords>& tables);

// The table that has this one's data set together with others; null where none has.
const Table* whole_of(const Tabulated& tabulated, const Table& part);

// "Means over the questions of cwe, vt: 12 of each, so ...": what the numbers of a table of all parts are means of; ""
// for a table of one data set.
std::string parts_note(const Table& table);

// What tells the parts from each other, their task or their file: "niah_single_2", "hotpotqa"; no two are equal.
// `shared` is what all of them have.
std::vector<std::string> part_names(const std::vector<Json>& datasets, const Json& shared);

}  // namespace kvc
