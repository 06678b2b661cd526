// The one forward pass: RMSNorm, RoPE, grouped-query attention over a shared compact prefix and per-sequence tails,
// SwiGLU.
//
// Letters: N packed new tokens of B sequences, Hq query heads, Hkv KV heads, d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "harness/kv/kv_cache.h"
#include "harness/model/decoder_spec.h"
#include "harness/model/rope.h"

namespace kvc {

// Weights in compute dtype on the compute device, in the half-split RoPE layout (rotate_half). Linear weights are (out,
// in).
struct LayerWeights {
  at::Tensor attention_norm;         // (hidden)
  at::Tensor qkv;                    // ((Hq + 2 Hkv) d, hidden): q rows, then k, then v
  at::Tensor qkv_bias;               // ((Hq + 2 Hkv) d) or undefined
  at::Tensor q_norm, k_norm;         // (d) or undefined
  at::Tensor attention_output;       // (hidden, Hq d)
  at::Tensor attention_output_bias;  // (hidden) or undefined
  at::Tensor feed_forward_norm;      // (hidden)
  at::Tensor gate_up;                // (2 ffn, hidden): gate rows, then up
  at::Tensor gate_up_bias;           // (2 ffn) or undefined
  at::Tensor down;                   // (hidden, ffn)
  at::Tensor down_bias;              // (hidden) or undefined
};

struct DecoderWeights {
  at::Tensor embedding;  // (vocab, hidden)
  std::vector<LayerWeights> layers;
  at::Tensor final_norm;  // (hidden)
  at::Tensor head;        // (vocab, hidden); the embedding itself when tied
};

// New tokens of several sequences one after the other; lengths may differ, nothing is padded.
struct PackedTokens {
  std::vector<int64_t> tokens;            // (N)
  std::vector<int64_t> sequence_offsets;  // (B + 1); sequence b is tokens [sequence_offsets[b], sequence_offsets[b+1])

  static PackedTokens pack(const std::vector<std::vector<int64_t>>& sequences);
  static PackedTokens single(const std::vector<int64_t>& tokens);
};

// Called once per layer with the rotated queries of all new tokens, (N, Hq, d) in the model dtype; valid during the
// call only.
using QueryTap = std::function<void(int64_t layer, const at::Tensor& queries)>;

// New tokens of sequences that share one prefix: a part of a pass over several prefixes.
struct PrefixPart {
  const PackedTokens& input;
  const KvCache& prefix;
  Tails& tails;  // of the input's sequences
};

class Decoder {
 public:
  // Throws Error(kData) when a weight's shape contradicts the spec.
  Decoder(DecoderSpec spec, DecoderWeights weights);

  // The same model, weights shared, with rope_dynamic_positions = n_positions: what transformers computes for one text
  // of that length. Caches of one must not be read by the other. Without kDynamic a plain copy.
  Decoder for_text_of(int64_t n_positions) const;

  // Layer `layer` as a decoder of one layer, weights and rotary tables shared: its tails are one layer's.
  Decoder single_layer(int64_t layer) const;

  const DecoderSpec& spec() const { return spec_; }
  const DecoderWeights& weights() const { return weights_; }  // never written to
  const RopeTables& rotary(int64_t layer = 0) const { return rotary_.at(static_cast<size_t>(layer)); }
  // Dtype of weights and caches, and where the embedding is: tokens go in and hidden states come out there.
  at::TensorOptions options() const;
  // The same of a layer, its part of every cache included. Layers may lie on other devices (device_plan.h).
  at::TensorOptions options(int64_t layer) const;
  bool is_spread() const;
  std::vector<c10::Device> devices() const;  // each once; the embedding's first
  // A cache without entries whose layers are where the decoder's are.
  KvCache empty_cache() const;

  // Reads the tokens behind prefix and tails; token i of sequence b stands at position prefix.next_position() +
  // tails.lengths()[b] + i. Appends to `tails`. Returns the hidden states after the final norm, (N, hidden) model
  // dtype. Throws Error(kData) when a position passes spec().max_positions, or a token is outside the vocabulary.
  at::Tensor forward(const PackedTokens& input, const KvCache& prefix, Tails& tails, const QueryTap& tap = {}) const;
  // Several such passes at once, so that each weight is read once for all of them; attention is computed part by part,
  // on a GPU too. Returns the parts' rows one after the other. A row has the bits that its part alone would give where
  // all parts together have at most independent_rows() rows.
  at::Tensor forward(std::span<const PrefixPart> parts) const;

  // Up to how many rows in one pass a row's bits do not depend on the rows beside it; 1 where they always may.
  int64_t independent_rows() const;

  // The stages of forward(), for work that goes layer by layer. run_layer writes layer `layer` of the tails; the caller
  // calls tails.advance() once after the last layer it runs. positions: (N) int64 on the CPU.
  at::Tensor embed(const std::vector<int64_t>& tokens) const;  // (N, hidden)
  at::Tensor run_layer(int64_t layer, const at::Tensor& hidden, const std::vector<int64_t>& positions,
                       const std::vector<int64_t>& sequence_offsets, const LayerKv& prefix, Tails& tails,
                       const QueryTap& tap = {}) const;
  at::Tensor final_norm(const at::Tensor& hidden) const;
  std::vector<int64_t> positions(const PackedTokens& input, const KvCache& prefix, const Tails& tails) const;

  // Head applied to rows of forward()'s result: (n, vocab) float32. The caller chooses the rows: at long contexts all
  // of them would be n x vocab x 4 bytes.
  at::Tensor logits(const at::Tensor& hidden) const;

  // Tokens of a text that are read together where the caller does not say: on a GPU so many that products fill it.
  int64_t chunk_tokens() const { return weights_.embedding.is_cpu() ? kCpuChunkTokens : kGpuChunkTokens; }
  static constexpr int64_t kCpuChunkTokens = 1024, kGpuChunkTokens = 8192;

  // Reads one text in chunks of at most `chunk` tokens (0: chunk_tokens()) and returns its cache
  // (prefix.next_position() tokens continue in it only when `prefix` is empty: this is the document's own prefill). The
  // tap sees each chunk; first_token is the chunk's offset.
  using ChunkTap = std::function<void(int64_t layer, int64_t first_token, const at::Tensor& queries)>;
  KvCache prefill(const std::vector<int64_t>& tokens, int64_t chunk = 0, const ChunkTap& tap = {}) const;

 private:
  // What one layer sees of a PrefixPart.
  struct LayerPart {
    const std::vector<int64_t>& sequence_offsets;
    const LayerKv& prefix;
    Tails& tails;
  };
  at::Tensor attend(const LayerWeights& weights, int64_t layer, const at::Tensor& normed,
                    const std::vector<int64_t>& positions, const std::vector<LayerPart>& parts,
                    const QueryTap& tap) const;
  at::Tensor run_layer(int64_t layer, const at::Tensor& hidden, const std::vector<int64_t>& positions,
                       const std::vector<LayerPart>& parts, const QueryTap& tap) const;
  at::Tensor forward(std::span<const PrefixPart> parts, const QueryTap& tap) const;
  // forward() before the final norm.
  at::Tensor run_layers(std::span<const PrefixPart> parts, const QueryTap& tap) const;

  DecoderSpec spec_;
  DecoderWeights weights_;
  void make_rotary();

  std::vector<RopeTables> rotary_;  // of each layer; shared by those on one device
};

}  // namespace kvc
