// Training the entries of a cache by gradient: a distillation loss on top of DifferentiableDecoder, from which
// gradients flow to keys and values.
//
// Letters: N tokens of one text, d head dimension, t_h trained entries.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "harness/api/context.h"
#include "harness/model/differentiable_decoder.h"

namespace kvc {

// A text behind the context, and what the model makes of it with the full cache.
struct TrainingText {
  std::vector<int64_t> tokens;
  at::Tensor teacher;  // (N, hidden), after the final norm
};

// The cache being trained: keys and values of the entries between prefix and suffix, as they are (keys rotated); biases
// and the template's entries stay.
class CacheTraining {
 public:
  // `start`: what is trained, template included. dtype as DifferentiableDecoder. The trained numbers themselves are
  // float32 at least, whatever the dtype they are used in.
  CacheTraining(const Decoder& decoder, const KvCache& start, const Compactable& compactable, at::ScalarType dtype);

  // Mean over the text's tokens of KL(teacher || student) of the next token, in nats.
  double loss(const TrainingText& text) const;
  // The same, and `weight` times its gradient is added to the parameters'. Keeps the states between the layers and
  // computes each layer again: memory of one layer, not of all.
  double accumulate(const TrainingText& text, double weight);

  // Keys and values of every layer, (sum_h t_h, d) each, with their gradients.
  const std::vector<at::Tensor>& parameters() const { return parameters_; }
  KvCache result() const;  // in the start's dtype

 private:
  std::vector<HeadEntries> heads(int64_t layer) const;
  std::vector<at::Tensor> states(const TrainingText& text) const;
  double head_loss(const TrainingText& text, const at::Tensor& normed, at::Tensor* gradient) const;

  DifferentiableDecoder decoder_;
  const KvCache& start_;
  Compactable compactable_;
  std::vector<at::Tensor> parameters_;  // keys of layer 0, values of layer 0, keys of layer 1, ...
};

}  // namespace kvc
