#include "harness/math/attention_statistics.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "harness/math/panel_products.h"

namespace kvc {

using namespace panels;

namespace {

constexpr int64_t kSummed = 64;  // keys whose exponentials_of_panel are summed in float32
constexpr int64_t kChunk = 480;  // keys whose values are: 30 KB of a panel

// A panel holds 16 queries side by side and a row a key, so that what happens to a query happens within a lane.

// m of each lane, `bias` (T), or nothing, added to the logits. Finite over hidden entries too, so that exp(S - m) is 0.
KVC_VECTOR_CLONES void add_and_find_largest(float* panel, int64_t rows, const float* bias, float* largest) {
  Floats most[2];
  for (Floats& lanes : most) lanes = Floats{} + std::numeric_limits<float>::lowest();
  for (int64_t j = 0; j < rows; ++j) {
#pragma GCC unroll 2
    for (int64_t half = 0; half < 2; ++half) {
      Floats& x = *reinterpret_cast<Floats*>(panel + j * kPanel + half * kWidth);
      if (bias != nullptr) x += bias[j];
      most[half] = x > most[half] ? x : most[half];
    }
  }
  for (int64_t lane = 0; lane < kPanel; ++lane) largest[lane] = most[lane / kWidth][lane % kWidth];
}

// Logits to exp(S - m), their sum in double.
KVC_VECTOR_CLONES void exponentials_of_panel(float* panel, int64_t rows, const float* largest, double* sums) {
  Floats most[2];
  for (int64_t half = 0; half < 2; ++half) most[half] = *reinterpret_cast<const Floats*>(largest + half * kWidth);
  for (int64_t first = 0; first < rows; first += kSummed) {
    Floats some[2] = {};
    for (int64_t j = first; j < std::min(first + kSummed, rows); ++j) {
#pragma GCC unroll 2
      for (int64_t half = 0; half < 2; ++half) {
        Floats& x = *reinterpret_cast<Floats*>(panel + j * kPanel + half * kWidth);
        Floats e = x - most[half];
        exponential(e);
        x = e;
        some[half] += e;
      }
    }
    for (int64_t lane = 0; lane < kPanel; ++lane) sums[lane] += static_cast<double>(some[lane / kWidth][lane % kWidth]);
  }
}

// Entries behind the first `visible` of each lane.
void hide(float* panel, int64_t rows, const int64_t* visible, int64_t lanes) {
  for (int64_t lane = 0; lane < lanes; ++lane) {
    for (int64_t j = visible[lane]; j < rows; ++j) panel[j * kPanel + lane] = -std::numeric_limits<float>::infinity();
  }
}

// Adds what the panel's queries leave with each key to per_key (T,16).
template <KeySum kind>
KVC_INLINE void add_weights(const float* panel, int64_t rows, const float* reciprocals, float* per_key) {
  for (int64_t j = 0; j < rows; ++j) {
#pragma GCC unroll 2
    for (int64_t half = 0; half < 2; ++half) {
      const Floats weight = *reinterpret_cast<const Floats*>(panel + j * kPanel + half * kWidth) *
                            *reinterpret_cast<const Floats*>(reciprocals + half * kWidth);
      Floats& to = *reinterpret_cast<Floats*>(per_key + j * kPanel + half * kWidth);
      if constexpr (kind == KeySum::kSquares) to += weight * weight;
      if constexpr (kind == KeySum::kPlain) to += weight;
      if constexpr (kind == KeySum::kLargest) to = weight > to ? weight : to;
    }
  }
}

KVC_VECTOR_CLONES void add_squares(const float* panel, int64_t rows, const float* reciprocals, float* per_key) {
  add_weights<KeySum::kSquares>(panel, rows, reciprocals, per_key);
}

KVC_VECTOR_CLONES void add_plain(const float* panel, int64_t rows, const float* reciprocals, float* per_key) {
  add_weights<KeySum::kPlain>(panel, rows, reciprocals, per_key);
}

KVC_VECTOR_CLONES void add_largest(const float* panel, int64_t rows, const float* reciprocals, float* per_key) {
  add_weights<KeySum::kLargest>(panel, rows, reciprocals, per_key);
}

}  // namespace

AttentionStatistics attention_statistics(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                         const at::Tensor& values, KeySum sum, const RowReach& reach) {
  const int64_t n = queries.size(0), t = keys.size(0), d = keys.size(1);
  const int64_t key_groups = parts(t, kRows), dv = values.defined() ? values.size(1) : 0,
                value_groups = parts(dv, kRows);
  const at::Tensor all_queries = packed(queries.contiguous(), kPanel), all_keys = packed(keys.contiguous(), kRows);
  const at::Tensor all_bias = bias.defined() ? bias.contiguous() : bias;
  const at::Tensor all_values = values.defined() ? packed(values.t().contiguous(), kRows) : values;  // (groups, T, 6)
  AttentionStatistics result;
  result.row_max = at::empty({n, 1}, keys.options());
  result.row_sum = at::empty({n, 1}, keys.options());
  if (values.defined()) result.output = at::empty({n, dv}, keys.options());
  const at::Tensor per_key = at::zeros({t, kPanel}, keys.options());
  const float *queries_data = all_queries.const_data_ptr<float>(), *keys_data = all_keys.const_data_ptr<float>();
  const float* bias_data = bias.defined() ? all_bias.const_data_ptr<float>() : nullptr;
  const float* values_data = dv > 0 ? all_values.const_data_ptr<float>() : nullptr;
  auto *row_max = result.row_max.mutable_data_ptr<float>(), *row_sum = result.row_sum.mutable_data_ptr<float>();
  float* output = dv > 0 ? result.output.mutable_data_ptr<float>() : nullptr;
  const at::Tensor all_visible = reach.n_visible.defined() ? reach.n_visible.contiguous() : reach.n_visible;
  const at::Tensor all_elsewhere = reach.elsewhere.defined() ? reach.elsewhere.contiguous() : reach.elsewhere;
  const int64_t* visible = all_visible.defined() ? all_visible.const_data_ptr<int64_t>() : nullptr;
  const float* elsewhere = all_elsewhere.defined() ? all_elsewhere.const_data_ptr<float>() : nullptr;
  const at::Tensor all_weights = reach.weight.defined() ? reach.weight.contiguous() : reach.weight;
  const float* weight = all_weights.defined() ? all_weights.const_data_ptr<float>() : nullptr;
  std::vector<float> panel(static_cast<size_t>(key_groups * kRows * kPanel)), largest(kPanel), reciprocals(kPanel);
  std::vector<float> transposed(static_cast<size_t>(value_groups * kRows * kPanel));
  for (int64_t first = 0; first < n; first += kPanel) {
    const int64_t here = std::min(kPanel, n - first);
    const int64_t rows = visible == nullptr ? t : *std::max_element(visible + first, visible + first + here);
    for (int64_t group = 0; group < parts(rows, kRows); ++group) {
      multiply(keys_data + group * kRows * d, queries_data + first * d, d, panel.data() + group * kRows * kPanel,
               kPanel, false);
    }
    if (visible != nullptr) hide(panel.data(), rows, visible + first, here);
    add_and_find_largest(panel.data(), rows, bias_data, largest.data());
    double sums[kPanel] = {};
    exponentials_of_panel(panel.data(), rows, largest.data(), sums);
    float shares[kPanel] = {};  // 1 / (sum + elsewhere)
    for (int64_t i = 0; i < kPanel; ++i) {
      const auto lane = static_cast<size_t>(i);
      reciprocals[lane] = i < here && sums[i] != 0 ? static_cast<float>(1.0 / sums[i]) : 0.0F;
      shares[i] = elsewhere != nullptr && reciprocals[lane] > 0
                      ? static_cast<float>(1.0 / (sums[i] + std::exp(static_cast<double>(elsewhere[first + i]) -
                                                                     static_cast<double>(largest[lane]))))
                      : reciprocals[lane];
      if (weight != nullptr && i < here) shares[i] *= weight[first + i];
    }
    const auto add = sum == KeySum::kSquares ? add_squares : sum == KeySum::kPlain ? add_plain : add_largest;
    if (sum != KeySum::kNone) add(panel.data(), rows, shares, per_key.mutable_data_ptr<float>());
    if (rows == 0) std::fill(transposed.begin(), transposed.end(), 0.0F);
    for (int64_t from = 0; dv > 0 && from < rows; from += kChunk) {
      for (int64_t group = 0; group < value_groups; ++group) {
        multiply(values_data + (group * t + from) * kRows, panel.data() + from * kPanel, std::min(kChunk, rows - from),
                 transposed.data() + group * kRows * kPanel, kPanel, from > 0);
      }
    }
    for (int64_t i = 0; i < here; ++i) {
      const auto lane = static_cast<size_t>(i);
      row_max[first + i] = largest[lane];
      row_sum[first + i] = static_cast<float>(sums[i]);
      for (int64_t c = 0; c < dv; ++c) {
        output[(first + i) * dv + c] = transposed[static_cast<size_t>(c * kPanel + i)] * reciprocals[lane];
      }
    }
  }
  if (sum != KeySum::kNone) result.per_key = sum == KeySum::kLargest ? per_key.amax(1) : per_key.sum(1);
  return result;
}

}  // namespace kvc
