// gpu_bench's steps of Attention Matching: score, fit, pursuit, match.
#include <ATen/ATen.h>

#include <cmath>

#include "harness/api/compaction_method.h"
#include "harness/api/pack_compaction.h"
#include "harness/attention/device_pursuit_kernels.h"
#include "harness/core/registry.h"
#include "harness/math/batched_least_squares.h"
#include "harness/math/block_cholesky.h"
#include "harness/math/device_pursuit.h"
#include "harness/math/least_squares.h"
#include "harness/math/product_statistics.h"
#include "harness/testing/gpu/bench_measure.h"
#include "methods/parts/key_selection.h"

namespace kvc {
namespace {

class MatchingBench : public Measure {
 public:
  using Measure::Measure;

  void run(const std::string& step) {
    if (step == "score") return score();
    if (step == "fit") return fit();
    if (step == "pursuit") return pursuit();
    match();
  }

 private:
  struct Head {
    at::Tensor queries, keys, values;
  };
  // Keys in clusters; queries look at some of them more than at others.
  Head head(int64_t n, int64_t entries) const {
    const int64_t d = spec().head_dim;
    const at::TensorOptions whole = floats().dtype(at::kLong);
    const at::Tensor centres = at::randn({64, d}, floats()).mul_(2);
    const auto around = [&](int64_t rows, double pull, double noise) {
      return (centres.index_select(0, at::randint(64, {rows}, whole)) * pull + at::randn({rows, d}, floats()) * noise)
          .to(at::kBFloat16);
    };
    return {around(n, 0.6, 1.0), around(entries, 1.0, 0.7), normal({entries, d}, 1)};
  }
  // Several of them, stacked.
  Head heads(int64_t count, int64_t n, int64_t entries) const {
    std::vector<at::Tensor> queries, keys, values;
    for (int64_t h = 0; h < count; ++h) {
      Head one = head(n, entries);
      queries.push_back(std::move(one.queries));
      keys.push_back(std::move(one.keys));
      values.push_back(std::move(one.values));
    }
    return {at::stack(queries), at::stack(keys), at::stack(values)};
  }
  int64_t at_once() const { return spec().n_kv_heads; }
  Json of_heads() const { return {{"heads", at_once()}, {"of", spec().n_layers * spec().n_kv_heads}}; }

  void score() {
    for (const int64_t n : shape_.n_queries) {
      const Head h = heads(at_once(), n, shape_.context);
      const double logits = static_cast<double>(at_once() * n) * static_cast<double>(shape_.context);
      Json facts = {{"queries", n}, {"entries", shape_.context}};
      facts.update(of_heads());
      // Logits stay in registers: two products for masses and scores, a third for outputs. Where values are missing,
      // what the third takes is missing too.
      const double a_product = 2 * logits * static_cast<double>(spec().head_dim);
      tell(
          "score", facts, [&] { (void)summarize_heads(h.queries, h.keys, {}, KeyScore::kRms, h.values); }, 0,
          3 * a_product, limits_.bfloat16_flops);
      tell(
          "score, no outputs", facts, [&] { (void)summarize_heads(h.queries, h.keys, {}, KeyScore::kRms); }, 0,
          2 * a_product, limits_.bfloat16_flops);
    }
  }

  void fit() {
    for (const int64_t n : shape_.n_queries) {
      for (const int64_t t : shape_.targets) {
        const Head h = heads(at_once(), n, t);
        at::Tensor table = at::empty({at_once(), n, t}, floats());
        logits_into(table, h.queries, h.keys, {});
        table.sub_(table.amax(2, true)).exp_();
        const at::Tensor mass = table.sum(2);
        const at::Tensor weights = table / mass.unsqueeze(2), output = at::bmm(weights, h.values.to(at::kFloat));
        const at::Tensor present = at::ones({at_once(), t}, floats().dtype(at::kBool));
        const double flops = 1.13 * static_cast<double>(at_once() * n) * std::pow(static_cast<double>(t), 2);
        for (const FitRoute route : {FitRoute::kRefined, FitRoute::kDouble}) {
          const bool doubles = route == FitRoute::kDouble;
          Json facts = {{"queries", n}, {"target", t}, {"route", doubles ? "float64" : "refined"}};
          facts.update(of_heads());
          const double rate = doubles ? limits_.float64_flops : limits_.float32_flops;
          const BoxSettings box{.lower = 0.05, .upper = 20.0, .iterations = 2};
          tell(
              "bias fit", facts, [&] { (void)batched_fit_box(table, mass, present, box, route); }, 0, flops, rate);
          tell(
              "value fit", facts, [&] { (void)batched_least_squares(weights, output, route); }, 0, flops, rate);
        }
        at::Tensor gram = at::bmm(table.transpose(1, 2).to(at::kDouble), table.to(at::kDouble));
        gram.diagonal(0, 1, 2).mul_(1.001);
        Json facts = {{"target", t}};
        facts.update(of_heads());
        tell(
            "Cholesky, float64", facts, [&] { (void)BlockCholesky(gram.clone()); }, 0,
            2 * static_cast<double>(at_once()) * std::pow(static_cast<double>(t), 3) / 3, limits_.float64_flops);
      }
    }
  }

  void pursuit() {
    const int64_t size = shape_.pursuit_keys, picks = shape_.pursuit_picks;
    const Head h = heads(at_once(), size, size);
    const AttentionSummary summary = summarize_heads(h.queries, h.keys, {}, KeyScore::kRms);
    Json facts = {{"queries", size}, {"entries", size}, {"target", picks}};
    facts.update(of_heads());
    const KeysAtHand usual;
    const auto n = static_cast<double>(size), t = static_cast<double>(picks);
    // Of own kernels, on average over the picks.
    const double a_pick = 4 * n * t + 8 * t * t / 3 + 4 * n * static_cast<double>(usual.keys) +
                          4 * n * n / static_cast<double>(usual.choices);
    int64_t n_taken_back = 0;
    double n_readings = 0;
    tell(
        "pursuit", facts,
        [&] {
          DevicePursuits pursuits(h.queries, h.keys, {}, summary.row_max, summary.row_sum, {}, {},
                                  gpu::pursuit_kernels(h.keys.device()));
          pursuits.run(std::vector<int64_t>(static_cast<size_t>(at_once()), picks));
          (void)pursuits.picks(std::vector<int64_t>(static_cast<size_t>(at_once()), picks));
          n_taken_back = pursuits.n_taken_back();
          n_readings = pursuits.n_readings();
        },
        static_cast<double>(at_once()) * t * a_pick, 0, 0);
    print({{"step", "pursuit: choices"},
           {"taken_back", n_taken_back},
           {"of", picks * at_once()},
           {"readings_a_pick", n_readings / static_cast<double>(picks * at_once())}});
  }

  // The methods themselves, over the heads of a layer; the goals are of all layers.
  void match() {
    const int64_t n = shape_.n_queries.front(), target = shape_.targets.back(), count = at_once();
    std::vector<HeadProblem> problems;
    for (int64_t h = 0; h < count; ++h) {
      const Head one = head(n, shape_.context);
      HeadProblem problem;
      problem.keys = one.keys;
      problem.values = one.values;
      problem.queries = one.queries;
      problems.push_back(std::move(problem));
    }
    const std::vector<std::vector<int64_t>> targets(problems.size(), {target});
    for (const char* name : {"am_highest_attention", "am_omp"}) {
      const auto made = Registry<CompactionMethod>::instance().create(name, Json::object());
      const auto& method = dynamic_cast<const PerHeadMethod&>(*made);
      const Json facts = {{"method", name},
                          {"queries", n},
                          {"entries", shape_.context},
                          {"target", target},
                          {"heads", count},
                          {"of", spec().n_layers * spec().n_kv_heads},
                          {"fits", device_.is_cuda() ? gpu_fit_name() : "the CPU's"}};
      tell(
          "match", facts, [&] { (void)method.fit_heads(problems, targets); }, 0, 0, 0);
    }
  }
};

}  // namespace

bool measure_matching(const BenchSetting& setting, const std::string& step) {
  MatchingBench bench(setting);
  bench.run(step);
  return !bench.failed();
}

}  // namespace kvc
