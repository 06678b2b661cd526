// Gates of heads: gradients by finite differences, what a closed gate hides, a search from the command's side.
#include "harness/head_budgets/streaming_gates.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "harness/core/text_file.h"
#include "harness/head_budgets/budget_search.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

GateText some_text(int64_t n = 40) {
  GateText text;
  for (int64_t i = 0; i < n; ++i) text.tokens.push_back((i * 37 + 11) % 200 + 20);
  text.rows = {n - 4, n - 3, n - 1};
  return text;
}

// As the training reads it; the text alone decides what that is.
GateText read_by(const GateTraining& training, int64_t n = 40) {
  GateText text = some_text(n);
  training.read_as_it_is(text);
  return text;
}

GateSettings small_window() {
  GateSettings settings;
  settings.n_sink = 3;
  settings.n_recent = 5;
  settings.steps = 20;
  return settings;
}

void set(const GateTraining& training, double gate) {
  training.gates().detach().fill_(gate);
}

TEST(StreamingGates, OpenGatesAreTheModelAsItIs) {
  const Model model = tiny_model(1, at::kFloat, 256);
  GateTraining training(model.decoder(), small_window(), at::kDouble);
  EXPECT_LT(training.distance(read_by(training)), 1e-24);
  set(training, 0);
  EXPECT_GT(training.distance(read_by(training)), 1e-6);
}

// A streaming head of a window that holds the whole text hides nothing, whatever its gate.
TEST(StreamingGates, AWindowOverTheWholeTextHidesNothing) {
  const Model model = tiny_model(1, at::kFloat, 256);
  for (const auto& [sink, recent] : {std::pair<int64_t, int64_t>{40, 1}, {0, 40}, {20, 20}}) {
    GateSettings settings = small_window();
    settings.n_sink = sink;
    settings.n_recent = recent;
    GateTraining training(model.decoder(), settings, at::kDouble);
    set(training, 0);
    EXPECT_LT(training.distance(read_by(training)), 1e-24) << sink << " " << recent;
  }
}

// With all gates closed a token of an L-layer model is moved by the entries within its windows, layer upon layer, and
// by nothing between the sinks and these.
TEST(StreamingGates, AClosedGateSeesFirstAndRecentEntriesOnly) {
  const Model model = tiny_model(1, at::kFloat, 256);
  const DecoderSpec& spec = model.spec();
  const DifferentiableDecoder decoder(model.decoder(), at::kDouble);
  const at::Tensor none = at::empty({0, spec.head_dim}, at::kDouble);
  const std::vector<HeadEntries> nothing(static_cast<size_t>(spec.n_kv_heads), {none, none, {}});
  const StreamingMix closed{at::zeros({spec.n_kv_heads}, at::kDouble), 3, 5};
  const GateText text = some_text();
  const auto last_row = [&](std::vector<int64_t> tokens) {
    at::Tensor hidden = decoder.embed(tokens);
    for (int64_t l = 0; l < spec.n_layers; ++l) hidden = decoder.run_layer(l, hidden, nothing, 0, &closed);
    return hidden[-1];
  };
  const at::Tensor before = last_row(text.tokens);
  const auto n = static_cast<int64_t>(text.tokens.size());
  const int64_t reach = spec.n_layers * (5 - 1);
  for (int64_t at = 0; at < n; ++at) {
    std::vector<int64_t> tokens = text.tokens;
    tokens[static_cast<size_t>(at)] += 1;
    const bool moved = !at::equal(last_row(tokens), before);
    // The sinks' own states depend on the sinks alone.
    EXPECT_EQ(moved, at < 3 || at >= n - 1 - reach) << "token " << at;
  }
}

TEST(StreamingGates, GradientsAreThoseOfFiniteDifferences) {
  const Model model = tiny_model(1, at::kFloat, 256);
  GateTraining training(model.decoder(), small_window(), at::kDouble);
  const GateText text = read_by(training);
  training.gates().detach().copy_(at::rand(training.gates().sizes(), at::detail::createCPUGenerator(3), at::kDouble));
  const double distance = training.accumulate(text);
  EXPECT_NEAR(distance, training.distance(text), 1e-12);
  for (int64_t l = 0; l < training.gates().size(0); ++l) {
    for (int64_t h = 0; h < training.gates().size(1); ++h) {
      const at::Tensor gate = training.gates().detach()[l][h];
      const auto at_offset = [&](double offset) {
        gate.add_(offset);
        const double moved = training.distance(text);
        gate.sub_(offset);
        return moved;
      };
      const double expected = (at_offset(1e-5) - at_offset(-1e-5)) / 2e-5;
      EXPECT_NEAR(training.gates().grad()[l][h].item<double>(), expected, 1e-7 * (1 + std::abs(expected)));
      EXPECT_GT(std::abs(expected), 1e-9);
    }
  }
}

// Adam's first steps are as long as the rate, whatever the gradient; the rate of step s of N is published.
TEST(StreamingGates, StepsAreAsLongAsPublished) {
  const Model model = tiny_model(1, at::kFloat, 256);
  GateSettings settings = small_window();
  settings.penalty = 1e6;  // the direction is known: down
  GateTraining training(model.decoder(), settings, at::kDouble);
  const GateText text = read_by(training);
  double expected = 1;
  for (int64_t s = 0; s < settings.steps; ++s) {
    training.accumulate(text);
    training.step();
    const double rate = std::min(
        {1.0, std::max((static_cast<double>(s) + 1) / 4, 0.1), std::max((20 - static_cast<double>(s)) / 4, 0.1)});
    expected -= 0.02 * rate;
    EXPECT_NEAR(training.gates().max().item<double>(), expected, 1e-4) << s;
  }
}

// Heads whose streaming costs nothing close, the others stay: penalty against distance.
TEST(StreamingGates, ThePenaltyClosesWhatIsNotNeeded) {
  const Model model = tiny_model(1, at::kFloat, 256);
  for (const double penalty : {0.0, 100.0}) {
    GateSettings settings = small_window();
    settings.steps = 60;
    settings.penalty = penalty;
    GateTraining training(model.decoder(), settings, at::kFloat);
    const GateText text = read_by(training);
    for (int64_t s = 0; s < settings.steps; ++s) {
      training.accumulate(text);
      training.step();
    }
    EXPECT_EQ(training.gates().max().item<double>() > 0.9, penalty == 0.0);
    EXPECT_GE(training.gates().min().item<double>(), 0.0);
  }
}

BudgetSearch search_into(const std::string& out) {
  BudgetSearch search;
  search.by = BudgetSearch::By::kGates;
  search.dataset = plugin_from_text<Dataset>("dataset", "{dataset: test_notes, documents: 2}", "--dataset");
  search.method = plugin_from_text<CompactionMethod>("method", "am_highest_attention", "--method");
  search.check = 0;
  search.gates = small_window();
  search.gates.steps = 24;
  search.out = out;
  search.curves_file = out + ".curves.jsonl";
  search.quiet = true;
  search.load_model = [](const ModelConfig&) { return tiny_model(1, at::kFloat, 1024); };
  return search;
}

TEST(StreamingGates, ASearchWritesWhatTheRuleReadsAndGoesOnToTheSameBytes) {
  const TemporaryFolder folder;
  const BudgetSearch whole = search_into(folder.file("whole.tsv"));
  const Json report = search_budget(whole);
  EXPECT_EQ(report.at("n_heads"), 4);
  EXPECT_EQ(report.at("course").back().at("step"), 24);
  EXPECT_THAT(budget_report_text(report), HasSubstr("of 4 heads need the whole text"));
  const auto rule =
      Registry<BudgetRule>::instance().create("duo_attention", {{"file", whole.out}, {"n_sink", 3}, {"n_recent", 5}});
  TargetSize target;
  target.fraction = 0.1;
  EXPECT_EQ(total_length(rule->spread({target, {{1000, 1000}, {1000, 1000}}})), 400);

  // Stopped behind the first state that was kept: the rest of the file is as if it had never been.
  const BudgetSearch again = search_into(folder.file("again.tsv"));
  const std::string text = read_text_file(whole.curves_file);
  const size_t second = text.find("\"step\":20");
  ASSERT_NE(second, std::string::npos);
  std::ofstream(again.curves_file) << text.substr(0, text.rfind('\n', second) - 5);  // a torn line at the end
  EXPECT_EQ(search_budget(again).dump(), report.dump());
  EXPECT_EQ(read_text_file(again.out), read_text_file(whole.out));

  // Slow steps are kept one by one: stopped between two values of the course.
  BudgetSearch slow = search_into(folder.file("slow.tsv"));
  slow.gates_kept_s = 0;
  EXPECT_EQ(search_budget(slow).dump(), report.dump());
  const std::string all = read_text_file(slow.curves_file);
  const size_t fourteenth = all.find("\"step\":14");
  ASSERT_NE(fourteenth, std::string::npos);
  std::ofstream(slow.curves_file) << all.substr(0, all.rfind('\n', fourteenth) + 1);
  std::filesystem::remove(slow.out);
  EXPECT_EQ(search_budget(slow).dump(), report.dump());
  EXPECT_EQ(read_text_file(slow.out), read_text_file(whole.out));
}

// Counted entry by entry, as the mix hides them.
TEST(StreamingGates, WhatIsHiddenIsCounted) {
  const GateSettings settings = small_window();
  const std::vector<GateText> texts = {some_text(40), some_text(11)};
  double expected = 0;
  for (const GateText& text : texts) {
    double hidden = 0, seen = 0;
    for (const int64_t token : text.rows) {
      for (int64_t entry = 0; entry <= token; ++entry) {
        ++seen;
        if (entry >= settings.n_sink && token - entry >= settings.n_recent) ++hidden;
      }
    }
    expected += hidden / seen / 2;
  }
  EXPECT_NEAR(hidden_share(texts, settings), expected, 1e-12);
  EXPECT_EQ(hidden_share({some_text(8)}, settings), 0);
}

// Gates that cannot tell heads apart: texts hardly longer than the window, steps that are too few for any to close.
TEST(StreamingGates, WarnsWhereGatesSayLittle) {
  GateSettings settings = small_window();
  settings.steps = 2000;
  EXPECT_THAT(gate_warnings({some_text(40)}, settings), ::testing::IsEmpty());
  // Of 7 + 8 + 10 entries before the answers' tokens, two of the last one's.
  EXPECT_THAT(gate_warnings({some_text(10)}, settings),
              ::testing::ElementsAre(::testing::AllOf(HasSubstr("a streaming head of 8 entries misses 8 % only"),
                                                      HasSubstr("take documents of 16 tokens or more"))));
  EXPECT_THAT(gate_warnings({some_text(20)}, settings), ::testing::IsEmpty());
  settings.steps = 10;  // of which the first and the last go half as far
  EXPECT_THAT(gate_warnings({some_text(40)}, settings),
              ::testing::ElementsAre(HasSubstr("in 10 steps a gate falls by 0.18 at most")));
  const std::string warning = gate_warnings({some_text(40)}, settings).at(0);
  settings.steps = std::stoll(warning.substr(warning.find("--steps ") + 8));
  EXPECT_THAT(gate_warnings({some_text(40)}, settings), ::testing::IsEmpty());
  --settings.steps;
  EXPECT_THAT(gate_warnings({some_text(40)}, settings), ::testing::SizeIs(1));

  const TemporaryFolder folder;
  BudgetSearch search = search_into(folder.file("x.tsv"));
  search.gates.n_recent = 200;
  const Json report = search_budget(search);
  EXPECT_EQ(report.at("warnings").size(), 2u);
  EXPECT_THAT(budget_report_text(report), HasSubstr("warning: of what an answer's token sees"));
}

TEST(StreamingGates, TextsWithinTheWindowAndStatesOfOtherModelsAreRefused) {
  const TemporaryFolder folder;
  BudgetSearch search = search_into(folder.file("x.tsv"));
  search.gates.n_recent = 5000;
  EXPECT_THAT(error_of([&] { search_budget(search); }), HasSubstr("no gate decides anything"));
  const Model model = tiny_model(1, at::kFloat, 256);
  GateTraining training(model.decoder(), small_window(), at::kFloat);
  EXPECT_THROW(training.restore({{"step", 3}, {"gates", {1.0}}}, "file"), Error);
}

}  // namespace
}  // namespace kvc
