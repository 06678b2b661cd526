#include "harness/model/decode_step.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "harness/core/error.h"
#include "harness/model/decoder_layer.h"

namespace kvc {

std::string decode_graph_obstacle(const DecoderSpec& spec, const at::TensorOptions& options) {
  if (!options.device().is_cuda()) return "the model is on the CPU";
  if (!CudaGraph::available()) return "this build has no CUDA kernels";
  if (!serves_steps(options, spec.n_kv_heads, spec.head_dim)) {
    return fmt::format("the CUDA kernels do not take {} KV heads of dimension {} in {}", spec.n_kv_heads, spec.head_dim,
                       toString(c10::typeMetaToScalarType(options.dtype())));
  }
  return "";
}

DecodeStep::DecodeStep(const Decoder& decoder, const KvCache& prefix, Way way)
    : decoder_(decoder), prefix_(prefix), way_(way) {
  if (decoder.is_spread() && way == Way::kEachTime) {
    throw Error(ErrorKind::kInternal, "steps of a model on several devices", "DecodeStep", "");
  }
  if (way == Way::kEachTime) return;
  std::string obstacle = decode_graph_obstacle(decoder.spec(), decoder.options());
  if (obstacle.empty() && decoder.is_spread()) obstacle = "the model is spread over several devices";
  if (!obstacle.empty()) {
    throw Error(ErrorKind::kUsage, "decoding in CUDA graphs is asked for, but " + obstacle,
                "model option 'decode_graphs'", "leave the option out");
  }
}

at::Tensor DecodeStep::logits(const std::vector<int64_t>& tokens, Tails& tails) {
  const c10::InferenceMode inference;
  const auto batch = static_cast<int64_t>(tokens.size());
  const int64_t longest = tails.batch() == 0 ? 0 : *std::max_element(tails.lengths().begin(), tails.lengths().end());
  if (batch == 0 || tails.batch() != batch || longest >= tails.capacity()) {
    throw Error(ErrorKind::kInternal,
                fmt::format("{} tokens for {} sequences, {} of {} entries used", batch, tails.batch(), longest,
                            tails.capacity()),
                "DecodeStep::logits", "");
  }
  check_tokens(tokens, decoder_.spec().vocab_size);
  const bool changed = !fits(tails);
  if (changed) {
    const at::Device device = decoder_.options().device();
    const at::TensorOptions numbers = at::TensorOptions().dtype(at::kLong);
    const c10::DeviceGuard guard(device);  // pinned memory belongs to the context of the current GPU
    sent_ = at::empty({3, batch}, numbers.pinned_memory(device.is_cuda() && at::hasCUDA()));
    table_ = at::empty({3, batch}, numbers.device(device));
    tables_ = StepTables::of(batch, device);
    tables_.lengths = table_[2];
    held_.clear();
    for (int64_t l = 0; l < tails.n_layers(); ++l) {
      held_.push_back(tails.keys(l));
      held_.push_back(tails.values(l));
    }
  }
  send(tokens, tails);
  if (way_ == Way::kEachTime) {
    logits_ = run(tails);
  } else {
    if (changed) {
      logits_.reset();
      graph_.record(decoder_.options().device(), [&] { logits_ = run(tails); });
      ++n_recorded_;
    }
    graph_.replay();
  }
  std::vector<int64_t> offsets(tokens.size() + 1);
  for (size_t b = 0; b < offsets.size(); ++b) offsets[b] = static_cast<int64_t>(b);
  tails.advance(offsets);
  return logits_;
}

void DecodeStep::send(const std::vector<int64_t>& tokens, const Tails& tails) {
  std::vector<int64_t> positions;
  for (const int64_t length : tails.lengths()) positions.push_back(prefix_.next_position() + length);
  check_positions(positions, decoder_.spec().max_positions);
  auto* to = sent_.mutable_data_ptr<int64_t>();
  for (const auto& row : {std::cref(tokens), std::cref<std::vector<int64_t>>(positions), std::cref(tails.lengths())}) {
    to = std::copy(row.get().begin(), row.get().end(), to);
  }
  table_.copy_(sent_, /*non_blocking=*/true);
}

// Whether what was recorded was recorded of these tails.
bool DecodeStep::fits(const Tails& tails) const {
  if (static_cast<int64_t>(held_.size()) != 2 * tails.n_layers()) return false;
  for (int64_t l = 0; l < tails.n_layers(); ++l) {
    const auto at = static_cast<size_t>(2 * l);
    if (!held_[at].is_same(tails.keys(l)) || !held_[at + 1].is_same(tails.values(l))) return false;
  }
  return true;
}

// Nothing here depends on a number of the table: see CudaGraph::record().
at::Tensor DecodeStep::run(const Tails& tails) const {
  const c10::InferenceMode inference;
  const DecoderWeights& weights = decoder_.weights();
  at::Tensor hidden = weights.embedding.index_select(0, table_[0]);
  for (int64_t layer = 0; layer < decoder_.spec().n_layers; ++layer) {
    const LayerWeights& own = weights.layers[static_cast<size_t>(layer)];
    const auto attention = [&](const at::Tensor& normed) { return attend(own, layer, normed, tails); };
    hidden = layer_around(attention, own, decoder_.spec().rms_norm_eps, hidden);
  }
  return decoder_.logits(decoder_.final_norm(hidden));
}

at::Tensor DecodeStep::attend(const LayerWeights& weights, int64_t layer, const at::Tensor& normed,
                              const Tails& tails) const {
  const DecoderSpec& spec = decoder_.spec();
  const at::Tensor qkv = project(normed, weights.qkv, weights.qkv_bias);
  const RotatedHeads heads = rotate_heads(qkv, spec.n_query_heads, spec.n_kv_heads, weights.q_norm, weights.k_norm,
                                          spec.rms_norm_eps, decoder_.rotary().covering(spec.max_positions), table_[1]);
  write_step(tails.keys(layer), tails.values(layer), heads.keys, values_of(qkv, spec), tables_);
  return step_attention(heads.queries, prefix_.layer(layer), tails.keys(layer), tails.values(layer), tables_)
      .view({normed.size(0), spec.n_query_heads * spec.head_dim});
}

}  // namespace kvc
