// Training the entries of a cache by gradient: the decoder's forward pass as a chain of plain ATen operations, through
// which gradients flow to keys and values, and the distillation loss on top. The model itself stays as it is.
//
// Decoder's own kernels keep nothing for a gradient. This forward agrees with them up to rounding and is slower; it is
// the same code for every family, since a family is data.
//
// Letters: N tokens of one text, Hkv KV heads, g query heads per KV head, d head dimension, t_h trained entries.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "harness/api/context.h"
#include "harness/model/decoder.h"

namespace kvc {

class DifferentiableDecoder {
 public:
  // `dtype`: float32 or bfloat16 as the weights are, which are then shared, or float64 for judging (converted).
  DifferentiableDecoder(const Decoder& decoder, at::ScalarType dtype);

  at::ScalarType dtype() const { return dtype_; }
  const DecoderSpec& spec() const { return spec_; }
  at::Tensor embed(const std::vector<int64_t>& tokens) const;  // (N, hidden)
  // One layer over the tokens of a text that stand at first_position and up, behind `heads` (one for each KV head).
  at::Tensor run_layer(int64_t layer, const at::Tensor& hidden, const std::vector<HeadEntries>& heads,
                       int64_t first_position) const;
  at::Tensor final_norm(const at::Tensor& hidden) const;
  at::Tensor head() const { return weights_.head; }  // (vocab, hidden)

 private:
  at::Tensor attend(const LayerWeights& weights, const at::Tensor& normed, const std::vector<HeadEntries>& heads,
                    int64_t first_position) const;
  at::Tensor rotated(const at::Tensor& heads, const at::Tensor& norm, int64_t first_position) const;

  DecoderSpec spec_;
  at::ScalarType dtype_;
  DecoderWeights weights_;
  RopeTables rotary_;
};

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

// Kingma and Ba, arXiv:1412.6980; beta 0.9 and 0.999, epsilon 1e-8.
class Adam {
 public:
  explicit Adam(std::vector<at::Tensor> parameters);
  // Applies and clears the gradients.
  void step(double learning_rate);

 private:
  std::vector<at::Tensor> parameters_, mean_, square_;
  int64_t n_steps_ = 0;
};

}  // namespace kvc
