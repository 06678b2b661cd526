#include "harness/explain/mended_cache.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "harness/explain/explain_flip.h"
#include "harness/testing/method_scene.h"

namespace kvc {
namespace {

const Scene& scene() {
  return Scene::of(at::kFloat);
}
TokenSpan document() {
  const Context& context = scene().context;
  return {context.prefix_len, static_cast<int64_t>(context.tokens.size()) - context.suffix_len};
}
KvCache compacted(const std::string& name, const HeadBudget& budget, const Json& options = Json::object()) {
  const auto method = Registry<CompactionMethod>::instance().create(name, options);
  return std::move(scene().compact(*method, {budget}).front().cache);
}
double distance(const KvCache& a, const KvCache& b) {
  return (scene().logits(a) - scene().logits(b)).abs().max().item<double>();
}

// A bias can be defined and 0, and rows may stand in another order: what counts is what attention makes of it.
TEST(MendedCache, WholeTextBackIsTheFullCache) {
  for (const char* name : {"snapkv", "streaming_llm", "random_keys"}) {
    const KvCache compact = compacted(name, ragged(scene()));  // every head another length
    const MendedCache mended(scene().full, compact, document());
    EXPECT_EQ(mended.sources().unknown, 0) << name;
    EXPECT_EQ(mended.sources().by_value, 0);
    EXPECT_TRUE(mended.possible_repairs().empty());
    EXPECT_GT(distance(compact, scene().full), 1e-3);
    EXPECT_LT(distance(mended.restored({document()}), scene().full), 1e-4) << name;
    EXPECT_EQ(mended.restored({document()}).n_entries(), scene().full.n_entries());  // what was kept is not doubled
  }
}

TEST(MendedCache, FitsAreFoundAndUndone) {
  const KvCache compact = compacted("am_highest_attention", every_head(20));
  MendedCache mended(scene().full, compact, document());
  EXPECT_EQ(mended.sources().unknown, 0);
  EXPECT_TRUE(mended.sources().values_changed);
  EXPECT_TRUE(mended.sources().has_bias);
  EXPECT_FALSE(mended.sources().keys_changed);
  EXPECT_EQ(mended.possible_repairs(), (std::vector<Repair>{Repair::kBias, Repair::kValues, Repair::kFit}));
  mended.set_mass_bias({{1, 2}, {3, 4}});
  EXPECT_EQ(mended.possible_repairs()[1], Repair::kMass);
  // With biases and values undone it is a plain choice of entries, and with the rest of the text the full cache.
  EXPECT_LT(distance(mended.restored({document()}, Repair::kFit), scene().full), 1e-4);
  const KvCache plain = mended.repaired(Repair::kFit, {document()});
  EXPECT_EQ(plain.layer(0).bias.count_nonzero().item<int64_t>(), 0);
  const EntrySources sources = find_sources(plain, scene().full);
  EXPECT_FALSE(sources.values_changed);
  const KvCache mass = mended.repaired(Repair::kMass, {document()});
  EXPECT_FLOAT_EQ(mass.layer(1).bias[mass.layer(1).head_offsets[1] + scene().context.prefix_len].item<float>(), 4);
  EXPECT_EQ(mass.layer(1).bias[0].item<float>(), 0);  // the template's entries stay
}

TEST(MendedCache, RepairsReachTheirTokensOnly) {
  const KvCache compact = compacted("am_highest_attention", every_head(20));
  const MendedCache mended(scene().full, compact, document());
  const TokenSpans spans = {{document().first + 10, document().first + 40}};
  const KvCache repaired = mended.repaired(Repair::kValues, spans);
  for (int64_t row = 0; row < compact.layer(0).n_entries(); ++row) {
    const bool inside = holds(spans, mended.token_of(0, row));
    const at::Tensor expected =
        inside ? scene().full.layer(0).values[mended.sources().row[0][row]] : compact.layer(0).values[row];
    EXPECT_TRUE(at::equal(repaired.layer(0).values[row], expected)) << row;
  }
  EXPECT_TRUE(at::equal(repaired.layer(1).bias, compact.layer(1).bias));
}

TEST(MendedCache, KeptShareCountsHeadsAlone) {
  const KvCache all = compacted("streaming_llm", every_head(scene().source_len()));
  EXPECT_EQ(MendedCache(scene().full, all, document()).kept_share({document()}), 1);
  const KvCache some = compacted("streaming_llm", ragged(scene()));
  const double expected = static_cast<double>(37 + scene().source_len() + 5) / (4.0 * scene().source_len());
  EXPECT_NEAR(MendedCache(scene().full, some, document()).kept_share({document()}), expected, 1e-12);
}

// Keys of another kind: recognised by their values, and repaired.
TEST(MendedCache, ChangedKeys) {
  std::vector<LayerKv> layers;
  for (int64_t l = 0; l < kLayers; ++l) {
    layers.push_back(scene().full.layer(l));
    layers.back().keys = layers.back().keys * 0.5;
  }
  const KvCache compact(std::move(layers), scene().full.next_position());
  const MendedCache mended(scene().full, compact, document());
  EXPECT_EQ(mended.sources().by_value, scene().full.n_entries());
  EXPECT_EQ(mended.possible_repairs(), std::vector<Repair>{Repair::kKeys});
  const TokenSpan everything{0, static_cast<int64_t>(scene().context.tokens.size())};
  EXPECT_LT(distance(mended.repaired(Repair::kKeys, {everything}), scene().full), 1e-5);
}

// A cache of another text: nothing of it is known, text that is put back stands beside it.
TEST(MendedCache, OtherTexts) {
  const KvCache compact = compacted("summarize", every_head(12));
  const MendedCache mended(scene().full, compact, document());
  EXPECT_GT(mended.sources().unknown, 0);
  EXPECT_EQ(mended.possible_repairs(), std::vector<Repair>{Repair::kPosition});
  const KvCache both = mended.restored({document()});
  EXPECT_EQ(both.next_position(), scene().full.next_position());
  EXPECT_GT(both.n_entries(), compact.n_entries());
  EXPECT_EQ(mended.repaired(Repair::kPosition, {document()}).next_position(), scene().full.next_position());
}

// Whatever a method leaves can be looked into: with everything undone it is the full cache where every entry is known,
// and a cache that the model can read where not.
TEST(MendedCache, EveryMethod) {
  int64_t n_known = 0, n_unknown = 0;
  for (const std::string& name : Registry<CompactionMethod>::instance().names()) {
    if (name.starts_with("test_") || name == "cartridge") continue;  // trains for seconds; as merged caches do
    std::unique_ptr<CompactionMethod> method;
    try {
      method = Registry<CompactionMethod>::instance().create(name, Json::object());
    } catch (const Error&) {
      continue;  // needs options
    }
    const KvCache compact = std::move(scene().compact(*method, {every_head(20)}).front().cache);
    MendedCache mended(scene().full, compact, document());
    mended.set_mass_bias({{0, 0}, {0, 0}});
    for (const Repair repair : mended.possible_repairs())
      EXPECT_TRUE(scene().logits(mended.repaired(repair, {document()})).isfinite().all().item<bool>()) << name;
    const std::vector<Repair> repairs = mended.possible_repairs();
    const std::optional<Repair> all = repairs.empty() ? std::nullopt : std::optional(repairs.back());
    const KvCache restored = mended.restored({document()}, all);
    EXPECT_EQ(restored.next_position(), scene().full.next_position()) << name;
    EXPECT_TRUE(scene().logits(restored).isfinite().all().item<bool>()) << name;
    if (mended.sources().unknown > 0) {
      ++n_unknown;
      continue;
    }
    if (all == Repair::kPosition) continue;
    ++n_known;
    EXPECT_LT(distance(restored, scene().full), 1e-3) << name;
  }
  EXPECT_GE(n_known, 10);
  EXPECT_GE(n_unknown, 1);
}

TEST(WithNoise, IsOfTheSizeAskedAndRepeatsItself) {
  const Compactable span{scene().context.prefix_len, scene().context.suffix_len};
  const KvCache noisy = with_noise(scene().full, span, 0.1, 3), again = with_noise(scene().full, span, 0.1, 3);
  const at::Tensor exact = scene().full.layer(1).head_values(0), got = noisy.layer(1).head_values(0);
  EXPECT_TRUE(at::equal(got, again.layer(1).head_values(0)));
  EXPECT_FALSE(at::equal(got, with_noise(scene().full, span, 0.1, 4).layer(1).head_values(0)));
  EXPECT_TRUE(at::equal(got.narrow(0, 0, span.prefix_len), exact.narrow(0, 0, span.prefix_len)));
  const at::Tensor inner = exact.narrow(0, span.prefix_len, document().size());
  const at::Tensor error = got.narrow(0, span.prefix_len, document().size()) - inner;
  const double relative = (error.norm() / inner.norm()).item<double>();
  EXPECT_NEAR(relative, 0.1, 0.01);
}

}  // namespace
}  // namespace kvc
