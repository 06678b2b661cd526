#include "harness/testing/naive_decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace kvc {

namespace {

using Row = std::vector<double>;

Row numbers(const at::Tensor& tensor) {
  const at::Tensor wide = tensor.to(at::kDouble).contiguous();
  const auto* data = wide.const_data_ptr<double>();
  return {data, data + wide.numel()};
}

// weight (out, in) times x.
Row times(const Row& weight, const Row& x) {
  Row y(weight.size() / x.size(), 0.0);
  for (size_t o = 0; o < y.size(); ++o) {
    for (size_t i = 0; i < x.size(); ++i) y[o] += weight[o * x.size() + i] * x[i];
  }
  return y;
}

Row normed(const Row& x, const Row& weight, double eps) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  Row y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    y[i] = x[i] / std::sqrt(squares / static_cast<double>(x.size()) + eps) * weight[i];
  }
  return y;
}

// The frequencies have judges of their own in rope_test.
Row rotated(const RopeFrequencies& rope, const Row& head, int64_t position) {
  const size_t half = head.size() / 2;
  Row y(head.size());
  for (size_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * static_cast<double>(rope.frequencies[i]);
    const double c = std::cos(angle) * rope.factor, s = std::sin(angle) * rope.factor;
    y[i] = head[i] * c - head[half + i] * s;
    y[half + i] = head[half + i] * c + head[i] * s;
  }
  return y;
}

// Adds the bias where there is one.
void shift(Row& x, const at::Tensor& bias) {
  if (!bias.defined()) return;
  const Row added = numbers(bias);
  for (size_t i = 0; i < x.size(); ++i) x[i] += added[i];
}

// Softmax attention of one query over rows of keys and values with an additive bias each.
Row attended(const Row& query, const std::vector<Row>& keys, const std::vector<Row>& values, const Row& bias) {
  Row scores(keys.size());
  double highest = -INFINITY;
  for (size_t j = 0; j < keys.size(); ++j) {
    double dot = 0;
    for (size_t i = 0; i < query.size(); ++i) dot += query[i] * keys[j][i];
    scores[j] = dot / std::sqrt(static_cast<double>(query.size())) + bias[j];
    highest = std::max(highest, scores[j]);
  }
  Row out(query.size(), 0.0);
  double total = 0;
  for (size_t j = 0; j < keys.size(); ++j) {
    const double weight = std::exp(scores[j] - highest);
    total += weight;
    for (size_t i = 0; i < query.size(); ++i) out[i] += weight * values[j][i];
  }
  for (double& value : out) value /= total;
  return out;
}

// What one KV head has seen.
struct Head {
  std::vector<Row> keys, values;
  Row bias;
};

Head prefix_head(const LayerKv& layer, int64_t kv_head, size_t d) {
  Head head;
  const Row keys = numbers(layer.head_keys(kv_head)), values = numbers(layer.head_values(kv_head));
  const at::Tensor bias = layer.head_bias(kv_head);
  head.bias = bias.defined() ? numbers(bias) : Row(keys.size() / d, 0.0);
  for (size_t j = 0; j < keys.size(); j += d) {
    const auto from = static_cast<std::ptrdiff_t>(j), to = static_cast<std::ptrdiff_t>(j + d);
    head.keys.emplace_back(keys.begin() + from, keys.begin() + to);
    head.values.emplace_back(values.begin() + from, values.begin() + to);
  }
  return head;
}

Row slice(const Row& row, size_t first, size_t n) {
  const auto from = row.begin() + static_cast<std::ptrdiff_t>(first);
  return {from, from + static_cast<std::ptrdiff_t>(n)};
}

// One layer over all tokens; `hidden` is replaced, the rotated queries are handed out.
std::vector<Row> layer_forward(const DecoderSpec& spec, const LayerWeights& weights, const LayerKv& prefix,
                               int64_t first_position, std::vector<Row>& hidden) {
  const auto d = static_cast<size_t>(spec.head_dim);
  const auto n_query = static_cast<size_t>(spec.n_query_heads), n_kv = static_cast<size_t>(spec.n_kv_heads);
  const auto ffn = static_cast<size_t>(spec.feed_forward_size);
  const Row qkv_weight = numbers(weights.qkv), out_weight = numbers(weights.attention_output);
  const Row gate_up_weight = numbers(weights.gate_up), down_weight = numbers(weights.down);
  const RopeFrequencies rope = rope_frequencies(spec);
  std::vector<Head> heads;
  for (size_t h = 0; h < n_kv; ++h) heads.push_back(prefix_head(prefix, static_cast<int64_t>(h), d));
  std::vector<Row> all_queries;
  for (size_t t = 0; t < hidden.size(); ++t) {
    const int64_t position = first_position + static_cast<int64_t>(t);
    Row qkv = times(qkv_weight, normed(hidden[t], numbers(weights.attention_norm), spec.rms_norm_eps));
    shift(qkv, weights.qkv_bias);
    for (size_t h = 0; h < n_kv; ++h) {
      Row key = slice(qkv, (n_query + h) * d, d);
      if (spec.qk_norm) key = normed(key, numbers(weights.k_norm), spec.rms_norm_eps);
      heads[h].keys.push_back(rotated(rope, key, position));
      heads[h].values.push_back(slice(qkv, (n_query + n_kv + h) * d, d));
      heads[h].bias.push_back(0);
    }
    Row attention, queries;
    for (size_t h = 0; h < n_query; ++h) {
      Row query = slice(qkv, h * d, d);
      if (spec.qk_norm) query = normed(query, numbers(weights.q_norm), spec.rms_norm_eps);
      query = rotated(rope, query, position);
      queries.insert(queries.end(), query.begin(), query.end());
      const Head& head = heads[h / (n_query / n_kv)];
      const Row out = attended(query, head.keys, head.values, head.bias);
      attention.insert(attention.end(), out.begin(), out.end());
    }
    all_queries.push_back(queries);
    Row update = times(out_weight, attention);
    shift(update, weights.attention_output_bias);
    for (size_t i = 0; i < update.size(); ++i) hidden[t][i] += update[i];
    Row gate_up = times(gate_up_weight, normed(hidden[t], numbers(weights.feed_forward_norm), spec.rms_norm_eps));
    shift(gate_up, weights.gate_up_bias);
    Row inner(ffn);
    for (size_t i = 0; i < ffn; ++i) inner[i] = gate_up[i] / (1 + std::exp(-gate_up[i])) * gate_up[ffn + i];
    Row down = times(down_weight, inner);
    shift(down, weights.down_bias);
    for (size_t i = 0; i < down.size(); ++i) hidden[t][i] += down[i];
  }
  return all_queries;
}

}  // namespace

NaiveResult naive_forward(const DecoderSpec& spec, const DecoderWeights& weights, const KvCache& prefix,
                          const std::vector<int64_t>& tokens) {
  NaiveResult result;
  std::vector<Row> hidden;
  for (const int64_t token : tokens) hidden.push_back(numbers(weights.embedding[token]));
  for (int64_t l = 0; l < spec.n_layers; ++l) {
    result.queries.push_back(
        layer_forward(spec, weights.layers[static_cast<size_t>(l)], prefix.layer(l), prefix.next_position(), hidden));
  }
  const Row head = numbers(weights.head), norm = numbers(weights.final_norm);
  for (const Row& row : hidden) {
    result.hidden.push_back(normed(row, norm, spec.rms_norm_eps));
    result.logits.push_back(times(head, result.hidden.back()));
  }
  return result;
}

double naive_log_probability(const std::vector<double>& logits, int64_t token) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const double logit : logits) total += std::exp(logit - highest);
  return logits[static_cast<size_t>(token)] - highest - std::log(total);
}

}  // namespace kvc
