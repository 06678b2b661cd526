// Sampling on the device: next tokens from logits, whole rows staying there where possible.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <random>
#include <vector>

namespace kvc {

// greedy_token() of each row of logits (n, vocab) float32, found on their device: 16 bytes a row are copied to the
// host, in one transfer. Throws like greedy_token.
std::vector<int64_t> greedy_tokens(const at::Tensor& logits);

// sampled_token() of each row, random(row) being its stream: the same tokens. Up to kMostOnDevice candidates of a top_k
// are found on the device and copied in one transfer; without top_k, beyond that, or where equal logits lie on both
// sides of the cut, whole rows are. Throws like sampled_token.
inline constexpr int64_t kMostOnDevice = 1024;
std::vector<int64_t> sampled_tokens(const at::Tensor& logits, double temperature, int64_t top_k, double top_p,
                                    double min_p, const std::function<std::mt19937_64&(int64_t row)>& random);

}  // namespace kvc
