#include "harness/head_budgets/budget_search.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "harness/core/error.h"
#include "harness/core/interrupt.h"
#include "harness/core/json_lines.h"
#include "harness/core/progress.h"
#include "harness/core/stable_hash.h"
#include "harness/core/stopwatch.h"
#include "harness/head_budgets/curves_file.h"
#include "harness/head_budgets/future_utility.h"

namespace kvc {
namespace {

constexpr int64_t kGateSteps = 10;       // of which the course gives a mean
constexpr int64_t kCheckQuestions = 12;  // their distributions are held at once

std::string head_name(size_t head, int64_t n_kv_heads) {
  const auto h = static_cast<int64_t>(head);
  return fmt::format("L{}H{}", h / n_kv_heads, h % n_kv_heads);
}

// Before the document is read.
HeadTable<int64_t> lengths_of(const Model& model, const Context& context) {
  const auto n_kv_heads = static_cast<size_t>(model.spec().n_kv_heads);
  return {model.spec().n_layers, std::vector<int64_t>(n_kv_heads, context.article_len())};
}

TargetSize fraction_target(double fraction) {
  TargetSize target;
  target.fraction = fraction;
  return target;
}

class Search {
 public:
  Search(const BudgetSearch& search, InterruptGuard& interrupt)
      : search_(search), interrupt_(interrupt), model_(search.load_model(search.model)), progress_(search.quiet) {}

  Json run() {
    choose_documents();
    if (search_.by == BudgetSearch::By::kUtility) return run_utility();
    if (search_.by == BudgetSearch::By::kGates) return run_gates();
    CurvesFile file(search_.curves_file, settings());
    say_how_to_go_on(!file.empty());
    const std::vector<HeadCurves> curves = measure(file);
    const std::vector<LossCurve> losses = loss_curves(curves, search_.curves);
    const Allocation allocation = allocate({losses, search_.targets, search_.floor_share});
    write_parts(allocation.parts);
    Json report = {{"format", "kvcompact.head_budget.v1"},
                   {"settings", settings()},
                   {"documents", ids(measured_)},
                   {"targets", search_.targets},
                   {"floor_share", search_.floor_share},
                   {"additivity", additivity(curves)},
                   {"predicted", rows(allocation.uniform_losses, allocation.losses)},
                   {"check", check(file)},
                   {"heads", heads(curves, losses, allocation)}};
    return report;
  }

 private:
  Json run_utility() {
    const Json given = {{"by", "utility"}, {"of", settings()}};
    CurvesFile file(search_.curves_file, given);
    say_how_to_go_on(!file.empty());
    const size_t n_heads = static_cast<size_t>(model_.spec().n_layers * model_.spec().n_kv_heads);
    UtilityProfile mean(kProfileSteps, std::vector<double>(n_heads, 0.0));
    for (const Document* document : measured_) {
      if (file.find("profile", document->id).is_null()) {
        progress_.stage(fmt::format("{}: cache, scores and answers", document->id));
        file.keep("profile", document->id,
                  measure_utility(model_, *document, *search_.method.plugin, source(), search_.curves, search_.seed));
        say_how_to_go_on(true);
      }
      const Json profile = file.find("profile", document->id);
      bool fits = profile.is_array() && profile.size() == kProfileSteps;
      for (size_t step = 0; fits && step < mean.size(); ++step) {
        fits = profile[step].is_array() && profile[step].size() == n_heads;
        for (size_t h = 0; fits && h < n_heads; ++h) {
          fits = profile[step][h].is_number();
          if (fits) mean[step][h] += profile[step][h].get<double>() / static_cast<double>(measured_.size());
        }
      }
      if (!fits) {
        throw Error(ErrorKind::kData, "a profile of another shape",
                    fmt::format("{}, document {}", file.path(), document->id),
                    "delete the file; the command measures anew");
      }
    }
    write_file_atomically(search_.out, profile_as_npy(mean, model_.spec().n_kv_heads));
    Json steps = Json::array();
    for (const size_t step : {size_t{49}, size_t{79}, size_t{89}, size_t{94}}) {
      const auto [least, most] = std::minmax_element(mean[step].begin(), mean[step].end());
      steps.push_back({{"evicted", static_cast<double>(step + 1) / 100}, {"least", *least}, {"most", *most}});
    }
    return {{"format", "kvcompact.utility_profile.v1"},
            {"settings", given},
            {"documents", ids(measured_)},
            {"steps", steps}};
  }

  // A killed search loses at most kGateSteps steps, or a step and gates_kept_s.
  Json run_gates() {
    const Json given = gate_settings();
    CurvesFile file(search_.curves_file, given);
    const Json kept = file.find("state", "latest");
    say_how_to_go_on(!kept.is_null());
    std::vector<GateText> texts = gate_texts();
    const std::vector<std::string> warnings = gate_warnings(texts, search_.gates);
    for (const std::string& warning : warnings) progress_.note("warning: " + warning);
    GateTraining training(model_.decoder(), search_.gates, model_.decoder().options().dtype().toScalarType());
    for (GateText& text : texts) training.read_as_it_is(text);
    double distance = 0;  // of the steps since the course's last value
    if (!kept.is_null()) {
      training.restore(kept, file.path());
      distance = kept.value("distance", 0.0);
    }
    Stopwatch since_kept;
    progress_.expect(search_.gates.steps);
    progress_.begin();
    progress_.found(training.steps_made());
    progress_.stage("gates of heads");
    while (training.steps_made() < search_.gates.steps) {
      const int64_t step = training.steps_made();
      distance += training.accumulate(texts[static_cast<size_t>(step) % texts.size()]);
      training.step();
      progress_.reached(step + 1, "gates of heads");
      const int64_t since = step % kGateSteps + 1;
      const bool ends = since == kGateSteps || step + 1 == search_.gates.steps;
      if (!ends && since_kept.seconds() < search_.gates_kept_s) continue;
      if (ends) {
        file.keep("distance", std::to_string(step + 1), distance / static_cast<double>(since));
        distance = 0;
      }
      Json state = training.state();
      state["distance"] = distance;
      file.keep("state", "latest", state);
      say_how_to_go_on(true);
      since_kept.lap();
    }
    write_file_atomically(search_.out, gates_as_tsv(training.gates()));
    Json course = Json::array();
    for (int64_t step = 1; step <= search_.gates.steps; ++step) {
      const Json value = file.find("distance", std::to_string(step));
      if (value.is_number()) course.push_back({{"step", step}, {"distance", value}});
    }
    return {{"format", "kvcompact.streaming_gates.v1"},
            {"settings", given},
            {"documents", ids(measured_)},
            {"n_heads", training.gates().numel()},
            {"above_half", training.gates().gt(0.5).sum().item<int64_t>()},
            {"hidden_share", hidden_share(texts, search_.gates)},
            {"course", course},
            {"warnings", warnings}};
  }

  Json gate_settings() const {
    return {{"by", "gates"},
            {"kvc_version", KVC_VERSION},
            {"model", model_.identity()},
            {"dataset", search_.dataset.value},
            {"dataset_identity", search_.dataset.plugin->identity()},
            {"documents", ids(measured_)},
            {"seed", search_.seed},
            {"gates", search_.gates.to_json()}};
  }

  std::vector<GateText> gate_texts() const {
    std::vector<GateText> texts;
    for (const Document* document : measured_) texts.push_back(gate_text(model_, *document));
    check_gate_texts(texts, search_.gates);
    return texts;
  }

  // What a signal prints: that the same command goes on is true only where something was kept.
  void say_how_to_go_on(bool kept) const {
    interrupt_.say(
        kept ? fmt::format("interrupted; what was measured is in {}. Run the same command again to go on from "
                           "there.",
                           search_.curves_file)
             : "interrupted before anything was kept; the same command begins anew.");
  }

  // All that a document's curves depend on.
  Json settings() const {
    return {{"kvc_version", KVC_VERSION},
            {"model", model_.identity()},
            {"dataset", search_.dataset.value},
            {"dataset_identity", search_.dataset.plugin->identity()},
            {"method", search_.method.value},
            {"queries", search_.queries ? search_.queries->value : Json()},
            {"fractions", search_.curves.fractions},
            {"baselines", search_.curves.baselines},
            {"questions", search_.curves.questions},
            {"answer_tokens", search_.curves.answer_tokens},
            {"seed", search_.seed}};
  }

  void choose_documents() {
    const auto count = [&](std::string_view text) {
      return static_cast<int64_t>(model_.tokenizer().encode_text(text).size());
    };
    documents_ = search_.dataset.plugin->load({search_.seed, count});
    const auto n = static_cast<int64_t>(documents_.size());
    if (search_.documents > n) {
      throw Error(ErrorKind::kUsage, fmt::format("the data set has {} documents, not {}", n, search_.documents),
                  "--documents", "ask for fewer");
    }
    int64_t n_measured = search_.documents > 0 ? search_.documents : std::max<int64_t>(1, n - search_.check);
    n_measured = std::min(n_measured, n);
    for (int64_t i = 0; i < std::min(n, n_measured + search_.check); ++i) {
      const Document& document = documents_[static_cast<size_t>(i)];
      (i < n_measured ? measured_ : checked_).push_back(&document);
      // What cannot be done is known before an hour is spent.
      const Context context = make_context(model_, document.text);
      if (search_.by == BudgetSearch::By::kGates) continue;
      for (const double target : search_.targets) uniform_budget(fraction_target(target), lengths_of(model_, context));
    }
    if (measured_.empty()) throw Error(ErrorKind::kData, "the data set has no document", "--dataset", "name another");
  }

  const QuerySource* source() const { return search_.queries ? search_.queries->plugin.get() : nullptr; }

  std::vector<HeadCurves> measure(CurvesFile& file) {
    const auto passes =
        static_cast<int64_t>(2 * search_.curves.baselines.size()) * model_.spec().n_layers * model_.spec().n_kv_heads;
    std::vector<const Document*> missing;
    for (const Document* document : measured_) {
      if (file.find("curves", document->id).is_null()) missing.push_back(document);
    }
    progress_.expect(passes * static_cast<int64_t>(missing.size()));
    progress_.begin();
    for (size_t i = 0; i < missing.size(); ++i) {
      const int64_t before = static_cast<int64_t>(i) * passes;
      progress_.stage(fmt::format("{}: cache, queries and fits", missing[i]->id));
      const Stopwatch clock;
      const HeadCurves curves = measure_head_curves(
          model_, *missing[i], *search_.method.plugin, source(), search_.curves, search_.seed,
          [&](int64_t n) { progress_.reached(before + n, fmt::format("{}: heads one by one", missing[i]->id)); });
      file.keep("curves", missing[i]->id, curves.to_json());
      say_how_to_go_on(true);
      progress_.note(fmt::format("{}: measured in {}", missing[i]->id, duration_text(clock.seconds())));
    }
    std::vector<HeadCurves> all;
    for (const Document* document : measured_) {
      const std::string where = fmt::format("{}, document {}", file.path(), document->id);
      all.push_back(HeadCurves::from_json(file.find("curves", document->id), search_.curves, where));
      if (static_cast<int64_t>(all.back().errors.size()) != model_.spec().n_layers * model_.spec().n_kv_heads) {
        throw Error(ErrorKind::kData, "curves of another number of heads", where,
                    "delete the file; the command measures anew");
      }
    }
    return all;
  }

  void write_parts(const std::vector<double>& parts) {
    Json object = Json::object();
    for (size_t h = 0; h < parts.size(); ++h) object[head_name(h, model_.spec().n_kv_heads)] = parts[h];
    parts_text_ = object.dump(1) + "\n";
    write_file_atomically(search_.out, parts_text_);
  }

  Json additivity(const std::vector<HeadCurves>& curves) const {
    Json list = Json::array();
    const auto n = static_cast<double>(curves.size());
    for (size_t k = 0; k < search_.curves.baselines.size(); ++k) {
      double together = 0, alone = 0, weights = 0;
      for (const HeadCurves& document : curves) {
        const HeadCurves::Baseline& baseline = document.baselines[k];
        together += baseline.together / n;
        for (size_t h = 0; h < baseline.alone.size(); ++h) {
          alone += baseline.alone[h] / n;
          weights += (baseline.alone[h] + baseline.last[h]) / 2 / n;
        }
      }
      list.push_back({{"fraction", search_.curves.baselines[k]},
                      {"together", together},
                      {"sum_alone", alone},
                      {"sum_weights", weights}});
    }
    return list;
  }

  Json rows(const std::vector<double>& uniform, const std::vector<double>& found) const {
    Json list = Json::array();
    for (size_t i = 0; i < search_.targets.size(); ++i)
      list.push_back({{"target", search_.targets[i]}, {"uniform", uniform[i]}, {"found", found[i]}});
    return list;
  }

  // KL with both budgets on the documents that were left out.
  Json check(CurvesFile& file) {
    if (checked_.empty()) return nullptr;
    const std::string key = stable_hash(parts_text_ + Json(search_.targets).dump());
    const auto n = static_cast<double>(checked_.size());
    std::vector<double> uniform(search_.targets.size(), 0.0), found = uniform;
    int64_t tokens = 0;
    for (const Document* document : checked_) {
      const std::string name = document->id + " " + key;
      if (file.find("check", name).is_null()) {
        progress_.expect(static_cast<int64_t>(2 * search_.targets.size()));
        file.keep("check", name, check_document(*document));
      }
      const Json row = file.find("check", name);
      const size_t wanted = uniform.size();
      if (!row.is_object() || row.value("uniform", Json()).size() != wanted ||
          row.value("found", Json()).size() != wanted) {
        throw Error(ErrorKind::kData, "a check of another shape", file.path(), "delete the file");
      }
      for (size_t i = 0; i < wanted; ++i) {
        uniform[i] += row.at("uniform").at(i).get<double>() / n;
        found[i] += row.at("found").at(i).get<double>() / n;
      }
      tokens += row.value("answer_tokens", int64_t{0});
    }
    return {{"documents", ids(checked_)}, {"answer_tokens", tokens}, {"kl", rows(uniform, found)}};
  }

  Json check_document(const Document& document) {
    progress_.stage(fmt::format("{}: check", document.id));
    const c10::InferenceMode inference;
    const ReadDocument read = ReadDocument::read(model_, document.text);
    const auto queries = read.queries(model_, source(), derive_seed(search_.seed, "queries/" + document.id));
    CurveSettings settings = search_.curves;
    settings.questions = kCheckQuestions;
    const AnswerProbe probe(model_, read.full, probe_texts(model_, read.full, document, settings));
    const auto rule = Registry<BudgetRule>::instance().create("proportions", {{"file", search_.out}});
    std::vector<HeadBudget> budgets;
    const auto lengths = read.source_lengths();
    for (const double target : search_.targets) budgets.push_back(uniform_budget(fraction_target(target), lengths));
    for (const double target : search_.targets) budgets.push_back(rule->spread({fraction_target(target), lengths}));
    Json uniform = Json::array(), found = Json::array();
    const std::vector<Compaction> made =
        read.compact(model_, *search_.method.plugin, queries.get(), budgets, derive_seed(search_.seed, "method"));
    for (size_t i = 0; i < made.size(); ++i) {
      (i < search_.targets.size() ? uniform : found).push_back(probe.read(made[i].cache).kl);
      progress_.measured();
    }
    return {{"answer_tokens", probe.n_answer_tokens()}, {"uniform", uniform}, {"found", found}};
  }

  Json heads(const std::vector<HeadCurves>& curves, const std::vector<LossCurve>& losses,
             const Allocation& allocation) const {
    Json list = Json::array();
    const auto n = static_cast<double>(curves.size());
    for (size_t h = 0; h < losses.size(); ++h) {
      std::vector<double> errors(losses[h].fractions.size(), 0.0);
      std::vector<double> alone(search_.curves.baselines.size(), 0.0), last = alone;
      for (const HeadCurves& document : curves) {
        for (size_t i = 0; i < errors.size(); ++i) errors[i] += document.errors[h][i] / n;
        for (size_t k = 0; k < alone.size(); ++k) {
          alone[k] += document.baselines[k].alone[h] / n;
          last[k] += document.baselines[k].last[h] / n;
        }
      }
      list.push_back({{"head", head_name(h, model_.spec().n_kv_heads)},
                      {"part", allocation.parts[h]},
                      {"share", allocation.parts[h] * static_cast<double>(losses.size())},
                      {"errors", errors},
                      {"alone", alone},
                      {"last", last},
                      {"losses", losses[h].losses}});
    }
    return list;
  }

  static Json ids(const std::vector<const Document*>& documents) {
    Json list = Json::array();
    for (const Document* document : documents) list.push_back(document->id);
    return list;
  }

  const BudgetSearch& search_;
  InterruptGuard& interrupt_;
  Model model_;
  Progress progress_;
  std::vector<Document> documents_;
  std::vector<const Document*> measured_, checked_;
  std::string parts_text_;
};

std::string kl_table(const Json& rows) {
  std::string text = fmt::format("  {:>8} {:>10} {:>10} {:>8}\n", "target", "uniform", "found", "ratio");
  for (const Json& row : rows) {
    const double uniform = row.at("uniform"), found = row.at("found");
    text += fmt::format("  {:>8} {:>10.4f} {:>10.4f} {:>8.2f}\n", row.at("target").dump(), uniform, found,
                        uniform > 0 ? found / uniform : 1.0);
  }
  return text;
}

}  // namespace

Json search_budget(const BudgetSearch& search) {
  const CompactionMethod& method = *search.method.plugin;
  const bool of_method = search.by != BudgetSearch::By::kGates;
  if (of_method && (!method.needs_target() || !method.compacts_cache())) {
    throw Error(ErrorKind::kUsage,
                fmt::format("method '{}' has no budget of entries to share", search.method.value.value("name", "")),
                "--method", "name a method on the cache that takes a target");
  }
  const c10::InferenceMode inference;
  InterruptGuard interrupt("interrupted before anything was measured; what an earlier call kept is still there.");
  return Search(search, interrupt).run();
}

std::string budget_report_text(const Json& report) {
  std::string text;
  if (report.at("format") == "kvcompact.utility_profile.v1") {
    text = fmt::format("what a head loses of its entries when a part of all is gone, {} documents:\n",
                       report.at("documents").size());
    for (const Json& row : report.at("steps")) {
      text += fmt::format("  {:.0f} % gone: {:.1f} % to {:.1f} % of a head's\n", 100 * row.at("evicted").get<double>(),
                          100 * row.at("least").get<double>(), 100 * row.at("most").get<double>());
    }
    return text;
  }
  if (report.at("format") == "kvcompact.streaming_gates.v1") {
    const Json& course = report.at("course");
    for (const Json& warning : report.at("warnings")) text += fmt::format("warning: {}\n", warning.get<std::string>());
    return text + fmt::format(
                      "{} of {} heads need the whole text (gate above a half), found on {} documents in {} steps\n"
                      "distance to the model as it is: {:.4f} in the first {} steps, {:.4f} in the last\n",
                      report.at("above_half").dump(), report.at("n_heads").dump(), report.at("documents").size(),
                      course.back().at("step").dump(), course.front().at("distance").get<double>(),
                      course.front().at("step").dump(), course.back().at("distance").get<double>());
  }
  for (const Json& row : report.at("additivity")) {
    text += fmt::format(
        "at {} kept, KL with all heads compacted {:.4f}; sum over heads alone {:.4f}, sum of their weights {:.4f}\n",
        row.at("fraction").dump(), row.at("together").get<double>(), row.at("sum_alone").get<double>(),
        row.at("sum_weights").get<double>());
  }
  text += fmt::format("\npredicted KL(full || compacted), nats per token, {} documents:\n{}",
                      report.at("documents").size(), kl_table(report.at("predicted")));
  if (const Json& check = report.at("check"); check.is_null()) {
    text += "\nno document was left to check the result on\n";
  } else {
    text += fmt::format("\nmeasured on documents that were left out ({}; {} answer tokens):\n{}",
                        check.at("documents").size(), check.at("answer_tokens").dump(), kl_table(check.at("kl")));
  }
  std::vector<std::pair<double, std::string>> shares;
  for (const Json& head : report.at("heads")) shares.emplace_back(head.at("share"), head.at("head"));
  std::stable_sort(shares.begin(), shares.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  const auto list = [&](auto begin, auto end) {
    std::vector<std::string> words;
    for (auto it = begin; it != end; ++it) words.push_back(fmt::format("{} {:.2f}", it->second, it->first));
    return fmt::format("{}", fmt::join(words, ", "));
  };
  const auto some = static_cast<std::ptrdiff_t>(std::min<size_t>(8, shares.size()));
  text += fmt::format("\nshares in uniform parts; largest: {}\n", list(shares.begin(), shares.begin() + some));
  text += fmt::format("smallest: {}\n", list(shares.rbegin(), shares.rbegin() + some));
  return text;
}

}  // namespace kvc
