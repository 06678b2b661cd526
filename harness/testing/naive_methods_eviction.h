// Scores of the evictions and merges of evicted entries as plain float64 loops: the judges of the fast code. Small
// sizes only.
//
// Letters: T entries, n queries, d head dimension, g query heads of one KV head. Tensors of any float dtype.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace kvc {

using NaiveRows = std::vector<std::vector<double>>;

NaiveRows naive_rows(const at::Tensor& matrix);

// Attention weights of queries (n,d) over keys (T,d) with bias (T) or undefined, reduced over the queries by "mean",
// "max" or "rms".
std::vector<double> naive_attention_scores(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                           const std::string& reduction);

// Every number replaced by the largest ("max") or the mean ("avg", zeros beyond the ends) of the `kernel` around it.
std::vector<double> naive_pooled(const std::vector<double>& scores, int64_t kernel, const std::string& pool);

// Minus the length of each key; minus the cosine of each key with the mean direction of all.
std::vector<double> naive_key_norm(const at::Tensor& keys);
std::vector<double> naive_keydiff(const at::Tensor& keys);

// Expected attention (arXiv:2510.00636), every rotation written out as a d x d matrix.
struct NaiveExpectation {
  at::Tensor queries;              // (g s, d) rotated, query head by query head
  std::vector<int64_t> positions;  // (g s)
  at::Tensor keys, values, bias;   // (T,d), (T,d), (T) or undefined
  int64_t group_size = 1;
  std::vector<double> frequencies;  // (d / 2)
  int64_t next_position = 0;
  int64_t n_future = 1;
  int64_t n_sink = 0;  // entries left out; their score here is infinite
  double epsilon = 0;
  bool use_covariance = true;
  bool use_value_norm = true;
};
std::vector<double> naive_expected_attention(const NaiveExpectation& input);

// The entries kept by recency and by score, ascending.
std::vector<int64_t> naive_heavy_and_recent(const std::vector<double>& scores, int64_t target_len,
                                            double recent_fraction);

// What merging makes of the entries `kept` (ascending).
struct NaiveMerge {
  NaiveRows keys, values;  // (t,d)
  int64_t n_merged = 0;
};
// CaM: draws (T) uniform numbers, an entry is merged when its own is below its chance.
NaiveMerge naive_cam(const at::Tensor& keys, const at::Tensor& values, const std::vector<double>& attention,
                     const std::vector<double>& draws, const std::vector<int64_t>& kept, int64_t n_takers);
// D2O, arXiv:2406.13035; bias (T) or undefined.
NaiveMerge naive_d2o(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& bias,
                     const std::vector<int64_t>& kept);
// KVMerger, arXiv:2407.08454, as kv_merger.cpp departs from it: `kept_apart` (ascending) are merged with nothing, the
// others become n_sets entries; `kept` says which entries' places are taken, ascending.
struct NaiveSets : NaiveMerge {
  std::vector<int64_t> kept;
};
NaiveSets naive_kv_merger(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& bias,
                          const std::vector<double>& attention, const std::vector<int64_t>& kept_apart, size_t n_sets);

}  // namespace kvc
