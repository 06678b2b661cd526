// How small a difference a run like this one finds: the power of the tests of paired.h.
#pragma once

#include <optional>

#include "harness/report/paired.h"

namespace kvc {

constexpr double kPower = 0.8;

// Chance that a two-sided t test at `level` with `degrees` of freedom rejects when the true mean is `effect` standard
// errors from 0 (noncentral t).
double t_power(double effect, double degrees, double level);

// Chance that McNemar's exact test of `n` questions at `level` rejects when a share `changed` of the answers changes
// and the share of wins is `difference` above that of losses (`changed` >= difference >= 0).
double mcnemar_power(int64_t n, double changed, double difference, double level);

// The smallest true effect that the test of `pair` finds at `level` in at least kPower of runs like this one. For
// shares a difference: as many answers change as here, at least as many as the difference asks, and questions of a
// document go together as here; where two tests must agree, the chances to miss are added, so that the power is not
// overstated. For positive metrics a ratio above 1, for others a difference. Nothing where no effect could be found, or
// nothing decides.
std::optional<double> detectable_effect(const Pair& pair, double level);

}  // namespace kvc
