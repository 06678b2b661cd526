// What a person wants to know first: what stands out and is decided, what is not and how many documents would decide
// it.
#pragma once

#include <string>
#include <vector>

#include "harness/report/tabulate.h"

namespace kvc {

// A line or two per table that has methods to compare, whole sentences, each claim with what decides it. At most
// `n_tables` tables are spoken of; a last line says how many were left out.
std::vector<std::string> conclusions(const Tabulated& tabulated, size_t n_tables = 6);

}  // namespace kvc
