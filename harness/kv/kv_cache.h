// The ragged KV cache of one context: every KV head of every layer has its own length, nothing is padded. A layer lies
// on one device, layers may lie on several.
//
// Letters: L layers, Hkv KV heads, d head dimension, len_h entries of head h in one layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "harness/kv/head_entries.h"

namespace kvc {

// One layer, heads one after the other ("packed"). Tensors may be views that share storage and are never written to.
struct LayerKv {
  at::Tensor keys;                    // (sum_h len_h, d), model dtype, RoPE-rotated at their original positions
  at::Tensor values;                  // (sum_h len_h, d), model dtype
  at::Tensor bias;                    // (sum_h len_h), float32, added to the scaled logits; undefined = all zero
  std::vector<int64_t> head_offsets;  // (Hkv + 1), entries; head h is rows [head_offsets[h], head_offsets[h+1])

  int64_t n_kv_heads() const { return static_cast<int64_t>(head_offsets.size()) - 1; }
  int64_t head_len(int64_t kv_head) const { return head_offsets[kv_head + 1] - head_offsets[kv_head]; }
  int64_t n_entries() const { return head_offsets.back(); }
  HeadEntries head(int64_t kv_head) const { return {head_keys(kv_head), head_values(kv_head), head_bias(kv_head)}; }
  // Views, (len_h, d), (len_h, d) and (len_h) or undefined.
  at::Tensor head_keys(int64_t kv_head) const;
  at::Tensor head_values(int64_t kv_head) const;
  at::Tensor head_bias(int64_t kv_head) const;
};

// Move-only: a copy of a cache takes hundreds of megabytes, so it must be asked for by clone().
class KvCache {
 public:
  // `next_position`: RoPE position of the token that comes next, i.e. the number of tokens the context had; independent
  // of how many entries are left. Throws Error(kInternal) if shapes, dtypes or offsets contradict each other.
  KvCache(std::vector<LayerKv> layers, int64_t next_position);
  // No entries, position 0: what a first prefill starts from.
  static KvCache empty(int64_t n_layers, int64_t n_kv_heads, int64_t head_dim, const at::TensorOptions& options);
  // Layers on different devices: the options of each, of one dtype.
  static KvCache empty(const std::vector<at::TensorOptions>& layers, int64_t n_kv_heads, int64_t head_dim);

  KvCache(KvCache&&) noexcept = default;
  KvCache& operator=(KvCache&&) noexcept = default;
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;
  KvCache clone() const;  // deep

  int64_t n_layers() const { return static_cast<int64_t>(layers_.size()); }
  int64_t n_kv_heads() const { return layers_.front().n_kv_heads(); }
  int64_t head_dim() const { return layers_.front().keys.size(1); }
  const LayerKv& layer(int64_t index) const { return layers_.at(static_cast<size_t>(index)); }
  int64_t next_position() const { return next_position_; }

  int64_t n_entries() const;  // sum over layers and heads
  // What the entries occupy: keys, values, bias where there is one, and the offset tables.
  int64_t bytes() const;
  // What is held from the allocator, at least bytes(): storages shared by several tensors count once.
  int64_t allocated_bytes() const;

 private:
  std::vector<LayerKv> layers_;
  int64_t next_position_;
};

// One layer of these heads, at least one; copied. The layer has no bias tensor when every head's bias is undefined.
LayerKv pack_heads(const std::vector<HeadEntries>& heads);
// The same from lists of equal length, one item a head; `bias` may be empty.
LayerKv pack_heads(const std::vector<at::Tensor>& keys, const std::vector<at::Tensor>& values,
                   const std::vector<at::Tensor>& bias);

// One layer's tails with new tokens written behind them: what attention reads.
struct TailView {
  at::Tensor keys, values;       // (B, Hkv, capacity, d), the new rows behind the older ones
  std::vector<int64_t> lengths;  // (B), entries before the new ones
  std::vector<int64_t> offsets;  // (B + 1): sequence b's new tokens are rows [offsets[b], offsets[b+1]) of the batch

  int64_t batch() const { return static_cast<int64_t>(lengths.size()); }
  int64_t n_kv_heads() const { return keys.size(1); }
  int64_t n_new(size_t b) const { return offsets[b + 1] - offsets[b]; }
  // Of sequences [first, last), their offsets counted from 0. Shares storage.
  TailView slice(int64_t first, int64_t last) const;
};

// The dense part behind a shared KvCache: B sequences (questions, conversations, the document itself while it is read)
// that grow by a token at a time. Never compacted. Unused capacity is allocated but never read.
class Tails {
 public:
  // options: model dtype and device. capacity: entries per sequence.
  Tails(int64_t n_layers, int64_t n_kv_heads, int64_t head_dim, int64_t batch, int64_t capacity,
        const at::TensorOptions& options);
  Tails(const std::vector<at::TensorOptions>& layers, int64_t n_kv_heads, int64_t head_dim, int64_t batch,
        int64_t capacity);
  static Tails behind(const KvCache& prefix, int64_t batch, int64_t capacity);

  int64_t n_layers() const { return static_cast<int64_t>(keys_.size()); }
  int64_t batch() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t capacity() const { return capacity_; }
  // Valid entries of each sequence, the same in every layer between forward passes.
  const std::vector<int64_t>& lengths() const { return lengths_; }

  at::Tensor keys(int64_t layer) const { return keys_.at(static_cast<size_t>(layer)); }      // (B, Hkv, capacity, d)
  at::Tensor values(int64_t layer) const { return values_.at(static_cast<size_t>(layer)); }  // (B, Hkv, capacity, d)

  // Writes the rows of a packed batch behind what is there; sequence b gets rows [offsets[b], offsets[b+1]).
  // new_keys, new_values: (N, Hkv, d). Lengths do not change until advance().
  // `writer` does the copying where it can and says so (gpu::write_tails is one); else LibTorch's copies do.
  using RowWriter = bool(const TailView& tails, const at::Tensor& new_keys, const at::Tensor& new_values);
  void write(int64_t layer, const at::Tensor& new_keys, const at::Tensor& new_values,
             const std::vector<int64_t>& sequence_offsets, RowWriter* writer = nullptr);
  // A layer between write() and advance().
  TailView view(int64_t layer, const std::vector<int64_t>& sequence_offsets) const;
  void advance(const std::vector<int64_t>& sequence_offsets);

  // Room for `capacity` entries per sequence; copies if there is less.
  void reserve(int64_t capacity);
  // New tails whose sequence i is a copy of sequences[i]: one prompt forked into several answers, or finished ones
  // dropped. Room for at least `capacity` entries, never less than before.
  Tails select(const std::vector<int64_t>& sequences, int64_t capacity = 0) const;
  // Entries of sequence `index` from the first `n_entries` on are forgotten.
  void truncate(int64_t index, int64_t n_entries);
  // The cache of what sequence 0 has read; batch() must be 1. Shares storage where the capacity is used up, else
  // copies. next_position = first_position + length.
  KvCache into_cache(int64_t first_position) &&;

  int64_t allocated_bytes() const;

 private:
  int64_t capacity_;
  std::vector<at::Tensor> keys_;
  std::vector<at::Tensor> values_;
  std::vector<int64_t> lengths_;
};

}  // namespace kvc
