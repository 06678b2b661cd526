// A short measurement of a sweep's stages: the beginning of one document of a data set, at two sizes.
#pragma once

#include <functional>
#include <string>

#include "harness/sweep/ask_together.h"
#include "harness/sweep/stage_rates.h"
#include "harness/sweep/sweep_blocks.h"

namespace kvc {

// Adds to `rates` what they do not know yet of the block's cells, by measuring it: compaction of every method with the
// largest and the least target on one question, and every task with all questions on what is left whole and on the
// least, in such batches as `together` says. Takes a few seconds a method; after `limit_s` it stops, and what is not
// measured stays unknown. Failures are no records and stay unknown as well. Nothing is written.
void calibrate(const Model& model, const Block& block, StageRates& rates,
               const std::function<void(const std::string&)>& stage, const AskTogether& together = {},
               double limit_s = 20);

}  // namespace kvc
