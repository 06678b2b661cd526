// Why answers were lost, counted: what `kvc explain` found, by method and target.
#pragma once

#include <string>
#include <vector>

#include "harness/explain/explanation.h"
#include "harness/report/tabulate.h"
#include "harness/report/text_table.h"

namespace kvc {

// The explanations of one cell of a table whose question it still answers wrong.
std::vector<const Explanation*> explanations_of(const CellSummary& cell, const std::vector<Explanation>& explanations);

// A row for each method and target with an explanation: method, target, how many answers were explained, and how many
// by each cause. No rows where the table has none.
TextTable cause_table(const Table& table, const std::vector<Explanation>& explanations);

// "snapkv, repeat_prefill at 0.1"; the cell's id where no table has it.
std::string cell_name(const Tabulated& tabulated, const std::string& cell_id);

// One explanation for a terminal, in lines.
std::string explanation_text(const Explanation& explanation, const std::string& cell_name);

}  // namespace kvc
