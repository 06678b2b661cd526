// kvc budget: which part of a budget each head of a model should have, found on documents. The estimator is that of
// head_curves.h, the choice of parts that of head_allocation.h.
//
// What a document says is on disk, synced, the moment it is measured; the same request goes on from there. Targets and
// floor only choose among what was measured: with others nothing is measured again.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "harness/api/plugin_entry.h"
#include "harness/head_budgets/head_curves.h"
#include "harness/head_budgets/streaming_gates.h"

namespace kvc {

struct BudgetSearch {
  // What a head's entries are worth by: kAnswers, how far the answers move without them; kUtility, what the answers
  // look at (future_utility.h): then `out` is a profile for the rule 'lu_kv'; kGates, whether a head needs more than
  // first and recent entries (streaming_gates.h): then `out` is a table of gates for the rule 'duo_attention'. For
  // these two, targets play no part and nothing is checked; for gates neither do method, queries and curves.
  enum class By : std::uint8_t { kAnswers, kUtility, kGates };
  By by = By::kAnswers;
  ModelConfig model;
  Resolved<Dataset> dataset;
  Resolved<CompactionMethod> method;
  std::optional<Resolved<QuerySource>> queries;  // nothing where the method takes none
  int64_t documents = 0;                         // first ones of the data set to measure; 0 = all but those checked
  int64_t check = 1;  // the next ones, on which the result is compared with uniform; fewer if
                      // the data set has no more
  CurveSettings curves;
  GateSettings gates;
  double gates_kept_s = 20;  // a state of the gates is written every ten steps, and after so many seconds
  std::vector<double> targets = {0.01, 0.02, 0.05, 0.1};
  double floor_share = 0.25;
  std::uint64_t seed = 0;
  std::string out;          // {"L0H0": part, ...}, for the budget rule 'proportions'
  std::string curves_file;  // what is measured, a JSON line a document; a first line says with what settings
  bool quiet = false;
  std::function<Model(const ModelConfig&)> load_model = Model::load;
};

// Writes `out` and returns the report: {format, settings, documents, targets, floor_share, additivity: [{fraction,
// together, sum_alone, sum_weights}], predicted: [{target, uniform, found}], check: {documents, answer_tokens, kl:
// [{target, uniform, found}]} (null without a document to check), heads: [{head, part, share, errors, alone, last,
// losses}]}; KL in nats per answer token, means over documents; `share` in uniform parts. Equal requests give equal
// bytes, interrupted or not.
//
// By utility: {format: kvcompact.utility_profile.v1, settings, documents, steps: [{evicted, least, most}]}, the
// smallest and the largest part that a head loses.
//
// By gates: {format: kvcompact.streaming_gates.v1, settings, documents, n_heads, above_half, hidden_share, course:
// [{step, distance}], warnings}, the mean distance over the steps up to this one; gates above a half are retrieval
// heads. Texts of which a streaming head still sees most are warned of: their gates stay open for want of a reason to
// close.
//
// Throws Error(kUsage) for a method without a target or on the text, and by gates for documents of which a streaming
// head sees all that the answers' tokens see; Error(kData) when curves_file was made with other settings (naming them),
// is held by another process, or a document is shorter than the least target needs.
Json search_budget(const BudgetSearch& search);

// The report for people.
std::string budget_report_text(const Json& report);

}  // namespace kvc
