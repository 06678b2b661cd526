// What a compaction method is: from a full cache and a budget to a smaller cache.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "harness/api/context.h"
#include "harness/api/query_source.h"
#include "harness/core/registry.h"
#include "harness/kv/head_budget.h"
#include "harness/kv/kv_cache.h"

namespace kvc {

struct HeadResult;      // pack_compaction.h
struct SettledBudgets;  // settle_budgets.h

// All that a method may look at. Nothing in it is changed, and nothing outlives the call.
struct CompactionRequest {
  const Model& model;
  const Context& context;
  const KvCache& cache;
  Compactable compactable;
  const LayerQueries* queries = nullptr;  // nullptr when the method asks for none
  std::vector<HeadBudget> budgets;        // one result for each; empty when the method takes no target
  std::uint64_t seed = 0;
};

// One result. Its cache holds prefix and suffix entries as they were, compacted ones between them.
struct Compaction {
  KvCache cache;
  double shared_s = 0;          // seconds spent once for all budgets of the request
  double own_s = 0;             // seconds spent for this budget alone
  Json notes = Json::object();  // counts that a reader should see: solver fallbacks, clamped biases, ...
};

class CompactionMethod {
 public:
  virtual ~CompactionMethod() = default;

  // Name of the query source that its paper uses; "" for a method that reads no queries.
  virtual std::string published_queries() const { return ""; }
  bool needs_queries() const { return !published_queries().empty(); }
  virtual bool needs_target() const = 0;
  // False for methods that work on the text and build another cache.
  virtual bool compacts_cache() const { return true; }

  // One Compaction per budget, in their order; exactly one when needs_target() is false. Equal requests give equal
  // bytes. Throws Error; a numerical fallback is a number in `notes`.
  virtual std::vector<Compaction> compact(const CompactionRequest& request) const = 0;
};

// One KV head of one layer: the compactable entries and the queries to serve.
struct HeadProblem {
  at::Tensor keys;     // (T, d) model dtype, rotated
  at::Tensor values;   // (T, d) model dtype
  at::Tensor bias;     // (T) float32, or undefined: an already compacted cache has one
  at::Tensor queries;  // (n, d) model dtype; undefined when the method asks for none
  std::function<at::Tensor(int64_t n_tokens)> window_queries;  // (g * n_tokens, d); empty when the method asks for none
  int64_t layer = 0;
  int64_t kv_head = 0;
  std::uint64_t seed = 0;  // differs by layer and head
  // The whole request, for methods that need the model or the context; nullptr when a head comes without a model.
  const CompactionRequest* request = nullptr;
  // What scores() said of this head where a budget was shared by it; undefined where it was not asked.
  at::Tensor scores;
};

struct HeadFit {
  at::Tensor indices;           // (t) int64, kept entries in order of selection; distinct, in [0, T)
  at::Tensor keys;              // (t, d) model dtype
  at::Tensor bias;              // (t) float32, the old bias included; undefined = zeros
  at::Tensor values;            // (t, d) model dtype
  Json notes = Json::object();  // numbers, summed over heads
  // (prefix_len, d) model dtype: keys of the template in front of the span, for a method that moves positions;
  // undefined: as they were.
  at::Tensor prefix_keys;
};

// Second rung: a method that treats every head alone. Looping, packing, nesting over budgets and timing happen here,
// once. With on-policy queries the layers are compacted from the bottom up, each budget for itself.
class PerHeadMethod : public CompactionMethod {
 public:
  bool needs_target() const override { return true; }
  // Throws Error(kUsage) for an adaptive budget when the method has no scores, or when it spreads over all layers and
  // the queries are on-policy.
  std::vector<Compaction> compact(const CompactionRequest& request) const final;
  // One head alone, for every target in [0, T]; checked as in compact().
  std::vector<HeadFit> fit(const HeadProblem& problem, const std::vector<int64_t>& targets) const;

  // Whether the heads of a request on that device are fitted together, by fit_heads(); else one head after another.
  virtual bool fits_heads_together(const at::Device& /*device*/) const { return false; }
  // fit() of many heads, unchecked: results[i].fits[k] is problems[i] at targets[i][k], the same number of targets for
  // every head. Works on any device. A method that says fits_heads_together() has one of its own, which is for devices
  // that one head leaves idle; its numbers are those of fit() within rounding.
  virtual std::vector<HeadResult> fit_heads(const std::vector<HeadProblem>& problems,
                                            const std::vector<std::vector<int64_t>>& targets) const;

  // How much each entry of the head matters: (T) float32, higher is kept first, comparable over the heads of a layer
  // (and of all layers as far as the method's source says so). What adaptive budgets are made of; undefined when the
  // method has no such numbers.
  virtual at::Tensor scores(const HeadProblem& /*problem*/) const { return {}; }
  // scores() of several heads, in their order: one after the other, or, by a method that has its own, at once on a
  // device that one head leaves idle (numbers as of scores() within rounding). What a GPU's adaptive budgets ask for, a
  // layer at a time.
  virtual std::vector<at::Tensor> score_heads(const std::vector<HeadProblem>& problems) const;

 protected:
  // scores(), computed once a head: where a budget was shared by them they are known already. Not to be written to.
  at::Tensor scores_once(const HeadProblem& problem) const {
    return problem.scores.defined() ? problem.scores : scores(problem);
  }
  // Does the work that all targets share (scores, an order) and returns what fits one target length in [0, T]. Called
  // for many heads at the same time.
  using HeadFitter = std::function<HeadFit(int64_t target_len)>;
  virtual HeadFitter prepare(const HeadProblem& problem, int64_t largest_target_len) const = 0;

  // The entries `indices` as they are: keys, values and old bias copied.
  static HeadFit keep(const HeadProblem& problem, const at::Tensor& indices);

 private:
  void fit_targets(const HeadProblem& problem, const std::vector<int64_t>& targets, HeadResult& result) const;
  std::vector<HeadResult> fit_layers(const CompactionRequest& request, const std::vector<at::Tensor>& queries,
                                     const SettledBudgets& settled, int64_t first_layer, int64_t n_layers) const;
  SettledBudgets settle(const CompactionRequest& request, const std::vector<at::Tensor>& queries, int64_t first_layer,
                        int64_t n_layers) const;
  std::vector<Compaction> compact_on_policy(const CompactionRequest& request) const;
};

#define KVC_REGISTER_METHOD(Class, name, source) KVC_REGISTER(::kvc::CompactionMethod, Class, name, source)

}  // namespace kvc
