// A compact cache trained by gradient: t keys and values per head, keys rotated as they are, so that the model with
// them predicts the next token as it does with the full cache. Eyuboglu et al., "Cartridges", arXiv:2506.06266: the
// slow ceiling beside the methods that fit in seconds.
//
//   start   what another method leaves (default: the first entries, as published)
//   texts   self_study  the model, with the full cache, answers a few requests about the context, sampled
//           repeat      it is asked to repeat the context, part by part; the context itself is the answer
//   loss    KL(full || compact) of the next token, mean over the tokens of a text, the request included
//   step    Adam over texts of at least batch_tokens in a shuffled order; the rate falls linearly to 0
//
// Differences from the published code: the template's entries stay and are not trained; the texts are few and of the
// whole context, not thousands of conversations about pieces of it. A cache of which everything is kept is returned
// untouched. Cost of a step: about six times that of reading batch_tokens.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "harness/api/compaction_method.h"
#include "harness/api/special_needs.h"
#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/core/stopwatch.h"
#include "harness/math/adam.h"
#include "harness/model/generate.h"
#include "methods/parts/cache_training.h"
#include "methods/training_texts.h"

namespace kvc {
namespace {

constexpr int64_t kCurvePoints = 50;

class Cartridge final : public CompactionMethod, public SpecialNeeds {
 public:
  struct Options {
    NestedPlugin init{"truncate"};
    std::string text = "self_study";
    int64_t steps = 100;
    double learning_rate = 0.02;
    int64_t batch_tokens = 512;
    int64_t text_tokens = 256;
    int64_t conversations = 16;
    void fields(auto&& visit) {
      visit("init", init, "method whose result is trained, e.g. attention_matching; truncate: the first entries");
      visit("text", text, "what is learnt from: self_study (the model's own answers) or repeat (the context)",
            one_of({"self_study", "repeat"}));
      visit("steps", steps, "steps of Adam", between(0, 1'000'000));
      visit("learning_rate", learning_rate, "of the first step; falls linearly to 0", more_than(0, 10));
      visit("batch_tokens", batch_tokens, "tokens of text per step, at least", between(1, 1'000'000));
      visit("text_tokens", text_tokens, "longest text, request included", between(64, 1'000'000));
      visit("conversations", conversations, "self_study: texts to write", between(1, 10'000));
    }
    void complete(const std::string& pointer, Problems& problems);
  };

  explicit Cartridge(const Options& options) : options_(options) {
    init_ = create_nested<CompactionMethod>(options.init.value);
  }

  std::string published_queries() const override { return init_->published_queries(); }
  std::string special_needs() const override { return options_.text == "self_study" ? "the model writes" : ""; }
  bool needs_target() const override { return true; }

  std::vector<Compaction> compact(const CompactionRequest& request) const override {
    CompactionRequest start{request.model,
                            request.context,
                            request.cache,
                            request.compactable,
                            request.queries,
                            request.budgets,
                            derive_seed(request.seed, "cartridge/init")};
    std::vector<Compaction> results = init_->compact(start);
    const Stopwatch clock;
    const std::vector<TrainingText> texts = training_texts(request);
    const double shared_s = clock.seconds();
    for (Compaction& result : results) {
      const Stopwatch own;
      const Json init_notes = std::move(result.notes);
      result.notes = Json{{"init", init_notes}};
      if (result.cache.n_entries() < request.cache.n_entries()) train(request, texts, result);
      result.shared_s += shared_s;
      result.own_s += own.seconds();
    }
    return results;
  }

 private:
  std::vector<TrainingText> training_texts(const CompactionRequest& request) const {
    const TextSource source{request.model, request.context, request.cache, request.seed};
    return with_teacher(source, options_.text == "repeat"
                                    ? repeated_texts(source, options_.text_tokens)
                                    : self_study_texts(source, options_.conversations, options_.text_tokens));
  }

  void train(const CompactionRequest& request, const std::vector<TrainingText>& texts, Compaction& result) const {
    const KvCache start = std::move(result.cache);
    if (request.model.decoder().is_spread()) {
      throw Error(ErrorKind::kUsage, "a cache cannot be trained through a model that is spread over several GPUs",
                  "method cartridge", "write devices: 1, or leave the method out");
    }
    CacheTraining training(request.model.decoder(), start, request.compactable,
                           request.model.decoder().options().dtype().toScalarType());
    Adam adam(training.parameters());
    std::mt19937_64 random(derive_seed(request.seed, "cartridge/order"));
    std::vector<size_t> order;
    std::vector<double> curve;
    result.notes["loss_before"] = mean_loss(training, texts);
    for (int64_t step = 0; step < options_.steps; ++step) {
      const std::vector<size_t> batch = next_batch(texts, order, random);
      double loss = 0;
      for (const size_t i : batch) {
        loss +=
            training.accumulate(texts[i], 1.0 / static_cast<double>(batch.size())) / static_cast<double>(batch.size());
      }
      if (!std::isfinite(loss)) diverged(step);
      curve.push_back(loss);
      adam.step(options_.learning_rate * static_cast<double>(options_.steps - step) /
                static_cast<double>(options_.steps));
    }
    const double after = mean_loss(training, texts);
    if (!std::isfinite(after)) diverged(options_.steps - 1);
    result.notes["loss_after"] = after;
    result.notes["loss_curve"] = thinned(curve);
    result.notes["training_texts"] = texts.size();
    result.notes["training_tokens"] = total_tokens(texts);
    result.cache = training.result();
  }

  // Texts are drawn without replacement until all have been used, then again in another order.
  std::vector<size_t> next_batch(const std::vector<TrainingText>& texts, std::vector<size_t>& order,
                                 std::mt19937_64& random) const {
    std::vector<size_t> batch;
    for (int64_t tokens = 0; tokens < options_.batch_tokens && batch.size() < texts.size();) {
      if (order.empty()) {
        for (size_t i = 0; i < texts.size(); ++i) order.push_back(i);
        // The standard's shuffle differs between libraries.
        for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
      }
      batch.push_back(order.back());
      tokens += static_cast<int64_t>(texts[order.back()].tokens.size());
      order.pop_back();
    }
    return batch;
  }

  [[noreturn]] void diverged(int64_t step) const {
    throw Error(ErrorKind::kUsage, fmt::format("the loss of step {} is not finite", step + 1),
                fmt::format("cartridge, learning_rate: {}", options_.learning_rate), "lower the learning rate");
  }

  static double mean_loss(const CacheTraining& training, const std::vector<TrainingText>& texts) {
    double total = 0;
    for (const TrainingText& text : texts) total += training.loss(text);
    return total / static_cast<double>(texts.size());
  }

  static int64_t total_tokens(const std::vector<TrainingText>& texts) {
    int64_t total = 0;
    for (const TrainingText& text : texts) total += static_cast<int64_t>(text.tokens.size());
    return total;
  }

  // At most kCurvePoints means of neighbouring steps.
  static std::vector<double> thinned(const std::vector<double>& curve) {
    const auto n = static_cast<int64_t>(curve.size());
    const int64_t points = std::min(n, kCurvePoints);
    std::vector<double> result;
    for (int64_t p = 0; p < points; ++p) {
      const int64_t begin = p * n / points, end = (p + 1) * n / points;
      double sum = 0;
      for (int64_t i = begin; i < end; ++i) sum += curve[static_cast<size_t>(i)];
      result.push_back(sum / static_cast<double>(end - begin));
    }
    return result;
  }

  Options options_;
  std::unique_ptr<CompactionMethod> init_;
};

void Cartridge::Options::complete(const std::string& pointer, Problems& problems) {
  const std::string at = pointer + "/init";
  const Json name = init.value.is_object() ? init.value.value("method", init.value.value("name", Json())) : init.value;
  if (name == "cartridge" || name == "stacked") {
    problems.add("a cartridge cannot begin with '" + name.get<std::string>() + "'", at,
                 "name a method that fits a cache");
    return;
  }
  if (!complete_nested<CompactionMethod>(init.value, "method", at, problems)) return;
  const auto method = create_nested<CompactionMethod>(init.value);
  if (method->compacts_cache() && method->needs_target()) return;
  problems.add("method '" + init.value.at("name").get<std::string>() + "' takes no target", at,
               "truncate, attention_matching or the like");
}

KVC_REGISTER_METHOD(Cartridge, "cartridge", "arXiv:2506.06266");

}  // namespace
}  // namespace kvc
