#include "harness/model/generate.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "harness/core/error.h"
#include "harness/model/continuation.h"
#include "harness/model/sampling.h"
#include "harness/testing/naive_decoder.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr std::uint64_t kSeed = 3;

std::vector<int64_t> text(int64_t n, int64_t step) {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < n; ++i) tokens.push_back((i * i * 5 + i * step + step) % 256);
  return tokens;
}

std::vector<std::vector<int64_t>> prompts(int64_t n) {
  std::vector<std::vector<int64_t>> list;
  for (int64_t i = 0; i < n; ++i) list.push_back(text(1 + i * 7 % 19, 3 + 2 * i));
  return list;
}

std::vector<std::uint64_t> seeds(size_t n) {
  std::vector<std::uint64_t> list;
  for (size_t i = 0; i < n; ++i) list.push_back(1000 + i);
  return list;
}

class Generate : public ::testing::Test {
 protected:
  const Model model_ = tiny_model(kSeed);
  const DecoderWeights weights_ = random_weights(tiny_spec(), kSeed);
  const KvCache prefix_ = model_.decoder().prefill(text(40, 9));
};

TEST_F(Generate, GreedyIsTheArgumentOfTheMaximumStepByStep) {
  const std::vector<int64_t> prompt = text(6, 4);
  const Generation result = generate(model_, prefix_, {prompt}, {.max_new_tokens = 12}, {}).at(0);
  std::vector<int64_t> tokens = prompt;
  for (const int64_t token : result.tokens) {
    const std::vector<double> logits = naive_forward(tiny_spec(), weights_, prefix_, tokens).logits.back();
    EXPECT_EQ(token, std::max_element(logits.begin(), logits.end()) - logits.begin());
    tokens.push_back(token);
  }
  EXPECT_EQ(result.stop_reason, "length");
  EXPECT_EQ(result.tokens.size(), 12U);
}

TEST_F(Generate, ABatchEqualsItsSequencesAlone) {
  const auto list = prompts(16);
  for (const double temperature : {0.0, 1.3}) {
    // Some end and leave the batch while others go on: room for long answers, and tails that must grow.
    const DecodeSettings settings{.max_new_tokens = 60, .temperature = temperature, .top_k = 0, .top_p = 1.0};
    const auto together = generate(model_, prefix_, list, settings, seeds(16));
    std::map<std::string, int> reasons;
    for (size_t b = 0; b < list.size(); ++b) {
      const auto alone = generate(model_, prefix_, {list[b]}, settings, {seeds(16)[b]});
      EXPECT_EQ(together[b].tokens, alone[0].tokens) << b;
      EXPECT_EQ(together[b].stop_reason, alone[0].stop_reason);
      ++reasons[together[b].stop_reason];
    }
    if (temperature > 0) {
      EXPECT_GT(reasons["end"], 0) << "no sequence ended: the test does not test leaving";
    }
  }
}

TEST_F(Generate, SeveralPrefixesTogetherEqualEachAlone) {
  const KvCache other = model_.decoder().prefill(text(17, 5)), nothing = model_.decoder().empty_cache();
  const std::vector<const KvCache*> prefixes = {&prefix_, &nothing, &other};
  const std::vector<std::vector<std::vector<int64_t>>> lists = {prompts(10), prompts(7), prompts(15)};
  const std::vector<std::vector<int64_t>> none;
  for (const double temperature : {0.0, 1.3}) {
    DecodeSettings settings{.max_new_tokens = 60, .temperature = temperature};
    settings.stop = {"a", "\x05"};  // bytes: the tiny model's tokens
    std::vector<std::vector<std::uint64_t>> own;
    for (const auto& list : lists) own.push_back(seeds(list.size()));
    const std::vector<std::uint64_t> no_seeds;
    std::vector<PrefixPrompts> parts = {{other, none, no_seeds}};
    for (size_t p = 0; p < prefixes.size(); ++p) parts.push_back({*prefixes[p], lists[p], own[p]});
    const auto together = generate(model_, parts, settings);
    ASSERT_EQ(together.size(), 4U);
    EXPECT_TRUE(together[0].empty());
    for (size_t p = 0; p < prefixes.size(); ++p) {
      const auto alone = generate(model_, *prefixes[p], lists[p], settings, own[p]);
      ASSERT_EQ(together[p + 1].size(), alone.size());
      for (size_t b = 0; b < alone.size(); ++b) {
        EXPECT_EQ(together[p + 1][b].tokens, alone[b].tokens) << p << ", " << b;
        EXPECT_EQ(together[p + 1][b].text, alone[b].text);
        EXPECT_EQ(together[p + 1][b].stop_reason, alone[b].stop_reason);
      }
    }
  }
}

TEST_F(Generate, SeedsDecideSamples) {
  const auto list = std::vector<std::vector<int64_t>>(3, text(5, 7));
  const DecodeSettings settings{.max_new_tokens = 20, .temperature = 1.0, .top_k = 50, .top_p = 0.95};
  const auto result = generate(model_, prefix_, list, settings, {1, 2, 1});
  EXPECT_EQ(result[0].tokens, result[2].tokens);
  EXPECT_NE(result[0].tokens, result[1].tokens);
}

TEST_F(Generate, StopsAtTheTrainedLength) {
  const Model small = tiny_model(kSeed, at::kFloat, 50);
  const KvCache prefix = small.decoder().prefill(text(40, 9));
  const auto result = generate(small, prefix, {text(8, 3), text(3, 3)}, {.max_new_tokens = 30}, {});
  // The last new token needs no position: 40 + 8 + 3 - 1 = 50.
  EXPECT_EQ(result[0].tokens.size(), 3U);
  EXPECT_EQ(result[1].tokens.size(), 8U);
  EXPECT_EQ(result[1].stop_reason, "length");
  EXPECT_THAT([&] { (void)generate(small, prefix, {text(11, 3)}, {.max_new_tokens = 1}, {}); },
              ThrowsMessage<Error>(HasSubstr("trained on 50 positions")));
}

TEST_F(Generate, HandsOutTokensAsTheyCome) {
  const auto list = prompts(3);
  std::map<size_t, std::vector<int64_t>> heard;
  const auto results = generate(model_, prefix_, list, {.max_new_tokens = 9}, {},
                                [&](size_t sequence, int64_t token) { heard[sequence].push_back(token); });
  for (size_t b = 0; b < list.size(); ++b) {
    EXPECT_EQ(heard[b], results[b].tokens);
    EXPECT_EQ(results[b].text, model_.tokenizer().decode(results[b].tokens));
  }
}

TEST_F(Generate, StopsBehindAStopText) {
  const std::vector<int64_t> prompt = text(6, 4);
  const Generation whole = generate(model_, prefix_, {prompt}, {.max_new_tokens = 30}, {}).at(0);
  ASSERT_GT(whole.text.size(), 12U);
  const std::string stop = whole.text.substr(7, 3);  // of several tokens: the tiny model's tokens are bytes
  const size_t first = whole.text.find(stop);
  const auto cut =
      generate(model_, prefix_, {prompt, text(5, 9)}, {.max_new_tokens = 30, .stop = {"absent", stop}}, {});
  EXPECT_EQ(cut[0].stop_reason, "stop");
  EXPECT_EQ(cut[0].text, whole.text.substr(0, first));
  EXPECT_EQ(model_.tokenizer().decode(cut[0].tokens), whole.text.substr(0, first + stop.size()));
  EXPECT_THAT([&] { (void)generate(model_, prefix_, {prompt}, {.stop = {""}}, {}); },
              ThrowsMessage<Error>(HasSubstr("stop must not be empty")));
}

TEST_F(Generate, EndsThoughtsAtTheirBudget) {
  constexpr int64_t kOpen = 259, kClose = 260, kNew = 20;
  const DecodeSettings free{.max_new_tokens = kNew};
  std::vector<int64_t> thinking = text(6, 4), silent = thinking;
  thinking.insert(thinking.begin(), kOpen);
  silent.insert(silent.begin(), {kOpen, kClose});
  const Generation unlimited = generate(model_, prefix_, {thinking}, free, {}).at(0);
  ASSERT_THAT(unlimited.tokens, ::testing::Each(::testing::AllOf(::testing::Ne(kOpen), ::testing::Ne(kClose))))
      << "take another prompt";
  EXPECT_FALSE(unlimited.thinking_cut);
  EXPECT_EQ(unlimited.thinking_tokens, kNew);
  for (const int64_t budget : {0, 3}) {
    const auto results =
        generate(model_, prefix_, {thinking, silent}, {.max_new_tokens = kNew, .thinking_budget = budget}, {});
    const Generation& thought = results[0];
    EXPECT_TRUE(thought.thinking_cut);
    EXPECT_EQ(thought.thinking_tokens, budget);
    std::vector<int64_t> expected(unlimited.tokens.begin(), unlimited.tokens.begin() + budget);
    expected.insert(expected.end(), {'\n', kClose, '\n', '\n'});
    // Behind the forced text the model goes on by itself.
    std::vector<int64_t> prompt = thinking;
    prompt.insert(prompt.end(), expected.begin(), expected.end());
    const Generation rest = generate(model_, prefix_, {prompt}, {.max_new_tokens = kNew - budget - 4}, {}).at(0);
    expected.insert(expected.end(), rest.tokens.begin(), rest.tokens.end());
    EXPECT_EQ(thought.tokens, expected);
    EXPECT_FALSE(results[1].thinking_cut);
    EXPECT_EQ(results[1].thinking_tokens, 0);
    // Behind two prefixes at once.
    const KvCache other = model_.decoder().prefill(text(20, 5));
    const DecodeSettings settings{.max_new_tokens = kNew, .thinking_budget = budget};
    const std::vector<std::vector<int64_t>> both = {thinking, silent}, one = {thinking};
    const std::vector<std::uint64_t> no_seeds;
    const auto together = generate(model_, {{other, one, no_seeds}, {prefix_, both, no_seeds}}, settings);
    EXPECT_EQ(together[0][0].tokens, generate(model_, other, one, settings, {})[0].tokens);
    EXPECT_EQ(together[1][0].tokens, thought.tokens);
    EXPECT_EQ(together[1][0].thinking_tokens, budget);
    EXPECT_EQ(together[1][1].tokens, results[1].tokens);
  }
}

TEST_F(Generate, LogProbabilitiesOfATextEqualNaiveOnes) {
  const std::vector<int64_t> tokens = text(30, 7);
  const KvCache nothing = KvCache::empty(2, 2, 16, model_.decoder().options());
  const NaiveResult naive = naive_forward(tiny_spec(), weights_, nothing, tokens);
  const std::vector<double> got = text_log_probs(model_, tokens);
  ASSERT_EQ(got.size(), tokens.size() - 1);
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], naive_log_probability(naive.logits[i], tokens[i + 1]), 1e-4) << i;
  }
  EXPECT_TRUE(text_log_probs(model_, {5}).empty());
  EXPECT_THAT([&] { (void)text_log_probs(model_, text(600, 3)); },
              ThrowsMessage<Error>(HasSubstr("longer than the model's 512 positions")));
}

TEST_F(Generate, RefusesWhatMakesNoSense) {
  EXPECT_TRUE(generate(model_, prefix_, {}, {}, {}).empty());
  EXPECT_THAT([&] { (void)generate(model_, prefix_, {{}}, {}, {}); },
              ThrowsMessage<Error>(HasSubstr("prompt 0 is empty")));
  EXPECT_THAT([&] { (void)generate(model_, prefix_, {{1}}, {.temperature = 1}, {}); },
              ThrowsMessage<Error>(HasSubstr("0 seeds for 1 sampled sequences")));
  EXPECT_THAT([&] { (void)generate(model_, prefix_, {{1}}, {.top_p = 0}, {}); },
              ThrowsMessage<Error>(HasSubstr("top_p must be above 0 and at most 1; got 0")));
}

TEST_F(Generate, LikelihoodsEqualNaiveOnes) {
  const auto list = prompts(4);
  // Several options per prompt, of different lengths, one of a single token; prompt 2 has none.
  const std::vector<Continuation> continuations = {
      {3, text(5, 2)}, {0, {65}}, {0, text(11, 6)}, {1, text(2, 8)}, {3, text(7, 3)}};
  const auto sums = continuation_log_likelihoods(model_, prefix_, list, continuations);
  const auto hidden = continuation_hidden(model_, prefix_, list, continuations);
  for (size_t i = 0; i < continuations.size(); ++i) {
    std::vector<int64_t> tokens = list[static_cast<size_t>(continuations[i].prompt)];
    const size_t before = tokens.size();
    tokens.insert(tokens.end(), continuations[i].tokens.begin(), continuations[i].tokens.end());
    const NaiveResult naive = naive_forward(tiny_spec(), weights_, prefix_, tokens);
    double expected = 0;
    ASSERT_EQ(hidden[i].size(0), static_cast<int64_t>(continuations[i].tokens.size()));
    for (size_t t = before; t < tokens.size(); ++t) {
      expected += naive_log_probability(naive.logits[t - 1], tokens[t]);
      for (size_t j = 0; j < 48; ++j) {
        EXPECT_NEAR(hidden[i][static_cast<int64_t>(t - before)][static_cast<int64_t>(j)].item<double>(),
                    naive.hidden[t - 1][j], 2e-5);
      }
    }
    EXPECT_NEAR(sums[i], expected, 1e-3) << i;  // float32 logits of size 10, eleven of them summed
  }
}

TEST_F(Generate, LikelihoodsOfManyTextsAreReadInGroups) {
  // More prompts, forks and rows than fit one group: the same figures as one by one.
  std::vector<std::vector<int64_t>> list;
  std::vector<Continuation> continuations;
  for (int64_t p = 0; p < 30; ++p) {
    list.push_back(text(p % 2 == 0 ? 350 : 20, 3 + p));
    for (int64_t c = 0; c < 2; ++c) continuations.push_back({p, text(4 + 5 * c, p + c)});
  }
  const auto together = continuation_log_likelihoods(model_, prefix_, list, continuations);
  for (size_t i = 0; i < continuations.size(); i += 7) {
    const auto p = static_cast<size_t>(continuations[i].prompt);
    const auto alone = continuation_log_likelihoods(model_, prefix_, {list[p]}, {{0, continuations[i].tokens}});
    EXPECT_NEAR(together[i], alone[0], 1e-3) << i;
  }
}

TEST_F(Generate, RefusesContinuationsWithoutTokensOrPrompt) {
  EXPECT_THAT(
      [&] {
        (void)continuation_hidden(model_, prefix_, {{1}}, {{0, {}}});
      },
      ThrowsMessage<Error>(HasSubstr("continuation 0 has 0 tokens")));
  EXPECT_THAT(
      [&] {
        (void)continuation_hidden(model_, prefix_, {{1}}, {{1, {2}}});
      },
      ThrowsMessage<Error>(HasSubstr("after prompt 1 of 1")));
  EXPECT_THAT(
      [&] {
        (void)continuation_log_likelihoods(model_, prefix_, {{1}}, {{0, {300}}});
      },
      ThrowsMessage<Error>(HasSubstr("token 300 is outside")));
  EXPECT_TRUE(continuation_log_likelihoods(model_, prefix_, {{1}}, {}).empty());
}

TEST(Sampling, GreedyTakesTheLowestIdAmongEquals) {
  EXPECT_EQ(greedy_token(std::vector<float>{1, 3, 2, 3}), 1);
  EXPECT_THAT([] { (void)greedy_token(std::vector<float>{1, NAN}); }, ThrowsMessage<Error>(HasSubstr("not finite")));
  EXPECT_THAT(
      [] {
        (void)greedy_token(std::vector<float>{-INFINITY, -INFINITY});
      },
      ThrowsMessage<Error>(HasSubstr("not finite")));
}

std::vector<double> shares(const std::vector<float>& logits, double temperature, int64_t top_k, double top_p,
                           double min_p = 0) {
  std::mt19937_64 random(42);
  std::vector<double> counts(logits.size(), 0.0);
  constexpr int kDraws = 40000;
  for (int i = 0; i < kDraws; ++i)
    ++counts[static_cast<size_t>(sampled_token(logits, temperature, top_k, top_p, min_p, random))];
  for (double& count : counts) count /= kDraws;
  return counts;
}

TEST(Sampling, FollowsTheProbabilities) {
  // Probabilities 0.5, 0.1, 0.3, 0.1; a share of 40,000 draws has a standard deviation of at most 0.0025.
  const std::vector<float> logits = {std::log(0.5F), std::log(0.1F), std::log(0.3F), std::log(0.1F)};
  const auto expect = [&](const std::vector<double>& got, const std::vector<double>& wanted) {
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (wanted[i] == 0) {
        EXPECT_EQ(got[i], 0) << i;
      }
      EXPECT_NEAR(got[i], wanted[i], 0.0125) << i;
    }
  };
  expect(shares(logits, 1, 0, 1), {0.5, 0.1, 0.3, 0.1});
  expect(shares(logits, 1, 3, 1), {0.5 / 0.9, 0.1 / 0.9, 0.3 / 0.9, 0});  // the lower id of two equals
  expect(shares(logits, 1, 0, 0.7), {0.625, 0, 0.375, 0});
  expect(shares(logits, 1, 3, 0.5), {1, 0, 0, 0});
  expect(shares(logits, 0.5, 0, 1), {0.25 / 0.36, 0.01 / 0.36, 0.09 / 0.36, 0.01 / 0.36});
  EXPECT_EQ(shares(logits, 1, 1, 1)[0], 1);
  expect(shares(logits, 1, 0, 1, 0.21), {0.625, 0, 0.375, 0});     // 0.1 is less than 0.21 of 0.5
  expect(shares(logits, 2, 0, 1, 0.21), shares(logits, 2, 0, 1));  // flattened first: the root of 0.2 is more
  EXPECT_EQ(shares(logits, 1, 0, 1, 1)[0], 1);
}

TEST(Sampling, NucleusOfAFlatDistributionIsWide) {
  // Sorted in steps of 64, 256, ...: 1,000 equals, of which the first 900 reach 0.9.
  const std::vector<float> logits(1000, 2.0F);
  const auto got = shares(logits, 1, 0, 0.8995);
  EXPECT_GT(*std::min_element(got.begin(), got.begin() + 899), 0);
  for (size_t i = 900; i < 1000; ++i) EXPECT_EQ(got[i], 0);
}

TEST(Sampling, UsesOneNumberADraw) {
  std::mt19937_64 a(1), b(1);
  (void)sampled_token(std::vector<float>{1, 2, 3}, 1, 2, 0.5, 0.1, a);
  (void)sampled_token(std::vector<float>(500, 1.0F), 1, 0, 1, 0, b);
  EXPECT_EQ(a(), b());
}

}  // namespace
}  // namespace kvc
