// What a record was measured on and with (weights, data, program), and whether two records of the same cell and
// document say the same.
#pragma once

#include <string>
#include <vector>

#include "harness/sweep/record.h"

namespace kvc {

// Of a record's provenance. Places (folder, file name) are left out: the same content under another path is the same.
Json weights_of(const Json& provenance);  // {content_hash, dtype}; a field the record lacks is null
Json data_of(const Json& provenance);     // the data set's identity
Json program_of(const Json& provenance);  // {version, commit, dirty, compiler, build_type, libtorch...}

// "0.1.0, commit 436dee0c with uncommitted changes, GNU 12.2.0, LibTorch 2.13.0"
std::string program_text(const Json& program);

// The record without what differs from one run to the next: provenance, times, memory of the process.
Json measured_content(const Record& record);

// Where two records of one cell and document differ, "/answers/0/kl_sum: 0.31 and 0.29"; empty when they say the same.
std::string first_difference(const Record& a, const Record& b);

// Throws Error(kData), showing both places, when records of one model were measured on different weights, or records of
// one data set on different data. Failed records are not looked at. Records of several states of the program, or of
// several processors, are named in `warnings`.
void check_origins(const std::vector<Record>& records, std::vector<std::string>& warnings);

}  // namespace kvc
