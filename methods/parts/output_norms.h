// How much an entry's value writes into the residual stream when it is attended to.
//
// Letters: T entries, g query heads of the KV head.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "harness/api/compaction_method.h"

namespace kvc {

// |W_o v_i|_p for every query head's own part of the output projection: (g, T) float32. p 1 or 2. Throws Error(kUsage)
// naming `method` where the head comes without a model.
at::Tensor output_norms(const HeadProblem& problem, double p, const std::string& method);

}  // namespace kvc
