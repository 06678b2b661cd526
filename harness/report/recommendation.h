// A certification as sentence, table, picture and JSON: how small each method's cache may be.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/report/certification.h"
#include "harness/report/plot.h"
#include "harness/report/text_table.h"

namespace kvc {

// One (method, size), as far as it was measured. Losses in the unit of the tolerance: shares, or nats for kl.
struct SizeOutcome {
  Json target;
  CellState state = CellState::kUndecided;
  int64_t documents = 0;
  double lost = 0, right = 0;   // sums, in units of DocumentLoss
  std::optional<double> loss;   // measured; nothing where nothing was right
  double low = 0, high = 1;     // sequential interval of this size alone
  double bound = 1;             // the loss is at most this, of all sizes of all methods at once
  std::optional<int64_t> more;  // documents like these that would certify this size; nothing: none would
  std::optional<double> kept_fraction, bytes_before, bytes_after, compaction_s;  // means over documents
  std::string error;                                                             // where it failed
};

struct MethodOutcome {
  std::string label;
  Json method, queries, budget;    // as in a cell
  std::vector<SizeOutcome> sizes;  // from large to small
  size_t n_certified = 0;          // of them, from the first
  std::string command;             // kvc compact with the certified size; empty without one
  const SizeOutcome* certified() const { return n_certified == 0 ? nullptr : &sizes[n_certified - 1]; }
};

struct Recommendation {
  std::string model, data, task;  // as the user named them
  LossSettings settings;
  std::vector<MethodOutcome> methods;  // the smallest certified cache first
  int64_t documents = 0;               // that decided
  int64_t all_documents = 0;           // in the data
  int64_t left_out = 0;                // that the full cache could not be asked about
  double right = 0;                    // what the full cache had right on them, in units of DocumentLoss
  bool out_of_time = false;

  const MethodOutcome* best() const {
    return methods.empty() || methods.front().n_certified == 0 ? nullptr : &methods.front();
  }
};

// `records` of the results folder; those of other cells are passed over. `defaults` as in tabulate.h.
Recommendation recommendation_of(Certification& certification, const std::vector<Record>& records,
                                 const Json& defaults);

std::string recommendation_sentence(const Recommendation& recommendation);
TextTable recommendation_table(const Recommendation& recommendation);
// What the table's columns and the methods without a size mean, in lines.
std::vector<std::string> recommendation_notes(const Recommendation& recommendation);
Plot recommendation_plot(const Recommendation& recommendation);
Json recommendation_json(const Recommendation& recommendation);

// "1 %", "0.1 nats".
std::string loss_text(const LossSettings& settings, double loss);

}  // namespace kvc
