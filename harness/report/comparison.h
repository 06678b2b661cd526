// The methods of a table against a reference method, against each other, and against the full cache, on its primary
// metric: who is better, who is equivalent, and what this run cannot tell.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "harness/core/config_text.h"
#include "harness/report/paired.h"
#include "harness/report/power.h"

namespace kvc {

struct Table;
struct MetricInfo;

// What a sweep file says about its own report.
struct ComparisonSettings {
  std::string compare_to;                // a method's name or label; empty: the one with the best area
  std::map<std::string, double> margin;  // of equivalence, by metric
  std::map<std::string, Json> stopped;   // by cell id: what stopped.json says of cells that were left early
  // Targets that the sweep file gives a method alone, both as canonical JSON; the method with its budget as an option.
  std::map<std::string, std::set<std::string>> targets;

  // Whether the sweep measures the method at this target of its tables; a method that the file does not name: yes.
  bool asks(const Json& method, const Json& target) const;
};

constexpr double kShareMargin = 0.05;  // unless the sweep file names another
constexpr double kKlMargin = 0.1;      // nats per token

// 0 where nothing is given and there is no default: no equivalence is tested then.
double margin_of(const ComparisonSettings& settings, const MetricInfo& metric);

struct PairSummary {
  size_t first = 0, second = 0;  // rows of the table, first < second
  std::optional<size_t> target;  // of the table; nothing: area under the curve
  Pair pair;                     // of the metric as it is: where lower is better, a win of the first is a higher value
  std::optional<double> p_holm;  // of pairs with the reference: over their family, see Comparison
  std::optional<double> p_bh;    // Benjamini-Hochberg over all pairs at all targets (all areas)
  std::optional<double> p_equivalence;         // within the margin, for this pair alone
  std::optional<double> detectable;            // detectable_effect at 5 % for this pair alone; pairs with the reference
  std::optional<double> detectable_corrected;  // at 5 % over the family: what the first step of Holm's procedure asks
  int better = 0;     // by p_holm at 5 %: 1 the first, -1 the second, 0 undecided or no pair with the reference
  int better_bh = 0;  // by p_bh, of any pair
};

// Places that the pairs decided by Benjamini-Hochberg leave open: 1 + methods that are decidedly better, and methods -
// those that are decidedly worse.
struct RankRange {
  int64_t best = 1, worst = 1;
};

// One method's cell against full_cache on the same questions.
struct VersusFull {
  Pair pair;                            // method - full cache
  std::optional<double> p_holm;         // over the methods at the target
  std::optional<double> p_equivalence;  // within the margin
  std::optional<double> p_equivalence_holm;
};

struct Comparison {
  // The row every other is compared with: `compare_to`, else the row with the best area (of a single target: mean).
  // Each target has a family of its own, the pairs with the reference; so have the areas, which come first: at a
  // target, p_holm is at least that of the same two methods' areas. Where the data chose the reference, the p-values of
  // a family are first multiplied by half the number of methods, for any of them could have come out best.
  std::optional<size_t> reference;
  bool reference_is_declared = false;
  double selection_factor = 1;
  double margin = 0;  // of equivalence; 0: none is tested

  int64_t n_hypotheses = 0, n_area_hypotheses = 0;  // all pairs at all targets; all pairs of areas
  std::vector<PairSummary> pairs;                   // by target, first, second; areas last
  // Mean over log kept fraction between the table's least and largest target, by trapezoids: of each question's own
  // curve, then over questions, so that it has an interval like any mean. Only for a row with an answer of the question
  // at every target, and a table of at least two targets.
  std::vector<std::optional<Estimate>> areas;                // by row
  std::vector<std::vector<std::optional<RankRange>>> ranks;  // by row: one per target, then of the area
  std::vector<std::string> warnings;
};

// The weights w of targets at kept fractions `x` (> 0, any order) such that sum w_i y_i is the mean of the piecewise
// linear y over log x. Their sum is 1; empty for fewer than two different x.
std::vector<double> area_weights(const std::vector<double>& x);

// Kept fraction of each target: a fraction itself, a number of entries as what was kept on average; 0 if unknown.
std::vector<double> target_fractions(const Table& table);

// Rows of role kMethod; one that takes no target stands at the target nearest to what it kept. A table without metric
// or targets gives no pairs.
Comparison compare_methods(const Table& table, const ComparisonSettings& settings = {});

}  // namespace kvc
