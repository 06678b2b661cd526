// The stop_when of a sweep file as a rule that the runner asks.
#pragma once

#include "harness/sweep/stop_rule.h"
#include "harness/sweep/sweep_config.h"

namespace kvc {

// Empty where the sweep has none. Throws Error(kUsage): no task of the sweep measures the loss that the rule is about;
// the loss is relative to full_cache, which is not among the methods.
MakeStopRule sweep_rule(const SweepConfig& config);

}  // namespace kvc
