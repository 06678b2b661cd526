// The decoder's forward pass as a chain of plain ATen operations, through which gradients flow: to the entries of a
// cache (methods/parts/cache_training.h), or to gates of heads (head_budgets/streaming_gates.h). The model itself stays
// as it is.
//
// Decoder's own kernels keep nothing for a gradient. This forward agrees with them up to rounding and is slower; it is
// the same code for every family, since a family is data.
//
// Letters: N tokens of one text, Hkv KV heads, g query heads per KV head, d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "harness/kv/head_entries.h"
#include "harness/model/decoder.h"

namespace kvc {

// Head h of a layer writes gates[h] times its attention over everything before a token, and 1 - gates[h] times that
// over the first n_sink and the last n_recent entries alone, the token's own included.
struct StreamingMix {
  at::Tensor gates;  // (Hkv)
  int64_t n_sink = 0;
  int64_t n_recent = 1;
};

class DifferentiableDecoder {
 public:
  // `dtype`: float32 or bfloat16 as the weights are, which are then shared, or float64 for judging (converted).
  DifferentiableDecoder(const Decoder& decoder, at::ScalarType dtype);

  at::ScalarType dtype() const { return dtype_; }
  const DecoderSpec& spec() const { return spec_; }
  at::Tensor embed(const std::vector<int64_t>& tokens) const;  // (N, hidden)
  // One layer over the tokens of a text that stand at first_position and up, behind `heads` (one for each KV head).
  // `mix`: what its heads write instead; nullptr: what they see.
  at::Tensor run_layer(int64_t layer, const at::Tensor& hidden, const std::vector<HeadEntries>& heads,
                       int64_t first_position, const StreamingMix* mix = nullptr) const;
  at::Tensor final_norm(const at::Tensor& hidden) const;
  at::Tensor head() const { return weights_.head; }  // (vocab, hidden)

 private:
  at::Tensor attend(const LayerWeights& weights, const at::Tensor& normed, const std::vector<HeadEntries>& heads,
                    int64_t first_position, const StreamingMix* mix) const;
  at::Tensor rotated(const at::Tensor& heads, const at::Tensor& norm, int64_t first_position) const;

  DecoderSpec spec_;
  at::ScalarType dtype_;
  DecoderWeights weights_;
  RopeTables rotary_;
};

// Autograd keeps no tensor that was made in InferenceMode: the same memory under another header, or a copy in `dtype`.
at::Tensor tracked_by_autograd(const at::Tensor& tensor, at::ScalarType dtype);

// Float32 where it is less: numbers between matrix products.
at::Tensor at_least_float(const at::Tensor& tensor);

}  // namespace kvc
