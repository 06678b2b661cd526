#include "harness/head_budgets/head_curves.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/api/head_errors.h"
#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/model/generate.h"

namespace kvc {
namespace {

double squared_error(const LayerKv& full, const LayerKv& compacted, int64_t head, const at::Tensor& queries) {
  const HeadEntries a = full.head(head), b = compacted.head(head);
  HeadProblem problem;
  problem.keys = a.keys;
  problem.values = a.values;
  problem.bias = a.bias;
  HeadFit fit;
  fit.keys = b.keys;
  fit.values = b.values;
  fit.bias = b.bias;
  const double error = head_errors(problem, fit, queries).output_relative;
  return error * error;
}

// `base` with head `head` taken from `other`.
LayerKv with_head_of(const LayerKv& base, const LayerKv& other, int64_t head) {
  std::vector<HeadEntries> heads;
  for (int64_t h = 0; h < base.n_kv_heads(); ++h) heads.push_back((h == head ? other : base).head(h));
  return pack_heads(heads);
}

std::vector<double> numbers(const Json& json, size_t n, const std::string& where) {
  std::vector<double> list;
  for (const Json& value : json) {
    if (value.is_number() && std::isfinite(value.get<double>())) list.push_back(value.get<double>());
  }
  if (!json.is_array() || json.size() != n || list.size() != n) {
    throw Error(ErrorKind::kData, fmt::format("no list of {} finite numbers", n), where,
                "delete the file; the command measures anew");
  }
  return list;
}

// The weight of a head: mean of what it costs alone and what it costs last.
double weight(double alone, double last) {
  return (std::max(0.0, alone) + std::max(0.0, last)) / 2;
}

struct WeightAt {
  double fraction;
  double value;  // w_h / E_h there
};

double interpolate(const std::vector<WeightAt>& at, double fraction) {
  if (fraction <= at.front().fraction) return at.front().value;
  for (size_t k = 1; k < at.size(); ++k) {
    if (fraction > at[k].fraction) continue;
    const double part = std::log(fraction / at[k - 1].fraction) / std::log(at[k].fraction / at[k - 1].fraction);
    if (at[k - 1].value > 0 && at[k].value > 0) return at[k - 1].value * std::pow(at[k].value / at[k - 1].value, part);
    return at[k - 1].value + part * (at[k].value - at[k - 1].value);
  }
  return at.back().value;
}

size_t index_of(const std::vector<double>& fractions, double fraction) {
  const auto found = std::find(fractions.begin(), fractions.end(), fraction);
  if (found == fractions.end())
    throw Error(ErrorKind::kInternal, fmt::format("baseline {} is none of the fractions", fraction), "head curves", "");
  return static_cast<size_t>(found - fractions.begin());
}

}  // namespace

Json HeadCurves::to_json() const {
  Json list = Json::array();
  for (const Baseline& baseline : baselines)
    list.push_back({{"together", baseline.together}, {"alone", baseline.alone}, {"last", baseline.last}});
  return {{"answer_tokens", answer_tokens}, {"errors", errors}, {"baselines", list}};
}

HeadCurves HeadCurves::from_json(const Json& json, const CurveSettings& settings, const std::string& where) {
  const auto refuse = [&](const std::string& fact) {
    throw Error(ErrorKind::kData, fact, where, "delete the file; the command measures anew");
  };
  const auto list_of = [&](const Json& object, const char* key) -> const Json& {
    if (!object.is_object() || !object.contains(key) || !object.at(key).is_array())
      refuse(fmt::format("'{}' is missing or no list", key));
    return object.at(key);
  };
  HeadCurves curves;
  for (const Json& row : list_of(json, "errors"))
    curves.errors.push_back(numbers(row, settings.fractions.size() + 1, where + ", errors"));
  for (const Json& item : list_of(json, "baselines")) {
    Baseline baseline;
    baseline.alone = numbers(list_of(item, "alone"), curves.errors.size(), where + ", alone");
    baseline.last = numbers(list_of(item, "last"), curves.errors.size(), where + ", last");
    if (!item.contains("together")) refuse("'together' is missing");
    baseline.together = numbers(Json::array({item.at("together")}), 1, where + ", together").front();
    curves.baselines.push_back(std::move(baseline));
  }
  if (curves.errors.empty() || curves.baselines.size() != settings.baselines.size()) refuse("curves of another shape");
  if (json.value("answer_tokens", Json()).is_number_integer()) curves.answer_tokens = json.at("answer_tokens");
  return curves;
}

std::vector<ProbeText> probe_texts(const Model& model, const KvCache& full, const Document& document,
                                   const CurveSettings& settings) {
  std::vector<std::vector<int64_t>> prompts;
  std::vector<std::uint64_t> seeds;
  for (const Question& question : document.questions) {
    if (settings.questions > 0 && static_cast<int64_t>(prompts.size()) == settings.questions) break;
    prompts.push_back(make_question_prompt(model, question.text, question.answer_prefix));
    seeds.push_back(0);
  }
  if (prompts.empty()) {
    throw Error(ErrorKind::kData, "the document has no question", "document " + document.id,
                "answers are what heads are weighed by: take a data set with questions");
  }
  DecodeSettings decode;
  decode.max_new_tokens = settings.answer_tokens;
  const std::vector<Generation> answers = generate(model, full, prompts, decode, seeds);
  const std::vector<int64_t> ends = model.tokenizer().end_ids();
  std::vector<ProbeText> texts;
  for (size_t i = 0; i < prompts.size(); ++i) {
    std::vector<int64_t> tokens = answers[i].tokens;
    if (tokens.empty() && !ends.empty()) tokens.push_back(ends.front());
    if (!tokens.empty()) texts.push_back({std::move(prompts[i]), std::move(tokens)});
  }
  return texts;
}

HeadCurves measure_head_curves(const Model& model, const Document& document, const CompactionMethod& method,
                               const QuerySource* source, const CurveSettings& settings, std::uint64_t seed,
                               const std::function<void(int64_t)>& passed) {
  const c10::InferenceMode inference;
  const ReadDocument read = ReadDocument::read(model, document.text);
  const auto queries = read.queries(model, source, derive_seed(seed, "queries/" + document.id));
  const AnswerProbe probe(model, read.full, probe_texts(model, read.full, document, settings));
  const auto length = static_cast<double>(read.context.article_len());
  std::vector<HeadBudget> budgets = {every_head(read.full, 0)};
  for (const double fraction : settings.fractions)
    budgets.push_back(every_head(read.full, std::max<int64_t>(1, std::llround(fraction * length))));
  const std::vector<Compaction> made =
      read.compact(model, method, queries.get(), std::move(budgets), derive_seed(seed, "method"));

  HeadCurves curves;
  curves.answer_tokens = probe.n_answer_tokens();
  const int64_t n_layers = read.full.n_layers(), n_kv_heads = read.full.n_kv_heads();
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    for (int64_t head = 0; head < n_kv_heads; ++head) {
      const at::Tensor asked = probe.queries(layer, head);
      curves.errors.emplace_back();
      for (const Compaction& one : made) {
        curves.errors.back().push_back(squared_error(read.full.layer(layer), one.cache.layer(layer), head, asked));
      }
    }
  }
  int64_t n_passes = 0;
  for (const double fraction : settings.baselines) {
    const KvCache& compacted = made[1 + index_of(settings.fractions, fraction)].cache;
    const AnswerProbe::Stream all = probe.read(compacted);
    HeadCurves::Baseline baseline;
    baseline.together = all.kl;
    for (int64_t layer = 0; layer < n_layers; ++layer) {
      for (int64_t head = 0; head < n_kv_heads; ++head) {
        const LayerKv& as_it_was = read.full.layer(layer);
        const LayerKv& small = compacted.layer(layer);
        baseline.alone.push_back(probe.kl(read.full, probe.full(), layer, with_head_of(as_it_was, small, head)));
        baseline.last.push_back(all.kl - probe.kl(compacted, all, layer, with_head_of(small, as_it_was, head)));
        n_passes += 2;
        if (passed) passed(n_passes);
      }
    }
    curves.baselines.push_back(std::move(baseline));
  }
  return curves;
}

std::vector<LossCurve> loss_curves(const std::vector<HeadCurves>& documents, const CurveSettings& settings) {
  const auto n = static_cast<double>(documents.size());
  std::vector<LossCurve> curves;
  for (size_t h = 0; h < documents.front().errors.size(); ++h) {
    LossCurve curve;
    curve.fractions = {0};
    curve.fractions.insert(curve.fractions.end(), settings.fractions.begin(), settings.fractions.end());
    std::vector<double> errors(curve.fractions.size(), 0.0);
    for (const HeadCurves& document : documents) {
      for (size_t i = 0; i < errors.size(); ++i) errors[i] += document.errors.at(h).at(i) / n;
    }
    // More entries serve no worse; where they do, it is noise.
    for (size_t i = 1; i < errors.size(); ++i) errors[i] = std::min(errors[i], errors[i - 1]);
    std::vector<WeightAt> weights;
    for (size_t k = 0; k < settings.baselines.size(); ++k) {
      double alone = 0, last = 0;
      for (const HeadCurves& document : documents) {
        alone += document.baselines.at(k).alone.at(h) / n;
        last += document.baselines.at(k).last.at(h) / n;
      }
      const double error = errors[1 + index_of(settings.fractions, settings.baselines[k])];
      weights.push_back({settings.baselines[k], error > 0 ? weight(alone, last) / error : 0.0});
    }
    for (size_t i = 0; i < errors.size(); ++i)
      curve.losses.push_back(interpolate(weights, curve.fractions[i]) * errors[i]);
    curves.push_back(std::move(curve));
  }
  return curves;
}

}  // namespace kvc
