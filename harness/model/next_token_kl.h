// How far one next-token distribution is from another.
#pragma once

#include <ATen/ATen.h>

namespace kvc {

// KL(p || q) of each row in nats, (N) float64 where the rows are. log_p, log_q: (N, vocabulary) log-probabilities of
// one floating dtype on one device. log_q is overwritten, so that one tensor as wide as the vocabulary is enough. The
// products keep the rows' dtype, the sum is float64: near equal distributions float32 rows are good to about 1e-7 nats.
at::Tensor next_token_kl(const at::Tensor& log_p, at::Tensor log_q);

}  // namespace kvc
