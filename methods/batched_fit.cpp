#include "methods/batched_fit.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/math/batched_least_squares.h"
#include "harness/math/product_statistics.h"
#include "harness/math/to_device.h"

namespace kvc {
namespace {

// The entries `index` (H,t) of every head: (H,t,d).
at::Tensor entries_of(const at::Tensor& all, const at::Tensor& index) {
  return all.gather(1, index.unsqueeze(2).expand({-1, -1, all.size(2)}));
}

// A batch under way, filled up to the largest target with entries that weigh nothing.
struct Batch {
  at::Tensor index;                            // (H,t) int64
  at::Tensor present;                          // (H,t) bool: which are a head's own
  at::Tensor keys;                             // (H,t,d)
  at::Tensor bias;                             // (H,t) or undefined: the bias so far, without fillers
  at::Tensor table;                            // (H,n,t)
  at::Tensor trusted;                          // (H) bool
  at::Tensor at_bound, bias_rank, value_rank;  // (H) int64, or undefined: not fitted
  at::Tensor values;                           // (H,t,d)

  // Logits over the kept entries into the table; -inf for fillers.
  void form_logits(const at::Tensor& queries, bool fillers) {
    at::Tensor added = bias;
    if (fillers) {
      const at::Tensor nothing = at::zeros({}, table.options());
      const at::Tensor hidden = nothing - std::numeric_limits<float>::infinity();
      added = at::where(present, bias.defined() ? bias : nothing, hidden);
    }
    logits_into(table, queries, keys, added);
  }
};

// From E to softmax(S + ln w) = E w / sum_j E_ij w_j.
void reweight(Batch& made, const at::Tensor& w) {
  constexpr double kLeastMass = 1e-25;
  const at::Tensor sums = at::bmm(made.table, w.unsqueeze(2));
  made.trusted.logical_and_(sums.amin({1, 2}) >= kLeastMass);
  made.table.mul_(w.unsqueeze(1)).div_(sums);
}

// `facts` (H, some) read at once.
std::vector<std::vector<int64_t>> read_facts(const std::vector<at::Tensor>& columns) {
  const at::Tensor host = at::stack(columns, 1).cpu().contiguous();
  std::vector<std::vector<int64_t>> rows;
  const auto* numbers = host.const_data_ptr<int64_t>();
  const auto width = static_cast<int64_t>(columns.size());
  for (int64_t h = 0; h < host.size(0); ++h) rows.emplace_back(numbers + h * width, numbers + (h + 1) * width);
  return rows;
}

}  // namespace

int64_t fit_bytes(const HeadProblem& problem, int64_t target_len) {
  const int64_t n = problem.queries.size(0), entries = problem.keys.numel() + problem.values.numel();
  return 4 * n * target_len + 48 * target_len * target_len + 4 * (entries + 4 * problem.queries.numel());
}

std::vector<std::optional<HeadFit>> fit_batch(const HeadBatch& batch, const AttentionSummary& summary,
                                              const at::Tensor& order, std::vector<int64_t> lengths,
                                              const FitSettings& settings, const at::Tensor& log_weights) {
  const int64_t heads = batch.queries.size(0), n = batch.queries.size(1);
  for (int64_t& length : lengths) length = length <= n ? length : 0;
  std::vector<std::optional<HeadFit>> fits(lengths.size());
  const int64_t t = *std::max_element(lengths.begin(), lengths.end());
  if (t == 0 || settings.bias == BiasFit::kActiveSet || settings.values == ValueFit::kRidge) return fits;
  const bool fillers = *std::min_element(lengths.begin(), lengths.end()) < t;
  const at::TensorOptions whole = order.options();
  Batch made;
  made.index = order.narrow(1, 0, t);
  made.present =
      at::arange(t, whole).unsqueeze(0) < to_device(at::tensor(lengths, at::kLong), whole.device()).unsqueeze(1);
  made.keys = entries_of(batch.keys, made.index);
  if (batch.bias.defined()) made.bias = batch.bias.gather(1, made.index);
  made.trusted = made.present.any(1);
  const bool fit_bias = settings.bias != BiasFit::kNone && !log_weights.defined();
  if (fit_bias || settings.fit_values()) made.table = at::empty({heads, n, t}, whole.dtype(at::kFloat));

  at::Tensor added = log_weights.defined() ? log_weights.narrow(1, 0, t) : at::Tensor();
  if (fit_bias) {
    made.form_logits(batch.queries, fillers);
    made.table.sub_(summary.row_max).exp_();
    const BoxSettings box{std::exp(-settings.bias_bound), std::exp(settings.bias_bound), settings.nnls_iterations};
    const BatchedBoxedFit weights = batched_fit_box(made.table, summary.row_sum.squeeze(2), made.present, box);
    made.trusted.logical_and_(weights.trusted);
    made.at_bound = weights.n_at_bound;
    made.bias_rank = weights.rank;
    added = weights.solution.log();
    if (settings.fit_values()) reweight(made, weights.solution);
  }
  if (added.defined()) made.bias = made.bias.defined() ? made.bias + added : added;
  if (settings.fit_values()) {
    if (!fit_bias) {
      made.form_logits(batch.queries, fillers);
      made.table.sub_(made.table.amax(2, /*keepdim=*/true)).exp_();
      made.table.div_(made.table.sum(2, /*keepdim=*/true));
    }
    const BatchedSolution values = batched_least_squares(made.table, summary.output);
    made.trusted.logical_and_(values.trusted);
    made.value_rank = values.rank;
    made.values = values.solution.to(at::kFloat).to(batch.values.scalar_type());
  } else {
    made.values = entries_of(batch.values, made.index);
  }

  const at::Tensor none = at::zeros({heads}, whole);
  const auto or_none = [&](const at::Tensor& fact) { return fact.defined() ? fact : none; };
  const auto facts = read_facts(
      {made.trusted.to(at::kLong), or_none(made.at_bound), or_none(made.bias_rank), or_none(made.value_rank)});
  for (int64_t h = 0; h < heads; ++h) {
    const auto head = static_cast<size_t>(h);
    const int64_t length = lengths[head];
    if (length == 0 || facts[head][0] == 0) continue;
    HeadFit fit;
    const auto own = [&](const at::Tensor& all) { return all[h].narrow(0, 0, length); };
    fit.indices = own(made.index);
    fit.keys = own(made.keys);
    fit.values = own(made.values);
    if (made.bias.defined()) fit.bias = own(made.bias);
    if (fit_bias) {
      fit.notes["bias_at_bound"] = facts[head][1];
      fit.notes["bias_rank_deficient"] = facts[head][2] < length ? 1 : 0;
    }
    if (settings.fit_values()) fit.notes["value_rank_deficient"] = facts[head][3] < length ? 1 : 0;
    fits[head] = std::move(fit);
  }
  return fits;
}

}  // namespace kvc
