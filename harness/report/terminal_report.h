// The report as printed: what stands out, a short table per data set and task, and where the rest is.
#pragma once

#include <string>

#include "harness/report/tabulate.h"

namespace kvc {

// By document, or over questions where documents are too few for an interval by document to say anything.
const Interval& shown_interval(const Estimate& estimate);

// "0.35 [0.22, 0.51]"; as many digits as the interval leaves meaning to.
std::string estimate_text(const MetricSummary& metric);
std::string mean_text(const MetricSummary& metric);

}  // namespace kvc
