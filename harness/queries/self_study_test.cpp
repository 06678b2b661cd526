// Self-study: conversations are written, read for queries, stored, and read back to the same queries.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "harness/queries/captured_queries.h"
#include "harness/queries/read_queries.h"
#include "harness/queries/study_conversations.h"
#include "harness/queries/study_writer.h"
#include "harness/testing/query_scene.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

const QueryScene& scene() {
  static const QueryScene scene({});
  return scene;
}

Json options(const std::vector<std::string>& conversations, int64_t max_new_tokens = 12) {
  return {{"conversations", conversations}, {"max_new_tokens", max_new_tokens}, {"max_queries", 100000}};
}

bool same_queries(const LayerQueries& a, const LayerQueries& b) {
  bool same = at::equal(a.positions(), b.positions());
  for (int64_t l = 0; l < 2; ++l) {
    same = same && at::equal(a.layer(l, nullptr), b.layer(l, nullptr)) && at::equal(a.window(l, 5), b.window(l, 5));
  }
  return same;
}

// --- what is read
// -----------------------------------------------------------------------------------------------------

TEST(SelfStudy, ReadsEachConversationAloneBehindTheContext) {
  const StudyTexts texts = write_study(scene().request(), {{"summarize", "repeat", "aggregate"}, 12, true});
  const auto queries = scene().make("self_study", options({"summarize", "repeat", "aggregate"}));
  ASSERT_EQ(texts.conversations.size(), 3U);
  std::vector<at::Tensor> expected(2);
  std::vector<int64_t> positions;
  for (const StudyConversation& conversation : texts.conversations) {
    EXPECT_EQ(conversation.prompt, make_question_prompt(scene().model, study_kind(conversation.kind).prompt));
    std::vector<int64_t> tokens = conversation.prompt;
    tokens.insert(tokens.end(), conversation.said.begin(), conversation.said.end());
    Tails tails = Tails::behind(scene().full, 1, static_cast<int64_t>(tokens.size()));
    scene().model.decoder().forward(PackedTokens::single(tokens), scene().full, tails,
                                    [&](int64_t layer, const at::Tensor& q) {
                                      at::Tensor& all = expected[static_cast<size_t>(layer)];
                                      all = all.defined() ? at::cat({all, q}) : q.clone();
                                    });
    for (size_t i = 0; i < tokens.size(); ++i) {
      positions.push_back(scene().full.next_position() + static_cast<int64_t>(i));
    }
  }
  EXPECT_EQ(texts.conversations[1].said, scene().context.article_tokens());
  for (int64_t l = 0; l < 2; ++l) {
    const at::Tensor pooled = pool_queries(expected[static_cast<size_t>(l)], 2);
    ASSERT_EQ(queries->layer(l, nullptr).sizes(), pooled.sizes());
    EXPECT_LT((queries->layer(l, nullptr) - pooled).abs().max().item<float>(), 1e-4F);
  }
  EXPECT_TRUE(at::equal(queries->positions(), at::tensor(positions, at::TensorOptions(at::kLong)).repeat({2})));
}

TEST(SelfStudy, ItsTextsAreWhatTheModelWrites) {
  const StudyTexts texts = write_study(scene().request(7), {{"summarize", "3_question"}, 12, true});
  // Role A's writing is one of a random model: text without an end, which is one starter or several.
  ASSERT_EQ(texts.seeds.size(), 1U);
  EXPECT_EQ(texts.seeds[0].at("kind"), "3_question");
  const std::vector<std::string> starters =
      find_starters(study_kind("3_question"), texts.seeds[0].at("text").get<std::string>(), false);
  ASSERT_FALSE(starters.empty());
  ASSERT_EQ(texts.conversations.size(), 1 + starters.size());
  EXPECT_EQ(texts.conversations[0].starter, study_kind("summarize").prompt);
  for (size_t i = 0; i < starters.size(); ++i) {
    const StudyConversation& conversation = texts.conversations[1 + i];
    EXPECT_EQ(conversation.starter, starters[i]);
    EXPECT_EQ(conversation.prompt, make_question_prompt(scene().model, starters[i]));
  }
  for (const StudyConversation& conversation : texts.conversations) {
    EXPECT_LE(conversation.said.size(), 12U);
    EXPECT_EQ(conversation.stop_reason == "length", conversation.said.size() == 12U);
    std::string spelled;
    for (const int64_t token : conversation.said) spelled += scene().model.tokenizer().token_bytes(token);
    EXPECT_EQ(conversation.answer, spelled);
  }
}

TEST(SelfStudy, TheSeedDecidesEveryText) {
  const auto texts = [](std::uint64_t seed) {
    return scene().make("self_study", options({"summarize", "question", "aggregate"}), seed)->notes();
  };
  EXPECT_EQ(texts(3), texts(3));
  const Json one = texts(3).at("self_study").at("texts"), other = texts(4).at("self_study").at("texts");
  EXPECT_NE(one[0].at("answer"), other[0].at("answer"));
  EXPECT_NE(one[0].at("answer"), one.back().at("answer"));  // a stream of its own for each
}

TEST(SelfStudy, CapsItsQueries) {
  Json some = options({"summarize", "aggregate"});
  some["max_queries"] = 31;
  const auto queries = scene().make("self_study", some);
  EXPECT_EQ(queries->n_queries(), 32);
  EXPECT_EQ(queries->window(0, 9).size(1), 18);
}

// --- replay
// -----------------------------------------------------------------------------------------------------------

TEST(SelfStudy, ReplayGivesTheSameQueriesToTheBit) {
  Json given = options({"summarize", "3_question", "repeat"});
  given["max_queries"] = 90;
  const auto written = scene().make("self_study", given, 5);
  // As a runner would keep it: among other things, a record a line, one line torn.
  const Json record = {{"id", "x"}, {"notes", {{"queries", Json{{"mix", Json::array({written->notes()})}}}}}};
  const TemporaryFolder file_folder;
  const std::string file = file_folder.write("notes.jsonl", "{\"id\": \"other\"}\n" + record.dump() + "\n{\"torn");
  given["replay"] = file;
  const auto replayed = scene().make("self_study", given, 5);
  EXPECT_TRUE(same_queries(*written, *replayed));
  EXPECT_EQ(written->notes(), replayed->notes());
  given["on_policy"] = true;
  const auto on_policy = scene().make("self_study", given, 5);
  for (int64_t l = 0; l < 2; ++l) {
    EXPECT_LT((on_policy->layer(l, &scene().full) - written->layer(l, nullptr)).abs().max().item<float>(), 1e-4F);
  }
}

TEST(SelfStudy, ReplayReadsTheFileAndWritesNothing) {
  Json given = options({"summarize"});
  const auto written = scene().make("self_study", given, 5);
  Json notes = written->notes();
  notes["self_study"]["texts"][0]["answer_tokens"] = {1, 2, 3};
  const TemporaryFolder file_folder;
  const std::string file = file_folder.write("notes.jsonl", notes.dump(2));  // one value over many lines
  given["replay"] = file;
  const auto replayed = scene().make("self_study", given, 5);
  const std::vector<int64_t> prompt = make_question_prompt(scene().model, study_kind("summarize").prompt);
  EXPECT_EQ(replayed->n_queries(), 2 * (static_cast<int64_t>(prompt.size()) + 3));
  EXPECT_EQ(replayed->notes(), notes);
}

TEST(SelfStudy, ReplayTakesTheTextsOfItsSeed) {
  Json given = options({"summarize"});
  const auto one = scene().make("self_study", given, 1), two = scene().make("self_study", given, 2);
  const TemporaryFolder both_folder;
  const std::string both = both_folder.write(
      "notes.jsonl", one->notes().dump() + "\n" + two->notes().dump() + "\n" + one->notes().dump() + "\n");
  given["replay"] = both;
  EXPECT_TRUE(same_queries(*two, *scene().make("self_study", given, 2)));
  EXPECT_THAT(error_of(ErrorKind::kData, [&] { scene().make("self_study", given, 9); }),
              HasSubstr("the file has 3 self-studies of this document but none with seed 9"));
  const TemporaryFolder only_folder;
  const std::string only = only_folder.write("notes.jsonl", one->notes().dump());
  given["replay"] = only;
  EXPECT_EQ(scene().make("self_study", given, 9)->notes(), one->notes());
}

TEST(SelfStudy, ReplayRefusesTextsOfSomethingElse) {
  Json given = options({"summarize"});
  const Json notes = scene().make("self_study", given)->notes();
  const TemporaryFolder file_folder;
  const std::string file = file_folder.write("notes.jsonl", notes.dump());
  given["replay"] = file;
  const auto message = [&](const QueryScene& of, const Json& with) {
    return error_of(ErrorKind::kData, [&] { of.make("self_study", with); });
  };
  EXPECT_THAT(message(QueryScene({}, 301), given),
              HasSubstr("the file has self-study texts of 1 other documents but none of this one"));
  EXPECT_THAT(message(QueryScene({.seed = 22}), given),
              HasSubstr("were written by another model (small-2-21, this is small-2-22)"));
  Json other = given;
  other["conversations"] = {"aggregate"};
  EXPECT_THAT(message(scene(), other), HasSubstr("are of other conversations (summarize)"));
  other = given;
  other["replay"] = file + "x";
  EXPECT_THAT(message(scene(), other), HasSubstr(file + "x"));
}

TEST(SelfStudy, ReplayBelievesNothing) {
  Json given = options({"summarize"});
  const Json notes = scene().make("self_study", given)->notes();
  const auto with = [&](const std::function<void(Json&)>& change) {
    Json changed = notes;
    change(changed["self_study"]);
    const TemporaryFolder file_folder;
    const std::string file = file_folder.write("notes.jsonl", changed.dump());
    Json replay = given;
    replay["replay"] = file;
    return error_of(ErrorKind::kData, [&] { scene().make("self_study", replay); });
  };
  EXPECT_THAT(with([](Json& study) { study["texts"][0]["answer_tokens"][0] = 300; }),
              HasSubstr("'answer_tokens' holds token 300 of a vocabulary of 300"));
  EXPECT_THAT(with([](Json& study) { study["texts"][0]["prompt_tokens"][0] = -1; }), HasSubstr("holds token -1"));
  EXPECT_THAT(with([](Json& study) { study["texts"][0]["prompt_tokens"][0] = "a"; }), HasSubstr("holds \"a\""));
  EXPECT_THAT(with([](Json& study) { study["texts"][0]["prompt_tokens"][0] = 18446744073709551615U; }),
              HasSubstr("holds token"));
  EXPECT_THAT(with([](Json& study) { study["texts"][0].erase("answer_tokens"); }),
              HasSubstr("must be a list of tokens"));
  EXPECT_THAT(with([](Json& study) { study["texts"][0] = 5; }), HasSubstr("must be a list of tokens"));
  EXPECT_THAT(with([](Json& study) { study["texts"] = Json::array(); }), HasSubstr("are empty"));
  EXPECT_THAT(with([](Json& study) { study["texts"] = 5; }), HasSubstr("are empty"));
  EXPECT_THAT(with([](Json& study) { study["texts"][0]["answer_tokens"] = std::vector<int64_t>(4096, 7); }),
              HasSubstr("needs 4,"));
  EXPECT_THAT(with([](Json& study) { study["document"] = Json::array(); }), HasSubstr("other documents"));
  EXPECT_THAT(with([](Json& study) { study.erase("texts"); }), HasSubstr("the file has no self-study texts"));
  EXPECT_THAT(with([](Json& study) { study["conversations"] = 7; }), HasSubstr("of other conversations"));
}

// --- thoughts
// ---------------------------------------------------------------------------------------------------------

// ChatML with Qwen3's switch; a prompt shows which way it is set.
constexpr const char* kSwitched =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}";

bool has_token(const std::vector<int64_t>& tokens, int64_t token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

TEST(SelfStudy, ThoughtsThatDoNotEndAreDropped) {
  const QueryScene thinker({.chat_template = kSwitched});
  // A random model does not come to write </think>: three attempts at a question fail.
  const StudyTexts texts = write_study(thinker.request(), {{"question", "summarize"}, 6, true});
  EXPECT_EQ(texts.seeds.size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(texts.seeds[i].at("attempt"), i + 1);
    EXPECT_EQ(texts.seeds[i].at("starters"), 0);
  }
  EXPECT_NE(texts.seeds[0].at("text"), texts.seeds[1].at("text"));
  ASSERT_EQ(texts.conversations.size(), 1U);  // summaries are written without thoughts
  EXPECT_TRUE(has_token(texts.conversations[0].prompt, 260));
  EXPECT_THAT(error_of(ErrorKind::kData,
                       [&] {
                         write_study(thinker.request(), {{"question"}, 6, true});
                       }),
              HasSubstr("self_study has no conversation: 3 writings of questions gave none"));
}

TEST(SelfStudy, WithoutThinkingTheSwitchIsOff) {
  const QueryScene thinker({.chat_template = kSwitched});
  const StudyTexts texts = write_study(thinker.request(), {{"question"}, 6, false});
  ASSERT_EQ(texts.seeds.size(), 1U);
  ASSERT_EQ(texts.conversations.size(), 1U);
  EXPECT_TRUE(has_token(texts.conversations[0].prompt, 260));
}

// A template that always opens the thoughts: there is no switch to set.
TEST(SelfStudy, APromptThatOpensThoughtsIsInThought) {
  std::string open = kSwitched;
  open = open.substr(0, open.find("{% if enable_thinking")) + "<think>\n{% endif %}";
  const QueryScene thinker({.chat_template = open});
  EXPECT_THAT(error_of(ErrorKind::kData,
                       [&] {
                         write_study(thinker.request(), {{"summarize"}, 6, false});
                       }),
              HasSubstr("1 answers never came out of thought"));
}

// --- positions and options
// --------------------------------------------------------------------------------------------

TEST(SelfStudy, SaysHowManyPositionsAreMissing) {
  const auto prompt = static_cast<int64_t>(make_question_prompt(scene().model, study_kind("summarize").prompt).size());
  const int64_t needed = scene().full.next_position() + prompt + 64;
  const QueryScene fits({.max_positions = needed}), short_of({.max_positions = needed - 1});
  // Up to the last position, which is read too: 64 tokens where more are asked for.
  const auto queries = fits.make("self_study", options({"summarize"}, 5000));
  EXPECT_LT(queries->positions().max().item<int64_t>(), needed);
  EXPECT_EQ(error_of(ErrorKind::kData, [&] { short_of.make("self_study", options({"summarize"}, 5000)); }),
            fmt::format("self_study needs {} positions, the model has {}\n  where: queries\n  mend:  take "
                        "context_prefill, a shorter document or a model with a longer context",
                        needed, needed - 1));
  EXPECT_GT(short_of.make("self_study", options({"summarize"}, 10))->n_queries(), 0);
  EXPECT_THAT(error_of(ErrorKind::kData,
                       [&] {
                         fits.make("self_study", options({"summarize", "repeat"}));
                       }),
              HasSubstr("self_study's 'repeat' needs"));
}

TEST(SelfStudy, ChecksItsOptions) {
  const auto message = [](const Json& given) {
    return error_of(ErrorKind::kUsage, [&] { Registry<QuerySource>::instance().create("self_study", given); });
  };
  EXPECT_THAT(message({{"conversations", {"sumarize"}}}), HasSubstr("or rephrase; got 'sumarize'"));
  EXPECT_THAT(message({{"conversations", {"sumarize"}}}), HasSubstr("did you mean 'summarize'?"));
  EXPECT_THAT(message({{"conversations", {"repeat", "repeat"}}}), HasSubstr("has 'repeat' twice"));
  EXPECT_THAT(message({{"conversations", Json::array()}}), HasSubstr("must name at least one"));
  EXPECT_THAT(message({{"max_new_tokens", -1}}), HasSubstr("'max_new_tokens' must be 0 or more; got -1"));
  EXPECT_THAT(message({{"max_queries", 0}}), HasSubstr("'max_queries' must be 1 or more; got 0"));
  EXPECT_EQ(message({{"conversations", "repeat"}}), "no error");  // a list of one
}

// A slice of a longer text: its tokens are read at the positions of their keys.
TEST(ContextPrefill, OfASliceStandsAtTheSlicesPositions) {
  const QueryScene whole({}, 500);
  Context slice = whole.context;
  const auto at = slice.tokens.begin() + slice.prefix_len;
  slice.first_position = 200;
  slice.tokens.erase(at + 350, at + 500);  // article tokens [200, 350) stay
  slice.tokens.erase(at, at + 200);
  ASSERT_EQ(slice.article_len(), 150);
  for (const bool on_policy : {false, true}) {
    const auto queries = Registry<QuerySource>::instance()
                             .create("context_prefill", {{"max_queries", 100000}, {"on_policy", on_policy}})
                             ->make({whole.model, slice, whole.full, 1});
    ASSERT_EQ(queries->n_queries(), 300);
    const int64_t first = slice.prefix_len + 200;
    EXPECT_TRUE(at::equal(queries->positions(), at::arange(first, first + 150).repeat({2})));
    // Layer 0 sees no other token, so its queries are those of the whole text.
    const auto all = whole.make("context_prefill", {{"max_queries", 100000}});
    const int64_t n_tokens = all->n_queries() / 2;
    const at::Tensor expected = all->layer(0, nullptr).view({2, 2, n_tokens, 16}).narrow(2, 200, 150).flatten(1, 2);
    EXPECT_LT((queries->layer(0, nullptr) - expected).abs().max().item<float>(), 1e-4F);
  }
}

// The demo model writes text, and all holds for it as for a random one.
TEST(SelfStudy, OfTheDemoModel) {
  ModelConfig config;
  config.path = std::string(KVC_SOURCE_DIR) + "/models/smollm2-135m-instruct.gguf";
  config.dtype = "float32";
  const Model model = Model::load(config);
  const Context context = make_context(
      model,
      "The lake is deep and cold. In winter nobody swims there, but in June the whole village comes. Old Mara "
      "says that a bell lies on its ground; 42 divers have looked for it, none found it.");
  const KvCache full = model.decoder().prefill(context.tokens);
  const QueryRequest request{model, context, full, 1};
  Json given = {{"conversations", Json::array({"summarize"})}, {"max_new_tokens", 24}};
  const auto make = [&] { return Registry<QuerySource>::instance().create("self_study", given)->make(request); };
  const auto written = make();
  const Json study = written->notes().at("self_study");
  EXPECT_THAT(study.at("texts")[0].at("answer").get<std::string>(),
              AnyOf(HasSubstr("lake"), HasSubstr("bell"), HasSubstr("Mara")));
  const TemporaryFolder file_folder;
  const std::string file = file_folder.write("notes.jsonl", written->notes().dump());
  given["replay"] = file;
  const auto replayed = make();
  given["on_policy"] = true;
  const auto on_policy = make();
  for (int64_t l = 0; l < model.spec().n_layers; ++l) {
    const at::Tensor queries = written->layer(l, nullptr);
    EXPECT_TRUE(at::equal(queries, replayed->layer(l, nullptr)));
    EXPECT_LT((on_policy->layer(l, &full) - queries).abs().max().item<double>(),
              1e-4 * queries.abs().max().item<double>())
        << l;
  }
}

}  // namespace
}  // namespace kvc
