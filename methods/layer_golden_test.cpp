// Methods that look at a whole layer or at the model keep what kvpress, the authors' code or transformers keep of a
// layer of captured heads or of a small model.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <optional>

#include "harness/api/budget_rule.h"
#include "harness/api/compaction_method.h"
#include "harness/api/read_document.h"
#include "harness/model/formats/tensor_file.h"
#include "harness/testing/query_scene.h"

namespace kvc {
namespace {

constexpr int64_t kHeads = 3, kDim = 64, kHidden = 48;

// One layer of three KV heads with a query head each, or three layers of one; the output projection of the first layer
// is that of scripts/golden/layer_picks.py.
Model layer_model(int64_t n_layers = 1) {
  DecoderSpec spec = tiny_spec(4096);
  spec.n_layers = n_layers;
  spec.n_query_heads = spec.n_kv_heads = kHeads / n_layers;
  spec.head_dim = kDim;
  DecoderWeights weights = random_weights(spec, 3);
  const at::TensorOptions exact(at::kDouble);
  const at::Tensor j = at::arange(kHidden, exact).unsqueeze(1);
  const at::Tensor i = at::arange(spec.n_query_heads * kDim, exact).unsqueeze(0);
  weights.layers[0].attention_output = at::sin(0.7 * j + 1.3 * i + 0.01 * j * i).to(at::kFloat) / 8;
  return {Decoder(spec, std::move(weights)),
          std::make_unique<BorrowedTokenizer>(std::make_shared<const Model>(tiny_model(3))),
          make_chat_template("chatml"), Json{{"content_hash", "layer"}}};
}

// Queries that are simply given; those of the context's own tokens where there is one for each.
class GivenQueries : public LayerQueries {
 public:
  GivenQueries(at::Tensor queries, int64_t source_len) : queries_(std::move(queries)), source_len_(source_len) {}
  at::Tensor layer(int64_t /*layer*/, const KvCache* /*compacted_below*/) const override { return queries_; }
  at::Tensor window(int64_t /*layer*/, int64_t n_tokens) const override {
    return queries_.narrow(1, n_queries() - n_tokens, n_tokens);
  }
  at::Tensor positions() const override {
    return n_queries() == source_len_ ? at::arange(source_len_, at::TensorOptions(at::kLong)) : at::Tensor();
  }
  at::Tensor input_norms(int64_t /*layer*/) const override {
    const at::Tensor i = at::arange(n_queries(), at::TensorOptions(at::kDouble));
    return (1 + 0.5 * at::sin(i)).to(at::kFloat);
  }
  int64_t n_queries() const override { return queries_.size(1); }
  int64_t bytes() const override { return 0; }

 protected:
  at::Tensor queries_;  // (Hkv, n, d)
  int64_t source_len_;
};

// The queries of all tokens read so far, as context_prefill gives them.
class QueriesSoFar final : public GivenQueries {
 public:
  explicit QueriesSoFar(const at::Tensor& queries) : GivenQueries(queries, queries.size(1)) {}
  bool knows_reach() const override { return true; }
  QueryReach reach(int64_t /*layer*/, int64_t /*kv_head*/) const override { return reach_from(0); }
  QueryReach window_reach(int64_t /*layer*/, int64_t /*kv_head*/, int64_t n_tokens) const override {
    return reach_from(n_queries() - n_tokens);
  }

 private:
  QueryReach reach_from(int64_t first) const {
    const at::Tensor positions = at::arange(first, n_queries(), at::TensorOptions(at::kLong));
    return {positions, at::full({n_queries() - first}, -std::numeric_limits<float>::infinity())};
  }
};

// Which rows of `was` those of `is` are, in ascending order.
std::vector<int64_t> entries_of(const at::Tensor& is, const at::Tensor& was) {
  std::vector<int64_t> list;
  for (int64_t i = 0; i < is.size(0); ++i) {
    const at::Tensor same = was.eq(is[i]).all(1).nonzero();
    EXPECT_EQ(same.numel(), 1);
    list.push_back(same.numel() > 0 ? same[0].item<int64_t>() : -1);
  }
  std::sort(list.begin(), list.end());
  return list;
}

class LayerGolden : public ::testing::Test {
 protected:
  LayerGolden() : model_(layer_model()) {
    const TensorFile file = read_tensor_file(KVC_SOURCE_DIR "/harness/testing/golden/captured_heads.safetensors");
    std::vector<at::Tensor> keys, values, queries;
    for (const char* head : {"L2H0", "L14H1", "L27H2"}) {
      keys.push_back(file.tensors.at(std::string(head) + ".K").to(at::kFloat));
      values.push_back(file.tensors.at(std::string(head) + ".V").to(at::kFloat));
      queries.push_back(file.tensors.at(std::string(head) + ".Q").to(at::kFloat));
    }
    source_len_ = keys[0].size(0);
    queries_ = at::stack(queries);
    std::vector<LayerKv> layers;
    layers.push_back(pack_heads(keys, values, {}));
    cache_.emplace(std::move(layers), source_len_);
    context_.tokens.assign(static_cast<size_t>(source_len_), 65);
    folder_ = std::filesystem::temp_directory_path() / fmt::format("kvc_layer_{}", ::getpid());
    std::filesystem::create_directories(folder_);
  }
  ~LayerGolden() override { std::filesystem::remove_all(folder_); }

  // What each head keeps: the sizes of the case, or what a budget rule makes of its target.
  HeadBudget budget_of(const Json& c) const {
    if (!c.contains("target")) return {{c.at("sizes").get<std::vector<int64_t>>()}};
    Json options;
    std::string rule;
    if (c.contains("duo_attention")) {
      rule = "duo_attention";
      const std::string file = folder_ / "gates.tsv";
      std::ofstream(file) << fmt::format("{}\n", fmt::join(c.at("duo_attention").get<std::vector<double>>(), "\t"));
      options = {{"file", file}, {"n_sink", 8}, {"n_recent", 16}};
    } else {
      rule = "lu_kv";
      options = {{"file", write_profile(c)}};
    }
    TargetSize target;
    target.unit = TargetSize::Unit::kEntries;
    target.entries = c.at("target").get<int64_t>();
    return Registry<BudgetRule>::instance()
        .create(rule, options)
        ->spread({target, {std::vector<int64_t>(kHeads, source_len_)}});
  }

  // A NumPy file of shape (99, 1, 3): the part of every head that is evicted, the same at every size.
  std::string write_profile(const Json& c) const {
    std::string header = "{'descr': '<f8', 'fortran_order': False, 'shape': (99, 1, 3), }";
    header.resize(117, ' ');
    header += '\n';
    std::string bytes = std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(header.size()) + '\0' + header;
    for (int step = 0; step < 99; ++step) {
      for (const double share : c.at("lu_kv").get<std::vector<double>>()) {
        const double evicted = 1 - c.at("target").get<double>() / static_cast<double>(source_len_) * share;
        char raw[8];
        std::memcpy(raw, &evicted, 8);
        bytes.append(raw, 8);
      }
    }
    const std::string file = folder_ / "profile.npy";
    std::ofstream(file, std::ios::binary) << bytes;
    return file;
  }

  KvCache compact(const Json& c) const {
    const auto method =
        Registry<CompactionMethod>::instance().create(c.at("method").get<std::string>(), c.at("options"));
    std::unique_ptr<GivenQueries> queries;
    if (c.contains("queries")) {
      queries = std::make_unique<GivenQueries>(queries_.narrow(1, 0, c.at("queries").get<int64_t>()), source_len_);
    }
    std::vector<HeadBudget> budgets;
    if (method->needs_target()) budgets.push_back(budget_of(c));
    return std::move(method->compact({model_, context_, *cache_, {0, 0}, queries.get(), budgets, 1}).front().cache);
  }

  // The entries of a head that are left, known by their values.
  std::vector<int64_t> kept(const KvCache& cache, int64_t head) const {
    return entries_of(cache.layer(0).head_values(head), cache_->layer(0).head_values(head));
  }

  // Turning all keys by one angle leaves their products as they are.
  static void expect_products(const Json& c, const KvCache& cache) {
    for (int64_t head = 0; head < kHeads; ++head) {
      const at::Tensor keys = cache.layer(0).head_keys(head).to(at::kDouble);
      const int64_t t = keys.size(0);
      size_t next = 0;
      for (int64_t i = 0; i < 4; ++i) {
        for (const int64_t j : {t - 1, t - 4, t - 9}) {
          const auto wanted = c.at("products").at(static_cast<size_t>(head)).at(next++).get<double>();
          EXPECT_NEAR(at::dot(keys[i], keys[j]).item<double>(), wanted, 2e-3 + 1e-5 * std::abs(wanted));
        }
      }
    }
  }

  // The three heads as layers of one head each, which share by the rule zigzag.
  void expect_shared_between_layers(const Json& c) const {
    const Model model = layer_model(kHeads);
    std::vector<LayerKv> layers;
    for (int64_t head = 0; head < kHeads; ++head)
      layers.push_back(
          pack_heads({cache_->layer(0).head_keys(head)}, {cache_->layer(0).head_values(head)}, {at::Tensor()}));
    const KvCache cache(std::move(layers), source_len_);
    TargetSize target;
    target.unit = TargetSize::Unit::kEntries;
    target.entries = c.at("target").get<int64_t>();
    const HeadBudget budget = Registry<BudgetRule>::instance()
                                  .create("zigzag", c.at("zigzag"))
                                  ->spread({target, HeadTable<int64_t>(kHeads, {source_len_})});
    const auto method =
        Registry<CompactionMethod>::instance().create(c.at("method").get<std::string>(), c.at("options"));
    const KvCache made =
        std::move(method->compact({model, context_, cache, {0, 0}, nullptr, {budget}, 1}).front().cache);
    for (int64_t layer = 0; layer < kHeads; ++layer) {
      EXPECT_EQ(entries_of(made.layer(layer).head_values(0), cache_->layer(0).head_values(layer)),
                c.at("indices").at(static_cast<size_t>(layer)).get<std::vector<int64_t>>())
          << "layer " << layer;
    }
  }

  // A refit moves the entries a little: each is the one whose key is nearest. `refit` has for every head how far all of
  // them move and some of the moved numbers.
  void expect_refit(const Json& c, const KvCache& cache) const {
    for (int64_t head = 0; head < kHeads; ++head) {
      const Json& wanted = c.at("refit").at(static_cast<size_t>(head));
      const auto indices = c.at("indices").at(static_cast<size_t>(head)).get<std::vector<int64_t>>();
      const at::Tensor keys = cache.layer(0).head_keys(head), values = cache.layer(0).head_values(head);
      const at::Tensor nearest = at::cdist(keys, cache_->layer(0).head_keys(head)).argmin(1);
      const at::Tensor order = nearest.argsort();
      std::vector<int64_t> found;
      for (int64_t i = 0; i < nearest.size(0); ++i) found.push_back(nearest[order[i]].item<int64_t>());
      ASSERT_EQ(found, indices) << head;
      const auto change = [&](const at::Tensor& now, const at::Tensor& whole) {
        return (now - whole.index_select(0, nearest)).to(at::kDouble).norm().item<double>();
      };
      const auto by_values = wanted.at("value_change").get<double>(), by_keys = wanted.at("key_change").get<double>();
      EXPECT_NEAR(change(values, cache_->layer(0).head_values(head)), by_values, 1e-4 * by_values) << head;
      EXPECT_NEAR(change(keys, cache_->layer(0).head_keys(head)), by_keys, 1e-4 * by_keys) << head;
      const auto t = static_cast<int64_t>(indices.size());
      size_t row = 0;
      for (const int64_t i : {int64_t{0}, t / 2, t - 1}) {
        for (int64_t x = 0; x < 4; ++x) {
          const auto at_golden = [&](const char* name) {
            return wanted.at(name).at(row).at(static_cast<size_t>(x)).get<double>();
          };
          EXPECT_NEAR(values[order[i]][x].item<double>(), at_golden("values"), 1e-4) << head << ' ' << i;
          EXPECT_NEAR(keys[order[i]][x].item<double>(), at_golden("keys"), 2e-4) << head << ' ' << i;
        }
        ++row;
      }
    }
  }

  // What is left after every cut of a layer that grows.
  void expect_events(const Json& c) const {
    const auto method =
        Registry<CompactionMethod>::instance().create(c.at("method").get<std::string>(), c.at("options"));
    const auto protects = c.at("protected").get<int64_t>(), t = c.at("target").get<int64_t>();
    int64_t n_read = 0;
    std::vector<HeadEntries> held(kHeads);
    const auto read_up_to = [&](int64_t end) {
      for (int64_t head = 0; head < kHeads; ++head) {
        const HeadEntries more = cache_->layer(0).head(head).slice(n_read, end - n_read);
        HeadEntries& own = held[static_cast<size_t>(head)];
        own = n_read == 0 ? more : join_entries({own, more});
      }
      n_read = end;
    };
    read_up_to(c.at("prompt").get<int64_t>());
    for (const Json& event : c.at("events")) {
      ASSERT_EQ(event.at("read").get<int64_t>(), n_read + c.at("every").get<int64_t>());
      read_up_to(event.at("read").get<int64_t>());
      std::vector<at::Tensor> keys, values;
      for (const HeadEntries& own : held) {
        keys.push_back(own.keys);
        values.push_back(own.values);
      }
      std::vector<LayerKv> layers;
      layers.push_back(pack_heads(keys, values, {}));
      const KvCache cache(std::move(layers), n_read);
      Context context;
      context.tokens.assign(static_cast<size_t>(n_read), 65);
      context.suffix_len = protects;
      const QueriesSoFar queries(queries_.narrow(1, 0, n_read));
      const HeadBudget budget{{std::vector<int64_t>(kHeads, t)}};
      const KvCache left =
          std::move(method->compact({model_, context, cache, {0, protects}, &queries, {budget}, 1}).front().cache);
      for (int64_t head = 0; head < kHeads; ++head) {
        EXPECT_EQ(kept(left, head), event.at("indices").at(static_cast<size_t>(head)).get<std::vector<int64_t>>())
            << "head " << head << " of " << n_read;
        held[static_cast<size_t>(head)] = left.layer(0).head(head);
      }
    }
  }

  // How many cases each method has in the file, all of them checked.
  std::map<std::string, int> check_picks(const std::string& name) const {
    const Json golden = Json::parse(std::ifstream(KVC_SOURCE_DIR "/harness/testing/golden/" + name));
    std::map<std::string, int> n_cases;
    for (const Json& c : golden.at("cases")) {
      SCOPED_TRACE(c.at("method").get<std::string>() + c.at("options").dump() + c.at("sizes").dump());
      if (c.contains("zigzag")) {
        expect_shared_between_layers(c);
        ++n_cases["zigzag"];
        continue;
      }
      const KvCache cache = compact(c);
      if (c.contains("refit")) expect_refit(c, cache);
      for (int64_t head = 0; head < kHeads && !c.contains("refit"); ++head) {
        EXPECT_EQ(kept(cache, head), c.at("indices").at(static_cast<size_t>(head)).get<std::vector<int64_t>>()) << head;
      }
      if (c.contains("products")) expect_products(c, cache);
      ++n_cases[c.contains("lu_kv")           ? "lu_kv"
                : c.contains("duo_attention") ? std::string("duo_attention")
                                              : c.at("method").get<std::string>()];
    }
    return n_cases;
  }

  Model model_;
  Context context_;
  std::optional<KvCache> cache_;
  at::Tensor queries_;
  int64_t source_len_ = 0;
  std::filesystem::path folder_;
};

TEST_F(LayerGolden, PicksAreThoseOfKvpress) {
  EXPECT_EQ(check_picks("layer_picks.json"), (std::map<std::string, int>{{"chunk_kv", 6},
                                                                         {"compactor", 6},
                                                                         {"critical_kv", 3},
                                                                         {"duo_attention", 2},
                                                                         {"kvcompose", 3},
                                                                         {"kvzip", 3},
                                                                         {"lu_kv", 3},
                                                                         {"q_filters", 3},
                                                                         {"simlayer_kv", 8},
                                                                         {"streaming_llm", 3},
                                                                         {"threshold", 3},
                                                                         {"zigzag", 9}}));
}

TEST_F(LayerGolden, PicksAreThoseOfAuthorsCode) {
  EXPECT_EQ(check_picks("authors_layer_picks.json"),
            (std::map<std::string, int>{{"defensive_kv", 3}, {"grkv", 6}, {"tri_attention", 6}}));
}

// As the task `reasoning` cuts with `every`.
TEST_F(LayerGolden, WhatIsLeftWhileWritingIsThatOfPublishedCode) {
  const Json golden = Json::parse(std::ifstream(KVC_SOURCE_DIR "/harness/testing/golden/decode_picks.json"));
  std::map<std::string, int> n_cases;
  for (const Json& c : golden.at("cases")) {
    SCOPED_TRACE(c.at("method").get<std::string>() + c.at("options").dump() + c.at("target").dump());
    EXPECT_EQ(c.at("events").size(), 3U);
    expect_events(c);
    ++n_cases[c.at("method").get<std::string>()];
  }
  EXPECT_EQ(n_cases, (std::map<std::string, int>{{"h2o", 3}, {"r_kv", 6}, {"tova", 3}, {"tri_attention", 3}}));
}

// {method: h2o, recent_fraction: 0, queries: dapq} is DapQ; the judge reads the tokens with transformers.
TEST(DapqGolden, PicksAreThoseOfTransformersAttention) {
  const std::string folder = KVC_SOURCE_DIR "/harness/testing/golden/";
  const Json text = Json::parse(std::ifstream(folder + "tiny_models/cases.json"));
  const Json golden = Json::parse(std::ifstream(folder + "dapq_picks.json"));
  const auto method = Registry<CompactionMethod>::instance().create("h2o", {{"recent_fraction", 0.0}});
  int n_cases = 0;
  std::map<std::string, Model> models;
  for (const Json& c : golden.at("cases")) {
    SCOPED_TRACE(c.at("gguf").dump() + c.at("n_first").dump() + c.at("t").dump());
    const auto file = c.at("gguf").get<std::string>();
    if (!models.contains(file)) {
      ModelConfig config;
      config.path = folder + "tiny_models/" + file;
      config.dtype = "float32";
      models.emplace(file, Model::load(config));
    }
    const Model& model = models.at(file);
    Context context;
    context.tokens = text.at("ids").get<std::vector<int64_t>>();
    const KvCache full = model.decoder().prefill(context.tokens);
    const auto queries = Registry<QuerySource>::instance()
                             .create("dapq", {{"n_tokens", 32}, {"n_first", c.at("n_first")}})
                             ->make({model, context, full, 5, nullptr});
    const auto t = c.at("t").get<int64_t>();
    const HeadBudget budget = every_head(full, t);
    const KvCache made =
        std::move(method->compact({model, context, full, {0, 0}, queries.get(), {budget}, 1}).front().cache);
    for (int64_t layer = 0; layer < full.n_layers(); ++layer) {
      for (int64_t head = 0; head < full.n_kv_heads(); ++head) {
        EXPECT_EQ(
            entries_of(made.layer(layer).head_keys(head), full.layer(layer).head_keys(head)),
            c.at("indices").at(static_cast<size_t>(layer)).at(static_cast<size_t>(head)).get<std::vector<int64_t>>())
            << "layer " << layer << ", head " << head;
      }
    }
    ++n_cases;
  }
  EXPECT_EQ(n_cases, 18);
}

}  // namespace
}  // namespace kvc
