// A seeded random model small enough for naive loops: 2 layers, 4 query heads over 2 KV heads of dimension 16.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/model/model.h"

namespace kvc {

// Its tokenizer maps bytes to ids 0..255; 256 = "<|im_start|>", 257 = "<|im_end|>" (an end), 258 = "<|endoftext|>" (BOS
// and an end), 259 = "<think>", 260 = "</think>". Chat format chatml. Equal seeds give equal weights; hidden size 48,
// feed-forward 96, vocabulary 300 (261.. are unused ids with empty bytes).
Model tiny_model(std::uint64_t seed, at::ScalarType dtype = at::kFloat, int64_t max_positions = 512,
                 const c10::Device& device = c10::Device(c10::kCPU), bool decode_graphs = false);

// The same decoder's parts, for tests that change the architecture: `spec` decides which weights exist.
DecoderSpec tiny_spec(int64_t max_positions = 512);
// Of a model of tiny_spec(): heads of different lengths, the first of `longest` entries, one empty; biases in layer 0
// only; next position 90, far beyond the entries.
KvCache ragged_prefix(at::ScalarType dtype = at::kFloat, int64_t longest = 7);
DecoderWeights random_weights(const DecoderSpec& spec, std::uint64_t seed, at::ScalarType dtype = at::kFloat);
// The same numbers on another device.
DecoderWeights weights_on(const c10::Device& device, DecoderWeights weights);

}  // namespace kvc
