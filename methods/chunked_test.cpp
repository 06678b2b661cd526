// Chunks tile the article; a chunked method is the method on each chunk.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "harness/attention/ragged_attention_cpu.h"
#include "harness/core/error.h"
#include "harness/testing/method_scene.h"
#include "methods/text_chunks.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::unique_ptr<CompactionMethod> chunked(const Json& options) {
  return Registry<CompactionMethod>::instance().create("chunked", options);
}
Json then(const std::string& method, const Json& queries = nullptr) {
  Json entry = {{"method", method}};
  if (!queries.is_null()) entry["queries"] = queries;
  return entry;
}

TEST(TextChunks, TileTheArticleWhateverTheCut) {
  const Scene& scene = Scene::of(at::kFloat);
  for (const char* marker : {"", "in", "The lake", "it.", "e"}) {
    for (const int64_t size : {1, 2, 7, 50, 10000}) {
      const auto chunks = cut_into_chunks(scene.model.tokenizer(), scene.context, marker, size);
      int64_t next = 0;
      for (const TextChunk& chunk : chunks) {
        EXPECT_EQ(chunk.first, next);
        EXPECT_GE(chunk.length, 1);
        EXPECT_LE(chunk.length, size);
        next += chunk.length;
      }
      EXPECT_EQ(next, scene.source_len()) << marker << " " << size;
    }
  }
}

TEST(TextChunks, BeginAtEachMarker) {
  // A token is a byte here, so tokens and bytes are counted alike.
  const Scene& scene = Scene::of(at::kFloat);
  const auto first = static_cast<int64_t>(kArticle.find("In winter"));
  const auto second = static_cast<int64_t>(kArticle.find("Old Mara"));
  ASSERT_EQ(scene.source_len(), static_cast<int64_t>(kArticle.size()));
  EXPECT_EQ(cut_into_chunks(scene.model.tokenizer(), scene.context, "In winter", 1000),
            (std::vector<TextChunk>{{0, first}, {first, scene.source_len() - first}}));
  EXPECT_EQ(cut_into_chunks(scene.model.tokenizer(), scene.context, "Old Mara", 1000).back().first, second);
  EXPECT_EQ(cut_into_chunks(scene.model.tokenizer(), scene.context, "The lake", 1000).size(), 1u);
  EXPECT_EQ(
      cut_into_chunks(scene.model.tokenizer(), scene.context, "", scene.source_len() - 1),
      (std::vector<TextChunk>{{0, scene.source_len() / 2}, {scene.source_len() / 2, (scene.source_len() + 1) / 2}}));
  EXPECT_THAT([&] { cut_into_chunks(scene.model.tokenizer(), scene.context, "<text_", 100); },
              ThrowsMessage<Error>(HasSubstr("the marker '<text_' does not occur")));
}

TEST(Chunked, KeepsTheTemplateAndEveryEntryAtABudgetOfEverything) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Scene& scene = Scene::of(dtype);
    for (const Json& entry :
         {then("key_norm"), then("snapkv", "context_prefill"), then("attention_matching", "repeat_prefill")}) {
      const auto method = chunked({{"size", 100}, {"then", entry}});
      const auto made = scene.compact(*method, {every_head(scene.source_len())});
      EXPECT_EQ(made[0].cache.n_entries(), scene.full.n_entries());
      EXPECT_EQ(made[0].cache.next_position(), scene.full.next_position());
      const double worst = (scene.logits(made[0].cache) - scene.logits(scene.full)).abs().max().item<double>();
      // Kernels with bfloat16 products round the weights of attention too.
      const bool rounds = cpu_attention_kernel(true).level == CpuLevel::kAvx512Bf16;
      EXPECT_LE(worst, dtype == at::kFloat ? 2e-4 : rounds ? 0.3 : 0.15) << entry.dump();
      EXPECT_EQ(made[0].notes.at("chunks"), 2);
    }
  }
}

TEST(Chunked, LengthsAreTheBudgetsHeadByHead) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto method = chunked({{"size", 30}, {"then", then("key_norm")}});
  const std::vector<HeadBudget> budgets = {ragged(scene), every_head(1), every_head(50)};
  const auto made = scene.compact(*method, budgets);
  for (size_t b = 0; b < budgets.size(); ++b) {
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      for (int64_t head = 0; head < kKvHeads; ++head) {
        EXPECT_EQ(made[b].cache.layer(layer).head_len(head), scene.template_len() + budgets[b].at(layer, head));
      }
    }
  }
}

TEST(Chunked, OneChunkOfAllIsTheMethodItself) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto alone = Registry<CompactionMethod>::instance().create("key_norm", Json::object());
  const auto whole = chunked({{"size", 10000}, {"then", then("key_norm")}});
  const HeadBudget budget = every_head(40);
  EXPECT_TRUE(same_bits(scene.compact(*whole, {budget})[0].cache, scene.compact(*alone, {budget})[0].cache));
}

// Of each chunk the entries of smallest key norm, in the order of the chunks: by hand.
TEST(Chunked, IsTheMethodOnEachChunk) {
  const Scene& scene = Scene::of(at::kFloat);
  const Json key_norm = {{"method", "key_norm"}, {"n_sink", 0}};
  const auto made = scene.compact(*chunked({{"size", 100}, {"then", key_norm}}), {every_head(10)});
  const auto chunks = cut_into_chunks(scene.model.tokenizer(), scene.context, "", 100);
  ASSERT_EQ(chunks.size(), 2u);
  const LayerKv& full = scene.full.layer(1);
  int64_t at = scene.context.prefix_len;
  for (const TextChunk& chunk : chunks) {
    const at::Tensor keys = full.head_keys(0).narrow(0, scene.context.prefix_len + chunk.first, chunk.length);
    const at::Tensor order = at::argsort(at::norm(keys, 2, 1), /*stable=*/true, 0, false);
    const int64_t share = (10 * chunk.length + scene.source_len() / 2) / scene.source_len();
    const at::Tensor kept = made[0].cache.layer(1).head_keys(0).narrow(0, at, share);
    EXPECT_TRUE(at::equal(kept, keys.index_select(0, order.narrow(0, 0, share))));
    at += share;
  }
}

TEST(Chunked, ReplayAndNestingGiveTheSameBits) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto method = chunked({{"size", 64}, {"then", then("attention_matching", "repeat_prefill")}});
  const auto both = scene.compact(*method, {every_head(60), every_head(12)});
  const auto small = scene.compact(*method, {every_head(12)});
  EXPECT_TRUE(same_bits(both[1].cache, small[0].cache));
  EXPECT_FALSE(same_bits(both[0].cache, both[1].cache));
}

TEST(Chunked, QueriesOfTheChunkStandAtItsPositions) {
  // The model's own queries of the second half, read behind the template at their true positions, differ from those at
  // the text's beginning; the first layer's depend on nothing but token and position.
  const Scene& scene = Scene::of(at::kFloat);
  const auto source = Registry<QuerySource>::instance().create("context_prefill", Json{{"max_queries", 100000}});
  const int64_t half = scene.source_len() / 2;
  Context slice = scene.context;
  slice.first_position = half;
  slice.tokens.erase(slice.tokens.begin() + slice.prefix_len, slice.tokens.begin() + slice.prefix_len + half);
  const auto whole = source->make({scene.model, scene.context, scene.full, 5});
  const auto part = source->make({scene.model, slice, scene.full, 5});
  const int64_t g = scene.model.spec().group_size();
  const int64_t n_whole = whole->n_queries() / g, n_part = part->n_queries() / g;
  ASSERT_EQ(n_part, scene.source_len() - half);
  const at::Tensor expected = whole->layer(0, nullptr).view({kKvHeads, g, n_whole, -1}).narrow(2, half, n_part);
  EXPECT_TRUE(at::allclose(part->layer(0, nullptr).view({kKvHeads, g, n_part, -1}), expected, 1e-5, 1e-5));
}

TEST(Chunked, MistakesAreTold) {
  EXPECT_THAT(
      [] {
        chunked({{"then", "chunked"}});
      },
      ThrowsMessage<Error>(HasSubstr("a chunked method within a chunked one")));
  EXPECT_THAT(
      [] {
        chunked({{"then", then("key_norm", "repeat_prefill")}});
      },
      ThrowsMessage<Error>(HasSubstr("this method takes no queries")));
  EXPECT_THAT([] { chunked({{"then", "no_context"}}); }, ThrowsMessage<Error>(HasSubstr("takes no target")));
  EXPECT_THAT([] { chunked({{"size", 0}}); }, ThrowsMessage<Error>(HasSubstr("'size' must be 1 or more; got 0")));
  const Scene& scene = Scene::of(at::kFloat);
  const auto method = chunked({{"then", then("key_norm")}});
  const Compaction once = std::move(scene.compact(*method, {every_head(50)})[0]);
  EXPECT_THAT(
      [&] {
        method->compact({scene.model,
                         scene.context,
                         once.cache,
                         {scene.context.prefix_len, scene.context.suffix_len},
                         nullptr,
                         {every_head(10)},
                         1});
      },
      ThrowsMessage<Error>(HasSubstr("compacted before has no chunks")));
}

}  // namespace
}  // namespace kvc
