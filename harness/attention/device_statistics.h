// What Attention Matching needs of the attention of many heads (harness/math/attention_statistics.h), on a GPU's tensor
// cores, without logits in memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "harness/math/attention_statistics.h"

namespace kvc::gpu {

// Arguments and results as of statistics_by_products(), any number of heads, each with lists of its own in a reach
// ((H,n), or (n) for all). Nothing where this build has no kernels,
// or they do not take the tensors: bfloat16 on a GPU, a head dimension that is a multiple of 8 up to 256, values as
// wide as keys, at least one query and one entry.
//
// Two kernels on the current stream, and some operations on (H,n) numbers between them: one leaves row maxima, masses
// and outputs, the other forms the logits again and adds up what each key gets (tensor_attention_cuda.h); KeySum::kNone
// does without the second. 4 n T d flops
// a head, 6 n T d with values. Weights are rounded to bfloat16 before they meet the values, nothing else is. Equal
// requests leave equal bytes. Without a reach the host does not wait (counted on a pretended GPU,
// methods/gpu_batches_test.cpp); a reach whose lists lie on the CPU is copied, which waits.
std::optional<AttentionStatistics> attention_statistics(const at::Tensor& queries, const at::Tensor& keys,
                                                        const at::Tensor& bias, const at::Tensor& values, KeySum sum,
                                                        const RowReach& reach = {});

}  // namespace kvc::gpu
