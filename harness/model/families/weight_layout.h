// Where the weights of a Llama-like decoder lie in a file: two ways of naming the same tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "harness/files/stored_tensor.h"
#include "harness/model/decoder.h"
#include "harness/model/device_plan.h"

namespace kvc {

// Names without ".weight" and ".bias"; those of a layer stand behind `layer` with its number.
struct WeightLayout {
  std::string embedding, final_norm, head;
  std::string layer;  // "blk.{}."
  std::string attention_norm, q, k, v, q_norm, k_norm, attention_output;
  std::string feed_forward_norm, gate, up, down;
  // Rows 2j and 2j + 1 of each head of q and k are rotated together; the decoder wants j and j + d/2 so.
  bool rotates_neighbours = false;
};

// GGUF's names (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
WeightLayout gguf_layout(bool rotates_neighbours);
// transformers' names. A checkpoint of the model without its head (AutoModel.save_pretrained) leaves out the leading
// "model.", and transformers puts it back when it loads; so does this where `source` has the names without it.
WeightLayout transformers_layout(const TensorSource& source);

// Throws Error(kData) with all tensors that are missing, misshapen or left over; reads no numbers. Left over may be
// what no computation needs: rotary frequencies stored as buffers (*.rotary_emb.inv_freq), and a stored copy of a tied
// head.
void check_weights(const TensorSource& source, const WeightLayout& layout, const DecoderSpec& spec);

// All weights as decoder.h wants them. Throws like check_weights; also for a number that is not finite, and a stored
// copy of a tied head that differs from the embedding.
DecoderWeights read_weights(const TensorSource& source, const WeightLayout& layout, const DecoderSpec& spec,
                            at::ScalarType dtype, const DevicePlan& devices);

}  // namespace kvc
