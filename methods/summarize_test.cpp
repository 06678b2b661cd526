// Methods on the text: what is left of it, at which positions, and what the model is asked.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "harness/core/config_text.h"
#include "harness/core/error.h"
#include "harness/testing/checks.h"
#include "harness/testing/method_scene.h"
#include "methods/parts/text_method.h"
#include "methods/text_summary.h"

namespace kvc {
namespace {

using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::Not;

std::unique_ptr<CompactionMethod> method(const std::string& name, const Json& options = Json::object()) {
  return Registry<CompactionMethod>::instance().create(name, options);
}

Compaction compact(const Scene& scene, const std::string& name, const Json& options, int64_t target_len,
                   std::uint64_t seed = 1) {
  const auto made_by = method(name, options);
  return std::move(scene.compact(*made_by, {every_head(target_len)}, seed)[0]);
}

// Every head holds the whole text, from position 0 on.
void expect_contiguous(const KvCache& cache) {
  for (int64_t l = 0; l < cache.n_layers(); ++l) {
    for (int64_t h = 0; h < cache.n_kv_heads(); ++h) EXPECT_EQ(cache.layer(l).head_len(h), cache.next_position());
  }
}

// --- truncate_text ---------------------------------------------------------------------------------------------------

TEST(TruncateText, ReadsThePartThatStaysAsATextOfItsOwn) {
  const Scene& scene = Scene::of(at::kFloat);
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"first", kArticle.substr(0, 31)},
      {"last", kArticle.substr(kArticle.size() - 31)},
      {"ends", kArticle.substr(0, 16) + kArticle.substr(kArticle.size() - 15)}};
  for (const auto& [keep, text] : cases) {
    const Compaction made = compact(scene, "truncate_text", {{"keep", keep}}, 31);
    const KvCache expected = scene.model.decoder().prefill(make_context(scene.model, text).tokens);
    EXPECT_TRUE(same_bits(made.cache, expected)) << keep;
    EXPECT_EQ(made.cache.next_position(), scene.template_len() + 31);
    expect_contiguous(made.cache);
  }
}

TEST(TruncateText, AllOfItIsTheFullCache) {
  const Scene& scene = Scene::of(at::kFloat);
  for (const char* keep : {"first", "last", "ends"}) {
    EXPECT_TRUE(same_bits(compact(scene, "truncate_text", {{"keep", keep}}, scene.source_len()).cache, scene.full));
  }
}

TEST(TruncateText, NothingOfItIsNoContext) {
  const Scene& scene = Scene::of(at::kFloat);
  EXPECT_TRUE(same_bits(compact(scene, "truncate_text", {}, 0).cache, compact(scene, "no_context", {}, 0).cache));
}

TEST(TruncateText, ARaggedBudgetIsItsMean) {
  const Scene& scene = Scene::of(at::kFloat);
  const HeadBudget budget = {{{10, 20}, {31, 40}}};
  EXPECT_EQ(text_length(budget), 25);
  const auto made = scene.compact(*method("truncate_text"), {budget});
  EXPECT_EQ(made[0].cache.next_position(), scene.template_len() + 25);
}

TEST(TruncateText, RefusesUnknownParts) {
  EXPECT_THROW(method("truncate_text", {{"keep", "middle"}}), Error);
}

// --- parts of an article ---------------------------------------------------------------------------------------------

std::vector<std::string> parts_of(const std::string& text, int64_t n_parts) {
  const Tokenizer& tokenizer = Scene::of(at::kFloat).model.tokenizer();
  const std::vector<int64_t> article = tokenizer.encode_text(text);
  std::vector<std::string> parts;
  int64_t begin = 0;
  for (const int64_t end : part_ends(tokenizer, article, n_parts)) {
    EXPECT_GT(end, begin);
    parts.push_back(tokenizer.decode({article.begin() + begin, article.begin() + end}));
    begin = end;
  }
  EXPECT_EQ(begin, static_cast<int64_t>(article.size()));
  return parts;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& part : parts) all += part;
  return all;
}

TEST(Parts, TileTheArticleAndAreAboutEven) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += kArticle + (i % 3 == 0 ? "\n" : " ");
  for (const int64_t n : {1, 2, 3, 7, 50}) {
    const auto parts = parts_of(text, n);
    ASSERT_EQ(parts.size(), static_cast<size_t>(n));
    EXPECT_EQ(joined(parts), text);
    for (const std::string& part : parts) {
      EXPECT_LE(static_cast<int64_t>(part.size()), (static_cast<int64_t>(text.size()) / n + 1) * 9 / 8);
    }
  }
}

TEST(Parts, EndWithParagraphsThenSentencesThenWordsThenCharacters) {
  EXPECT_THAT(parts_of("One two. Three four.\nFive. Seven more words, of it here, o", 2),
              ElementsAre("One two. Three four.\nFive.", " Seven more words, of it here, o"));
  EXPECT_THAT(parts_of("One two, three four five six.\nSeven eight nine ten eleven twelve", 2),
              ElementsAre("One two, three four five six.\n", "Seven eight nine ten eleven twelve"));
  EXPECT_THAT(parts_of("abcdefgh ijklmnop qrstuvwx yzabcd", 2), ElementsAre("abcdefgh ijklmno", "p qrstuvwx yzabcd"));
  EXPECT_THAT(parts_of("abcdefgh ijklmn opqrstuvwx yzabcdef", 2),
              ElementsAre("abcdefgh ijklmn ", "opqrstuvwx yzabcdef"));
  // Two-byte characters: an even cut would fall into one.
  EXPECT_THAT(parts_of("xäöüßäöüßäöüßäöüß", 2), ElementsAre("xäöüßäöü", "ßäöüßäöüß"));
}

TEST(Thoughts, AreNoPartOfASummary) {
  EXPECT_EQ(without_thoughts("A lake."), "A lake.");
  EXPECT_EQ(without_thoughts("<think>\nhm\n</think>\n\nA lake."), "\n\nA lake.");
  EXPECT_EQ(without_thoughts("hm</think>A lake."), "A lake.");  // opened by the prompt
  EXPECT_EQ(without_thoughts("<think>a</think>b<think>c</think>A lake."), "A lake.");
  EXPECT_EQ(without_thoughts("A lake.<think>and so on"), "A lake.");
  EXPECT_EQ(without_thoughts("<think>never closed"), "");
}

// --- summarize -------------------------------------------------------------------------------------------------------

// What a plain call of the model answers to `user`.
std::string answer(const Model& model, const std::string& user, int64_t max_new_tokens) {
  RenderOptions options;
  options.generation_prompt = true;
  options.thinking = false;
  const auto prompt = model.tokenizer().encode(model.chat_template().render({{"user", user}}, options));
  const KvCache nothing = KvCache::empty(kLayers, kKvHeads, 16, model.decoder().options());
  DecodeSettings settings;
  settings.max_new_tokens = max_new_tokens;
  settings.thinking_budget = 0;
  return generate(model, nothing, {prompt}, settings, {}).front().text;
}

// Longest printable beginning: what a summary keeps of random bytes at least.
std::string first_ascii(const std::string& text) {
  size_t end = 0;
  while (end < text.size() && static_cast<unsigned char>(text[end]) >= 0x20 &&
         static_cast<unsigned char>(text[end]) < 0x7f)
    ++end;
  return text.substr(0, end);
}

TEST(Summarize, AsksWithTheFivePublishedPrompts) {
  const Scene& scene = Scene::of(at::kFloat);
  const std::vector<std::pair<std::string, std::string>> prompts = {
      {"plain", "Summarize the following text"},
      {"in_depth", "Summarize the following text in depth"},
      {"key_points",
       "Summarize the following text, providing all key points that might be necessary to answer comprehension "
       "questions"},
      {"concise", "Summarize the following text concisely"},
      {"very_concise", "Summarize the following text very concisely"}};
  std::set<std::string> different;
  for (const auto& [name, instruction] : prompts) {
    const std::string expected = answer(scene.model, instruction + ":\n\n" + kArticle + "\n\nSummary:", 30);
    SummaryStyle style;
    style.instruction = instruction;
    const Compaction made = compact(scene, "summarize", {{"prompt", name}, {"length", "cut"}}, 30);
    const std::string summary = made.notes.at("summary");
    const Summaries direct = summarize_article(scene.model, scene.context.article_tokens(), {30}, style, 1);
    EXPECT_EQ(summary, direct.list[0].text);
    const std::string head = first_ascii(expected);
    EXPECT_EQ(summary.substr(0, head.size()), head) << name;
    different.insert(expected);
  }
  EXPECT_THAT(different.size(), Gt(2U));
}

TEST(Summarize, StatesItsLengthInWordsOfTheArticle) {
  const Scene& scene = Scene::of(at::kFloat);
  // 37 words in 170 bytes, which are tokens here.
  const auto words = static_cast<int64_t>(30 * 37 / kArticle.size());
  const std::string expected = answer(
      scene.model,
      "Summarize the following text:\n\n" + kArticle + "\n\nSummary (at most " + std::to_string(words) + " words):",
      30);
  const std::string head = first_ascii(expected);
  const std::string summary = compact(scene, "summarize", {}, 30).notes.at("summary");
  EXPECT_EQ(summary.substr(0, head.size()), head);
}

TEST(Summarize, IsReadAnewWithinItsLengthAtContiguousPositions) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Scene& scene = Scene::of(dtype);
    for (const int64_t length : {1, 5, 40, 100}) {
      const Compaction made = compact(scene, "summarize", {}, length);
      const std::string summary = made.notes.at("summary");
      const int64_t kept = made.cache.next_position() - scene.template_len();
      EXPECT_LE(kept, length);
      EXPECT_EQ(made.notes.at("summary_tokens"), kept);
      expect_contiguous(made.cache);
      if (summary.empty()) continue;
      EXPECT_TRUE(same_bits(made.cache, scene.model.decoder().prefill(make_context(scene.model, summary).tokens)));
    }
  }
}

TEST(Summarize, FreeOnesTakeNoTarget) {
  const Scene& scene = Scene::of(at::kFloat);
  const auto free = method("summarize", {{"length", "free"}});
  EXPECT_FALSE(free->needs_target());
  const auto made = scene.compact(*free, {});
  ASSERT_EQ(made.size(), 1U);
  EXPECT_LE(made[0].cache.next_position(), scene.full.next_position());
  expect_contiguous(made[0].cache);
}

TEST(Summarize, PartsAreSummarisedAloneAndReadTogether) {
  const Scene& scene = Scene::of(at::kFloat);
  const Compaction made = compact(scene, "summarize", {{"part_tokens", 64}, {"length", "cut"}}, 60);
  const auto parts = parts_of(kArticle, 3);
  EXPECT_EQ(made.notes.at("summary_parts"), 3);
  std::string expected;
  SummaryStyle style;
  style.instruction = "Summarize the following text";
  int64_t end = 0;
  const auto total = static_cast<int64_t>(kArticle.size());
  for (const std::string& part : parts) {
    const int64_t begin = end;
    end += static_cast<int64_t>(part.size());
    const int64_t length = 58 * end / total - 58 * begin / total;  // two tokens for the lines between
    const auto alone = summarize_article(scene.model, scene.model.tokenizer().encode_text(part), {length}, style, 1);
    ASSERT_EQ(alone.list[0].n_parts, 1);
    if (!expected.empty() && !alone.list[0].text.empty()) expected += "\n\n";
    expected += alone.list[0].text;
  }
  EXPECT_EQ(made.notes.at("summary"), expected);
  expect_contiguous(made.cache);
}

// A context that the model can just hold: together with prompt and summary it cannot.
TEST(Summarize, ADocumentTooLongForItsPromptGoesInParts) {
  const Model model = tiny_model(11, at::kFloat, 700);
  std::string article;
  while (article.size() < 480) article += kArticle + " ";
  const Context context = make_context(model, article.substr(0, 480));
  const KvCache full = model.decoder().prefill(context.tokens);
  const HeadBudget budget = every_head(200);
  const auto made =
      method("summarize")
          ->compact({model, context, full, {context.prefix_len, context.suffix_len}, nullptr, {budget}, 1});
  EXPECT_GT(made[0].notes.at("summary_parts").get<int64_t>(), 1);
  expect_contiguous(made[0].cache);
  EXPECT_LE(made[0].cache.next_position(), context.prefix_len + context.suffix_len + 200);
}

TEST(Summarize, AModelTooSmallForAnyPartIsNamed) {
  const Model model = tiny_model(11, at::kFloat, 140);
  EXPECT_THAT(error_of(ErrorKind::kData,
                       [&] {
                         summarize_article(model, model.tokenizer().encode_text(kArticle), {20},
                                           SummaryStyle{"Summarize the following text"}, 1);
                       }),
              HasSubstr("140 positions"));
}

TEST(Summarize, SampledOnesDependOnTheSeedGreedyOnesDoNot) {
  const Scene& scene = Scene::of(at::kFloat);
  const Json sampled = {{"temperature", 1.5}, {"top_k", 0}, {"top_p", 1.0}};
  EXPECT_TRUE(
      same_bits(compact(scene, "summarize", sampled, 40, 1).cache, compact(scene, "summarize", sampled, 40, 1).cache));
  EXPECT_FALSE(
      same_bits(compact(scene, "summarize", sampled, 40, 1).cache, compact(scene, "summarize", sampled, 40, 2).cache));
  EXPECT_TRUE(same_bits(compact(scene, "summarize", {}, 40, 1).cache, compact(scene, "summarize", {}, 40, 2).cache));
}

// The small model's tokenizer, for a model with another template.
class SameTokenizer final : public Tokenizer {
 public:
  explicit SameTokenizer(const Tokenizer& other) : other_(other) {}
  std::vector<int64_t> encode(const std::vector<Segment>& segments, std::vector<int64_t>* ends) const override {
    return other_.encode(segments, ends);
  }
  std::string token_bytes(int64_t id) const override { return other_.token_bytes(id); }
  bool is_special(int64_t id) const override { return other_.is_special(id); }
  int64_t vocab_size() const override { return other_.vocab_size(); }
  std::optional<int64_t> bos() const override { return other_.bos(); }
  std::vector<int64_t> end_ids() const override { return other_.end_ids(); }

 private:
  const Tokenizer& other_;
};

// A template that opens a thought: it is closed at once, and no part of the summary.
TEST(Summarize, ThoughtsAreClosedAndLeftOut) {
  const DecoderSpec spec = tiny_spec(1024);
  const Scene& scene = Scene::of(at::kFloat);
  const Model thinker(
      Decoder(spec, random_weights(spec, 11)), std::make_unique<SameTokenizer>(scene.model.tokenizer()),
      make_chat_template("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
                         "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
                         {}, "test"),
      Json::object());
  const Context context = make_context(thinker, kArticle);
  const KvCache full = thinker.decoder().prefill(context.tokens);
  const auto made =
      method("summarize")
          ->compact({thinker, context, full, {context.prefix_len, context.suffix_len}, nullptr, {every_head(40)}, 1});
  EXPECT_THAT(made[0].notes.at("summary").get<std::string>(), Not(HasSubstr("think>")));
  EXPECT_GT(made[0].notes.at("summary_tokens").get<int64_t>(), 0);
  EXPECT_EQ(scene.source_len(), context.article_len());
}

// The demo model writes about what the text is about.
TEST(Summarize, TheDemoModelSummarises) {
  ModelConfig config;
  config.path = std::string(KVC_SOURCE_DIR) + "/models/smollm2-135m-instruct.gguf";
  config.dtype = "float32";
  const Model model = Model::load(config);
  std::string article;
  for (const char* sentence :
       {"The lighthouse on Gull Island was built in 1871 by the engineer Thomas Reed. ",
        "It stands forty metres tall and its lamp can be seen from twenty miles away. ",
        "In 1923 a storm broke the lamp, and the keeper, Anna Bell, lit a fire on the roof to warn the ships. ",
        "Not one ship was lost that night, and the town gave her a medal. ",
        "Today the lighthouse is a museum, open from May to September, and her medal hangs by the door."}) {
    article += sentence;
  }
  const Context context = make_context(model, article);
  const std::vector<int64_t> lengths = {context.article_len() / 2, context.article_len() / 4};
  SummaryStyle style;
  style.instruction = "Summarize the following text";
  style.state_length = true;
  const Summaries made = summarize_article(model, context.article_tokens(), {lengths[0], lengths[1]}, style, 1);
  for (size_t i = 0; i < lengths.size(); ++i) {
    EXPECT_THAT(made.list[i].text, HasSubstr("ighthouse"));
    EXPECT_LE(static_cast<int64_t>(model.tokenizer().encode_text(made.list[i].text).size()), lengths[i]);
    EXPECT_EQ(made.list[i].n_parts, 1);
  }
}

}  // namespace
}  // namespace kvc
