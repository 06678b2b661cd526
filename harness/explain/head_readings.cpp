#include "harness/explain/head_readings.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "harness/api/head_errors.h"
#include "harness/kv/device_numbers.h"
#include "harness/math/attention.h"

namespace kvc {
namespace {

constexpr int64_t kMostTokens = 32;

// Rows of one head of the compact cache whose token `wanted` accepts, counted from the head's first.
template <class Wanted>
std::vector<int64_t> rows_of(const KvCache& compact, const MendedCache& mended, int64_t layer, int64_t head,
                             const Wanted& wanted) {
  std::vector<int64_t> rows;
  const int64_t first = compact.layer(layer).head_offsets[static_cast<size_t>(head)];
  for (int64_t row = 0; row < compact.layer(layer).head_len(head); ++row) {
    const int64_t token = mended.token_of(layer, first + row);
    if (token != EntrySources::kUnknown && wanted(token)) rows.push_back(row);
  }
  return rows;
}

HeadEntries select(const HeadEntries& head, const std::vector<int64_t>& rows) {
  const at::Tensor index = device_numbers(rows, head.keys.device());
  return {head.keys.index_select(0, index), head.values.index_select(0, index),
          head.bias.defined() ? head.bias.index_select(0, index) : at::Tensor()};
}

HeadOutput output_of(const HeadEntries& head, const at::Tensor& queries) {
  return head_output(head.keys, head.values, head.bias, queries);
}

double mean_weight(const HeadOutput& part, const HeadOutput& whole) {
  return (part.log_mass - whole.log_mass).exp().mean().item<double>();
}

}  // namespace

HeadReadings::HeadReadings(const Model& model, const KvCache& full, const ReadText& text)
    : full_(full), group_size_(model.spec().group_size()), queries_(static_cast<size_t>(model.spec().n_layers)) {
  const int64_t n = static_cast<int64_t>(text.tokens.size());
  const int64_t first = std::clamp<int64_t>(text.n_prompt - 1, 0, n - 1);
  const int64_t count = std::clamp<int64_t>(n - 1 - first, 1, kMostTokens);
  Tails tails = Tails::behind(full, 1, n);
  model.decoder().forward(PackedTokens::single(text.tokens), full, tails,
                          [&](int64_t layer, const at::Tensor& queries) {
                            queries_[static_cast<size_t>(layer)] = queries.narrow(0, first, count).clone();
                          });
}

at::Tensor HeadReadings::queries(int64_t layer, int64_t kv_head) const {
  const at::Tensor& all = queries_[static_cast<size_t>(layer)];
  return all.narrow(1, kv_head * group_size_, group_size_).transpose(0, 1).reshape({-1, all.size(2)});
}

std::vector<HeadReading> HeadReadings::readings(const KvCache& compact, const MendedCache& mended,
                                                const TokenSpans& spans) const {
  std::vector<HeadReading> list;
  std::vector<int64_t> tokens;
  for (const TokenSpan& span : spans) {
    for (int64_t token = span.first; token < span.end; ++token) tokens.push_back(token);
  }
  for (int64_t l = 0; l < full_.n_layers(); ++l) {
    for (int64_t h = 0; h < full_.n_kv_heads(); ++h) {
      const at::Tensor q = queries(l, h);
      const HeadEntries original = full_.layer(l).head(h), left = compact.layer(l).head(h);
      const HeadOutput exact = output_of(original, q), got = output_of(left, q);
      const auto rows = rows_of(compact, mended, l, h, [&](int64_t token) { return holds(spans, token); });
      HeadReading reading{l, h};
      reading.weight_full = mean_weight(output_of(select(original, tokens), q), exact);
      reading.weight_compact = mean_weight(output_of(select(left, rows), q), got);
      reading.mass_error = (got.log_mass - exact.log_mass).mean().item<double>();
      const double norm = at::norm(exact.output).item<double>();
      reading.output_error = norm > 0 ? at::norm(got.output - exact.output).item<double>() / norm : 0;
      list.push_back(reading);
    }
  }
  const auto importance = [&](const HeadReading& reading) {
    return (spans.empty() ? 1 : reading.weight_full) * reading.output_error;
  };
  std::stable_sort(list.begin(), list.end(),
                   [&](const HeadReading& a, const HeadReading& b) { return importance(a) > importance(b); });
  return list;
}

std::vector<double> HeadReadings::token_weights(const TokenSpan& document) const {
  at::Tensor sum = at::zeros({document.size()}, at::TensorOptions(at::kDouble));
  for (int64_t l = 0; l < full_.n_layers(); ++l) {
    for (int64_t h = 0; h < full_.n_kv_heads(); ++h) {
      const at::Tensor weights = at::softmax(attention_logits(queries(l, h), full_.layer(l).head_keys(h), {}), 1);
      sum += weights.narrow(1, document.first, document.size()).mean(0).to(at::kDouble).cpu();
    }
  }
  const double* values = sum.const_data_ptr<double>();
  return {values, values + sum.numel()};
}

HeadTable<double> HeadReadings::mass_bias(const KvCache& compact, const MendedCache& mended,
                                          const TokenSpan& document) const {
  return HeadTable<double>::make(full_.n_layers(), full_.n_kv_heads(), [&](int64_t l, int64_t h) {
    const at::Tensor q = queries(l, h);
    const auto rows =
        rows_of(compact, mended, l, h, [&](int64_t token) { return token >= document.first && token < document.end; });
    HeadEntries kept = select(compact.layer(l).head(h), rows);
    kept.bias = at::Tensor();
    const HeadEntries all = full_.layer(l).head(h).slice(document.first, document.size());
    const double mean = (output_of(all, q).log_mass - output_of(kept, q).log_mass).mean().item<double>();
    return std::isfinite(mean) ? mean : 0.0;
  });
}

}  // namespace kvc
