#include "harness/queries/read_queries.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "harness/core/error.h"
#include "harness/model/elementwise.h"
#include "harness/queries/captured_queries.h"
#include "harness/queries/on_policy_queries.h"

namespace kvc {
namespace {

std::string with_thousands(int64_t number) {
  std::string digits = std::to_string(number);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3) digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

std::vector<int64_t> joined(const std::vector<std::vector<int64_t>>& sequences) {
  std::vector<int64_t> tokens;
  for (const std::vector<int64_t>& sequence : sequences) tokens.insert(tokens.end(), sequence.begin(), sequence.end());
  return tokens;
}

// Positions of the tokens that give queries.
std::vector<int64_t> positions_of(const std::vector<ReadPass>& passes, int64_t n_skipped) {
  std::vector<int64_t> all;
  for (const ReadPass& pass : passes) all.insert(all.end(), pass.positions.begin(), pass.positions.end());
  return {all.begin() + n_skipped, all.end()};
}

}  // namespace

std::vector<ReadPass> plan_passes(const std::vector<std::vector<int64_t>>& sequences, int64_t first_position,
                                  int64_t most_tokens) {
  std::vector<ReadPass> passes;
  int64_t token = 0;
  bool open = false;  // the last pass takes more sequences
  for (const std::vector<int64_t>& sequence : sequences) {
    const auto length = static_cast<int64_t>(sequence.size());
    if (!open || passes.back().n_tokens() + length > most_tokens) passes.push_back({token, {0}, {}, length});
    for (int64_t done = 0; done < length;) {
      const int64_t n_new = std::min(most_tokens, length - done);
      if (done > 0) passes.push_back({token, {0}, {}, 0});
      ReadPass& pass = passes.back();
      for (int64_t i = 0; i < n_new; ++i) pass.positions.push_back(first_position + done + i);
      pass.sequence_offsets.push_back(pass.n_tokens() + n_new);
      if (pass.capacity > 0) pass.capacity = std::max(pass.capacity, length);
      done += n_new;
      token += n_new;
    }
    open = length <= most_tokens;
  }
  return passes;
}

std::unique_ptr<LayerQueries> read_queries(const QueryRequest& request, QueryText text, const ReadSettings& settings) {
  const c10::InferenceMode inference;
  const Decoder& decoder = request.model.decoder();
  const KvCache& prefix = text.behind ? *text.behind : request.cache;
  const std::vector<ReadPass> passes = plan_passes(text.sequences, prefix.next_position(), decoder.chunk_tokens());
  const std::vector<int64_t> tokens = joined(text.sequences);
  const std::vector<int64_t> positions = positions_of(passes, text.n_skipped);
  if (settings.on_policy) {
    return std::make_unique<OnPolicyQueries>(request, std::move(text), settings, tokens, passes, positions);
  }
  QueryCapture capture(decoder, positions, settings.max_queries, request.seed, settings.source);
  TextKeys keys;  // of the text behind the context; the context's own are in its cache
  std::optional<Tails> tails;
  for (const ReadPass& pass : passes) {
    if (pass.capacity > 0 && tails && !text.is_context) keys.add(*tails);
    if (pass.capacity > 0) tails.emplace(Tails::behind(prefix, pass.batch(), pass.capacity));
    const auto first = tokens.begin() + pass.first_token;
    const std::vector<int64_t> new_tokens(first, first + pass.n_tokens());
    const int64_t n_before = std::clamp<int64_t>(text.n_skipped - pass.first_token, 0, pass.n_tokens());
    const int64_t n_new = pass.n_tokens() - n_before, first_new = pass.first_token + n_before - text.n_skipped;
    const std::vector<int64_t> places = decoder.positions({new_tokens, pass.sequence_offsets}, prefix, *tails);
    // Layer by layer as Decoder::forward() does, for what enters a layer besides the queries that leave it. Of the
    // context's own tokens it is not kept: their queries may also come from its first reading (QueryListener).
    at::Tensor hidden = decoder.embed(new_tokens);
    for (int64_t layer = 0; layer < decoder.spec().n_layers; ++layer) {
      if (n_new > 0 && !text.is_context) {
        const LayerWeights& weights = decoder.weights().layers.at(static_cast<size_t>(layer));
        hidden = hidden.to(weights.attention_norm.device());  // the layer's own
        capture.take_inputs(
            layer, first_new,
            rms_norm(hidden.narrow(0, n_before, n_new), weights.attention_norm, decoder.spec().rms_norm_eps));
      }
      hidden = decoder.run_layer(layer, hidden, places, pass.sequence_offsets, prefix.layer(layer), *tails,
                                 [&](int64_t of_layer, const at::Tensor& queries) {
                                   if (n_new == 0) return;
                                   capture.take(of_layer, first_new, queries.narrow(0, n_before, n_new));
                                 });
    }
    tails->advance(pass.sequence_offsets);
  }
  if (tails && !text.is_context) keys.add(*tails);
  return std::move(capture).finish(std::move(keys), text.n_skipped, std::move(text.notes));
}

void check_positions(const std::string& source, int64_t needed, int64_t available, const std::string& ways_out) {
  if (needed <= available) return;
  throw Error(
      ErrorKind::kData,
      fmt::format("{} needs {} positions, the model has {}", source, with_thousands(needed), with_thousands(available)),
      "queries", ways_out + "a shorter document or a model with a longer context");
}

}  // namespace kvc
