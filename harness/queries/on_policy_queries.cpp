#include "harness/queries/on_policy_queries.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "harness/core/error.h"
#include "harness/kv/device_numbers.h"
#include "harness/model/elementwise.h"
#include "harness/model/linear.h"
#include "harness/queries/captured_queries.h"

namespace kvc {
namespace {

KvCache shared_copy(const KvCache& cache) {
  std::vector<LayerKv> layers;
  for (int64_t layer = 0; layer < cache.n_layers(); ++layer) layers.push_back(cache.layer(layer));
  return {std::move(layers), cache.next_position()};
}

}  // namespace

OnPolicyQueries::OnPolicyQueries(const QueryRequest& request, QueryText text, const ReadSettings& settings,
                                 std::vector<int64_t> tokens, std::vector<ReadPass> passes,
                                 const std::vector<int64_t>& positions)
    : decoder_(request.model.decoder()),
      text_(std::move(text)),
      source_(settings.source),
      tokens_(std::move(tokens)),
      passes_(std::move(passes)),
      full_(shared_copy(request.cache)) {
  const int64_t group_size = decoder_.spec().group_size();
  const auto n_tokens = static_cast<int64_t>(positions.size());
  kept_ = draw_sorted(n_tokens, tokens_for(settings.max_queries, group_size), request.seed);
  positions_ = query_positions(positions, kept_, group_size);
  for (int64_t& token : kept_) token += text_.n_skipped;
  for (int64_t i = std::max<int64_t>(0, n_tokens - kMaxWindow); i < n_tokens; ++i) last_.push_back(text_.n_skipped + i);
  for (const ReadPass& pass : passes_) places_.insert(places_.end(), pass.positions.begin(), pass.positions.end());
}

at::Tensor OnPolicyQueries::layer(int64_t layer, const KvCache* compacted_below) const {
  const c10::InferenceMode inference;
  enter(layer, compacted_below);
  const int64_t group_size = decoder_.spec().group_size();
  window_ = pool_queries(project_queries(layer, last_), group_size).unflatten(1, {group_size, -1});
  return pool_queries(project_queries(layer, kept_), group_size);
}

void OnPolicyQueries::enter(int64_t layer, const KvCache* compacted_below) const {
  const bool off_policy = compacted_below == nullptr;
  const bool next = at_layer_ && layer == *at_layer_ + 1 && (off_policy_ == off_policy || *at_layer_ == 0);
  if (layer != 0 && !next && off_policy) {
    for (int64_t below = 0; below < layer; ++below) enter(below, nullptr);
  } else if (layer != 0 && !next) {
    throw Error(ErrorKind::kInternal, fmt::format("on-policy queries of layer {} come before those below it", layer),
                source_, "ask for the layers in order, from 0");
  }
  if (layer == 0) {
    hidden_ = decoder_.embed(tokens_);
  } else {
    hidden_ = leave(layer - 1, off_policy ? full_ : *compacted_below);
  }
  at_layer_ = layer;
  off_policy_ = off_policy;
  ++n_entered_;
}

at::Tensor OnPolicyQueries::leave(int64_t layer, const KvCache& cache) const {
  const Decoder single = decoder_.single_layer(layer);
  const DecoderSpec& spec = decoder_.spec();
  const LayerKv& prefix = (text_.behind ? *text_.behind : cache).layer(layer);
  std::vector<at::Tensor> parts;
  std::optional<Tails> tails;
  for (const ReadPass& pass : passes_) {
    if (pass.capacity > 0) {
      tails.emplace(1, spec.n_kv_heads, spec.head_dim, pass.batch(), pass.capacity, decoder_.options(layer));
    }
    parts.push_back(single.run_layer(0, hidden_.narrow(0, pass.first_token, pass.n_tokens()), pass.positions,
                                     pass.sequence_offsets, prefix, *tails));
    tails->advance(pass.sequence_offsets);
  }
  ++n_left_;
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

// (c, Hq, d), rotated. As the decoder's own layer computes them, without its keys and values.
at::Tensor OnPolicyQueries::project_queries(int64_t layer, const std::vector<int64_t>& tokens) const {
  const DecoderSpec& spec = decoder_.spec();
  const LayerWeights& weights = decoder_.weights().layers.at(static_cast<size_t>(layer));
  const int64_t width = spec.n_query_heads * spec.head_dim;
  const at::Tensor bias = weights.qkv_bias.defined() ? weights.qkv_bias.narrow(0, 0, width) : at::Tensor();
  const auto n_tokens = static_cast<int64_t>(tokens.size());
  std::vector<at::Tensor> parts;
  const int64_t most = decoder_.chunk_tokens();
  for (int64_t first = 0; first < n_tokens; first += most) {
    const std::vector<int64_t> rows(tokens.begin() + first, tokens.begin() + std::min(first + most, n_tokens));
    std::vector<int64_t> places;
    for (const int64_t row : rows) places.push_back(places_[static_cast<size_t>(row)]);
    const at::Tensor index = device_numbers(rows, hidden_.device());
    const at::Tensor normed =
        rms_norm(hidden_.index_select(0, index).to(weights.qkv.device()), weights.attention_norm, spec.rms_norm_eps);
    const int64_t n_positions = *std::max_element(places.begin(), places.end()) + 1;
    parts.push_back(rotate_heads(project(normed, weights.qkv.narrow(0, 0, width), bias), spec.n_query_heads, 0,
                                 weights.q_norm, weights.k_norm, spec.rms_norm_eps,
                                 decoder_.rotary(layer).covering(n_positions), places)
                        .queries);
  }
  return at::cat(parts);
}

at::Tensor OnPolicyQueries::window(int64_t layer, int64_t n_tokens) const {
  if (!at_layer_ || *at_layer_ != layer) {
    throw Error(ErrorKind::kInternal, fmt::format("a window of layer {} before its queries were asked for", layer),
                source_, "call layer() first");
  }
  const int64_t available = window_.size(2);
  check_window(n_tokens, available, source_);
  return window_.narrow(2, available - n_tokens, n_tokens).flatten(1, 2);
}

QueryReach OnPolicyQueries::reach(int64_t /*layer*/, int64_t /*kv_head*/) const {
  if (!knows_reach()) return {};
  return {positions_, at::full({positions_.size(0)}, -std::numeric_limits<float>::infinity(),
                               decoder_.options().dtype(at::kFloat))};
}

QueryReach OnPolicyQueries::window_reach(int64_t /*layer*/, int64_t /*kv_head*/, int64_t n_tokens) const {
  if (!knows_reach()) return {};
  std::vector<int64_t> places;
  for (auto token = last_.end() - n_tokens; token != last_.end(); ++token) {
    places.push_back(places_[static_cast<size_t>(*token)]);
  }
  const at::Tensor positions = at::tensor(places, at::TensorOptions(at::kLong)).repeat({decoder_.spec().group_size()});
  return {positions,
          at::full({positions.size(0)}, -std::numeric_limits<float>::infinity(), decoder_.options().dtype(at::kFloat))};
}

int64_t OnPolicyQueries::bytes() const {
  const DecoderSpec& spec = decoder_.spec();
  const auto n_tokens = static_cast<int64_t>(tokens_.size()), n_window = static_cast<int64_t>(last_.size());
  const auto item = static_cast<int64_t>(decoder_.options().dtype().itemsize());
  return item * (n_tokens * spec.hidden_size + n_window * spec.n_query_heads * spec.head_dim);
}

}  // namespace kvc
