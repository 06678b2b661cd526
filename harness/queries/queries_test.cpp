// Query sources against a plain forward pass over the same text, read in one go.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "harness/api/query_source.h"
#include "harness/core/error.h"
#include "harness/queries/captured_queries.h"
#include "harness/testing/checks.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr int64_t kLayers = 2, kKvHeads = 2, kGroup = 2, kDim = 16;

// A text of about `n_bytes`, which is as many tokens of the small model, without repetition.
std::string article(int64_t n_bytes) {
  std::string text;
  for (int64_t i = 0; static_cast<int64_t>(text.size()) < n_bytes; ++i) {
    text += fmt::format("House {} of the street has {} windows. ", i * i + 7, (i * 37 + 11) % 97);
  }
  return text.substr(0, static_cast<size_t>(n_bytes));
}

struct Scene {
  explicit Scene(int64_t n_bytes, int64_t max_positions = 8192, at::ScalarType dtype = at::kFloat)
      : model(tiny_model(21, dtype, max_positions)),
        context(make_context(model, article(n_bytes))),
        full(model.decoder().prefill(context.tokens)) {}

  std::unique_ptr<LayerQueries> make(const std::string& name, const Json& options, std::uint64_t seed = 1) const {
    return Registry<QuerySource>::instance().create(name, options)->make({model, context, full, seed});
  }

  // The text a source reads after `skip` tokens: the whole in one pass, queries of the rest, (L, N, Hq, d).
  at::Tensor judge(const std::string& name) const {
    std::vector<int64_t> tokens = context.tokens;
    int64_t skip = context.prefix_len;
    if (name == "repeat_prefill") {
      skip = static_cast<int64_t>(tokens.size());
      const std::vector<int64_t> turn = make_question_prompt(model, "Repeat the previous context verbatim.");
      tokens.insert(tokens.end(), turn.begin(), turn.end());
      tokens.insert(tokens.end(), context.tokens.begin() + context.prefix_len,
                    context.tokens.end() - context.suffix_len);
    }
    return read_at_once(tokens, skip);
  }

  at::Tensor read_at_once(const std::vector<int64_t>& tokens, int64_t skip) const {
    const KvCache empty = KvCache::empty(kLayers, kKvHeads, kDim, model.decoder().options());
    const auto n_tokens = static_cast<int64_t>(tokens.size());
    Tails tails = Tails::behind(empty, 1, n_tokens);
    std::vector<at::Tensor> layers(kLayers);
    model.decoder().forward(PackedTokens::single(tokens), empty, tails, [&](int64_t layer, const at::Tensor& queries) {
      layers[static_cast<size_t>(layer)] = queries.narrow(0, skip, n_tokens - skip).clone();
    });
    return at::stack(layers);
  }

  Model model;
  Context context;
  KvCache full;
};

// Query head g of KV head h, (n_tokens, d), out of (n, d) with the query head slow and the token fast.
at::Tensor query_head(const at::Tensor& pooled, int64_t member) {
  const int64_t n_tokens = pooled.size(0) / kGroup;
  return pooled.narrow(0, member * n_tokens, n_tokens);
}

// Which of the judge's tokens each captured query is; empty if one is none of them.
std::vector<int64_t> tokens_of(const at::Tensor& captured, const at::Tensor& all) {
  const at::Tensor distance = (captured.unsqueeze(1) - all.unsqueeze(0)).abs().amax(-1);
  const auto [smallest, index] = distance.min(1);
  if (smallest.max().item<float>() > 1e-4F) return {};
  return {index.const_data_ptr<int64_t>(), index.const_data_ptr<int64_t>() + index.numel()};
}

class TextSource : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Prefill, TextSource, ::testing::Values("context_prefill", "repeat_prefill"),
                         [](const auto& source) { return source.param; });

TEST(QuerySources, AreAllRegistered) {
  EXPECT_THAT(Registry<QuerySource>::instance().names(),
              UnorderedElementsAre("cache_keys", "calibration_text", "context_prefill", "dapq", "mix", "question",
                                   "random_vectors", "repeat_prefill", "self_study"));
}

// Whether the source's queries are those of `tokens` read behind the context, all of them.
void expect_queries_behind(const Scene& scene, const LayerQueries& queries, const std::vector<int64_t>& tokens) {
  std::vector<int64_t> all = scene.context.tokens;
  all.insert(all.end(), tokens.begin(), tokens.end());
  const at::Tensor judge = scene.read_at_once(all, static_cast<int64_t>(scene.context.tokens.size()));
  const auto n_tokens = static_cast<int64_t>(tokens.size());
  ASSERT_EQ(queries.n_queries(), kGroup * n_tokens);
  EXPECT_EQ(queries.positions()[0].item<int64_t>(), scene.full.next_position());
  EXPECT_TRUE(queries.knows_reach());
  for (int64_t l = 0; l < kLayers; ++l) {
    const at::Tensor layer = queries.layer(l, nullptr);
    for (int64_t h = 0; h < kKvHeads; ++h) {
      for (int64_t g = 0; g < kGroup; ++g) {
        const at::Tensor expected = judge[l].select(1, h * kGroup + g);
        EXPECT_LT((query_head(layer[h], g) - expected).abs().max().item<float>(), 1e-4) << l << ' ' << h << ' ' << g;
      }
    }
  }
}

TEST(Dapq, ReadsTheContextsEndsWhereAnAnswerWillStand) {
  const Scene scene(300);
  const std::vector<int64_t>& context = scene.context.tokens;
  std::vector<int64_t> tokens(context.begin(), context.begin() + 3);
  tokens.insert(tokens.end(), context.end() - 17, context.end());
  expect_queries_behind(scene, *scene.make("dapq", {{"n_tokens", 20}, {"n_first", 3}}), tokens);
  EXPECT_EQ(scene.make("dapq", Json::object())->n_queries(), kGroup * 32);
}

TEST(Dapq, RefusesATextThatIsTooShort) {
  const Scene scene(40);
  EXPECT_THAT(
      [&] {
        scene.make("dapq", {{"n_tokens", 4000}});
      },
      ::testing::ThrowsMessage<Error>(HasSubstr("dapq takes 4000 tokens of a context that has ")));
  EXPECT_THAT([&] { scene.make("dapq", {{"n_first", 33}}); }, ::testing::ThrowsMessage<Error>(HasSubstr("n_first")));
}

std::string write_text(const std::string& name, const std::string& content) {
  const std::string path = std::filesystem::temp_directory_path() / fmt::format("kvc_{}_{}", ::getpid(), name);
  std::ofstream(path) << content;
  return path;
}

// The text is read alone, at its own positions: what the document is makes no difference.
TEST(CalibrationText, IsReadWithoutTheDocument) {
  const std::string file = write_text("calibration.txt", article(400));
  const Scene scene(300), other(120);
  const Json options = {{"file", file}, {"tokens", 90}};
  const auto queries = scene.make("calibration_text", options);
  const std::vector<int64_t> tokens = [&] {
    auto all = scene.model.tokenizer().encode_text(article(400));
    all.resize(90);
    return all;
  }();
  const at::Tensor judge = scene.read_at_once(tokens, 0);
  ASSERT_EQ(queries->n_queries(), kGroup * 90);
  EXPECT_EQ(queries->positions()[0].item<int64_t>(), 0);
  EXPECT_FALSE(queries->knows_reach());
  for (int64_t l = 0; l < kLayers; ++l) {
    const at::Tensor layer = queries->layer(l, nullptr);
    EXPECT_TRUE(at::equal(layer, other.make("calibration_text", options)->layer(l, nullptr)));
    for (int64_t h = 0; h < kKvHeads; ++h) {
      for (int64_t g = 0; g < kGroup; ++g) {
        const at::Tensor expected = judge[l].select(1, h * kGroup + g);
        EXPECT_LT((query_head(layer[h], g) - expected).abs().max().item<float>(), 1e-4);
      }
    }
  }
  std::filesystem::remove(file);
}

// Another text, other cells; a text that is missing or too short says so.
TEST(CalibrationText, IsPartOfTheCell) {
  const auto* entry = Registry<QuerySource>::instance().find("calibration_text");
  const auto hash_of = [&](const std::string& content) {
    Problems problems;
    const Json complete = entry->complete({{"file", write_text("one.txt", content)}}, "", problems);
    EXPECT_TRUE(problems.empty());
    return complete.at("content_hash").get<std::string>();
  };
  EXPECT_NE(hash_of("one text"), hash_of("another"));
  EXPECT_EQ(hash_of("one text").size(), 16u);
  // A file that is not there is no mistake in the options: Error(kData), beside the other files that are missing.
  try {
    Registry<QuerySource>::instance().create("calibration_text", {{"file", "no/such.txt"}});
    ADD_FAILURE() << "a file that is not there was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    EXPECT_EQ(error.where(), "no/such.txt");
  }
  EXPECT_THAT([&] { Registry<QuerySource>::instance().create("calibration_text", Json::object()); },
              ::testing::ThrowsMessage<Error>(HasSubstr("'file' must name a text")));
  const Scene scene(60);
  EXPECT_THAT(
      [&] {
        scene.make("calibration_text", {{"file", write_text("short.txt", "x")}});
      },
      ::testing::ThrowsMessage<Error>(HasSubstr("the calibration text has 1 tokens")));
}

TEST(QuestionQueries, AreThoseOfTheQuestionAsItIsAsked) {
  const Scene scene(300);
  std::vector<Question> questions(1);
  questions[0].text = "How many windows has house 11?";
  questions[0].answer_prefix = "It has";
  const auto source = Registry<QuerySource>::instance().create("question", Json::object());
  const auto queries = source->make({scene.model, scene.context, scene.full, 1, &questions});
  expect_queries_behind(scene, *queries,
                        make_question_prompt(scene.model, questions[0].text, questions[0].answer_prefix));
  // Several are read beside each other, none sees another.
  questions.push_back(questions[0]);
  const auto twice = source->make({scene.model, scene.context, scene.full, 1, &questions});
  EXPECT_EQ(twice->n_queries(), 2 * queries->n_queries());
}

TEST(QuestionQueries, AreTheOnlyOnesThatKnowTheQuestion) {
  const Scene scene(60);
  for (const std::string& name : Registry<QuerySource>::instance().names()) {
    const Json options = name == "mix" ? Json{{"sources", {{{"queries", "cache_keys"}, {"fraction", 1}}}}}
                         : name == "calibration_text" ? Json{{"file", KVC_SOURCE_DIR "/LICENSE"}}
                                                      : Json::object();
    EXPECT_EQ(Registry<QuerySource>::instance().create(name, options)->question_aware(), name == "question") << name;
  }
  EXPECT_THAT([&] { scene.make("question", Json::object()); },
              ::testing::ThrowsMessage<Error>(HasSubstr("reads the question, and here none is asked")));
}

// Long enough for three chunks, the first of which holds template and article.
TEST_P(TextSource, CapturesWhatOnePlainForwardComputes) {
  const Scene scene(2300);
  const at::Tensor judge = scene.judge(GetParam());
  const std::unique_ptr<LayerQueries> queries = scene.make(GetParam(), {{"max_queries", 100000}});
  const int64_t n_tokens = judge.size(1);
  EXPECT_GE(n_tokens, 2300);
  ASSERT_EQ(queries->n_queries(), kGroup * n_tokens);
  for (int64_t l = 0; l < kLayers; ++l) {
    const at::Tensor layer = queries->layer(l, nullptr);
    ASSERT_EQ(layer.sizes().vec(), (std::vector<int64_t>{kKvHeads, kGroup * n_tokens, kDim}));
    for (int64_t h = 0; h < kKvHeads; ++h) {
      for (int64_t g = 0; g < kGroup; ++g) {
        const at::Tensor expected = judge[l].select(1, h * kGroup + g);
        EXPECT_LT((query_head(layer[h], g) - expected).abs().max().item<float>(), 1e-4) << l << ' ' << h << ' ' << g;
      }
    }
  }
}

// Three chunks; all queries, and a drawn subset of them.
TEST(ContextPrefill, TakesTheSameQueriesWhileTheContextIsRead) {
  const Scene scene(2300);
  for (const int64_t most : {100000, 101}) {
    const auto source = Registry<QuerySource>::instance().create("context_prefill", {{"max_queries", most}});
    const std::unique_ptr<QueryListener> listener = source->listen(scene.model, scene.context, 1);
    ASSERT_NE(listener, nullptr);
    scene.model.decoder().prefill(
        scene.context.tokens, /*chunk=*/0,
        [&](int64_t layer, int64_t first, const at::Tensor& queries) { listener->take(layer, first, queries); });
    const std::unique_ptr<LayerQueries> heard = listener->finish();
    const std::unique_ptr<LayerQueries> read = source->make({scene.model, scene.context, scene.full, 1});
    EXPECT_EQ(heard->n_queries(), read->n_queries());
    EXPECT_TRUE(heard->positions().equal(read->positions()));
    EXPECT_EQ(heard->notes(), read->notes());
    for (int64_t l = 0; l < kLayers; ++l) {
      EXPECT_TRUE(heard->layer(l, nullptr).equal(read->layer(l, nullptr))) << l;
      EXPECT_TRUE(heard->window(l, 32).equal(read->window(l, 32))) << l;
      const QueryReach a = heard->reach(l, 1), b = read->reach(l, 1);
      EXPECT_TRUE(a.positions.equal(b.positions) && a.text_log_mass.equal(b.text_log_mass)) << l;
    }
  }
}

// However the context's own queries come about, nobody has what they were projected from.
TEST(InputNorms, AreThoseOfTextsBehindTheContext) {
  const Scene scene(300);
  EXPECT_FALSE(scene.make("context_prefill", Json::object())->input_norms(0).defined());
  EXPECT_FALSE(scene.make("random_vectors", Json::object())->input_norms(0).defined());
  const auto queries = scene.make("repeat_prefill", {{"max_queries", 64}});
  EXPECT_EQ(queries->input_norms(1).numel(), queries->n_queries());
  EXPECT_GT(queries->input_norms(1).min().item<float>(), 0);
}

// Neither takes its queries from the context's own reading.
TEST(ContextPrefill, DoesNotListenWhereItsTextIsAnother) {
  const Scene scene(300);
  const auto& sources = Registry<QuerySource>::instance();
  EXPECT_EQ(sources.create("repeat_prefill", Json::object())->listen(scene.model, scene.context, 1), nullptr);
  EXPECT_EQ(sources.create("context_prefill", {{"on_policy", true}})->listen(scene.model, scene.context, 1), nullptr);
  Context slice = scene.context;
  slice.first_position = 10;
  EXPECT_EQ(sources.create("context_prefill", Json::object())->listen(scene.model, slice, 1), nullptr);
}

TEST_P(TextSource, KeepsTheModelsType) {
  const Scene scene(300, 8192, at::kBFloat16);
  const std::unique_ptr<LayerQueries> queries = scene.make(GetParam(), Json::object());
  EXPECT_EQ(queries->layer(0, nullptr).scalar_type(), at::kBFloat16);
  EXPECT_EQ(queries->window(0, 5).scalar_type(), at::kBFloat16);
}

TEST_P(TextSource, DrawsTheSameTokensForAllLayersAndHeads) {
  const Scene scene(1500);
  const at::Tensor judge = scene.judge(GetParam());
  const std::unique_ptr<LayerQueries> queries = scene.make(GetParam(), {{"max_queries", 101}});
  EXPECT_EQ(queries->n_queries(), 102);  // 51 for each of two query heads
  std::vector<int64_t> drawn;
  for (int64_t l = 0; l < kLayers; ++l) {
    const at::Tensor layer = queries->layer(l, nullptr);
    ASSERT_EQ(layer.sizes().vec(), (std::vector<int64_t>{kKvHeads, 102, kDim}));
    for (int64_t h = 0; h < kKvHeads; ++h) {
      for (int64_t g = 0; g < kGroup; ++g) {
        const std::vector<int64_t> tokens = tokens_of(query_head(layer[h], g), judge[l].select(1, h * kGroup + g));
        ASSERT_EQ(tokens.size(), 51U) << l << ' ' << h << ' ' << g;
        if (drawn.empty()) drawn = tokens;
        EXPECT_EQ(tokens, drawn) << l << ' ' << h << ' ' << g;
      }
    }
  }
  EXPECT_TRUE(std::adjacent_find(drawn.begin(), drawn.end(), std::greater_equal<>()) == drawn.end()) << "not ascending";
  // From all over the text, not from one end of it.
  const int64_t n_tokens = judge.size(1);
  EXPECT_LT(drawn.front(), n_tokens / 4);
  EXPECT_GT(drawn.back(), 3 * n_tokens / 4);
}

TEST_P(TextSource, DependsOnTheSeedAndNothingElse) {
  const Scene scene(600);
  const at::Tensor first = scene.make(GetParam(), {{"max_queries", 64}}, 5)->layer(1, nullptr);
  EXPECT_TRUE(at::equal(first, scene.make(GetParam(), {{"max_queries", 64}}, 5)->layer(1, nullptr)));
  EXPECT_FALSE(at::equal(first, scene.make(GetParam(), {{"max_queries", 64}}, 6)->layer(1, nullptr)));
}

TEST_P(TextSource, WindowIsTheEndOfTheTextWhateverTheCap) {
  const Scene scene(1500);
  const at::Tensor judge = scene.judge(GetParam());
  const std::unique_ptr<LayerQueries> queries = scene.make(GetParam(), {{"max_queries", 10}});
  for (const int64_t width : {int64_t{0}, int64_t{1}, int64_t{64}, LayerQueries::kMaxWindow}) {
    for (int64_t l = 0; l < kLayers; ++l) {
      const at::Tensor window = queries->window(l, width);
      ASSERT_EQ(window.sizes().vec(), (std::vector<int64_t>{kKvHeads, kGroup * width, kDim}));
      for (int64_t h = 0; width > 0 && h < kKvHeads; ++h) {
        for (int64_t g = 0; g < kGroup; ++g) {
          const at::Tensor expected = judge[l].select(1, h * kGroup + g).narrow(0, judge.size(1) - width, width);
          EXPECT_LT((query_head(window[h], g) - expected).abs().max().item<float>(), 1e-4);
        }
      }
    }
  }
  // The keys of a text behind the context are kept beside its queries; the context's own are in its cache.
  const int64_t n_keys = GetParam() == "repeat_prefill" ? judge.size(1) : 0;
  EXPECT_EQ(queries->bytes(), 4 * kLayers * kKvHeads * kDim * (10 + kGroup * LayerQueries::kMaxWindow + n_keys));
}

TEST_P(TextSource, RefusesAWindowItDoesNotHave) {
  const Scene scene(100);
  const std::unique_ptr<LayerQueries> queries = scene.make(GetParam(), Json::object());
  EXPECT_EQ(error_of(ErrorKind::kUsage, [&] { queries->window(0, 129); }),
            fmt::format("a window of 129 tokens, at most 128 are kept\n  where: {}\n"
                        "  mend:  ask for a window of 0 to 128 tokens",
                        GetParam()));
  EXPECT_THAT(error_of(ErrorKind::kUsage, [&] { queries->window(0, -1); }), HasSubstr("a window of -1 tokens"));
  const Scene tiny(1);
  const int64_t n_tokens = tiny.judge("context_prefill").size(1);
  ASSERT_LT(n_tokens, 20);
  EXPECT_THAT(error_of(ErrorKind::kData, [&] { tiny.make("context_prefill", Json::object())->window(0, 20); }),
              HasSubstr(fmt::format("a window of 20 tokens, the text read has {}", n_tokens)));
}

TEST_P(TextSource, LeavesTheCacheUntouched) {
  const Scene scene(1500);
  const KvCache before = scene.full.clone();
  scene.make(GetParam(), Json::object());
  EXPECT_EQ(scene.full.next_position(), before.next_position());
  for (int64_t l = 0; l < kLayers; ++l) {
    EXPECT_TRUE(at::equal(before.layer(l).keys, scene.full.layer(l).keys));
    EXPECT_TRUE(at::equal(before.layer(l).values, scene.full.layer(l).values));
  }
}

TEST_P(TextSource, RefusesACapBelowOne) {
  EXPECT_THAT(error_of(ErrorKind::kUsage,
                       [] {
                         Registry<QuerySource>::instance().create(GetParam(), {{"max_queries", 0}});
                       }),
              HasSubstr("max_queries"));
  EXPECT_THAT(error_of(ErrorKind::kUsage,
                       [] {
                         Registry<QuerySource>::instance().create(GetParam(), {{"max_querys", 5}});
                       }),
              HasSubstr("did you mean 'max_queries'?"));
}

TEST(RepeatPrefill, SaysHowManyPositionsAreMissingAndTheWaysOut) {
  const Scene scene(1000, 2000);
  const int64_t needed =
      static_cast<int64_t>(scene.context.tokens.size()) + scene.judge("context_prefill").size(1) -
      scene.context.suffix_len +
      static_cast<int64_t>(make_question_prompt(scene.model, "Repeat the previous context verbatim.").size());
  ASSERT_GT(needed, 2000);
  ASSERT_LT(needed, 3000);
  EXPECT_EQ(error_of(ErrorKind::kData, [&] { scene.make("repeat_prefill", Json::object()); }),
            fmt::format("repeat_prefill needs 2,{:03} positions, the model has "
                        "2,000\n  where: queries\n"
                        "  mend:  take context_prefill, a shorter document or "
                        "a model with a longer context",
                        needed - 2000));
  scene.make("context_prefill", Json::object());  // one of the ways out
}

TEST(RepeatPrefill, UsesTheLastPosition) {
  const Scene probe(600);
  const int64_t needed = static_cast<int64_t>(probe.context.tokens.size()) + probe.judge("repeat_prefill").size(1);
  const Scene fits(600, needed), too_long(600, needed - 1);
  EXPECT_GT(fits.make("repeat_prefill", Json::object())->n_queries(), 0);
  EXPECT_THAT(error_of(ErrorKind::kData, [&] { too_long.make("repeat_prefill", Json::object()); }), HasSubstr("needs"));
}

TEST(QueryCapture, NoticesTokensThatNeverCame) {
  const Scene scene(100);
  QueryCapture capture(scene.model.decoder(), std::vector<int64_t>(10, 0), 100, 1, "some_source");
  capture.take(0, 0, at::zeros({10, kKvHeads * kGroup, kDim}));
  capture.take(1, 0, at::zeros({9, kKvHeads * kGroup, kDim}));
  EXPECT_THAT(error_of(ErrorKind::kInternal, [&] { std::move(capture).finish(TextKeys(), 0); }),
              HasSubstr("queries of 9 tokens came, 10 were expected\n  where: "
                        "some_source, layer 1"));
}

}  // namespace
}  // namespace kvc
