#include "harness/attention/flash_attention.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "harness/core/error.h"
#include "harness/kv/device_numbers.h"

namespace kvc {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

int64_t pieces_of_head(int64_t n_entries) {
  return std::clamp((n_entries + kPieceEntries - 1) / kPieceEntries, int64_t{1}, kMostFlashPieces);
}

// (Hq, rows), +inf where a row sees nothing, to -inf there.
at::Tensor minus_infinity_where_empty(const at::Tensor& log_sum_exp) {
  return log_sum_exp.masked_fill(log_sum_exp.eq(kInfinity), -kInfinity);
}

// Pieces (Hkv, P, N, g, d) and (Hkv, P, N, g) put together: (Hkv, N, g, d) float32 and (Hkv, N, g).
PartialAttention join_pieces(const at::Tensor& output, const at::Tensor& log_sum_exp) {
  at::Tensor whole = at::logsumexp(log_sum_exp, 1, /*keepdim=*/true);
  const at::Tensor shift = whole.masked_fill(whole.eq(-kInfinity), 0.0);
  const at::Tensor weights = at::exp(log_sum_exp - shift).unsqueeze(-1);
  return {(output * weights).sum(1), whole.squeeze(1)};
}

}  // namespace

bool flash_takes(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values) {
  const int64_t d = queries.size(-1);
  const auto fits = [&](const at::Tensor& tensor) {
    return tensor.scalar_type() == at::kBFloat16 && tensor.device() == queries.device() && tensor.stride(-1) == 1;
  };
  return fits(queries) && fits(keys) && fits(values) && d % 8 == 0 && d >= 8 && d <= 256;
}

FlashResult library_flash_attention(const PackedSequences& s) {
  // The library rearranges a single row a sequence over its group, and its log-sum-exp with it.
  if (s.most_rows < 2 && s.queries.size(1) != s.keys.size(1)) {
    throw Error(ErrorKind::kInternal, "sequences of one row with grouped query heads", "flash attention", "");
  }
  const double scale = 1.0 / std::sqrt(static_cast<double>(s.queries.size(2)));
  const auto all = at::_flash_attention_forward(s.queries, s.keys, s.values, s.query_offsets, s.key_offsets,
                                                s.most_rows, s.most_entries, /*dropout_p=*/0.0, s.causal,
                                                /*return_debug_mask=*/false, scale);
  FlashResult result{std::get<0>(all), std::get<1>(all)};
  const std::vector<int64_t> want = {s.queries.size(1), s.queries.size(0)};
  if (result.log_sum_exp.sizes() != at::IntArrayRef(want) || result.log_sum_exp.scalar_type() != at::kFloat) {
    throw Error(ErrorKind::kInternal,
                fmt::format("LibTorch's flash attention gave log-sum-exps ({}); they must be float32 ({})",
                            fmt::join(result.log_sum_exp.sizes(), ", "), fmt::join(want, ", ")),
                "flash attention", "build with LibTorch 2.11 to 2.14");
  }
  return result;
}

FlashPlan plan_flash(const LayerKv& prefix, int64_t n_tokens, int64_t group_size) {
  const int64_t rows = n_tokens * group_size;
  FlashPlan plan;
  for (int64_t h = 0; h < prefix.n_kv_heads() && rows <= kMostDividedRows; ++h) {
    plan.pieces = std::max(plan.pieces, pieces_of_head(prefix.head_len(h)));
  }
  std::vector<int64_t> query_offsets = {0}, key_offsets = {0};
  for (int64_t h = 0; h < prefix.n_kv_heads(); ++h) {
    const int64_t length = prefix.head_len(h), own = std::min(plan.pieces, pieces_of_head(length));
    for (int64_t p = 0; p < plan.pieces; ++p) {
      const int64_t n = p < own ? length * (p + 1) / own - length * p / own : 0;
      plan.most_entries = std::max(plan.most_entries, n);
      plan.has_empty = plan.has_empty || n == 0;
      query_offsets.push_back(query_offsets.back() + rows);
      key_offsets.push_back(key_offsets.back() + n);
    }
  }
  if (std::max(query_offsets.back(), key_offsets.back()) > std::numeric_limits<std::int32_t>::max()) {
    throw Error(
        ErrorKind::kInternal,
        fmt::format("{} rows over {} entries are more than int32 counts", query_offsets.back(), key_offsets.back()),
        "flash attention", "");
  }
  plan.query_offsets = device_numbers(query_offsets, prefix.keys.device(), at::kInt);
  plan.key_offsets = device_numbers(key_offsets, prefix.keys.device(), at::kInt);
  return plan;
}

PartialAttention flash_prefix(const at::Tensor& queries, const LayerKv& prefix, const FlashPlan& plan,
                              FlashAttention* flash) {
  const int64_t n = queries.size(0), n_kv_heads = prefix.n_kv_heads(), d = queries.size(2);
  const int64_t group = queries.size(1) / n_kv_heads, pieces = plan.pieces;
  // (N, Hkv, g, d) -> (Hkv, P, N, g, d)
  const at::Tensor rows = queries.unflatten(1, {n_kv_heads, group})
                              .transpose(0, 1)
                              .unsqueeze(1)
                              .expand({n_kv_heads, pieces, n, group, d})
                              .reshape({-1, 1, d});
  const FlashResult found = flash({rows, prefix.keys.unsqueeze(1), prefix.values.unsqueeze(1), plan.query_offsets,
                                   plan.key_offsets, n * group, plan.most_entries, /*causal=*/false});
  const at::Tensor log_sum_exp = plan.has_empty ? minus_infinity_where_empty(found.log_sum_exp) : found.log_sum_exp;
  const at::Tensor by_head = found.output.view({n_kv_heads, pieces, n, group, d});
  const at::Tensor sums_by_head = log_sum_exp.view({n_kv_heads, pieces, n, group});
  const PartialAttention whole =
      pieces == 1 ? PartialAttention{by_head.squeeze(1), sums_by_head.squeeze(1)} : join_pieces(by_head, sums_by_head);
  return {whole.output.transpose(0, 1).reshape({n, n_kv_heads * group, d}),
          whole.log_sum_exp.transpose(0, 1).reshape({n, n_kv_heads * group})};
}

PartialAttention flash_tail(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values, int64_t length,
                            FlashAttention* flash) {
  const int64_t n = queries.size(0), seen = length + n;
  const auto entries = [&](const at::Tensor& tails) { return tails[0].narrow(1, 0, seen).transpose(0, 1); };
  const at::Device device = queries.device();
  const FlashResult found = flash({queries, entries(keys), entries(values), device_numbers({0, n}, device, at::kInt),
                                   device_numbers({0, seen}, device, at::kInt), n, seen, /*causal=*/true});
  return {found.output, found.log_sum_exp.t()};
}

}  // namespace kvc
