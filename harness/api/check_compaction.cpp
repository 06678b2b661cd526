#include "harness/api/check_compaction.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <string>
#include <vector>

#include "harness/core/error.h"

namespace kvc {
namespace {

std::string head_name(int64_t layer, int64_t kv_head) {
  return fmt::format("layer {}, KV head {}", layer, kv_head);
}

Error broken(const std::string& fact, int64_t layer, int64_t kv_head) {
  return Error(ErrorKind::kInternal, fact, head_name(layer, kv_head), "this is a bug of the method; please report it");
}

}  // namespace

void check_budgets(const CompactionRequest& request) {
  const KvCache& cache = request.cache;
  for (const HeadBudget& budget : request.budgets) {
    const bool fits =
        budget.target_len.n_layers() == cache.n_layers() && budget.target_len.n_heads() == cache.n_kv_heads();
    if (!fits) {
      throw Error(ErrorKind::kInternal, "a budget has other layers or heads than the cache", "compaction",
                  "make the budget from the cache's numbers of layers and heads");
    }
    for (int64_t layer = 0; layer < cache.n_layers(); ++layer) {
      for (int64_t head = 0; head < cache.n_kv_heads(); ++head) {
        const int64_t source_len = request.compactable.source_len(cache.layer(layer).head_len(head));
        if (budget.at(layer, head) < 0 || budget.at(layer, head) > source_len) {
          throw Error(ErrorKind::kInternal,
                      fmt::format("a target of {} entries for {} compactable ones", budget.at(layer, head), source_len),
                      head_name(layer, head), "keep every target within 0 and the source length");
        }
      }
    }
  }
}

void check_fit(const HeadFit& fit, const HeadProblem& problem, int64_t target_len) {
  const auto fail = [&](const std::string& fact) { throw broken(fact, problem.layer, problem.kv_head); };
  const int64_t source_len = problem.keys.size(0);
  const int64_t d = problem.keys.size(1);
  if (!fit.indices.defined() || fit.indices.dim() != 1 || fit.indices.scalar_type() != at::kLong) {
    fail("the indices of a fit must be a list of int64");
  }
  if (fit.indices.size(0) != target_len) {
    fail(fmt::format("a fit returned {} entries for a target of {}", fit.indices.numel(), target_len));
  }
  const at::Tensor indices = fit.indices.cpu().contiguous();
  std::vector<bool> seen(static_cast<size_t>(source_len), false);
  for (int64_t i = 0; i < target_len; ++i) {
    const int64_t index = indices.const_data_ptr<int64_t>()[i];
    if (index < 0 || index >= source_len) fail(fmt::format("a fit returned index {} of {} entries", index, source_len));
    if (seen[static_cast<size_t>(index)]) fail(fmt::format("a fit returned index {} twice", index));
    seen[static_cast<size_t>(index)] = true;
  }
  const std::vector<int64_t> shape = {target_len, d};
  if (!fit.keys.defined() || fit.keys.sizes().vec() != shape || !fit.values.defined() ||
      fit.values.sizes().vec() != shape ||
      (fit.bias.defined() && fit.bias.sizes().vec() != std::vector<int64_t>{target_len})) {
    fail("keys, values and bias of a fit must have the shape of its indices");
  }
  if (fit.keys.scalar_type() != problem.keys.scalar_type() ||
      fit.values.scalar_type() != problem.values.scalar_type() ||
      (fit.bias.defined() && fit.bias.scalar_type() != at::kFloat)) {
    fail("keys and values of a fit must have the cache's dtype (bias: float32)");
  }
  if (fit.prefix_keys.defined()) {
    const int64_t prefix_len = problem.request == nullptr ? 0 : problem.request->compactable.prefix_len;
    if (fit.prefix_keys.sizes().vec() != std::vector<int64_t>{prefix_len, d} ||
        fit.prefix_keys.scalar_type() != problem.keys.scalar_type() || !fit.prefix_keys.isfinite().all().item<bool>()) {
      fail("a fit changed the template keys (it may only move them)");
    }
  }
  if (!fit.keys.isfinite().all().item<bool>() || !fit.values.isfinite().all().item<bool>() ||
      (fit.bias.defined() && !fit.bias.isfinite().all().item<bool>())) {
    fail("a fit returned numbers that are not finite");
  }
}

void check_scores(const at::Tensor& scores, const HeadProblem& problem) {
  if (!scores.defined()) {
    throw Error(ErrorKind::kUsage, "this method has no scores, which an adaptive budget is made of", "budget",
                "take the uniform budget, or a method that scores its keys");
  }
  if (scores.dim() != 1 || scores.size(0) != problem.keys.size(0) || scores.scalar_type() != at::kFloat) {
    throw broken("scores of another shape or dtype than (T) float32", problem.layer, problem.kv_head);
  }
}

}  // namespace kvc
