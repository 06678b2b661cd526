// A decoder-only transformer as numbers. One forward pass serves every family; a family is a function that fills this
// in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvc {

// How rotary frequencies are stretched to longer contexts; names and numbers as in transformers' rope_parameters.
enum class RopeScaling : std::uint8_t { kNone, kLinear, kDynamic, kLlama3, kYarn };

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
  double rope_scaling_factor = 1.0;  // every kind but kNone
  // Context length before the stretch: kLlama3, kYarn, and kDynamic, whose frequencies change beyond it. 0 for the
  // others.
  int64_t rope_original_max_positions = 0;
  // kDynamic: the text length whose frequencies serve every position (rope.h says why); 0 = max_positions.
  int64_t rope_dynamic_positions = 0;
  double rope_low_freq_factor = 1.0;  // kLlama3
  double rope_high_freq_factor = 4.0;
  double rope_beta_fast = 32.0;  // kYarn
  double rope_beta_slow = 1.0;
  bool rope_yarn_truncate = true;  // the ends of kYarn's ramp are rounded to whole frequencies
  // kYarn: what cosine and sine are multiplied with; 0 = from rope_mscale and rope_mscale_all_dim where both are set,
  // else 0.1 ln(factor) + 1.
  double rope_attention_factor = 0.0;
  double rope_mscale = 0.0;  // 0 = not set
  double rope_mscale_all_dim = 0.0;
  // Divides each rotary frequency (head_dim / 2 numbers) before the other kinds stretch it; empty = all 1. GGUF's
  // rope_freqs tensor. With kLlama3 they stand for the numbers above: the frequencies are divided by these and nothing
  // else.
  std::vector<double> rope_frequency_divisors;
  bool tied_embeddings = false;
  bool attention_bias = false;         // q, k, v projections have biases (Qwen2)
  bool attention_output_bias = false;  // so has the output projection (Llama's attention_bias has all four)
  bool mlp_bias = false;               // gate, up and down projections have biases
  bool qk_norm = false;                // RMS norm over each head of q and k before RoPE (Qwen3)

  int64_t group_size() const { return n_query_heads / n_kv_heads; }
};

}  // namespace kvc
