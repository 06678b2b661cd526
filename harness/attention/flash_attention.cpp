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

// (Hq, rows), +inf where a row sees nothing, to -inf there.
at::Tensor minus_infinity_where_empty(const at::Tensor& log_sum_exp) {
  return log_sum_exp.masked_fill(log_sum_exp.eq(kInfinity), -kInfinity);
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

PartialAttention flash_prefix(const at::Tensor& queries, const LayerKv& prefix, FlashAttention* flash) {
  const int64_t n = queries.size(0), n_kv_heads = prefix.n_kv_heads(), d = queries.size(2);
  const int64_t group = queries.size(1) / n_kv_heads, most = std::max(n * group * n_kv_heads, prefix.n_entries());
  if (most > std::numeric_limits<std::int32_t>::max()) {
    throw Error(
        ErrorKind::kInternal,
        fmt::format("{} rows over {} entries are more than int32 counts", n * group * n_kv_heads, prefix.n_entries()),
        "flash attention", "");
  }
  std::vector<int64_t> query_offsets = {0};
  int64_t longest = 0, shortest = prefix.n_entries();
  for (int64_t h = 0; h < n_kv_heads; ++h) {
    query_offsets.push_back(query_offsets.back() + n * group);
    longest = std::max(longest, prefix.head_len(h));
    shortest = std::min(shortest, prefix.head_len(h));
  }
  const at::Tensor rows = queries.unflatten(1, {n_kv_heads, group}).transpose(0, 1).reshape({-1, 1, d});
  const at::Device device = prefix.keys.device();
  const FlashResult found = flash(
      {rows, prefix.keys.unsqueeze(1), prefix.values.unsqueeze(1), device_numbers(query_offsets, device, at::kInt),
       device_numbers(prefix.head_offsets, device, at::kInt), n * group, longest, /*causal=*/false});
  const at::Tensor log_sum_exp = shortest == 0 ? minus_infinity_where_empty(found.log_sum_exp) : found.log_sum_exp;
  return {found.output.view({n_kv_heads, n, group, d}).transpose(0, 1).reshape({n, n_kv_heads * group, d}),
          log_sum_exp.view({n_kv_heads, n, group}).transpose(0, 1).reshape({n, n_kv_heads * group})};
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
