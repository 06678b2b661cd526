// On-policy queries: nothing lost gives those of off-policy, and one layer at a time those of running all layers below
// again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "harness/api/compaction_method.h"
#include "harness/queries/captured_queries.h"
#include "harness/queries/on_policy_queries.h"
#include "harness/testing/query_scene.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kLayers = 5;
// Largest difference of float32 queries of size 1 to 10: another order of sums. Measured 5e-6.
constexpr double kTolerance = 5e-5;

const QueryScene& scene() {
  static const QueryScene scene({.n_layers = kLayers});
  return scene;
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

// Every head another number of entries, with biases and changed values: no cache a method would make, but one that
// changes every layer above.
LayerKv lossy(const LayerKv& layer, int64_t index) {
  at::Generator generator = at::detail::createCPUGenerator(static_cast<std::uint64_t>(index) + 1);
  std::vector<at::Tensor> keys, values, bias;
  for (int64_t head = 0; head < layer.n_kv_heads(); ++head) {
    const int64_t kept = layer.head_len(head) / (3 + head + index);
    const at::Tensor rows = std::get<0>(
        at::sort(at::randperm(layer.head_len(head), generator, at::TensorOptions(at::kLong)).narrow(0, 0, kept)));
    keys.push_back(layer.head_keys(head).index_select(0, rows));
    values.push_back(layer.head_values(head).index_select(0, rows) * 1.5);
    bias.push_back(at::randn({kept}, generator, at::kFloat));
  }
  return pack_heads(keys, values, bias);
}

// Layers below `n_compacted` compacted, the others as they are.
KvCache partly_compacted(const KvCache& full, int64_t n_compacted) {
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < full.n_layers(); ++l)
    layers.push_back(l < n_compacted ? lossy(full.layer(l), l) : full.layer(l));
  return {std::move(layers), full.next_position()};
}

// The definition: all tokens of each text through layers 0 .. layer over `cache`, (N, Hq, d).
at::Tensor rerun(const QueryScene& on, const std::vector<std::vector<int64_t>>& texts, int64_t layer,
                 const KvCache& cache) {
  std::vector<at::Tensor> parts;
  for (const std::vector<int64_t>& text : texts) {
    const Decoder& decoder = on.model.decoder();
    const PackedTokens input = PackedTokens::single(text);
    Tails tails = Tails::behind(cache, 1, static_cast<int64_t>(text.size()));
    const std::vector<int64_t> places = decoder.positions(input, cache, tails);
    at::Tensor hidden = decoder.embed(text);
    for (int64_t l = 0; l <= layer; ++l) {
      hidden = decoder.run_layer(l, hidden, places, input.sequence_offsets, cache.layer(l), tails,
                                 [&](int64_t, const at::Tensor& q) {
                                   if (l == layer) parts.push_back(q.clone());
                                 });
    }
  }
  return at::cat(parts);
}

// Three short texts that are read together, and one longer than a pass.
std::vector<std::vector<int64_t>> some_texts() {
  std::vector<std::vector<int64_t>> texts;
  for (const int64_t length : {40, 7, 90, 1300, 20}) {
    texts.emplace_back();
    for (int64_t i = 0; i < length; ++i) texts.back().push_back((i * i * 31 + length) % 250);
  }
  return texts;
}

TEST(OnPolicy, WhereNothingIsLostTheQueriesAreThoseOfOffPolicy) {
  const Json cases[] = {{{"name", "context_prefill"}},
                        {{"name", "repeat_prefill"}},
                        {{"name", "self_study"}, {"max_new_tokens", 12}},
                        {{"name", "repeat_prefill"}, {"max_queries", 50}}};
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const QueryScene on({.n_layers = kLayers, .dtype = dtype});
    for (Json options : cases) {
      const std::string name = options.at("name");
      options.erase("name");
      const auto off = on.make(name, options);
      options["on_policy"] = true;
      const auto layered = on.make(name, options);
      ASSERT_TRUE(layered->on_policy());
      ASSERT_FALSE(off->on_policy());
      EXPECT_EQ(layered->n_queries(), off->n_queries());
      EXPECT_TRUE(at::equal(layered->positions(), off->positions()));
      EXPECT_EQ(layered->notes(), off->notes());
      for (int64_t l = 0; l < kLayers; ++l) {
        // bfloat16 rounds queries of size 10 to 2^-5; tokens of a pass are multiplied in other groups.
        const double tolerance = dtype == at::kFloat ? kTolerance : 0.2;
        const at::Tensor expected = off->layer(l, nullptr);
        const at::Tensor found = layered->layer(l, &on.full);
        EXPECT_EQ(found.scalar_type(), dtype);
        EXPECT_LT(distance(found, expected), tolerance) << name << ' ' << l;
        EXPECT_LT(distance(layered->window(l, 9), off->window(l, 9)), tolerance) << name << ' ' << l;
      }
    }
  }
}

TEST(OnPolicy, LayerByLayerEqualsRunningAllLayersBelowAgain) {
  QueryText text;
  text.sequences = some_texts();
  const auto queries = read_queries(scene().request(), text, {100000, true, "test"});
  for (int64_t l = 0; l < kLayers; ++l) {
    const KvCache below = partly_compacted(scene().full, l);
    const at::Tensor expected = pool_queries(rerun(scene(), text.sequences, l, below), 2);
    const at::Tensor found = queries->layer(l, &below);
    ASSERT_EQ(found.sizes(), expected.sizes());
    EXPECT_LT(distance(found, expected), kTolerance) << l;
    const at::Tensor off_policy = pool_queries(rerun(scene(), text.sequences, l, scene().full), 2);
    if (l == 0) {
      EXPECT_LT(distance(found, off_policy),
                kTolerance);  // nothing stands below
    } else {
      EXPECT_GT(distance(found, off_policy), 0.1) << "the compaction below must be felt, layer " << l;
    }
  }
}

TEST(OnPolicy, DrawsTheTokensThatOffPolicyDraws) {
  QueryText text;
  text.sequences = some_texts();
  text.n_skipped = 11;
  const auto all = read_queries(scene().request(), text, {100000, true, "test"});
  const auto some = read_queries(scene().request(), text, {60, true, "test"});
  const auto off = read_queries(scene().request(), text, {60, false, "test"});
  EXPECT_EQ(all->n_queries(), 2 * (1457 - 11));
  EXPECT_EQ(some->n_queries(), 60);
  EXPECT_TRUE(at::equal(some->positions(), off->positions()));
  EXPECT_EQ(some->positions().min().item<int64_t>() >= scene().full.next_position(), true);
  EXPECT_LT(distance(some->layer(0, &scene().full), off->layer(0, nullptr)), kTolerance);
  // The window is the end of the text: of each KV head's first query head here.
  const at::Tensor every = all->layer(0, &scene().full);
  EXPECT_LT(distance(every.narrow(1, 1446 - 30, 30), all->window(0, 30).narrow(1, 0, 30)), 1e-6);
}

// A method that makes the lossy cache and counts nothing but what it is asked.
class Thinning final : public PerHeadMethod {
 public:
  std::string published_queries() const override { return "repeat_prefill"; }

 protected:
  HeadFitter prepare(const HeadProblem& problem, int64_t) const override {
    // The keys that the mean query likes best: what is kept depends on the queries.
    const at::Tensor liked = at::mv(problem.keys.to(at::kFloat), problem.queries.to(at::kFloat).mean(0));
    return [&problem, order = at::argsort(liked, -1, true)](int64_t t) { return keep(problem, order.narrow(0, 0, t)); };
  }
};

TEST(OnPolicy, OneCompactionRunsEveryLayerOnce) {
  QueryText text;
  text.sequences = some_texts();
  const ReadSettings settings{64, true, "test"};
  const OnPolicyQueries* counted = nullptr;
  const std::unique_ptr<LayerQueries> queries = read_queries(scene().request(), text, settings);
  counted = dynamic_cast<const OnPolicyQueries*>(queries.get());
  ASSERT_NE(counted, nullptr);
  const auto budget = [](int64_t t) { return HeadBudget{{kLayers, std::vector<int64_t>(2, t)}, {}}; };
  const Compactable range{scene().context.prefix_len, scene().context.suffix_len};
  const CompactionRequest request{scene().model, scene().context, scene().full, range, queries.get(), {budget(30)}, 1};
  const std::vector<Compaction> alone = Thinning().compact(request);
  const Compaction& once = alone.front();
  EXPECT_EQ(counted->layers_entered(), kLayers);
  EXPECT_EQ(counted->layers_left(),
            kLayers - 1);  // nobody asks for what comes out of the last

  // Each budget for itself, and the result of one does not depend on the others.
  CompactionRequest both = request;
  both.budgets = {budget(90), budget(30)};
  const std::vector<Compaction> twice = Thinning().compact(both);
  EXPECT_EQ(counted->layers_entered(), 3 * kLayers);
  for (int64_t l = 0; l < kLayers; ++l) {
    EXPECT_TRUE(at::equal(twice[1].cache.layer(l).keys, once.cache.layer(l).keys));
  }

  // What was kept in the layers above is what the definition's queries keep.
  for (int64_t l = 1; l < kLayers; ++l) {
    std::vector<LayerKv> layers;
    for (int64_t below = 0; below < kLayers; ++below) {
      layers.push_back(below < l ? once.cache.layer(below) : scene().full.layer(below));
    }
    const KvCache below(std::move(layers), scene().full.next_position());
    const at::Tensor again = read_queries(scene().request(), text, settings)->layer(0, &below);
    const at::Tensor all = pool_queries(rerun(scene(), text.sequences, l, below), 2);
    const auto drawn = draw_sorted(1457, 32, 1);
    const at::Tensor rows = at::tensor(drawn, at::TensorOptions(at::kLong));
    const at::Tensor expected = all.view({2, 2, 1457, 16}).index_select(2, rows).flatten(1, 2);
    const KvCache& made = once.cache;
    for (int64_t head = 0; head < 2; ++head) {
      const at::Tensor source = scene().full.layer(l).head_keys(head).narrow(
          0, range.prefix_len, range.source_len(scene().full.layer(l).head_len(head)));
      const at::Tensor order = at::argsort(at::mv(source, expected[head].mean(0)), -1, true).narrow(0, 0, 30);
      EXPECT_LT(distance(made.layer(l).head_keys(head).narrow(0, range.prefix_len, 30), source.index_select(0, order)),
                1e-6)
          << l << ' ' << head;
    }
  }
}

TEST(OnPolicy, AskedWithoutACacheItIsOffPolicyInAnyOrder) {
  const auto off = scene().make("repeat_prefill", {{"max_queries", 40}});
  const auto on = scene().make("repeat_prefill", {{"max_queries", 40}, {"on_policy", true}});
  for (const int64_t l : {3, 1, 2, 4, 0, 4}) {
    EXPECT_LT(distance(on->layer(l, nullptr), off->layer(l, nullptr)), kTolerance) << l;
    EXPECT_LT(distance(on->window(l, 5), off->window(l, 5)), kTolerance) << l;
  }
}

TEST(OnPolicy, LayersOutOfOrderAreRefused) {
  const auto queries = scene().make("repeat_prefill", {{"on_policy", true}});
  EXPECT_THAT(error_of(ErrorKind::kInternal, [&] { queries->layer(1, &scene().full); }),
              HasSubstr("on-policy queries of layer 1 come before those below "
                        "it\n  where: repeat_prefill"));
  queries->layer(0, &scene().full);
  queries->layer(1, &scene().full);
  EXPECT_THAT(error_of(ErrorKind::kInternal, [&] { queries->layer(3, &scene().full); }), HasSubstr("layer 3"));
  EXPECT_THAT(error_of(ErrorKind::kInternal, [&] { queries->window(0, 5); }), HasSubstr("a window of layer 0"));
  EXPECT_NO_THROW(queries->layer(0, &scene().full));  // the next budget
  // A layer asked for off-policy in between does not stand for the compacted one.
  queries->layer(1, &scene().full);
  queries->layer(2, nullptr);
  EXPECT_THAT(error_of(ErrorKind::kInternal, [&] { queries->layer(3, &scene().full); }), HasSubstr("layer 3"));
}

TEST(OnPolicy, HoldsOneLayerOfTheTokens) {
  const auto queries = scene().make("repeat_prefill", {{"max_queries", 40}, {"on_policy", true}});
  const int64_t n_tokens =
      static_cast<int64_t>(make_question_prompt(scene().model, "Repeat the previous context verbatim.").size() +
                           scene().context.article_tokens().size());
  EXPECT_EQ(queries->bytes(), 4 * (n_tokens * 48 + LayerQueries::kMaxWindow * 64));
}

TEST(Passes, TileTheTokensAndKeepSequencesApart) {
  const std::vector<std::vector<int64_t>> texts = some_texts();
  const std::vector<ReadPass> passes = plan_passes(texts, 1000, 100);
  int64_t token = 0;
  std::vector<int64_t> places;
  for (const ReadPass& pass : passes) {
    EXPECT_EQ(pass.first_token, token);
    EXPECT_LE(pass.n_tokens(), 100);
    EXPECT_EQ(pass.positions.size(), static_cast<size_t>(pass.n_tokens()));
    if (pass.capacity == 0) {
      EXPECT_EQ(pass.batch(), 1);
    }
    token += pass.n_tokens();
    places.insert(places.end(), pass.positions.begin(), pass.positions.end());
  }
  std::vector<int64_t> expected;
  for (const auto& text : texts) {
    for (size_t i = 0; i < text.size(); ++i) expected.push_back(1000 + static_cast<int64_t>(i));
  }
  EXPECT_EQ(places, expected);
  ASSERT_EQ(passes.size(), 2U + 13U + 1U);  // {40, 7}, {90}, 13 x 100, {20}
  EXPECT_EQ(passes[0].sequence_offsets, (std::vector<int64_t>{0, 40, 47}));
  EXPECT_EQ(passes[0].capacity, 40);
  EXPECT_EQ(passes[2].capacity, 1300);
  EXPECT_EQ(passes[3].capacity, 0);
  EXPECT_EQ(passes.back().capacity, 20);
}

}  // namespace
}  // namespace kvc
