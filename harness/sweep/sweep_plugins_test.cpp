#include "harness/sweep/sweep_plugins_test.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "harness/api/compaction_method.h"
#include "harness/api/dataset.h"
#include "harness/api/query_source.h"
#include "harness/api/task.h"

namespace kvc {

Calls& calls() {
  static Calls instance;
  return instance;
}

bool& flaky_fails() {
  static bool fails = false;
  return fails;
}

namespace {

struct TestNotes final : Dataset {
  struct Options {
    int64_t documents = 2;
    int64_t letters = 60;
    bool long_document = false;  // one more, longer than any model
    std::string version = "a";
    std::vector<std::string> topics;
    int64_t questions = 2;
    void fields(auto&& visit) {
      visit("documents", documents, "");
      visit("letters", letters, "");
      visit("long_document", long_document, "");
      visit("version", version, "");
      visit("topics", topics, "");
      visit("questions", questions, "");
    }
  };
  explicit TestNotes(Options o) : options(std::move(o)) {}
  std::vector<Document> load(const DatasetRequest& request) const override {
    std::vector<Document> list;
    for (int64_t i = 0; i < options.documents; ++i)
      list.push_back(make(fmt::format("note-{}", i), options.letters, request.seed, options.questions));
    if (options.long_document) list.push_back(make("long", 5000, request.seed, options.questions));
    return list;
  }
  Json identity() const override { return Json{{"content_hash", "notes-" + options.version}}; }

  static Document make(const std::string& id, int64_t letters, std::uint64_t seed, int64_t questions) {
    Document document{id, id, "", {}};
    std::uint64_t state = seed * 977 + std::hash<std::string>{}(id);
    for (int64_t i = 0; i < letters; ++i) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      document.text += static_cast<char>('a' + (state >> 33) % 26);
    }
    for (int64_t i = 0; i < questions; ++i) {
      Question question;
      question.id = fmt::format("{}/q{}", id, i);
      question.text = fmt::format("What is {}?", i);
      question.gold_answer = "x";
      question.extra = Json{{"number", i}};
      document.questions.push_back(question);
    }
    return document;
  }
  Options options;
};
KVC_REGISTER_DATASET(TestNotes, "test_notes", "test");

struct TestQueries final : QuerySource {
  struct Options {
    int64_t n = 4;
    bool refuse = false;
    void fields(auto&& visit) {
      visit("n", n, "");
      visit("refuse", refuse, "");
    }
  };
  explicit TestQueries(Options o) : options(o) {}
  struct Made final : LayerQueries {
    explicit Made(int64_t count) : n(count) {}
    at::Tensor layer(int64_t, const KvCache*) const override { return at::ones({2, n, 16}); }
    at::Tensor window(int64_t, int64_t n_tokens) const override { return at::ones({2, 2 * n_tokens, 16}); }
    int64_t n_queries() const override { return n; }
    int64_t bytes() const override { return 0; }
    int64_t n;
  };
  std::unique_ptr<LayerQueries> make(const QueryRequest&) const override {
    ++calls().queries;
    if (options.refuse)
      throw Error(ErrorKind::kData, "too few positions for the text twice", "test_queries", "a shorter text");
    return std::make_unique<Made>(options.n);
  }
  Options options;
};
KVC_REGISTER_QUERIES(TestQueries, "test_queries", "test");

// Prefix, entries [begin, begin + t) of the compactable span, suffix; values may be scaled.
KvCache keep_range(const CompactionRequest& request, const HeadBudget& budget, int64_t begin, double scale) {
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < request.cache.n_layers(); ++l) {
    std::vector<at::Tensor> keys, values;
    for (int64_t h = 0; h < request.cache.n_kv_heads(); ++h) {
      const int64_t length = request.cache.layer(l).head_len(h);
      const int64_t first = std::min(begin, request.compactable.source_len(length) - budget.at(l, h));
      const auto cut = [&](const at::Tensor& full) {
        const int64_t suffix = request.compactable.suffix_len;
        return at::cat({full.slice(0, 0, request.compactable.prefix_len),
                        full.slice(0, request.compactable.prefix_len + first,
                                   request.compactable.prefix_len + first + budget.at(l, h)),
                        full.slice(0, length - suffix, length)});
      };
      keys.push_back(cut(request.cache.layer(l).head_keys(h)));
      values.push_back(cut(request.cache.layer(l).head_values(h)) * scale);
    }
    layers.push_back(pack_heads(keys, values, std::vector<at::Tensor>(keys.size())));
  }
  return {std::move(layers), request.cache.next_position()};
}

Compaction result(KvCache cache) {
  return Compaction{std::move(cache), 0.25, 0.5, Json{{"fallbacks", 0}}};
}

class TestKeepFirst : public CompactionMethod {
 public:
  struct Options {
    int64_t begin = 0;
    void fields(auto&& visit) { visit("begin", begin, "first entry kept"); }
    void check(const OptionCheck& fail) const {
      if (begin < 0) fail("begin", fmt::format("is {}", begin), "0 or more");
    }
  };
  explicit TestKeepFirst(Options o) : options_(o) {}
  bool needs_target() const override { return true; }
  std::vector<Compaction> compact(const CompactionRequest& request) const override {
    ++calls().compacts;
    calls().budgets += static_cast<int64_t>(request.budgets.size());
    std::vector<Compaction> list;
    for (const HeadBudget& budget : request.budgets)
      list.push_back(result(keep_range(request, budget, options_.begin, 1.0)));
    return list;
  }

 private:
  Options options_;
};
KVC_REGISTER_METHOD(TestKeepFirst, "test_keep_first", "test");

class TestQueried final : public TestKeepFirst {
 public:
  using TestKeepFirst::TestKeepFirst;
  std::string published_queries() const override { return "test_queries"; }
  std::vector<Compaction> compact(const CompactionRequest& request) const override {
    if (request.queries == nullptr) throw Error(ErrorKind::kInternal, "no queries were given", "", "");
    return TestKeepFirst::compact(request);
  }
};
KVC_REGISTER_METHOD(TestQueried, "test_queried", "test");

struct TestFull final : CompactionMethod {
  using Options = NoOptions;
  explicit TestFull(Options) {}
  bool needs_target() const override { return false; }
  std::vector<Compaction> compact(const CompactionRequest& request) const override {
    ++calls().compacts;
    std::vector<Compaction> list;
    list.push_back(result(request.cache.clone()));
    return list;
  }
};
KVC_REGISTER_METHOD(TestFull, "test_full", "test");

// Broken on purpose.
class TestBroken final : public CompactionMethod {
 public:
  struct Options {
    std::string how = "dead_switch";
    void fields(auto&& visit) {
      visit("how", how, "dead_switch, random, lossy, greedy, beside, torch, memory, gpu_memory or small");
    }
  };
  explicit TestBroken(Options o) : how_(std::move(o.how)) {}
  bool needs_target() const override { return true; }
  std::vector<Compaction> compact(const CompactionRequest& request) const override {
    ++calls().compacts;
    if (how_ == "torch") at::ones({2, 3}).matmul(at::ones({2, 3}));
    if (how_ == "memory") throw std::bad_alloc();
    if (how_ == "gpu_memory") TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate 9 GiB.");
    std::vector<Compaction> list;
    for (size_t i = 0; i < request.budgets.size(); ++i) list.push_back(result(one(request, i)));
    return list;
  }

 private:
  KvCache one(const CompactionRequest& request, size_t index) const {
    HeadBudget budget = request.budgets[index];
    const int64_t asked = budget.at(0, 0);
    const int64_t all = request.context.article_len();
    if (how_ == "small" && asked < 10)
      throw Error(ErrorKind::kData, fmt::format("{} entries are too few", asked), "", "");
    if (how_ == "dead_switch" && asked < all) return keep_range(request, filled(budget, 3), 0, 1.0);
    if (how_ == "greedy" && asked < all) return keep_range(request, filled(budget, asked + 1), 0, 1.0);
    if (how_ == "random" && asked < all) return keep_range(request, budget, asked < all ? ++counter_ % 5 : 0, 1.0);
    if (how_ == "beside" && asked < all)
      return keep_range(request, budget, static_cast<int64_t>(request.budgets.size()), 1.0);
    return keep_range(request, budget, 0, how_ == "lossy" ? 0.5 : 1.0);
  }
  static HeadBudget filled(HeadBudget budget, int64_t length) {
    std::ranges::fill(budget.target_len.all(), length);
    return budget;
  }
  std::string how_;
  mutable int64_t counter_ = 0;
};
KVC_REGISTER_METHOD(TestBroken, "test_broken", "test");

struct TestFlaky final : CompactionMethod {
  using Options = NoOptions;
  explicit TestFlaky(Options) {}
  bool needs_target() const override { return true; }
  std::vector<Compaction> compact(const CompactionRequest& request) const override {
    if (flaky_fails()) throw Error(ErrorKind::kData, "the weather is bad", "", "wait");
    std::vector<Compaction> list;
    for (const HeadBudget& budget : request.budgets) list.push_back(result(keep_range(request, budget, 0, 1.0)));
    return list;
  }
};
KVC_REGISTER_METHOD(TestFlaky, "test_flaky", "test");

struct TestProbe final : ComparingTask<int64_t> {
  struct Options {
    std::string refuse;  // id of a document
    void fields(auto&& visit) { visit("refuse", refuse, "id of a document whose cells fail"); }
  };
  explicit TestProbe(Options o) : options(std::move(o)) {}
  bool accepts(const Question& question) const override { return question.options.empty(); }
  int64_t make_reference(const AskRequest& request) const override {
    ++calls().references;
    return request.cache.n_entries();
  }
  std::vector<Json> compare(const AskRequest& request, const int64_t& reference_entries) const override {
    ++calls().asks;
    if (!options.refuse.empty() && request.questions.front().id.rfind(options.refuse, 0) == 0) {
      throw Error(ErrorKind::kData, "this document cannot be asked", "", "");
    }
    double sum = 0;
    for (int64_t l = 0; l < request.cache.n_layers(); ++l) sum += request.cache.layer(l).keys.sum().item<double>();
    std::vector<Json> answers;
    for (const Question& question : request.questions) {
      answers.push_back(Json{{"question_id", question.id},
                             {"sum", sum},
                             {"seed", request.seed},
                             {"reference_entries", reference_entries}});
    }
    return answers;
  }
  Options options;
};
KVC_REGISTER_TASK(TestProbe, "test_probe", "test");

// Asks multiple choice only, which test_notes has none of.
struct TestChoice final : Task {
  using Options = NoOptions;
  explicit TestChoice(Options) {}
  bool accepts(const Question& question) const override { return !question.options.empty(); }
  std::vector<Json> ask(const AskRequest& request) const override {
    return std::vector<Json>(request.questions.size());
  }
};
KVC_REGISTER_TASK(TestChoice, "test_choice", "test");

}  // namespace
}  // namespace kvc
