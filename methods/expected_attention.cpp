// Keeps the entries to which queries to come are expected to attend, from mean and covariance of queries before their
// rotation; values as they were, no bias. Devoto, Jeblick, Jegou, "Expected Attention: KV Cache Compression by
// Estimating Attention from Future Queries Distribution", arXiv:2510.00636.
//
// For each query head, with u its queries turned back to before RoPE and R the mean of the rotations of the n_future
// positions after the context:
//   mean m = R mean(u), covariance C = R cov(u) R^T, both over the n / g queries of the head
//   z_i = exp(m k_i / sqrt(d) + k_i C k_i / (2 d) + bias_i): the mean of exp(logit) for normal queries
//   score_i = ln((mean over the group of z_i / sum_j z_j + epsilon) |v_i|)
// The logarithm leaves the order as it is, and keeps it where float32 would round small weights to zero.
//
// Softmax range: as in the authors' code the sum over j runs over the whole context, template included, but for the
// first n_sink entries of the text, which are kept. `softmax_over: article` sums over the compactable entries alone.
//
// Differences from the paper: its queries are those of the whole prompt, here they are the reference queries, which
// must know their positions (context_prefill is the paper's choice); |v| stands for |W_o v|, as in the authors' code;
// entries belong to KV heads, so a group shares one score; an old bias is part of the logit.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "methods/parts/query_reach.h"
#include "methods/parts/rotation.h"
#include "methods/parts/scored_keys.h"

namespace kvc {
namespace {

class ExpectedAttention final : public ScoredKeys {
 public:
  struct Options : SoftmaxRange {
    int64_t n_future = 512;
    int64_t n_sink = 4;
    double epsilon = 0.0;
    bool use_covariance = true;
    bool use_value_norm = true;
    void fields(auto&& visit) {
      visit("n_future", n_future, "positions after the context over which the rotation is averaged",
            between(1, 1000000));
      visit("n_sink", n_sink, "first entries of the text, template included, kept before all others", at_least(0));
      visit("epsilon", epsilon, "added to the expected attention weight before it meets the value's norm",
            between(0, 1));
      visit("use_covariance", use_covariance, "false: from the mean of the queries alone");
      visit("use_value_norm", use_value_norm, "false: the score is the expected attention weight");
      range_field(visit);
    }
  };
  explicit ExpectedAttention(const Options& options) : options_(options) {}

  std::string published_queries() const override { return "context_prefill"; }

  at::Tensor scores(const HeadProblem& problem) const override {
    const int64_t n_sink = article_sinks(problem, options_.n_sink);
    const int64_t n_rest = problem.keys.size(0) - n_sink;
    at::Tensor scores = at::zeros({problem.keys.size(0)}, problem.keys.options().dtype(at::kFloat));
    if (n_rest > 0) {
      const Ahead ahead = expectations(problem);
      const at::Tensor mine = log_expectations(ahead, problem.keys, problem.bias).narrow(1, n_sink, n_rest);
      at::Tensor total = mine.logsumexp(1, /*keepdim=*/true);
      if (options_.range() == SoftmaxOver::kText) total = at::logaddexp(total, template_total(ahead, problem));
      at::Tensor rest = (mine - total).logsumexp(0) - std::log(static_cast<double>(mine.size(0)));
      if (options_.epsilon > 0) rest = rest.exp().add_(options_.epsilon).log_();
      if (options_.use_value_norm) rest += problem.values.narrow(0, n_sink, n_rest).to(at::kFloat).norm(2, 1).log_();
      scores.narrow(0, n_sink, n_rest).copy_(rest);
    }
    return with_sinks_first(scores, n_sink);
  }

 private:
  // Mean and covariance of the queries to come, query head by query head.
  struct Ahead {
    at::Tensor mean;        // (g, 1, d)
    at::Tensor covariance;  // (g, d, d); undefined where it is not used
  };

  Ahead expectations(const HeadProblem& problem) const {
    const at::Tensor queries = unrotated_queries(problem, "expected_attention");  // (g, n / g, d)
    const at::Tensor mean = queries.mean(1, /*keepdim=*/true);
    Ahead ahead{rotated_ahead(mean, problem), {}};
    if (!options_.use_covariance) return ahead;
    const at::Tensor centred = queries - mean;
    const at::Tensor covariance = at::bmm(centred.transpose(1, 2), centred).div_(queries.size(1));
    // R C R^T: rows turned, then columns.
    const at::Tensor half_way = rotated_ahead(covariance, problem).transpose(1, 2);
    ahead.covariance = rotated_ahead(half_way, problem);
    return ahead;
  }

  // ln z of some entries, (g, T)
  static at::Tensor log_expectations(const Ahead& ahead, const at::Tensor& some_keys, const at::Tensor& bias) {
    const at::Tensor keys = some_keys.to(at::kFloat);
    const auto d = static_cast<double>(keys.size(1));
    at::Tensor logits = at::matmul(ahead.mean, keys.t()).squeeze(1).div_(std::sqrt(d));
    if (ahead.covariance.defined()) {
      for (int64_t j = 0; j < ahead.covariance.size(0); ++j) {
        logits[j] += (at::mm(keys, ahead.covariance[j]) * keys).sum(1).div_(2 * d);
      }
    }
    return bias.defined() ? logits + bias : logits;
  }

  // ln of the sum of z over the template's entries, the text's first n_sink left out: (g, 1).
  at::Tensor template_total(const Ahead& ahead, const HeadProblem& problem) const {
    const auto [prefix_len, suffix_len] = problem.request->compactable;
    const LayerKv& layer = problem.request->cache.layer(problem.layer);
    at::Tensor total = at::full({ahead.mean.size(0), 1}, -std::numeric_limits<float>::infinity(),
                                problem.keys.options().dtype(at::kFloat));
    const auto add = [&](int64_t first, int64_t length) {
      if (length <= 0) return;
      const at::Tensor bias =
          layer.bias.defined() ? layer.head_bias(problem.kv_head).narrow(0, first, length) : at::Tensor();
      const at::Tensor keys = layer.head_keys(problem.kv_head).narrow(0, first, length);
      total = at::logaddexp(total, log_expectations(ahead, keys, bias).logsumexp(1, /*keepdim=*/true));
    };
    const int64_t n_first = std::min(options_.n_sink, prefix_len);
    add(n_first, prefix_len - n_first);
    add(prefix_len + problem.keys.size(0), suffix_len);
    return total;
  }

  // Rows (g, r, d) under the mean rotation of the positions to come.
  at::Tensor rotated_ahead(const at::Tensor& rows, const HeadProblem& problem) const {
    const int64_t next = problem.request->cache.next_position();
    const at::Tensor positions = at::arange(next, next + options_.n_future, at::TensorOptions(at::kLong));
    const Turn turn = turn_at(problem.request->model.spec(), positions, rows.options());
    return turned(rows, {turn.cos.mean(0), turn.sin.mean(0)}, 1);
  }

  Options options_;
};

KVC_REGISTER_METHOD(ExpectedAttention, "expected_attention", "arXiv:2510.00636");

}  // namespace
}  // namespace kvc
