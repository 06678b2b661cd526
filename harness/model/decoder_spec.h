// A decoder-only transformer as numbers. One forward pass serves every family; a family is a function that fills this
// in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvc {

enum class RopeScaling : std::uint8_t { kNone, kLinear, kLlama3 };

struct DecoderSpec {
  int64_t n_layers = 0;
  int64_t hidden_size = 0;
  int64_t n_query_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t feed_forward_size = 0;
  int64_t vocab_size = 0;
  int64_t max_positions = 0;  // trained context length, tokens
  double rms_norm_eps = 1e-5;
  double rope_base = 10000.0;
  RopeScaling rope_scaling = RopeScaling::kNone;
  double rope_scaling_factor = 1.0;
  // Divides each rotary frequency (head_dim / 2 numbers); empty = all 1. GGUF's rope_freqs tensor, or made from
  // rope_scaling.
  std::vector<double> rope_frequency_divisors;
  bool tied_embeddings = false;
  bool attention_bias = false;  // q, k, v projections have biases (Qwen2)
  bool qk_norm = false;         // RMS norm over each head of q and k before RoPE (Qwen3)

  int64_t group_size() const { return n_query_heads / n_kv_heads; }
};

}  // namespace kvc
