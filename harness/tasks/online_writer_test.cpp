#include "harness/tasks/online_writer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "harness/api/head_errors.h"
#include "harness/core/config_text.h"
#include "harness/testing/checks.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kSeed = 9;
constexpr int64_t kHeads = 2 * 2;  // layers and KV heads of the small model

// A method that tells a test what it saw and made.
class Watched final : public CompactionMethod {
 public:
  using Look = std::function<void(const CompactionRequest&, const Compaction&)>;
  Watched(std::unique_ptr<CompactionMethod> inner, Look look) : inner_(std::move(inner)), look_(std::move(look)) {}
  std::string published_queries() const override { return inner_->published_queries(); }
  bool needs_target() const override { return inner_->needs_target(); }
  bool compacts_cache() const override { return inner_->compacts_cache(); }
  std::vector<Compaction> compact(const CompactionRequest& request) const override {
    std::vector<Compaction> made = inner_->compact(request);
    if (look_) look_(request, made.front());
    return made;
  }

 private:
  std::unique_ptr<CompactionMethod> inner_;
  Look look_;
};

// A cell's method and all that goes with it.
struct Means {
  std::string document;
  Watched method;
  std::unique_ptr<QuerySource> queries;
  std::optional<TargetSize> target;
  std::unique_ptr<BudgetRule> budget;

  explicit Means(const std::string& name, std::optional<double> fraction = std::nullopt, Watched::Look look = {},
                 const Json& options = Json::object())
      : method(Registry<CompactionMethod>::instance().create(name, options), std::move(look)) {
    if (method.needs_queries()) queries = Registry<QuerySource>::instance().create("repeat_prefill", Json::object());
    if (!fraction) return;
    target.emplace();
    target->fraction = *fraction;
    budget = Registry<BudgetRule>::instance().create("uniform", Json::object());
  }
  OnlineCompaction online() const { return {document, method, queries.get(), target, budget.get()}; }
};

OnlineSettings settings_of(int64_t limit, int64_t max_new_tokens = 0, double temperature = 0) {
  OnlineSettings settings;
  settings.limit = limit;
  settings.protected_tokens = 8;
  settings.answer_tokens = 5;
  settings.decode.max_new_tokens = max_new_tokens;
  settings.decode.temperature = temperature;
  return settings;
}

KvCache prefix_of(const Model& model, const std::vector<int64_t>& prompt) {
  return model.decoder().prefill({prompt.begin(), prompt.end() - 1});
}

// The likeliest token behind each of `tokens`, read at once.
std::vector<int64_t> greedy_successors(const Model& model, const std::vector<int64_t>& tokens) {
  const KvCache nothing =
      KvCache::empty(model.spec().n_layers, model.spec().n_kv_heads, model.spec().head_dim, model.decoder().options());
  Tails tails = Tails::behind(nothing, 1, static_cast<int64_t>(tokens.size()));
  const at::Tensor hidden = model.decoder().forward(PackedTokens::single(tokens), nothing, tails);
  const at::Tensor best = model.decoder().logits(hidden).argmax(-1).contiguous();
  return {best.const_data_ptr<int64_t>(), best.const_data_ptr<int64_t>() + best.numel()};
}

class OnlineWriting : public ::testing::Test {
 protected:
  OnlineWriting()
      : model_(tiny_model(11, at::kFloat, 1024)),
        prompt_(model_.tokenizer().encode_text("How many ships pass the northern cliff?")) {}

  int64_t prompt_len() const { return static_cast<int64_t>(prompt_.size()); }
  int64_t forced_len() const {
    return static_cast<int64_t>(
        model_.tokenizer()
            .encode({{"\nI need to respond with the answer.\n", false}, {"</think>", true}, {"Final Answer: ", false}})
            .size());
  }
  OnlineText write(const Means& means, const OnlineSettings& settings, std::uint64_t seed = kSeed) const {
    return write_online(model_, means.online(), prompt_, settings, seed);
  }

  Model model_;
  std::vector<int64_t> prompt_;
};

TEST_F(OnlineWriting, IsPlainGenerationWhereTheLimitIsNeverReached) {
  for (const double temperature : {0.0, 0.8}) {
    OnlineSettings settings = settings_of(1000, 40, temperature);
    const Generation plain =
        generate(model_, prefix_of(model_, prompt_), {{prompt_.back()}}, settings.decode, {kSeed})[0];
    ASSERT_EQ(plain.stop_reason, "length");
    const OnlineText compacting = write(Means("attention_matching", 0.5), settings);
    const OnlineText baseline = write(Means("full_cache"), settings);
    EXPECT_EQ(compacting.tokens, baseline.tokens);
    EXPECT_TRUE(compacting.steps.empty());
    EXPECT_EQ(compacting.stop_reason, "length");
    ASSERT_EQ(compacting.thought_tokens, 40);
    EXPECT_EQ(std::vector<int64_t>(compacting.tokens.begin(), compacting.tokens.begin() + 40), plain.tokens);
  }
}

// Greedy, so the text itself tells whether each choice was made behind all tokens before it, at their positions.
TEST_F(OnlineWriting, ReadsEveryTokenOnceAtItsPosition) {
  const OnlineText written = write(Means("full_cache"), settings_of(1000, 60));
  std::vector<int64_t> all = prompt_;
  all.insert(all.end(), written.tokens.begin(), written.tokens.end());
  const auto n = static_cast<int64_t>(all.size());
  EXPECT_EQ(n, prompt_len() + 60 + forced_len() + 5);
  EXPECT_EQ(written.next_position, n);
  EXPECT_EQ(written.final_entries, n * model_.spec().n_layers * model_.spec().n_kv_heads);
  EXPECT_DOUBLE_EQ(written.peak_entries, static_cast<double>(n));
  const std::vector<int64_t> best = greedy_successors(model_, all);
  const int64_t forced_begin = prompt_len() + 60, forced_end = forced_begin + forced_len();
  for (int64_t i = prompt_len(); i < n; ++i) {
    if (i >= forced_begin && i < forced_end) continue;
    EXPECT_EQ(all[static_cast<size_t>(i)], best[static_cast<size_t>(i - 1)]) << i;
  }
}

// A key of the first layer depends on its token and its position alone: what an eviction that keeps the last entries
// holds must be the last keys of the text read at once, however often it was compacted.
TEST_F(OnlineWriting, KeepsLogicalPositionsThroughCompactions) {
  int64_t n_seen = 0;
  const Means means(
      "streaming_llm", 0.5,
      [&](const CompactionRequest& request, const Compaction& made) {
        ++n_seen;
        const auto n_read = static_cast<int64_t>(request.context.tokens.size());
        EXPECT_EQ(request.cache.next_position(), n_read);
        EXPECT_EQ(made.cache.next_position(), n_read);
        const KvCache whole = model_.decoder().prefill(request.context.tokens);
        for (int64_t head = 0; head < request.cache.n_kv_heads(); ++head) {
          const at::Tensor held = request.cache.layer(0).head_keys(head);
          EXPECT_TRUE(at::allclose(held, whole.layer(0).head_keys(head).slice(0, n_read - held.size(0)), 1e-4, 1e-5));
        }
      },
      {{"n_sink", 0}});
  OnlineSettings settings = settings_of(150);
  settings.max_compactions = 4;
  const OnlineText written = write(means, settings);
  EXPECT_EQ(n_seen, 4);
  EXPECT_EQ(written.next_position, prompt_len() + static_cast<int64_t>(written.tokens.size()));
}

TEST_F(OnlineWriting, AnswersWhenAllCompactionsAreUsedUp) {
  for (const int64_t n : {1, 3}) {
    OnlineSettings settings = settings_of(150);
    settings.max_compactions = n;
    const OnlineText written = write(Means("random_keys", 0.5), settings);
    ASSERT_EQ(static_cast<int64_t>(written.steps.size()), n);
    EXPECT_EQ(written.stop_reason, "limit");
    EXPECT_TRUE(written.forced);
    EXPECT_THAT(written.text, HasSubstr(kForcedEnd));
    EXPECT_EQ(static_cast<int64_t>(written.tokens.size()), written.thought_tokens + forced_len() + 5);
    EXPECT_LE(written.peak_entries, 150);
    for (const OnlineStep& step : written.steps) {
      EXPECT_EQ(step.entries_before, 150);  // of 150, 8 are protected and 142 halved
      EXPECT_EQ(step.entries_after, 8 + 71);
      ASSERT_TRUE(step.drift_kl.has_value());
      EXPECT_GT(*step.drift_kl, 0);
    }
    // The first fills the cache, each further one what the compaction before it freed; the last leaves the answer room.
    EXPECT_EQ(written.steps.back().position, 150 + (n - 1) * 71);
    EXPECT_EQ(written.next_position, 150 + n * 71);
  }
}

// Beside the limit, which is not reached here. The prompt is shorter than what is kept: nothing to do at first.
TEST_F(OnlineWriting, CompactsEverySoManyTokens) {
  std::vector<int64_t> positions;
  Means means("random_keys", 0.5, [&](const CompactionRequest& request, const Compaction& made) {
    positions.push_back(static_cast<int64_t>(request.context.tokens.size()));
    EXPECT_EQ(request.compactable.suffix_len, 8);
    EXPECT_EQ(made.cache.layer(0).head_len(0), 8 + 40);
  });
  means.target->unit = TargetSize::Unit::kEntries;
  means.target->entries = 40;
  OnlineSettings settings = settings_of(400, 200);
  settings.max_compactions = 1;
  settings.every = 20;
  settings.drift = false;
  const OnlineText written = write(means, settings);
  EXPECT_EQ(written.stop_reason, "length");
  EXPECT_GE(positions.size(), 6U);
  EXPECT_EQ(written.steps.size(), positions.size());
  for (size_t i = 0; i < positions.size(); ++i) {
    const int64_t n_written = positions[i] - (prompt_len() - 1);
    EXPECT_TRUE(n_written > 200 || n_written % 20 == 0) << n_written;  // the forced end is read at once
    EXPECT_GT(written.steps[i].entries_before, 48);
    EXPECT_EQ(written.steps[i].entries_after, 48);
  }
  EXPECT_LE(written.peak_entries, static_cast<double>(48 + 20 + 1 + forced_len()));
  EXPECT_EQ(written.next_position, prompt_len() + static_cast<int64_t>(written.tokens.size()));
  // A method without a target frees nothing.
  EXPECT_TRUE(write(Means("full_cache"), settings).steps.empty());
}

// A fraction is one of what is held; a compaction at the limit counts alone.
TEST_F(OnlineWriting, CompactsEverySoManyTokensAndAtTheLimit) {
  OnlineSettings settings = settings_of(150);
  settings.max_compactions = 2;
  settings.every = 100;
  settings.drift = false;
  const OnlineText written = write(Means("h2o", 0.5), settings);
  int64_t at_limit = 0, due = 0;
  for (const OnlineStep& step : written.steps) {
    (step.entries_before == 150 ? at_limit : due) += 1;
    EXPECT_LT(step.entries_after, step.entries_before);
  }
  EXPECT_EQ(at_limit, 2);
  EXPECT_GE(due, 2);
  EXPECT_LE(written.peak_entries, 150);
}

// Heads of unequal length: the limit is on what all of them hold, and every token still goes into each.
TEST_F(OnlineWriting, KeepsTheLimitWithRaggedHeads) {
  bool ragged = false;
  int64_t n_seen = 0;
  Means means("h2o", 0.5, [&](const CompactionRequest& request, const Compaction& made) {
    ++n_seen;
    EXPECT_LE(request.cache.n_entries(), 150 * kHeads);
    EXPECT_GT(request.cache.n_entries(), 149 * kHeads);
    EXPECT_LE(made.cache.n_entries(), (8 + 71) * kHeads);  // each head's half is rounded down
    EXPECT_GT(made.cache.n_entries(), (8 + 70) * kHeads);
    EXPECT_EQ(made.cache.next_position(), static_cast<int64_t>(request.context.tokens.size()));
    ragged = ragged || made.cache.layer(0).head_len(0) != made.cache.layer(0).head_len(1);
  });
  means.budget = Registry<BudgetRule>::instance().create("adaptive", Json::object());
  OnlineSettings settings = settings_of(150);
  settings.max_compactions = 3;
  const OnlineText written = write(means, settings);
  EXPECT_EQ(n_seen, 3);
  EXPECT_TRUE(ragged);
  EXPECT_LE(written.peak_entries, 150);
  EXPECT_GT(written.peak_entries, 149);
  EXPECT_EQ(written.next_position, prompt_len() + static_cast<int64_t>(written.tokens.size()));
}

TEST_F(OnlineWriting, WithoutCompactionsThinkingStopsAtTheLimit) {
  for (const int64_t limit : {prompt_len() + 1 + forced_len() + 5, int64_t{130}, int64_t{200}}) {
    OnlineSettings settings = settings_of(limit);
    const OnlineText written = write(Means("full_cache"), settings);
    EXPECT_EQ(written.stop_reason, "limit");
    EXPECT_TRUE(written.forced);
    EXPECT_EQ(written.peak_entries, static_cast<double>(limit));
    EXPECT_EQ(written.next_position, limit);
    settings.max_compactions = 0;
    EXPECT_EQ(write(Means("random_keys", 0.5), settings).tokens, written.tokens);
  }
}

TEST_F(OnlineWriting, PositionsOfTheModelAreALimitToo) {
  const Model small = tiny_model(11, at::kFloat, 200);
  const OnlineText written = write_online(small, Means("full_cache").online(), prompt_, settings_of(1000), kSeed);
  EXPECT_EQ(written.stop_reason, "length");
  EXPECT_TRUE(written.forced);
  EXPECT_LE(written.next_position, 200);
  EXPECT_GE(written.next_position, 199);
}

// A model's tokenizer with other end tokens, and other bytes for one token.
class OtherTokenizer final : public Tokenizer {
 public:
  OtherTokenizer(Model inner, std::vector<int64_t> end_ids, int64_t token = -1, std::string bytes = "")
      : inner_(std::move(inner)), end_ids_(std::move(end_ids)), token_(token), bytes_(std::move(bytes)) {}
  std::vector<int64_t> encode(const std::vector<Segment>& segments, std::vector<int64_t>* ends) const override {
    return inner_.tokenizer().encode(segments, ends);
  }
  std::string token_bytes(int64_t id) const override {
    return id == token_ ? bytes_ : inner_.tokenizer().token_bytes(id);
  }
  bool is_special(int64_t id) const override { return inner_.tokenizer().is_special(id); }
  int64_t vocab_size() const override { return inner_.tokenizer().vocab_size(); }
  std::optional<int64_t> bos() const override { return inner_.tokenizer().bos(); }
  std::vector<int64_t> end_ids() const override { return end_ids_; }

 private:
  Model inner_;
  std::vector<int64_t> end_ids_;
  int64_t token_;
  std::string bytes_;
};

class OnlineEnds : public OnlineWriting {
 protected:
  // Sampled, so that the text does not run in a circle; `at` is a token that stands nowhere before.
  OnlineEnds() : settings_(settings_of(1000, 40, 1.0)), plain_(write(Means("full_cache"), settings_).tokens) {
    while (std::find(plain_.begin(), plain_.begin() + at_, plain_[static_cast<size_t>(at_)]) != plain_.begin() + at_) {
      ++at_;
    }
  }
  static Model with(std::unique_ptr<Tokenizer> tokenizer) {
    return Model(Decoder(tiny_spec(1024), random_weights(tiny_spec(1024), 11)), std::move(tokenizer),
                 make_chat_template("chatml"), Json::object());
  }
  int64_t token() const { return plain_[static_cast<size_t>(at_)]; }
  OnlineSettings settings_;
  std::vector<int64_t> plain_;
  int64_t at_ = 10;
};

TEST_F(OnlineEnds, AnEndTokenEndsTheTextWithoutAForcedAnswer) {
  const Model model = with(std::make_unique<OtherTokenizer>(tiny_model(11), std::vector<int64_t>{token()}));
  const OnlineText written = write_online(model, Means("full_cache").online(), prompt_, settings_, kSeed);
  EXPECT_EQ(written.stop_reason, "end");
  EXPECT_FALSE(written.forced);
  EXPECT_EQ(written.answer_stop_reason, "");
  EXPECT_EQ(written.tokens, std::vector<int64_t>(plain_.begin(), plain_.begin() + at_));
  EXPECT_EQ(written.next_position, prompt_len() + at_);
}

TEST_F(OnlineEnds, BehindTheEndOfThoughtTheAnswerIsAskedFor) {
  for (const char* bytes : {"</think>", "so</think>\n\n"}) {
    const Model model =
        with(std::make_unique<OtherTokenizer>(tiny_model(11), std::vector<int64_t>{257}, token(), bytes));
    const OnlineText written = write_online(model, Means("full_cache").online(), prompt_, settings_, kSeed);
    EXPECT_EQ(written.stop_reason, "stop");
    EXPECT_FALSE(written.forced);
    EXPECT_EQ(written.thought_tokens, at_ + 1);
    EXPECT_THAT(written.text, HasSubstr(std::string(bytes) + kFinalAnswer));
    EXPECT_EQ(written.next_position, prompt_len() + static_cast<int64_t>(written.tokens.size()));
  }
}

TEST_F(OnlineWriting, DriftIsTheDivergenceOverTheForcedEnd) {
  std::optional<KvCache> made_first;
  std::vector<int64_t> read_first;
  const Means means("h2o", 0.3, [&](const CompactionRequest& request, const Compaction& made) {
    if (made_first) return;
    made_first.emplace(made.cache.clone());
    read_first = request.context.tokens;
  });
  OnlineSettings settings = settings_of(150);
  settings.max_compactions = 1;
  const OnlineText written = write(means, settings);
  ASSERT_TRUE(made_first.has_value());
  std::vector<int64_t> tokens = {written.tokens[read_first.size() - prompt_.size()]};
  const std::vector<int64_t> forced = model_.tokenizer().encode(
      {{"\nI need to respond with the answer.\n", false}, {"</think>", true}, {"Final Answer: ", false}});
  tokens.insert(tokens.end(), forced.begin(), forced.end() - 1);
  const auto log_p = [&](const KvCache& cache) {
    Tails tails = Tails::behind(cache, 1, static_cast<int64_t>(tokens.size()));
    const at::Tensor hidden = model_.decoder().forward(PackedTokens::single(tokens), cache, tails);
    return at::log_softmax(model_.decoder().logits(hidden).to(at::kDouble), -1);
  };
  const at::Tensor full = log_p(model_.decoder().prefill(read_first)), now = log_p(*made_first);
  const double kl = (full.exp() * (full - now)).sum(-1).mean().item<double>();
  EXPECT_GT(kl, 1e-6);
  EXPECT_NEAR(*written.steps.front().drift_kl, kl, 1e-3 * kl + 1e-7);
}

TEST_F(OnlineWriting, ExplainsWhatCannotFit) {
  EXPECT_EQ(error_of([&] { write(Means("full_cache"), settings_of(70)); }),
            "the limit of 70 entries is too small: the prompt has 39 tokens, the forced answer " +
                std::to_string(forced_len() + 5) +
                "\n  where: reasoning\n  mend:  limit: " + std::to_string(39 + 1 + forced_len() + 5) + " or more");
  EXPECT_THAT(
      error_of([&] { write(Means("random_keys", 0.9), settings_of(150)); }),
      HasSubstr("a compaction at a limit of 150 entries keeps 8 protected ones and 128 others, which leaves 14"));
  EXPECT_THAT(error_of([&] { write(Means("random_keys", 0.001), settings_of(150)); }),
              HasSubstr("the target leaves no room besides the 8 protected entries"));
  EXPECT_THAT(error_of([&] { write(Means("summarize", 0.5), settings_of(150)); }),
              HasSubstr("a method on the text cannot compact the cache of a text that is being written"));
  const Model small = tiny_model(11, at::kFloat, 64);
  EXPECT_THAT(error_of([&] { write_online(small, Means("full_cache").online(), prompt_, settings_of(1000), kSeed); }),
              HasSubstr("positions, the model has 64"));
}

// Attention mass of a head's entries with their biases, log, of each query.
at::Tensor log_mass(const LayerKv& layer, int64_t head, const at::Tensor& queries) {
  const at::Tensor keys = layer.head_keys(head).to(at::kDouble);
  at::Tensor scores = at::matmul(queries.to(at::kDouble), keys.t()) / std::sqrt(static_cast<double>(keys.size(1)));
  if (layer.bias.defined()) scores = scores + layer.head_bias(head).to(at::kDouble);
  return at::logsumexp(scores, {1});
}

// Six compactions in a row on a real model. Were old biases lost, each would halve the mass of what was kept before.
TEST(OnlineWritingOnARealModel, SixCompactionsLoseNothingButEntries) {
  ModelConfig config;
  config.path = std::string(KVC_SOURCE_DIR) + "/models/smollm2-135m-instruct.gguf";
  config.dtype = "float32";
  Model loaded = Model::load(config);
  Decoder decoder = loaded.decoder();  // shares the weights
  const Model model(std::move(decoder), std::make_unique<OtherTokenizer>(std::move(loaded), std::vector<int64_t>{}),
                    make_chat_template("chatml"), Json::object());
  constexpr int64_t kLimit = 64;
  std::vector<double> mass_errors;
  int64_t n_read_before = 0;
  const Means means("attention_matching", 0.5,
                    [&](const CompactionRequest& request, const Compaction& made) {
                      const auto n_read = static_cast<int64_t>(request.context.tokens.size());
                      EXPECT_EQ(request.cache.next_position(), n_read);
                      EXPECT_EQ(made.cache.next_position(), n_read);
                      EXPECT_GT(n_read, n_read_before);
                      n_read_before = n_read;
                      const KvCache whole = model.decoder().prefill(request.context.tokens);
                      double error = 0;
                      for (int64_t layer = 0; layer < whole.n_layers(); ++layer) {
                        const at::Tensor queries = request.queries->layer(layer, nullptr);
                        for (int64_t head = 0; head < whole.n_kv_heads(); ++head) {
                          EXPECT_LE(request.cache.layer(layer).head_len(head), kLimit);
                          EXPECT_LT(made.cache.layer(layer).head_len(head), request.cache.layer(layer).head_len(head));
                          const at::Tensor difference = log_mass(made.cache.layer(layer), head, queries[head]) -
                                                        log_mass(whole.layer(layer), head, queries[head]);
                          error += difference.abs().mean().item<double>();
                        }
                      }
                      mass_errors.push_back(error / static_cast<double>(whole.n_layers() * whole.n_kv_heads()));
                    },
                    {{"select", "highest_attention"}});
  const std::vector<int64_t> prompt = model.tokenizer().encode_text("Pairs of positive integers with sum 100:");
  OnlineSettings settings = settings_of(kLimit);
  settings.answer_tokens = 2;
  const OnlineText written = write_online(model, means.online(), prompt, settings, kSeed);
  ASSERT_EQ(written.steps.size(), 6U) << written.stop_reason << written.text;
  EXPECT_EQ(written.next_position, static_cast<int64_t>(prompt.size() + written.tokens.size()));
  EXPECT_EQ(written.next_position, kLimit + 6 * 28);
  EXPECT_EQ(written.peak_entries, kLimit);
  for (const OnlineStep& step : written.steps) {
    EXPECT_EQ(step.entries_before, kLimit);
    EXPECT_EQ(step.entries_after, 8 + 28);
    ASSERT_TRUE(step.drift_kl.has_value());
    EXPECT_TRUE(std::isfinite(*step.drift_kl));
  }
  // Mean |log mass - log mass of the whole text| over queries and heads; measured: 0.03 after the first, 0.07 after the
  // sixth.
  for (const double error : mass_errors) EXPECT_LT(error, 0.2) << ::testing::PrintToString(mass_errors);
}

}  // namespace
}  // namespace kvc
