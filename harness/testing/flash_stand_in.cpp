#include "harness/testing/flash_stand_in.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "harness/core/error.h"

namespace kvc {

namespace {

[[noreturn]] void refuse(const std::string& fact) {
  throw Error(ErrorKind::kInternal, fact, "naive_flash_attention", "");
}

std::vector<int64_t> checked_offsets(const at::Tensor& offsets, int64_t rows, int64_t most, const char* of) {
  if (offsets.scalar_type() != at::kInt || offsets.dim() != 1 || !offsets.is_contiguous() || offsets.size(0) < 2) {
    refuse(fmt::format("offsets of {} must be a dense vector of int32", of));
  }
  const at::Tensor wide = offsets.to(at::kLong);
  const std::vector<int64_t> list(wide.const_data_ptr<int64_t>(), wide.const_data_ptr<int64_t>() + wide.numel());
  if (list.front() != 0 || list.back() != rows) refuse(fmt::format("offsets of {} do not divide {}", of, rows));
  for (size_t s = 1; s < list.size(); ++s) {
    const int64_t n = list[s] - list[s - 1];
    if (n < 0 || n > most) refuse(fmt::format("sequence {} has {} {}, at most {} were announced", s - 1, n, of, most));
  }
  return list;
}

void check_layout(const at::Tensor& tensor, int64_t d) {
  if (tensor.dim() != 3 || tensor.size(2) != d || tensor.stride(2) != 1) refuse("rows must be dense and of one size");
}

// One row over entries [begin, end) of `keys` and `values` (entries, d), float64. Returns its log-sum-exp.
double attend_row(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values, int64_t begin, int64_t end,
                  double* output) {
  const int64_t d = query.size(0);
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  const auto q = query.accessor<double, 1>();
  const auto k = keys.accessor<double, 2>(), v = values.accessor<double, 2>();
  std::vector<double> logits;
  double most = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t j = begin; j < end; ++j) {
    double dot = 0;
    for (int64_t c = 0; c < d; ++c) dot += q[c] * k[j][c];
    logits.push_back(dot * scale);
    most = std::max(most, logits.back());
  }
  for (const double logit : logits) sum += std::exp(logit - most);
  for (int64_t j = begin; j < end; ++j) {
    const double weight = std::exp(logits[static_cast<size_t>(j - begin)] - most) / sum;
    for (int64_t c = 0; c < d; ++c) output[c] += weight * v[j][c];
  }
  return logits.empty() ? std::numeric_limits<double>::infinity() : most + std::log(sum);
}

}  // namespace

FlashResult naive_flash_attention(const PackedSequences& s) {
  const int64_t rows = s.queries.size(0), n_heads = s.queries.size(1), n_kv_heads = s.keys.size(1),
                d = s.queries.size(2);
  check_layout(s.queries, d);
  check_layout(s.keys, d);
  check_layout(s.values, d);
  if (n_heads % n_kv_heads != 0 || s.values.sizes() != s.keys.sizes()) refuse("heads do not fit each other");
  if (s.most_rows < 2 && n_heads != n_kv_heads) refuse("grouped heads with single rows");
  const std::vector<int64_t> of_rows = checked_offsets(s.query_offsets, rows, s.most_rows, "rows");
  const std::vector<int64_t> of_entries = checked_offsets(s.key_offsets, s.keys.size(0), s.most_entries, "entries");
  if (of_rows.size() != of_entries.size()) refuse("rows and entries are of different numbers of sequences");
  const at::Tensor queries = s.queries.to(at::kDouble), keys = s.keys.to(at::kDouble),
                   values = s.values.to(at::kDouble);
  const at::Tensor output = at::zeros({rows, n_heads, d}, at::kDouble);
  const at::Tensor log_sum_exp = at::empty({n_heads, rows}, at::kFloat);
  for (size_t b = 0; b + 1 < of_rows.size(); ++b) {
    for (int64_t row = of_rows[b]; row < of_rows[b + 1]; ++row) {
      const int64_t unseen = s.causal ? of_rows[b + 1] - 1 - row : 0;
      const int64_t end = std::max(of_entries[b], of_entries[b + 1] - unseen);
      for (int64_t h = 0; h < n_heads; ++h) {
        const int64_t kv = h / (n_heads / n_kv_heads);
        log_sum_exp[h][row] = attend_row(queries[row][h], keys.select(1, kv), values.select(1, kv), of_entries[b], end,
                                         output.mutable_data_ptr<double>() + (row * n_heads + h) * d);
      }
    }
  }
  return {output.to(s.queries.scalar_type()), log_sum_exp};
}

}  // namespace kvc
