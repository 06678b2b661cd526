// Every method of a table against every other, on its primary metric: who is better, and what this run cannot tell.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "harness/report/paired.h"

namespace kvc {

struct Table;

struct PairSummary {
  size_t first = 0, second = 0;  // rows of the table, first < second
  std::optional<size_t> target;  // of the table; nothing: area under the curve
  Pair pair;                     // of the metric as it is: where lower is better, a win of the first is a higher value
  double p_holm = 1;
  std::optional<double> detectable;            // at 5 % for this pair alone
  std::optional<double> detectable_corrected;  // at 5 % over the family: what the first step of Holm's procedure asks
  int better = 0;                              // 1 the first, -1 the second, 0 undecided at 5 % over the family
};

// Places that the decided pairs leave open: 1 + methods that are decidedly better, and methods - those that are
// decidedly worse. Methods whose ranges overlap without a decision between them are tied.
struct RankRange {
  int64_t best = 1, worst = 1;
};

struct Comparison {
  // One family of hypotheses for Holm: all pairs at all targets. The areas are a second one.
  int64_t n_hypotheses = 0, n_area_hypotheses = 0;
  std::vector<PairSummary> pairs;  // by target, first, second; areas last
  // Mean over log kept fraction between the table's least and largest target, by trapezoids: of each question's own
  // curve, then over questions, so that it has an interval like any mean. Only for a row with an answer of the question
  // at every target, and a table of at least two targets.
  std::vector<std::optional<Estimate>> areas;                // by row
  std::vector<std::vector<std::optional<RankRange>>> ranks;  // by row: one per target, then of the area
};

// The weights w of targets at kept fractions `x` (> 0, any order) such that sum w_i y_i is the mean of the piecewise
// linear y over log x. Their sum is 1; empty for fewer than two different x.
std::vector<double> area_weights(const std::vector<double>& x);

// Kept fraction of each target: a fraction itself, a number of entries as what was kept on average; 0 if unknown.
std::vector<double> target_fractions(const Table& table);

// Rows of role kMethod; one that takes no target stands at the target nearest to what it kept. A table without metric
// or targets gives no pairs.
Comparison compare_methods(const Table& table);

}  // namespace kvc
