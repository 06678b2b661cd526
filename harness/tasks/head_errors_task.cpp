// How far each attention head of a compacted cache is from the full one's: both caches are asked what the tokens of the
// questions, read behind the full cache, would ask of them, layer by layer and head by head. Attention over the
// document alone; the question's own tokens stand behind both caches and are left out. No gold is needed and nothing is
// written.
//
// a_i is the exact output of query i, b_i that of the compacted head. Fields of an answer, each the mean over all
// layers and KV heads, over the queries of this question: prompt, rendered_prompt, n_queries (per head),
// output_relative (||b - a||_F / ||a||_F), cosine (mean of a_i and b_i; 0 where one is nought), mass_relative (mean
// |mass_b / mass_a - 1|). Task note "heads": the same per layer and KV head over all questions of the document, as
// lists of layers of lists of heads, and bias_at_bound: the share of a head's entries whose bias is the least or
// the greatest of the whole cache, if that is not 0 and at least two entries have it, as fits leave where they run into
// their bounds.
//
// Metrics: output_error, cosine, mass_error are output_relative, cosine, mass_relative as they stand.

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "harness/api/head_errors.h"
#include "harness/kv/device_numbers.h"
#include "harness/tasks/judging/judge.h"
#include "harness/tasks/written_answers.h"

namespace kvc {
namespace {

struct HeadReference {
  std::vector<std::vector<int64_t>> prompts;
  std::vector<int64_t> offsets;                // question i asks with tokens [offsets[i], offsets[i + 1])
  std::vector<at::Tensor> queries;             // per layer (Hkv, g n, d) model dtype, query head before token
  std::vector<std::vector<HeadOutput>> exact;  // per layer and KV head
  int64_t group = 1;
};

// Sums over some queries of a head.
struct Sums {
  double distance = 0, exact = 0, cosine = 0, mass = 0, n = 0;
  double relative() const { return exact > 0 ? std::sqrt(distance / exact) : 0; }
};

// Per query, each (g n) float64.
struct Compared {
  at::Tensor distance, exact, cosine, mass;
};

Compared compare_outputs(const HeadOutput& a, const HeadOutput& b) {
  const at::Tensor exact = a.output.to(at::kDouble), other = b.output.to(at::kDouble);
  const at::Tensor exact_square = exact.square().sum(1), other_square = other.square().sum(1);
  const at::Tensor norms = (exact_square * other_square).sqrt_();
  const at::Tensor cosine = at::where(norms > 0, (exact * other).sum(1) / norms, at::zeros_like(norms));
  return {(other - exact).square().sum(1).cpu(), exact_square.cpu(), cosine.cpu(),
          at::expm1(b.log_mass - a.log_mass).abs_().cpu()};
}

// Biases of the whole cache at which two entries or more stand at its least or greatest one; NaN: none.
std::pair<double, double> bias_bounds(const KvCache& cache) {
  double low = INFINITY, high = -INFINITY;
  const auto each = [&](const auto& visit) {
    for (int64_t layer = 0; layer < cache.n_layers(); ++layer) {
      const at::Tensor& bias = cache.layer(layer).bias;
      if (bias.defined() && bias.numel() > 0) visit(bias);
    }
  };
  each([&](const at::Tensor& bias) {
    low = std::min(low, bias.min().item<double>());
    high = std::max(high, bias.max().item<double>());
  });
  int64_t at_low = 0, at_high = 0;
  each([&](const at::Tensor& bias) {
    at_low += bias.eq(low).sum().item<int64_t>();
    at_high += bias.eq(high).sum().item<int64_t>();
  });
  return {at_low >= 2 && low < 0 ? low : NAN, at_high >= 2 && high > 0 ? high : NAN};
}

double share_at(const at::Tensor& bias, const std::pair<double, double>& bounds) {
  if (!bias.defined() || bias.numel() == 0) return 0;
  const at::Tensor at_bound = at::logical_or(bias.eq(bounds.first), bias.eq(bounds.second));
  return at_bound.sum().item<double>() / static_cast<double>(bias.numel());
}

// What is written to a record: six digits say more than there is to know.
double rounded(double value) {
  return std::strtod(fmt::format("{:.6g}", value).c_str(), nullptr);
}

class HeadErrorsTask final : public ComparingTask<HeadReference> {
 public:
  struct Options {
    int64_t max_tokens = 64;
    void fields(auto&& visit) {
      visit("max_tokens", max_tokens, "number of last question tokens whose queries are used", at_least(1));
    }
  };

  explicit HeadErrorsTask(Options options) : options_(options) {}

  bool accepts(const Question& /*question*/) const override { return true; }

  // Memory: queries and outputs of all heads, 4 to 6 bytes x layers x query heads x d per token asked.
  HeadReference make_reference(const AskRequest& on_full_cache) const override {
    const Model& model = on_full_cache.model;
    HeadReference reference;
    std::vector<Ask> asks;
    for (const Question& question : on_full_cache.questions) asks.push_back({question.text, question.answer_prefix});
    reference.prompts = make_prompts(model, asks);
    reference.group = model.spec().group_size();
    capture(model, on_full_cache.cache, reference);
    for (int64_t layer = 0; layer < on_full_cache.cache.n_layers(); ++layer)
      reference.exact.push_back(outputs(on_full_cache.cache, layer, reference.queries[static_cast<size_t>(layer)]));
    return reference;
  }

  std::vector<Json> compare(const AskRequest& request, const HeadReference& reference) const override {
    const size_t n_questions = reference.prompts.size();
    if (n_questions == 0) return {};
    std::vector<Sums> by_question(n_questions);  // of `relative`, cosine, mass: sums over heads of means
    Json heads = {{"output_relative", Json::array()},
                  {"cosine", Json::array()},
                  {"mass_relative", Json::array()},
                  {"bias_at_bound", Json::array()}};
    const auto bounds = bias_bounds(request.cache);
    for (int64_t layer = 0; layer < request.cache.n_layers(); ++layer) {
      for (auto& [name, list] : heads.items()) list.push_back(Json::array());
      const auto l = static_cast<size_t>(layer);
      const std::vector<HeadOutput> made = outputs(request.cache, layer, reference.queries[l]);
      for (size_t head = 0; head < made.size(); ++head) {
        const Sums sums = add(reference, compare_outputs(reference.exact[l][head], made[head]), by_question);
        const auto put = [&](const char* name, double value) { heads[name][l].push_back(rounded(value)); };
        put("output_relative", sums.relative());
        put("cosine", sums.cosine / sums.n);
        put("mass_relative", sums.mass / sums.n);
        put("bias_at_bound", share_at(request.cache.layer(layer).head_bias(static_cast<int64_t>(head)), bounds));
      }
    }
    if (request.notes != nullptr) (*request.notes)["heads"] = std::move(heads);
    return collect(request, reference, by_question);
  }

 private:
  // All questions read behind the full cache at once; of each, the queries of its last tokens.
  void capture(const Model& model, const KvCache& cache, HeadReference& reference) const {
    if (reference.prompts.empty()) return;
    const PackedTokens input = PackedTokens::pack(reference.prompts);
    std::vector<int64_t> rows;
    int64_t longest = 0;
    reference.offsets = {0};
    for (size_t i = 0; i < reference.prompts.size(); ++i) {
      const int64_t end = input.sequence_offsets[i + 1], first = input.sequence_offsets[i];
      longest = std::max(longest, end - first);
      for (int64_t row = std::max(first, end - options_.max_tokens); row < end; ++row) rows.push_back(row);
      reference.offsets.push_back(static_cast<int64_t>(rows.size()));
    }
    reference.queries.resize(static_cast<size_t>(model.spec().n_layers));
    Tails tails = Tails::behind(cache, static_cast<int64_t>(reference.prompts.size()), longest);
    model.decoder().forward(input, cache, tails, [&](int64_t layer, const at::Tensor& queries) {
      const at::Tensor some = queries.index_select(0, device_numbers(rows, queries.device()));  // (n, Hq, d)
      reference.queries[static_cast<size_t>(layer)] =
          some.unflatten(1, {some.size(1) / reference.group, reference.group}).permute({1, 2, 0, 3}).flatten(1, 2);
    });
  }

  static std::vector<HeadOutput> outputs(const KvCache& cache, int64_t layer, const at::Tensor& queries) {
    std::vector<HeadOutput> list;
    const LayerKv& kv = cache.layer(layer);
    for (int64_t head = 0; head < kv.n_kv_heads(); ++head)
      list.push_back(head_output(kv.head_keys(head), kv.head_values(head), kv.head_bias(head), queries[head]));
    return list;
  }

  // The sums over all queries of a head; the means over each question's are added to `by_question`.
  static Sums add(const HeadReference& reference, const Compared& compared, std::vector<Sums>& by_question) {
    Sums all;
    for (size_t i = 0; i + 1 < reference.offsets.size(); ++i) {
      const int64_t first = reference.offsets[i], n = reference.offsets[i + 1] - first;
      const auto sum = [&](const at::Tensor& values) {
        return values.view({reference.group, -1}).narrow(1, first, n).sum().item<double>();
      };
      const Sums own{sum(compared.distance), sum(compared.exact), sum(compared.cosine), sum(compared.mass),
                     static_cast<double>(reference.group * n)};
      by_question[i].distance += own.relative();
      by_question[i].cosine += own.cosine / own.n;
      by_question[i].mass += own.mass / own.n;
      by_question[i].n += 1;
      all.distance += own.distance;
      all.exact += own.exact;
      all.cosine += own.cosine;
      all.mass += own.mass;
      all.n += own.n;
    }
    return all;
  }

  static std::vector<Json> collect(const AskRequest& request, const HeadReference& reference,
                                   const std::vector<Sums>& by_question) {
    std::vector<Json> answers;
    for (size_t i = 0; i < by_question.size(); ++i) {
      const Sums& sums = by_question[i];
      if (!std::isfinite(sums.distance) || !std::isfinite(sums.cosine) || !std::isfinite(sums.mass)) {
        throw Error(ErrorKind::kData, "the errors of the heads are not numbers", "question " + request.questions[i].id,
                    "the cache holds numbers that are not finite; try dtype float32");
      }
      answers.push_back({{"question_id", request.questions[i].id},
                         {"prompt", request.questions[i].text},
                         {"rendered_prompt", spelled(request.model, reference.prompts[i])},
                         {"n_queries", reference.group * (reference.offsets[i + 1] - reference.offsets[i])},
                         {"output_relative", sums.distance / sums.n},
                         {"cosine", sums.cosine / sums.n},
                         {"mass_relative", sums.mass / sums.n}});
    }
    return answers;
  }

  Options options_;
};

std::vector<double> judge_head_errors(const AnswerFields& answer) {
  return {answer.number("output_relative"), answer.number("cosine"), answer.number("mass_relative")};
}

KVC_REGISTER_TASK(HeadErrorsTask, "head_errors", "attention outputs and mass, head by head (arXiv:2602.16284)");
KVC_REGISTER_METRICS("head_errors", one_by_one<judge_head_errors>,
                     {{"output_error", "error of the heads' outputs, relative L2", false, false},
                      {"cosine", "cosine of the heads' outputs with the full cache's", false, true},
                      {"mass_error", "relative error of the heads' attention mass", false, false}});

}  // namespace
}  // namespace kvc
