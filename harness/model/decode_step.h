// Steps of decoding, one new token for each of B sequences behind a shared prefix, as a CUDA graph.
//
// The numbers that change from step to step (tokens, positions, lengths) lie in one table on the device, to which the
// host sends 3 B numbers before each step; all else is the same operations on the same memory, recorded once and
// replayed. It is recorded anew when the batch or the tails' memory changes (sequences left it, the tails grew): the
// operations are run once, recorded and replayed, and the host waits once. That should cost about as much as three
// ordinary steps, which nobody has measured yet. Attention is this project's own kernels', whose
// work follows the lengths on the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "harness/attention/step_attention.h"
#include "harness/kv/kv_cache.h"
#include "harness/model/cuda_graph.h"
#include "harness/model/decoder.h"

namespace kvc {

class DecodeStep {
 public:
  enum class Way { kGraph, kEachTime };

  // Both outlive this. kEachTime runs the same operations without a graph, on any device that serves_steps(): for
  // comparisons. Throws Error(kUsage) where they cannot run: see decode_graph_obstacle().
  DecodeStep(const Decoder& decoder, const KvCache& prefix, Way way);

  // tokens (B) behind prefix and tails: the logits of what comes next, (B, vocab) float32, as Decoder::forward() and
  // logits() of one token a sequence give them. The tails grow by one entry. The tensor is overwritten by the next
  // call. The caller has read what the call before it gave (the table is sent from memory that is written anew).
  // Throws Error(kData) as Decoder::forward(), Error(kInternal) when the tails are full.
  at::Tensor logits(const std::vector<int64_t>& tokens, Tails& tails);

  int64_t n_recorded() const { return n_recorded_; }  // how often operations were recorded

 private:
  void send(const std::vector<int64_t>& tokens, const Tails& tails);
  at::Tensor run(const Tails& tails) const;
  at::Tensor attend(const LayerWeights& weights, int64_t layer, const at::Tensor& normed, const Tails& tails) const;
  bool fits(const Tails& tails) const;

  const Decoder& decoder_;
  const KvCache& prefix_;
  Way way_;
  CudaGraph graph_;
  std::vector<at::Tensor> held_;  // the tails' tensors as recorded: their memory is not given away meanwhile
  at::Tensor sent_, table_;       // (3, B) int64, pinned on the host and on the device: tokens, positions, lengths
  StepTables tables_;
  at::Tensor logits_;
  int64_t n_recorded_ = 0;
};

// Why this model cannot decode in graphs on this device; empty where it can.
std::string decode_graph_obstacle(const DecoderSpec& spec, const at::TensorOptions& options);

}  // namespace kvc
