// How far a cache moves the distributions over the tokens of given answers, asked again and again with one layer
// changed: what lies below a changed layer is computed once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "harness/model/model.h"

namespace kvc {

// A question's prompt and the answer that is read after it; both have at least one token.
struct ProbeText {
  std::vector<int64_t> prompt;
  std::vector<int64_t> answer;
};

class AnswerProbe {
 public:
  // What each layer reads on some cache, (N, hidden) a layer: N tokens of all texts. L N hidden numbers.
  struct Stream {
    std::vector<at::Tensor> hidden;
    double kl = 0;  // mean KL(full || this cache), nats per answer token
  };

  // Reads the texts on the full cache. `full` must outlive the probe.
  AnswerProbe(const Model& model, const KvCache& full, const std::vector<ProbeText>& texts);

  const Stream& full() const { return full_stream_; }
  // Rotated queries of every token of the texts on the full cache, (g N, d) model dtype, query head by query head.
  at::Tensor queries(int64_t layer, int64_t kv_head) const;
  int64_t n_answer_tokens() const { return n_rows_; }

  // The texts on another cache of the same context. One whole pass.
  Stream read(const KvCache& cache) const;
  // The mean KL of `cache` with layer `layer` replaced by `changed`; `stream` is that of `cache`. (L - layer) / L of a
  // pass.
  double kl(const KvCache& cache, const Stream& stream, int64_t layer, const LayerKv& changed) const;

 private:
  double kl_of(const at::Tensor& hidden) const;
  at::Tensor run(int64_t first_layer, at::Tensor hidden, const KvCache& cache, const LayerKv* changed,
                 std::vector<at::Tensor>* inputs, const QueryTap& tap) const;
  at::Tensor log_probs(const at::Tensor& hidden) const;

  const Model& model_;
  PackedTokens input_;
  std::vector<int64_t> positions_;
  mutable Tails tails_;  // scratch: every pass writes its layers anew
  at::Tensor rows_;      // of N, those that predict answer tokens
  int64_t n_rows_ = 0;
  at::Tensor reference_;             // (rows, vocab) float64 log-probabilities of the full cache
  std::vector<at::Tensor> queries_;  // (N, Hq, d) a layer
  Stream full_stream_;
};

}  // namespace kvc
