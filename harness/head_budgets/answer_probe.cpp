#include "harness/head_budgets/answer_probe.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "harness/core/error.h"
#include "harness/kv/device_numbers.h"
#include "harness/model/next_token_kl.h"

namespace kvc {
namespace {

constexpr int64_t kRowsAtATime = 64;

// Nothing is predicted from an answer's last token.
PackedTokens pack(const std::vector<ProbeText>& texts) {
  std::vector<std::vector<int64_t>> sequences;
  for (const ProbeText& text : texts) {
    if (text.prompt.empty() || text.answer.empty()) {
      throw Error(ErrorKind::kInternal, "a prompt or an answer is empty", "AnswerProbe", "");
    }
    sequences.push_back(text.prompt);
    sequences.back().insert(sequences.back().end(), text.answer.begin(), text.answer.end() - 1);
  }
  return PackedTokens::pack(sequences);
}

int64_t longest(const PackedTokens& input) {
  int64_t most = 0;
  for (size_t b = 1; b < input.sequence_offsets.size(); ++b)
    most = std::max(most, input.sequence_offsets[b] - input.sequence_offsets[b - 1]);
  return most;
}

}  // namespace

AnswerProbe::AnswerProbe(const Model& model, const KvCache& full, const std::vector<ProbeText>& texts)
    : model_(model),
      input_(pack(texts)),
      tails_(Tails::behind(full, static_cast<int64_t>(texts.size()), longest(input_))),
      queries_(static_cast<size_t>(model.spec().n_layers)) {
  const c10::InferenceMode inference;
  positions_ = model.decoder().positions(input_, full, tails_);
  std::vector<int64_t> rows;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto n = static_cast<int64_t>(texts[i].answer.size());
    for (int64_t row = input_.sequence_offsets[i + 1] - n; row < input_.sequence_offsets[i + 1]; ++row)
      rows.push_back(row);
  }
  n_rows_ = static_cast<int64_t>(rows.size());
  rows_ = device_numbers(rows, full.layer(0).keys.device());
  const at::Tensor last =
      run(0, model.decoder().embed(input_.tokens), full, nullptr, &full_stream_.hidden,
          [&](int64_t layer, const at::Tensor& queries) { queries_[static_cast<size_t>(layer)] = queries.clone(); });
  std::vector<at::Tensor> pieces;
  const at::Tensor hidden = last.index_select(0, rows_);
  for (int64_t first = 0; first < n_rows_; first += kRowsAtATime)
    pieces.push_back(log_probs(hidden.narrow(0, first, std::min(kRowsAtATime, n_rows_ - first))));
  reference_ = at::cat(pieces);
}

at::Tensor AnswerProbe::queries(int64_t layer, int64_t kv_head) const {
  const c10::InferenceMode inference;
  const int64_t group = model_.spec().group_size();
  return queries_[static_cast<size_t>(layer)]
      .narrow(1, kv_head * group, group)
      .transpose(0, 1)
      .reshape({-1, model_.spec().head_dim});
}

// The final norm's output for all tokens. The tails are written from `first_layer` on and never advanced, so that the
// next pass writes over them.
at::Tensor AnswerProbe::run(int64_t first_layer, at::Tensor hidden, const KvCache& cache, const LayerKv* changed,
                            std::vector<at::Tensor>* inputs, const QueryTap& tap) const {
  const Decoder& decoder = model_.decoder();
  for (int64_t layer = first_layer; layer < decoder.spec().n_layers; ++layer) {
    if (inputs != nullptr) inputs->push_back(hidden);
    const LayerKv& prefix = changed != nullptr && layer == first_layer ? *changed : cache.layer(layer);
    hidden = decoder.run_layer(layer, hidden, positions_, input_.sequence_offsets, prefix, tails_, tap);
  }
  return decoder.final_norm(hidden);
}

at::Tensor AnswerProbe::log_probs(const at::Tensor& hidden) const {
  return at::log_softmax(model_.decoder().logits(hidden).to(at::kDouble), -1);
}

// In float64: the KL of one head of many is of the size of what float32 rounds away.
double AnswerProbe::kl_of(const at::Tensor& hidden) const {
  const at::Tensor some = hidden.index_select(0, rows_);
  double sum = 0;
  for (int64_t first = 0; first < n_rows_; first += kRowsAtATime) {
    const int64_t n = std::min(kRowsAtATime, n_rows_ - first);
    const at::Tensor p = reference_.narrow(0, first, n);
    sum += next_token_kl(p, log_probs(some.narrow(0, first, n))).sum().item<double>();
  }
  return sum / static_cast<double>(n_rows_);
}

AnswerProbe::Stream AnswerProbe::read(const KvCache& cache) const {
  const c10::InferenceMode inference;
  Stream stream;
  const at::Tensor last = run(0, model_.decoder().embed(input_.tokens), cache, nullptr, &stream.hidden, QueryTap());
  stream.kl = kl_of(last);
  return stream;
}

double AnswerProbe::kl(const KvCache& cache, const Stream& stream, int64_t layer, const LayerKv& changed) const {
  const c10::InferenceMode inference;
  return kl_of(run(layer, stream.hidden.at(static_cast<size_t>(layer)), cache, &changed, nullptr, QueryTap()));
}

}  // namespace kvc
