// Explanations judged on flips whose cause is known by construction, on the demo model. One case of each cause runs
// here; KVC_EXPLAIN_CASES=25 build/release/explain_test --gtest_filter='Judge.*' is the whole judgement, whose figures
// stand in results/explain.md.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "harness/api/dataset.h"
#include "harness/core/stable_hash.h"
#include "harness/explain/asker.h"
#include "harness/explain/explain_flip.h"
#include "harness/explain/smallest_spans.h"
#include "harness/sweep/document_run.h"

namespace kvc {
namespace {

const std::string kModelFile = std::string(KVC_SOURCE_DIR) + "/models/smollm2-135m-instruct.gguf";

int64_t cases_wanted() {
  const char* const wanted = std::getenv("KVC_EXPLAIN_CASES");
  return wanted == nullptr ? 1 : std::strtol(wanted, nullptr, 10);
}

const Model& demo_model() {
  static const Model model = Model::load([] {
    ModelConfig config;
    config.path = kModelFile;
    config.dtype = "float32";
    return config;
  }());
  return model;
}

std::vector<Document> needle_documents(int64_t n, int64_t tokens) {
  const Json options = {{"path", std::string(KVC_SOURCE_DIR) + "/datasets/samples/quality_excerpts.jsonl"},
                        {"documents", n},
                        {"tokens", tokens},
                        {"needles", 3}};
  return Registry<Dataset>::instance()
      .create("needle", options)
      ->load({11, [](std::string_view text) {
                return static_cast<int64_t>(demo_model().tokenizer().encode_text(text).size());
              }});
}

// Tokens of the context that hold `words`, which stand in the document once.
TokenSpan tokens_of(const ReadDocument& read, const std::string& words) {
  std::string text;
  std::vector<size_t> ends;
  for (const int64_t token : read.context.article_tokens()) {
    text += demo_model().tokenizer().token_bytes(token);
    ends.push_back(text.size());
  }
  const size_t at = text.find(words);
  EXPECT_NE(at, std::string::npos) << words;
  const auto first = std::upper_bound(ends.begin(), ends.end(), at) - ends.begin();
  const auto last = std::lower_bound(ends.begin(), ends.end(), at + words.size()) - ends.begin();
  return {read.span.prefix_len + first, read.span.prefix_len + last + 1};
}

// Every head's entries changed alike. `dropped`: tokens whose entries are deleted.
KvCache changed(const ReadDocument& read, const std::vector<bool>& dropped,
                const std::function<HeadEntries(const HeadEntries&)>& change = {}) {
  std::vector<int64_t> kept;
  for (size_t i = 0; i < dropped.size(); ++i) {
    if (!dropped[i]) kept.push_back(static_cast<int64_t>(i));
  }
  const at::Tensor rows = at::tensor(kept, at::kLong);
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < read.full.n_layers(); ++l) {
    std::vector<HeadEntries> heads;
    for (int64_t h = 0; h < read.full.n_kv_heads(); ++h) {
      HeadEntries head = read.full.layer(l).head(h);
      if (change) head = change(head);
      heads.push_back({head.keys.index_select(0, rows), head.values.index_select(0, rows),
                       head.bias.defined() ? head.bias.index_select(0, rows) : at::Tensor()});
    }
    layers.push_back(pack_heads(heads));
  }
  return {std::move(layers), read.full.next_position()};
}

// A document and a question whose answer, a code, stands in it once.
struct Scene {
  const ReadDocument& read;
  const Question& question;
  const Task& task;
  std::string task_name;
  TokenSpan code;
  std::mt19937_64 random;

  // Each token of the document outside `spared` with this chance; never the template's.
  std::vector<bool> drawn(double chance, const TokenSpan& spared) {
    std::vector<bool> list(read.context.tokens.size(), false);
    for (int64_t i = read.span.prefix_len; i < static_cast<int64_t>(list.size()) - read.span.suffix_len; ++i) {
      const bool chosen = static_cast<double>(random() >> 11) * 0x1.0p-53 < chance;
      list[static_cast<size_t>(i)] = chosen && (i < spared.first || i >= spared.end);
    }
    return list;
  }
  bool right(const KvCache& cache) const {
    return Asker(demo_model(), task, task_name, question, read.full, 1).ask(cache).right();
  }
  Explanation explain(const KvCache& cache) const {
    ExplainSettings settings;
    if (cases_wanted() == 1) settings.draws = 4;
    return explain_flip({demo_model(), read, cache, task, task_name, question, 1}, settings);
  }
};

// What the judge counts.
struct Tally {
  int64_t cases = 0, labels = 0, covered = 0, repairs = 0;
  double asks = 0, seconds = 0;
  void add(const Explanation& found, const char* cause) {
    ++cases;
    labels += found.cause == cause ? 1 : 0;
    asks += static_cast<double>(found.asks);
    seconds += found.seconds;
    if (found.cause == cause) return;
    fmt::print("  {}: found '{}' {}: {}; margin {} -> {}, deviation {}\n", cause, found.cause, found.repair,
               found.sentence, found.tie.margin_full.value_or(NAN), found.tie.margin_compact.value_or(NAN),
               found.tie.margin_deviation.value_or(NAN));
  }
  void report(const char* what) const {
    const auto n = static_cast<double>(std::max<int64_t>(1, cases));
    fmt::print("{}: {} of {} labels, text covers the code in {}, repair named in {}; {:.0f} asks, {:.1f} s a flip\n",
               what, labels, cases, covered, repairs, asks / n, seconds / n);
  }
};

// Whether the pieces hold every digit of the code.
bool cover(const Explanation& found, const Scene& scene) {
  for (int64_t token = scene.code.first; token < scene.code.end; ++token) {
    const bool held = std::any_of(found.pieces.begin(), found.pieces.end(), [&](const TextPiece& piece) {
      const int64_t first = scene.read.span.prefix_len + piece.first_token;
      return token >= first && token < first + piece.n_tokens;
    });
    if (!held) return false;
  }
  return true;
}

class Judge : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kModelFile)) GTEST_SKIP() << "no demo model: " << kModelFile;
  }

  // Calls `visit` for questions that the full cache answers right, until it has said yes as often as wanted.
  template <class Visit>
  void for_each_needle(const Visit& visit) {
    const auto task = Registry<Task>::instance().create("exact_match", {{"max_new_tokens", 5}});
    int64_t left = cases_wanted();
    for (const Document& document : needle_documents(2 + 2 * left, 160)) {
      const ReadDocument read = ReadDocument::read(demo_model(), document.text);
      for (const Question& question : document.questions) {
        if (left == 0) return;
        Scene scene{read,
                    question,
                    *task,
                    "exact_match",
                    tokens_of(read, question.gold_answer),
                    std::mt19937_64(derive_seed(5, question.id))};
        if (scene.right(read.full) && visit(scene)) --left;
      }
    }
    EXPECT_EQ(left, 0) << "too few questions that the full cache answers";
  }
};

// The code's entries are deleted, and so is a part of the rest, without which the answer is still right.
TEST_F(Judge, DeletedCodesAreEvicted) {
  Tally tally;
  for_each_needle([&](Scene& scene) {
    std::vector<bool> dropped = scene.drawn(0.3, scene.code);
    if (!scene.right(changed(scene.read, dropped))) return false;
    for (int64_t i = scene.code.first; i < scene.code.end; ++i) dropped[static_cast<size_t>(i)] = true;
    const KvCache cache = changed(scene.read, dropped);
    if (scene.right(cache)) return false;
    const Explanation found = scene.explain(cache);
    tally.add(found, kEvicted);
    tally.covered += cover(found, scene) ? 1 : 0;
    tally.repairs += found.repair.empty() ? 1 : 0;
    return true;
  });
  tally.report("evicted");
  EXPECT_GE(tally.labels * 100, tally.cases * 95);
  EXPECT_GE(tally.covered * 100, tally.cases * 75);
}

// A part of the rest is deleted; the code's entries are there, but their bias keeps attention away.
TEST_F(Judge, BrokenBiasIsUnreachable) {
  Tally tally;
  for_each_needle([&](Scene& scene) {
    const std::vector<bool> dropped = scene.drawn(0.3, scene.code);
    if (!scene.right(changed(scene.read, dropped))) return false;
    const KvCache cache = changed(scene.read, dropped, [&](HeadEntries head) {
      head.bias = at::zeros({head.size()});
      head.bias.narrow(0, scene.code.first, scene.code.size()).fill_(-30);
      return head;
    });
    if (scene.right(cache)) return false;
    const Explanation found = scene.explain(cache);
    tally.add(found, kUnreachable);
    tally.covered += cover(found, scene) ? 1 : 0;
    tally.repairs += found.repair == "bias" ? 1 : 0;
    return true;
  });
  tally.report("unreachable, bias");
  EXPECT_GE(tally.labels * 100, tally.cases * 95);
  EXPECT_GE(tally.repairs * 100, tally.cases * 95);
}

// As before; the code's values are the mean of the document's.
TEST_F(Judge, BrokenValuesAreUnreachable) {
  Tally tally;
  for_each_needle([&](Scene& scene) {
    const std::vector<bool> dropped = scene.drawn(0.3, scene.code);
    if (!scene.right(changed(scene.read, dropped))) return false;
    const KvCache cache = changed(scene.read, dropped, [&](HeadEntries head) {
      head.values = head.values.clone();
      head.values.narrow(0, scene.code.first, scene.code.size()).copy_(head.values.mean(0, true));
      return head;
    });
    if (scene.right(cache)) return false;
    const Explanation found = scene.explain(cache);
    tally.add(found, kUnreachable);
    tally.covered += cover(found, scene) ? 1 : 0;
    tally.repairs += found.repair == "values" ? 1 : 0;
    return true;
  });
  tally.report("unreachable, values");
  EXPECT_GE(tally.labels * 100, tally.cases * 95);
  EXPECT_GE(tally.repairs * 100, tally.cases * 95);
}

// Two options of nearly the same score: a few deleted entries turn the answer.
TEST_F(Judge, PerturbedNearTiesAreUnused) {
  const auto task = Registry<Task>::instance().create("likelihood", Json::object());
  Tally tally;
  for (const Document& document : needle_documents(2 + cases_wanted(), 160)) {
    const ReadDocument read = ReadDocument::read(demo_model(), document.text);
    // Scored once, to find neighbours.
    Question pool;
    pool.id = "pool";
    pool.text = "What is this text about?";
    pool.gold_option = 0;
    for (const char* word :
         {"a long journey", "an old house", "a war",    "two brothers", "the sea",  "a trial",      "money",
          "a machine",      "the future",   "a doctor", "love",         "a letter", "a small town", "the law",
          "a storm",        "a secret",     "a planet", "music",        "a school", "a murder"})
      pool.options.emplace_back(word);
    const Json scored = Asker(demo_model(), *task, "likelihood", pool, read.full, 1).ask(read.full).answer;
    std::vector<std::pair<double, size_t>> order;
    for (size_t i = 0; i < pool.options.size(); ++i) {
      order.emplace_back(
          scored.at("option_log_likelihood")[i].get<double>() / scored.at("option_tokens")[i].get<double>(), i);
    }
    std::sort(order.rbegin(), order.rend());
    int64_t of_document = 0;
    for (size_t k = 0; k + 1 < order.size() && of_document < 3; ++k) {
      if (order[k].first - order[k + 1].first > 0.03) continue;
      Question question = pool;
      question.id = fmt::format("{}/{}", document.id, k);
      question.options = {pool.options[order[k].second], pool.options[order[k + 1].second]};
      Scene scene{read, question, *task, "likelihood", {}, std::mt19937_64(derive_seed(7, question.id))};
      for (int draw = 0; draw < 10; ++draw) {
        const KvCache cache = changed(read, scene.drawn(0.02, {}));
        if (scene.right(cache)) continue;
        tally.add(scene.explain(cache), kUnused);
        ++of_document;
        break;
      }
      if (tally.cases == cases_wanted()) break;
    }
    if (tally.cases == cases_wanted()) break;
  }
  tally.report("unused");
  EXPECT_EQ(tally.cases, cases_wanted());
  EXPECT_GE(tally.labels * 100, tally.cases * 95);
}

}  // namespace
}  // namespace kvc
