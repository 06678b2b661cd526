// From tensors to the launchers of ragged_attention_cuda.h. The tensors' memory must be reachable by the kernels: on
// the current GPU, or, for the kernels as tests emulate them, on the CPU. Work is put on `stream` and not waited for.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "harness/attention/ragged_attention_cuda.h"
#include "harness/attention/step_attention.h"
#include "harness/core/error.h"
#include "harness/kv/device_numbers.h"
#include "harness/kv/kv_cache.h"
#include "harness/math/attention.h"

namespace kvc::KVC_CUDA_NAMESPACE {

inline void demand(const char* refused, const char* what) {
  if (refused == nullptr) return;
  throw Error(ErrorKind::kInternal, std::string("the GPU refuses: ") + refused, what,
              "is the GPU free, and is it one of those the kernels were compiled for?");
}

inline Number number_of(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kFloat ? Number::kFloat32 : Number::kBfloat16;
}

// What the kernels can take; anything else goes through LibTorch's operations.
inline bool kernels_take(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                         int64_t n_kv_heads) {
  const auto fits = [&](const at::Tensor& tensor) {
    return tensor.device() == queries.device() && tensor.scalar_type() == queries.scalar_type() &&
           tensor.is_contiguous();
  };
  const bool known = queries.scalar_type() == at::kFloat || queries.scalar_type() == at::kBFloat16;
  return known && fits(keys) && fits(values) && queries.size(2) >= 1 && queries.size(2) <= kMaxHeadDim &&
         n_kv_heads >= 1 && n_kv_heads <= kMaxKvHeads && queries.size(1) % n_kv_heads == 0;
}

// A part of the context, with what its pointers point to.
struct HeldPart {
  ContextPart part;
  at::Tensor bias, lengths, sequence_offsets;
};

inline HeldPart prefix_part(const LayerKv& prefix, int64_t n_tokens) {
  HeldPart held;
  ContextPart& part = held.part;
  part.keys = prefix.keys.const_data_ptr();
  part.values = prefix.values.const_data_ptr();
  if (prefix.bias.defined()) {
    held.bias = prefix.bias.contiguous();
    part.bias = held.bias.const_data_ptr<float>();
  }
  std::copy(prefix.head_offsets.begin(), prefix.head_offsets.end(), part.head_offsets);
  part.most_tokens = n_tokens;
  for (int64_t h = 0; h < prefix.n_kv_heads(); ++h) part.most_entries = std::max(part.most_entries, prefix.head_len(h));
  return held;
}

// lengths (B) and offsets (B + 1) int64 where the kernels run; most_tokens and most_entries as in ContextPart.
inline HeldPart tail_part(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& lengths,
                          const at::Tensor& sequence_offsets, int64_t most_tokens, int64_t most_entries) {
  HeldPart held;
  ContextPart& part = held.part;
  part.keys = keys.const_data_ptr();
  part.values = values.const_data_ptr();
  held.lengths = lengths;
  held.sequence_offsets = sequence_offsets;
  part.lengths = held.lengths.const_data_ptr<int64_t>();
  part.sequence_offsets = held.sequence_offsets.const_data_ptr<int64_t>();
  part.batch = lengths.size(0);
  part.capacity = keys.size(2);
  part.most_tokens = most_tokens;
  part.most_entries = most_entries;
  return held;
}

inline HeldPart tail_part(const TailView& tails) {
  int64_t most_tokens = 0, most_entries = 0;
  for (size_t b = 0; b < tails.lengths.size(); ++b) {
    most_tokens = std::max(most_tokens, tails.n_new(b));
    most_entries = std::max(most_entries, tails.lengths[b] + tails.n_new(b));
  }
  const c10::Device device = tails.keys.device();
  return tail_part(tails.keys, tails.values, device_numbers(tails.lengths, device),
                   device_numbers(tails.offsets, device), most_tokens, most_entries);
}

// Of sequences [first, first + n) in a step of one new token each: whatever their lengths, in a graph that is replayed
// as they grow.
inline HeldPart step_part(const at::Tensor& keys, const at::Tensor& values, const StepTables& tables, int64_t first,
                          int64_t n) {
  return tail_part(keys.narrow(0, first, n), values.narrow(0, first, n), tables.lengths.narrow(0, first, n),
                   tables.offsets.narrow(0, 0, n + 1), 1, keys.size(2));
}

// Attention over all parts at once: output (N, Hq, d) of `dtype`, log_sum_exp (N, Hq).
inline PartialAttention attend_parts(const at::Tensor& queries, int64_t n_kv_heads, const std::vector<HeldPart>& parts,
                                     at::ScalarType dtype, CudaStream stream) {
  const at::Tensor rows = queries.contiguous();
  const int64_t n = rows.size(0), n_heads = rows.size(1), d = rows.size(2);
  const AttentionShape shape{number_of(rows), n, static_cast<int>(d), static_cast<int>(n_heads),
                             static_cast<int>(n_kv_heads)};
  int n_pieces = 0;
  for (const HeldPart& held : parts) n_pieces += pieces_of(held.part);
  const auto options = rows.options().dtype(at::kFloat);
  const at::Tensor outputs = at::empty({n_pieces, n, n_heads, d}, options);
  const at::Tensor sums = at::empty({n_pieces, n, n_heads}, options);
  auto* output = outputs.mutable_data_ptr<float>();
  auto* sum = sums.mutable_data_ptr<float>();
  for (const HeldPart& held : parts) {
    const int own = pieces_of(held.part);
    demand(attend(shape, held.part, rows.const_data_ptr(), own, output, sum, stream), "attention kernel");
    output += own * n * n_heads * d;
    sum += own * n * n_heads;
  }
  PartialAttention merged{at::empty({n, n_heads, d}, options.dtype(dtype)), at::empty({n, n_heads}, options)};
  demand(merge_pieces(shape, n_pieces, outputs.const_data_ptr<float>(), sums.const_data_ptr<float>(),
                      number_of(merged.output), merged.output.mutable_data_ptr(),
                      merged.log_sum_exp.mutable_data_ptr<float>(), stream),
         "attention kernel");
  return merged;
}

// Of memory that the pieces of one launch may take.
constexpr int64_t kMostPieceBytes = int64_t{256} << 20;

// Bytes of the outputs and log-sum-exps that one token leaves in `n_pieces` pieces.
inline int64_t piece_bytes(const at::Tensor& queries, int64_t n_pieces) {
  return n_pieces * queries.size(1) * (queries.size(2) + 1) * int64_t{sizeof(float)};
}

// As kvc::prefix_attention(), whose dtypes and layouts kernels_take(): some tokens at a time, so that their pieces stay
// within `most_bytes` (one token at least). A row's result is the same however the tokens are cut.
inline PartialAttention prefix_alone(const at::Tensor& queries, const LayerKv& prefix, CudaStream stream,
                                     int64_t most_bytes = kMostPieceBytes) {
  const int64_t n = queries.size(0), n_heads = queries.size(1);
  const int64_t token_bytes = piece_bytes(queries, pieces_of(prefix_part(prefix, n).part));
  const int64_t step = std::max<int64_t>(1, most_bytes / token_bytes);
  const auto attend_to = [&](int64_t begin, int64_t end) {
    return attend_parts(queries.slice(0, begin, end), prefix.n_kv_heads(), {prefix_part(prefix, end - begin)},
                        at::kFloat, stream);
  };
  if (n <= step) return attend_to(0, n);
  const at::TensorOptions options = queries.options().dtype(at::kFloat);
  const PartialAttention all{at::empty({n, n_heads, queries.size(2)}, options), at::empty({n, n_heads}, options)};
  for (int64_t begin = 0; begin < n; begin += step) {
    const int64_t end = std::min(n, begin + step);
    const PartialAttention some = attend_to(begin, end);
    all.output.slice(0, begin, end).copy_(some.output);
    all.log_sum_exp.slice(0, begin, end).copy_(some.log_sum_exp);
  }
  return all;
}

// How many sequences, from `first` on, one launch takes so that its pieces stay within `most_bytes` (one at least). A
// row's result is the same however the batch is cut.
inline size_t sequences_at_once(const at::Tensor& queries, int64_t n_pieces, const std::vector<int64_t>& offsets,
                                int64_t n_kv_heads, size_t first, int64_t most_bytes) {
  const int64_t token_bytes = piece_bytes(queries, n_pieces);
  size_t last = first + 1;
  while (last + 1 < offsets.size() && (offsets[last + 1] - offsets[first]) * token_bytes <= most_bytes &&
         static_cast<int64_t>(last + 1 - first) * n_kv_heads <= 65535) {
    ++last;
  }
  return last - first;
}

// As kvc::context_attention(), whose dtypes and layouts kernels_take(). tail_of(first, n): the part of sequences
// [first, first + n), counted from 0 in its tables; n_sequences of them, whose new tokens `offsets` divides.
template <class TailOf>
at::Tensor context_of(const at::Tensor& queries, const LayerKv& prefix, int64_t n_kv_heads,
                      const std::vector<int64_t>& offsets, const TailOf& tail_of, CudaStream stream,
                      int64_t most_bytes) {
  const size_t batch = offsets.size() - 1;
  if (batch == 0) return at::zeros_like(queries);
  const int64_t n_pieces =
      pieces_of(prefix_part(prefix, 0).part) + pieces_of(tail_of(0, static_cast<int64_t>(batch)).part);
  at::Tensor output;
  for (size_t first = 0; first < batch;) {
    const size_t n = sequences_at_once(queries, n_pieces, offsets, n_kv_heads, first, most_bytes);
    const int64_t begin = offsets[first], end = offsets[first + n];
    std::vector<HeldPart> parts;
    if (prefix.n_entries() > 0) parts.push_back(prefix_part(prefix, end - begin));
    parts.push_back(tail_of(static_cast<int64_t>(first), static_cast<int64_t>(n)));
    const at::Tensor part =
        attend_parts(queries.slice(0, begin, end), n_kv_heads, parts, queries.scalar_type(), stream).output;
    if (n == batch) return part;
    if (!output.defined()) output = at::empty_like(queries, queries.options(), at::MemoryFormat::Contiguous);
    output.slice(0, begin, end).copy_(part);
    first += n;
  }
  return output;
}

inline at::Tensor context(const at::Tensor& queries, const LayerKv& prefix, const TailView& tails, CudaStream stream,
                          int64_t most_bytes = kMostPieceBytes) {
  const auto tail_of = [&](int64_t first, int64_t n) { return tail_part(tails.slice(first, first + n)); };
  return context_of(queries, prefix, tails.n_kv_heads(), tails.offsets, tail_of, stream, most_bytes);
}

// As kvc::step_attention(), whose dtypes and layouts kernels_take().
inline at::Tensor step_context(const at::Tensor& queries, const LayerKv& prefix, const at::Tensor& keys,
                               const at::Tensor& values, const StepTables& tables, CudaStream stream,
                               int64_t most_bytes = kMostPieceBytes) {
  std::vector<int64_t> offsets(static_cast<size_t>(queries.size(0)) + 1);
  std::iota(offsets.begin(), offsets.end(), 0);
  const auto tail_of = [&](int64_t first, int64_t n) { return step_part(keys, values, tables, first, n); };
  return context_of(queries, prefix, keys.size(1), offsets, tail_of, stream, most_bytes);
}

// New rows (N, Hkv, d), whose heads lie side by side, behind what the tails hold.
inline void write(const HeldPart& tails, const at::Tensor& keys, const at::Tensor& new_keys,
                  const at::Tensor& new_values, CudaStream stream) {
  const AttentionShape shape{number_of(keys), new_keys.size(0), static_cast<int>(keys.size(3)),
                             static_cast<int>(keys.size(1)), static_cast<int>(keys.size(1))};
  demand(write_tails(shape, tails.part, new_keys.const_data_ptr(), new_keys.stride(0), new_values.const_data_ptr(),
                     new_values.stride(0), stream),
         "cache kernel");
}

// As Tails::write() checks and describes.
inline void write(const TailView& tails, const at::Tensor& new_keys, const at::Tensor& new_values, CudaStream stream) {
  write(tail_part(tails), tails.keys, new_keys, new_values, stream);
}

// As kvc::write_step().
inline void write_step(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& new_keys,
                       const at::Tensor& new_values, const StepTables& tables, CudaStream stream) {
  write(step_part(keys, values, tables, 0, keys.size(0)), keys, new_keys, new_values, stream);
}

// Whether write() can take rows of this layout.
inline bool rows_are_dense(const at::Tensor& rows) {
  return rows.stride(2) == 1 && rows.stride(1) == rows.size(2);
}

}  // namespace kvc::KVC_CUDA_NAMESPACE
