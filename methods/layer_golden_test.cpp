// Methods that look at a whole layer or at the model keep what kvpress keeps of a layer of captured heads.
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
#include <map>
#include <optional>

#include "harness/api/budget_rule.h"
#include "harness/api/compaction_method.h"
#include "harness/model/formats/tensor_file.h"
#include "harness/testing/query_scene.h"

namespace kvc {
namespace {

constexpr int64_t kHeads = 3, kDim = 64, kHidden = 48;

// One layer of three KV heads with a query head each; the output projection is that of scripts/golden/layer_picks.py.
Model layer_model() {
  DecoderSpec spec = tiny_spec(4096);
  spec.n_layers = 1;
  spec.n_query_heads = spec.n_kv_heads = kHeads;
  spec.head_dim = kDim;
  DecoderWeights weights = random_weights(spec, 3);
  const at::TensorOptions exact(at::kDouble);
  const at::Tensor j = at::arange(kHidden, exact).unsqueeze(1), i = at::arange(kHeads * kDim, exact).unsqueeze(0);
  weights.layers[0].attention_output = at::sin(0.7 * j + 1.3 * i + 0.01 * j * i).to(at::kFloat) / 8;
  return {Decoder(spec, std::move(weights)),
          std::make_unique<BorrowedTokenizer>(std::make_shared<const Model>(tiny_model(3))),
          make_chat_template("chatml"), Json{{"content_hash", "layer"}}};
}

// Queries that are simply given; those of the context's own tokens where there is one for each.
class GivenQueries final : public LayerQueries {
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

 private:
  at::Tensor queries_;  // (Hkv, n, d)
  int64_t source_len_;
};

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
    const at::Tensor was = cache_->layer(0).head_values(head), is = cache.layer(0).head_values(head);
    std::vector<int64_t> list;
    for (int64_t i = 0; i < is.size(0); ++i) {
      const at::Tensor same = was.eq(is[i]).all(1).nonzero();
      EXPECT_EQ(same.numel(), 1);
      list.push_back(same.numel() > 0 ? same[0].item<int64_t>() : -1);
    }
    std::sort(list.begin(), list.end());
    return list;
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

  // How many cases each method has in the file, all of them checked.
  std::map<std::string, int> check_picks(const std::string& name) const {
    const Json golden = Json::parse(std::ifstream(KVC_SOURCE_DIR "/harness/testing/golden/" + name));
    std::map<std::string, int> n_cases;
    for (const Json& c : golden.at("cases")) {
      SCOPED_TRACE(c.at("method").get<std::string>() + c.at("options").dump() + c.at("sizes").dump());
      const KvCache cache = compact(c);
      for (int64_t head = 0; head < kHeads; ++head) {
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
                                                                         {"threshold", 3}}));
}

TEST_F(LayerGolden, PicksAreThoseOfAuthorsCode) {
  EXPECT_EQ(check_picks("authors_layer_picks.json"),
            (std::map<std::string, int>{{"defensive_kv", 3}, {"tri_attention", 6}}));
}

}  // namespace
}  // namespace kvc
