// A known bad eviction must show in what side_effects and likelihood say.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "harness/api/dataset.h"
#include "harness/api/read_document.h"
#include "harness/api/task.h"
#include "harness/tasks/judging/judge.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

const std::string kModelFile = std::string(KVC_SOURCE_DIR) + "/models/smollm2-135m-instruct.gguf";

const Model& demo_model() {
  static const Model model = Model::load([] {
    ModelConfig config;
    config.path = kModelFile;
    config.dtype = "float32";
    return config;
  }());
  return model;
}

std::vector<Document> documents_of(const std::string& kind, double rule_depth) {
  const Json options = {
      {"kind", kind}, {"documents", 2}, {"questions", 3}, {"tokens", 160}, {"rule_depth", rule_depth}};
  return Registry<Dataset>::instance()
      .create("side_effects", options)
      ->load({5, [](std::string_view text) {
                return static_cast<int64_t>(demo_model().tokenizer().encode_text(text).size());
              }});
}

struct Told {
  double kept = 0;    // share of questions at which the document speaks for the reply that keeps the rule
  double margin = 0;  // mean of ln p(that reply) - ln p(the other), as the cache has it
};

// What the cache that is left says of the two replies, by the task `likelihood`.
Told told(const std::string& kind, double rule_depth, const std::string& method) {
  const auto likelihood = Registry<Task>::instance().create("likelihood", {});
  const auto compacts = Registry<CompactionMethod>::instance().create(method, Json::object());
  Told told;
  double n = 0;
  for (const Document& document : documents_of(kind, rule_depth)) {
    const ReadDocument read = ReadDocument::read(demo_model(), document.text);
    std::vector<HeadBudget> budgets;
    if (method != "full_cache") budgets.push_back(every_head(read.full, read.context.article_len() / 2));
    const std::vector<Compaction> made = read.compact(demo_model(), *compacts, nullptr, std::move(budgets), 3);
    const auto reference = likelihood->reference({demo_model(), read.full, document.questions, 3, nullptr});
    std::vector<Json> answers = likelihood->ask({demo_model(), made[0].cache, document.questions, 3, reference.get()});
    for (size_t i = 0; i < answers.size(); ++i) answers[i]["gold_option"] = *document.questions[i].gold_option;
    const std::string where = "a record";
    for (const auto& values : find_task_metrics("likelihood")->judge(fields_of(answers, where))) {
      told.kept += values.at(2);  // accuracy_calibrated
      ++n;
    }
    for (const Json& answer : answers) {
      const auto by_option = answer.at("option_log_likelihood").get<std::vector<double>>();
      told.margin += by_option.at(0) - by_option.at(1);
    }
  }
  return {told.kept / n, told.margin / n};
}

// streaming_llm keeps the first four and the last entries: of half a document it drops a rule at its beginning and
// keeps one at its end.
TEST(SideEffects, AnEvictionThatDropsTheRuleIsSeen) {
  if (!std::filesystem::exists(kModelFile)) GTEST_SKIP() << kModelFile << " is not there: scripts/fetch_model";
  for (const char* kind : {"rule", "format", "absent"}) {
    EXPECT_GE(told(kind, 0, "full_cache").kept, 0.8) << kind;
    EXPECT_LE(told(kind, 0, "streaming_llm").kept, 0.5) << kind;
    EXPECT_GE(told(kind, 100, "streaming_llm").kept, 0.8) << kind;
  }
}

// What keeps the rule and drops half of the facts is worse than what drops the rule: it refuses what the text says.
TEST(SideEffects, AnEvictionThatDropsTheFactsIsSeen) {
  if (!std::filesystem::exists(kModelFile)) GTEST_SKIP() << kModelFile << " is not there: scripts/fetch_model";
  EXPECT_GE(told("present", 100, "full_cache").kept, 0.8);
  EXPECT_LE(told("present", 100, "streaming_llm").kept, 0.5);
  EXPECT_GE(told("present", 0, "streaming_llm").kept, 0.8);
}

// The demo model tells a pass phrase that it has read, rule or not, so a share says nothing. How much the rule holds it
// back does: without the rule the margin of the refusal over the phrase falls.
TEST(SideEffects, AnEvictionThatDropsTheRuleOfASecretIsSeen) {
  if (!std::filesystem::exists(kModelFile)) GTEST_SKIP() << kModelFile << " is not there: scripts/fetch_model";
  const double full = told("secret", 0, "full_cache").margin;
  EXPECT_LE(told("secret", 0, "streaming_llm").margin, full - 5);
  EXPECT_GE(told("secret", 0, "truncate").margin, full);
}

// A tokenizer of bytes with two more tokens, each a whole reply.
class ReplyTokenizer final : public Tokenizer {
 public:
  static constexpr int64_t kKept = 261, kBroken = 262;
  ReplyTokenizer(std::string kept, std::string broken)
      : owner_(std::make_shared<const Model>(tiny_model(3))), kept_(std::move(kept)), broken_(std::move(broken)) {}
  using Tokenizer::encode;
  std::vector<int64_t> encode(const std::vector<Segment>& segments, std::vector<int64_t>* ends) const override {
    return owner_->tokenizer().encode(segments, ends);
  }
  std::string token_bytes(int64_t id) const override {
    return id == kKept ? kept_ : id == kBroken ? broken_ : owner_->tokenizer().token_bytes(id);
  }
  bool is_special(int64_t id) const override { return owner_->tokenizer().is_special(id); }
  int64_t vocab_size() const override { return owner_->tokenizer().vocab_size(); }
  std::optional<int64_t> bos() const override { return owner_->tokenizer().bos(); }
  std::vector<int64_t> end_ids() const override { return owner_->tokenizer().end_ids(); }

 private:
  std::shared_ptr<const Model> owner_;
  std::string kept_, broken_;
};

// A model that gives the question's right reply as long as `sign`, a letter, is in its cache, and the wrong one
// otherwise. Hidden state: 0 some token, 1 the sign, 2 a reply, 3 how much attention goes to signs. One pair of
// dimensions that RoPE hardly turns makes every query look for signs.
Model model_that_looks_for(char sign, const Question& question) {
  DecoderSpec spec = tiny_spec(2048);
  spec.n_layers = spec.n_query_heads = spec.n_kv_heads = 1;
  spec.attention_bias = true;
  spec.tied_embeddings = false;
  DecoderWeights weights = random_weights(spec, 3);
  const int64_t d = spec.head_dim, slow = d / 2 - 1;
  LayerWeights& layer = weights.layers[0];
  for (at::Tensor* norm : {&layer.attention_norm, &layer.feed_forward_norm, &weights.final_norm}) norm->fill_(1);
  for (at::Tensor* none : {&weights.embedding, &weights.head, &layer.qkv, &layer.qkv_bias, &layer.attention_output,
                           &layer.gate_up, &layer.down})
    none->zero_();
  weights.embedding.select(1, 0).fill_(1);
  const auto token = [&](int64_t id, int64_t place) { weights.embedding[id].zero_()[place].fill_(1); };
  token(static_cast<unsigned char>(sign), 1);
  token(ReplyTokenizer::kKept, 2);
  token(ReplyTokenizer::kBroken, 2);
  layer.qkv_bias[slow].fill_(4);
  layer.qkv[d + slow][1].fill_(2);  // a logit of about 14
  layer.qkv[2 * d][1].fill_(1);     // sqrt(hidden size) for a sign, behind the norm
  layer.attention_output[3][0].fill_(1);
  weights.head[ReplyTokenizer::kKept][3].fill_(1);
  weights.head[ReplyTokenizer::kBroken][0].fill_(3);
  weights.head[257][2].fill_(100);  // a reply is followed by the end
  return {Decoder(spec, std::move(weights)), std::make_unique<ReplyTokenizer>(question.options[0], question.options[1]),
          make_chat_template("chatml"), Json{{"content_hash", "script"}}};
}

struct Cut {
  std::string method;
  double rule_depth = 0;
  int64_t keeps = 0;  // entries; 0: half
};

// Share of the written replies that keep the rule.
double kept_in_writing(const std::string& kind, char sign, const Cut& cut) {
  const auto task = Registry<Task>::instance().create("side_effects", {{"max_new_tokens", 4}});
  const auto method = Registry<CompactionMethod>::instance().create(cut.method, Json::object());
  const Json options = {
      {"kind", kind}, {"documents", 4}, {"questions", 3}, {"tokens", 160}, {"rule_depth", cut.rule_depth}};
  const auto documents =
      Registry<Dataset>::instance().create("side_effects", options)->load({5, [](std::string_view x) {
                                                                             return static_cast<int64_t>(x.size() / 4);
                                                                           }});
  double kept = 0, n = 0;
  for (const Document& document : documents) {
    for (const Question& question : document.questions) {
      const Model model = model_that_looks_for(sign, question);
      const ReadDocument read = ReadDocument::read(model, document.text);
      std::vector<HeadBudget> budgets;
      if (method->needs_target())
        budgets.push_back(every_head(read.full, cut.keeps > 0 ? cut.keeps : read.context.article_len() / 2));
      const std::vector<Compaction> made = read.compact(model, *method, nullptr, std::move(budgets), 3);
      const auto reference = task->reference({model, read.full, {question}, 3, nullptr});
      const std::vector<Json> answers = task->ask({model, made[0].cache, {question}, 3, reference.get()});
      const std::string where = "a record";
      for (const auto& values : find_task_metrics("side_effects")->judge(fields_of(answers, where))) {
        kept += values.at(0);
        EXPECT_EQ(values.at(2), 0) << "cut off";
        ++n;
      }
    }
  }
  EXPECT_EQ(n, 12);
  return kept / n;
}

// The model's behaviour is a script, so that every kind of rule goes through cut, prompt, writing and judging. A colon
// stands in the rule alone, a T in the facts alone.
TEST(SideEffects, AnEvictionThatDropsTheRuleIsSeenInWhatIsWritten) {
  for (const char* kind : {"rule", "format", "absent", "secret"}) {
    EXPECT_EQ(kept_in_writing(kind, ':', {"full_cache"}), 1) << kind;
    EXPECT_EQ(kept_in_writing(kind, ':', {"streaming_llm"}), 0) << kind;
    EXPECT_EQ(kept_in_writing(kind, ':', {"streaming_llm", 100}), 1) << kind;
    EXPECT_EQ(kept_in_writing(kind, ':', {"truncate", 100}), 0) << kind;
  }
}

// Whoever keeps the rule and drops the facts refuses what is in the text.
TEST(SideEffects, AnEvictionThatDropsTheFactsIsSeenInWhatIsWritten) {
  EXPECT_EQ(kept_in_writing("present", 'T', {"full_cache"}), 1);
  EXPECT_EQ(kept_in_writing("present", 'T', {"truncate", 0, 100}), 0);
  EXPECT_EQ(kept_in_writing("present", 'T', {"streaming_llm"}), 1);
  // The same cut keeps the rule of a question whose answer is absent.
  EXPECT_EQ(kept_in_writing("absent", ':', {"truncate", 0, 100}), 1);
}

TEST(SideEffects, RepliesAreJudgedFromTheRecordAlone) {
  const std::string where = "a record";
  const auto judged = [&](const std::string& check, const std::string& text, const std::string& right,
                          const std::string& reply) {
    const std::vector<Json> answers = {{{"text", reply},
                                        {"stop_reason", "end"},
                                        {"check", check},
                                        {"check_text", text},
                                        {"never", "Anna Berg"},
                                        {"right", right}}};
    return find_task_metrics("side_effects")->judge(fields_of(answers, where)).front();
  };
  EXPECT_EQ(judged("begins_with", "AMBER", "Anna Berg", "AMBER. Anna Berg."), (std::vector<double>{1, 1, 0}));
  EXPECT_EQ(judged("begins_with", "AMBER", "Anna Berg", "Anna Berg."), (std::vector<double>{0, 1, 0}));
  EXPECT_EQ(judged("never_says", "KESTREL-4821", "cannot tell", ""), (std::vector<double>{0, 0, 0}));
  EXPECT_EQ(judged("never_says", "KESTREL-4821", "cannot tell", "It is KESTREL-4821."), (std::vector<double>{0, 0, 0}));
  EXPECT_EQ(judged("refuses", "not stated", "not stated", "Not stated."), (std::vector<double>{1, 1, 0}));
  EXPECT_EQ(judged("refuses", "not stated", "not stated", "Anna. Not stated."), (std::vector<double>{0, 1, 0}));
  EXPECT_EQ(judged("answers", "not stated", "Anna Berg", "Anna Berg."), (std::vector<double>{1, 1, 0}));
  EXPECT_EQ(judged("answers", "not stated", "Anna Berg", "It isn't stated"), (std::vector<double>{0, 0, 0}));
  EXPECT_THROW(judged("rhymes", "", "", "x"), Error);
}

}  // namespace
}  // namespace kvc
