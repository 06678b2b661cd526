// All ways of the pursuit (the CPU's; the GPU's by LibTorch's operations, run on the CPU; the GPU's kernels, run on the
// host by their own text) against a plain float64 loop of Algorithm 1 of
// arXiv:2602.16284, and laws whose answer can be seen.
#include "harness/math/matching_pursuit.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "harness/core/error.h"
#include "harness/math/attention.h"
#include "harness/math/device_pursuit.h"
#include "harness/testing/emulated_pursuit.h"

namespace kvc {
namespace {

enum class Way { kHost, kDevice, kChecked, kKernels, kCheckedKernels };

std::string name_of(Way way) {
  switch (way) {
    case Way::kHost:
      return "Host";
    case Way::kDevice:
      return "Device";
    case Way::kChecked:
      return "Checked";
    case Way::kKernels:
      return "Kernels";
    case Way::kCheckedKernels:
      return "CheckedKernels";
  }
  return "";
}

const PursuitKernels* kernels_of(Way way) {
  return way == Way::kKernels || way == Way::kCheckedKernels ? emulated_pursuit_kernels() : nullptr;
}

class BothPursuits : public ::testing::TestWithParam<Way> {
 protected:
  // Kernels on the host are slow: they get a part of the cases.
  static bool is_slow() { return kernels_of(GetParam()) != nullptr; }
};

INSTANTIATE_TEST_SUITE_P(MatchingPursuit, BothPursuits,
                         ::testing::Values(Way::kHost, Way::kDevice, Way::kChecked, Way::kKernels,
                                           Way::kCheckedKernels),
                         [](const auto& test) { return name_of(test.param); });

// Several heads, as one that is alone.
class First final : public Pursuit {
 public:
  explicit First(std::unique_ptr<DevicePursuits> all) : all_(std::move(all)) {}
  void run(int64_t most) override { all_->run({most}); }
  PursuitPicks picks(int64_t target) const override { return all_->picks({target}).front(); }

 private:
  std::unique_ptr<DevicePursuits> all_;
};

struct Head {
  at::Tensor queries, keys, bias, row_max, row_sum;
  std::unique_ptr<Pursuit> pursuit(const PursuitSettings& settings) const {
    if (BothPursuits::GetParam() == Way::kHost)
      return std::make_unique<MatchingPursuit>(queries, keys, bias, row_max, row_sum, settings);
    const Way way = BothPursuits::GetParam();
    if (way == Way::kDevice || way == Way::kKernels)
      return std::make_unique<DevicePursuit>(queries, keys, bias, row_max, row_sum, settings, kernels_of(way));
    return std::make_unique<First>(several({*this}, settings, {.keys = 65, .choices = 5}, kernels_of(way)));
  }
  static std::unique_ptr<DevicePursuits> several(const std::vector<Head>& heads, const PursuitSettings& settings,
                                                 const KeysAtHand& at_hand, const PursuitKernels* kernels = nullptr) {
    const auto stacked = [&](at::Tensor Head::*part) {
      std::vector<at::Tensor> list;
      for (const Head& head : heads) list.push_back(head.*part);
      return list.front().defined() ? at::stack(list) : at::Tensor();
    };
    return std::make_unique<DevicePursuits>(stacked(&Head::queries), stacked(&Head::keys), stacked(&Head::bias),
                                            stacked(&Head::row_max), stacked(&Head::row_sum), settings, at_hand,
                                            kernels);
  }
};

Head complete(Head head) {
  const at::Tensor logits = attention_logits(head.queries, head.keys, head.bias);
  head.row_max = logits.amax(1, /*keepdim=*/true);
  head.row_sum = (logits - head.row_max).exp().sum(1, /*keepdim=*/true);
  return head;
}

// Keys in clusters, queries that look at some of them more than at others: heavy-tailed attention.
Head clustered(int64_t n, int64_t t, int64_t d, std::uint64_t seed, bool with_bias) {
  at::manual_seed(seed);
  const at::Tensor centres = at::randn({8, d}) * 2;
  Head head;
  head.keys = centres.index_select(0, at::randint(8, {t}, at::kLong)) + at::randn({t, d}) * 0.7;
  head.queries = centres.index_select(0, at::randint(8, {n}, at::kLong)) * 0.6 + at::randn({n, d});
  if (with_bias) head.bias = at::randn({t}) * 0.5;
  return complete(head);
}

struct Judged {
  std::vector<int64_t> order;
  std::vector<double> weights;
  double smallest_gap = 1e300;  // between the last key taken and the first left, of all choices; part of the largest h
};

// Algorithm 1 of arXiv:2602.16284 word by word, float64, least squares from scratch at every solve.
class Judge {
 public:
  Judge(const Head& head, const PursuitSettings& settings) : settings_(settings) {
    const at::Tensor logits = attention_logits(head.queries, head.keys, head.bias);
    e_ = (logits - head.row_max).to(at::kDouble).exp();
    y_ = head.row_sum.to(at::kDouble);
    scale_ = at::mv(e_.t(), y_.squeeze(1)).max().item<double>();
  }

  Judged run(int64_t t) {
    Judged result;
    std::vector<int64_t>& order = result.order;
    std::vector<bool> out(static_cast<size_t>(e_.size(1)), false);
    at::Tensor current = at::zeros_like(y_), w;
    int64_t iteration = 0;
    for (int entry = 1;; ++entry) {
      while (static_cast<int64_t>(order.size()) < t) {
        const auto i = static_cast<int64_t>(order.size());
        int64_t k_choice = settings_.k_choice, interval = settings_.nnls_interval;
        if (settings_.progressive) {
          k_choice = i < 300 ? 1 : i < 1500 ? 2 : 4;
          interval = i < 300 ? 1 : 2;
        }
        at::Tensor correlation = at::mv(e_.t(), (y_ - current).squeeze(1));
        int64_t left = 0;
        for (int64_t j = 0; j < e_.size(1); ++j) {
          const bool taken = out[static_cast<size_t>(j)] || std::find(order.begin(), order.end(), j) != order.end();
          if (taken) correlation[j] = -std::numeric_limits<double>::infinity();
          left += taken ? 0 : 1;
        }
        const int64_t k = std::min({k_choice, left, t - i});
        if (k == 0) break;
        const auto [sorted, index] = at::sort(correlation, /*stable=*/true, 0, /*descending=*/true);
        for (int64_t j = 0; j < k; ++j) order.push_back(index[j].item<int64_t>());
        if (left > k) {
          result.smallest_gap = std::min(result.smallest_gap, (sorted[k - 1] - sorted[k]).item<double>() / scale_);
        }
        if (!w.defined() || iteration % interval == 0) {
          w = solve(order);
        } else {
          w = at::cat({w, at::full({k, 1}, settings_.lower, at::kDouble)});
        }
        current = at::mm(columns(order), w);
        ++iteration;
      }
      w = solve(order);
      if (!settings_.drop_below || entry == 4) break;
      std::vector<int64_t> kept;
      for (size_t i = 0; i < order.size(); ++i) {
        if (std::log(w[static_cast<int64_t>(i)].item<double>()) < *settings_.drop_below) {
          out[static_cast<size_t>(order[i])] = true;
        } else {
          kept.push_back(order[i]);
        }
      }
      if (kept.size() == order.size()) break;
      order = kept;
      current = at::mm(columns(order), solve(order));
      w = at::Tensor();
      ++iteration;
    }
    w = solve(order);
    result.weights.assign(w.const_data_ptr<double>(), w.const_data_ptr<double>() + w.numel());
    return result;
  }

 private:
  at::Tensor columns(const std::vector<int64_t>& order) const {
    return e_.index_select(1, at::tensor(order, at::kLong));
  }
  at::Tensor solve(const std::vector<int64_t>& order) const {
    const at::Tensor a = columns(order);
    const at::Tensor w = at::linalg_solve(at::mm(a.t(), a), at::mm(a.t(), y_));
    return w.clamp(settings_.lower, settings_.upper).contiguous();
  }

  PursuitSettings settings_;
  at::Tensor e_, y_;
  double scale_ = 1;
};

void expect_like_judge(const Head& head, const PursuitSettings& settings, const std::vector<int64_t>& targets) {
  const auto pursuit = head.pursuit(settings);
  pursuit->run(*std::max_element(targets.begin(), targets.end()));
  for (const int64_t t : targets) {
    const PursuitPicks picks = pursuit->picks(t);
    const Judged judged = Judge(head, settings).run(t);
    ASSERT_GT(judged.smallest_gap, 1e-13) << "the case itself is undecided";
    ASSERT_EQ(picks.order, judged.order) << "t " << t << ", smallest gap " << judged.smallest_gap;
    for (size_t i = 0; i < picks.weights.size(); ++i) {
      EXPECT_NEAR(std::log(picks.weights[i]), std::log(judged.weights[i]), 1e-3) << "t " << t << ", pick " << i;
    }
  }
}

TEST_P(BothPursuits, PicksAreThoseOfAFloat64Loop) {
  for (const bool with_bias : {false, true}) {
    expect_like_judge(clustered(300, 128, 16, 1, with_bias), {}, {1, 2, 17, 60});
    if (is_slow()) continue;
    expect_like_judge(clustered(600, 256, 64, 2, with_bias), {}, {5, 80});
  }
  expect_like_judge(clustered(is_slow() ? 301 : 900, 400, 128, 3, false), {}, {is_slow() ? 10 : 40});
}

// Rows of G are made when they are needed, or all at once: both ways, several targets at a time.
TEST_P(BothPursuits, RowsOnDemandAndAllAtOnce) {
  const Head head = clustered(500, 420, 32, 11, true);
  PursuitSettings settings;
  settings.drop_below = 0.0;
  if (is_slow()) return expect_like_judge(head, settings, {10});
  expect_like_judge(head, settings, {10, 30, 60});  // at most a sixth of the keys
  expect_like_judge(head, settings, {30, 60, 71});  // more
}

// Float32 cannot tell the best of 200 equal keys: the first of them is picked.
TEST_P(BothPursuits, AChoiceAmongTooManyIsCounted) {
  at::manual_seed(12);
  Head head;
  head.keys = at::cat({at::randn({1, 16}).expand({200, 16}), at::randn({100, 16})}).contiguous();
  head.queries = at::randn({150, 16}) + head.keys.narrow(0, 0, 1) * 2;
  head = complete(head);
  const auto pursuit = head.pursuit({});
  pursuit->run(3);
  EXPECT_GE(pursuit->picks(3).n_cut, 1);
  const Head other = clustered(300, 128, 16, 1, false);
  const auto clear = other.pursuit({});
  clear->run(3);
  EXPECT_EQ(clear->picks(3).n_cut, 0);
}

TEST_P(BothPursuits, SeveralKeysAtATimeAndFewerSolves) {
  PursuitSettings fast;
  fast.k_choice = 4;
  fast.nnls_interval = 2;
  expect_like_judge(clustered(500, 200, 32, 4, false), fast, {3, 4, 7, 12, 50});
  if (is_slow()) return;  // the schedule is the host's
  PursuitSettings progressive;
  progressive.progressive = true;
  expect_like_judge(clustered(600, 400, 32, 5, false), progressive, {308});
}

TEST_P(BothPursuits, DroppedKeysAreReplacedAsInTheLoop) {
  PursuitSettings settings;
  int64_t n_dropped = 0;
  for (const double drop_below : {-7.0, 0.0, 0.5}) {
    if (is_slow() && drop_below != 0) continue;
    settings.drop_below = drop_below;
    for (const std::uint64_t seed : {6, 7}) {
      const Head head = clustered(400, 160, 16, seed, seed == 7);
      expect_like_judge(head, settings, {40});
      const auto pursuit = head.pursuit(settings);
      pursuit->run(40);
      n_dropped += pursuit->picks(40).n_dropped;
    }
  }
  EXPECT_GT(n_dropped, 0) << "no case dropped anything: the rule was not tested";
}

TEST_P(BothPursuits, ShorterRunsArePrefixes) {
  const Head head = clustered(300, 128, 16, 8, false);
  for (const int64_t k : {1, 4}) {
    PursuitSettings settings;
    settings.k_choice = k;
    const auto whole = head.pursuit(settings);
    whole->run(60);
    for (const int64_t t : {1, 5, 30, 60}) {
      const auto alone = head.pursuit(settings);
      alone->run(t);
      EXPECT_EQ(alone->picks(t).order, whole->picks(t).order);
      EXPECT_EQ(alone->picks(t).weights, whole->picks(t).weights);
    }
  }
}

TEST_P(BothPursuits, CopiesWeighAsMuchAsTheyAre) {
  // 5 distinct keys, 1 to 5 times each: one of each explains all, with its multiplicity for a weight.
  at::manual_seed(9);
  const at::Tensor distinct = at::randn({5, 16}) * 2;
  std::vector<int64_t> source;
  for (int64_t i = 0; i < 5; ++i) source.insert(source.end(), static_cast<size_t>(i + 1), i);
  Head head;
  head.keys = distinct.index_select(0, at::tensor(source, at::kLong));
  head.queries = at::randn({200, 16});
  head = complete(head);
  const auto pursuit = head.pursuit({});
  pursuit->run(8);
  const PursuitPicks five = pursuit->picks(5);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_NEAR(five.weights[i], static_cast<double>(source[static_cast<size_t>(five.order[i])] + 1), 1e-4);
  }
  // More picks than distinct keys: copies explain nothing more, and nothing breaks.
  const PursuitPicks eight = pursuit->picks(8);
  EXPECT_EQ(eight.n_dependent, 3);
  for (const double w : eight.weights) EXPECT_TRUE(std::isfinite(w));
}

TEST_P(BothPursuits, EveryKeyAndFewerQueriesThanKeys) {
  const Head head = clustered(20, 40, 16, 10, false);
  const auto pursuit = head.pursuit({});
  pursuit->run(40);
  PursuitPicks all = pursuit->picks(40);
  std::sort(all.order.begin(), all.order.end());
  for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(all.order[static_cast<size_t>(i)], i);
  EXPECT_GE(all.n_dependent, 20);
  for (const double w : all.weights) EXPECT_TRUE(std::isfinite(w));
}

// Flat scores: columns differ little, clamped least squares of twice as many picks as queries explain less than
// nothing. All keys at weight 1 explain the mass wholly, so half of them must come near.
TEST_P(BothPursuits, MorePicksThanQueriesStillExplainTheMass) {
  Head head;
  at::manual_seed(12);
  head.keys = at::randn({300, 16});
  head.queries = at::randn({40, 16}) * 0.3;
  head = complete(head);
  const auto pursuit = head.pursuit({});
  pursuit->run(90);
  const PursuitPicks picks = pursuit->picks(90);
  EXPECT_GT(picks.n_dependent, 0);
  const at::Tensor logits = attention_logits(head.queries, head.keys, {});
  const at::Tensor e = (logits - logits.amax({1}, true)).exp().to(at::kDouble);
  const at::Tensor mass = e.sum(1);
  const at::Tensor rest =
      mass - at::mv(e.index_select(1, at::tensor(picks.order, at::kLong)), at::tensor(picks.weights, at::kDouble));
  EXPECT_LT((rest.norm() / mass.norm()).item<double>(), 1e-2);
}

// Heads of different targets in step, each as the loop would have it: with all keys at hand, and with so few of them
// that checks take choices back.
void expect_heads_like_loops(const std::vector<Head>& heads, const std::vector<int64_t>& most,
                             const std::vector<int64_t>& fewer, const PursuitSettings& settings,
                             const std::vector<KeysAtHand>& all_at_hand, const PursuitKernels* kernels = nullptr) {
  int64_t n_taken_back = 0, n_dropped = 0;
  for (const KeysAtHand& at_hand : all_at_hand) {
    const auto pursuits = Head::several(heads, settings, at_hand, kernels);
    pursuits->run(most);
    for (const std::vector<int64_t>& targets : {most, fewer}) {
      const std::vector<PursuitPicks> picks = pursuits->picks(targets);
      for (size_t h = 0; h < heads.size(); ++h) {
        if (targets[h] == 0) {
          EXPECT_TRUE(picks[h].order.empty());
          continue;
        }
        const Judged judged = Judge(heads[h], settings).run(targets[h]);
        ASSERT_EQ(picks[h].order, judged.order) << "head " << h << ", smallest gap " << judged.smallest_gap;
        for (size_t i = 0; i < judged.weights.size(); ++i) {
          EXPECT_NEAR(std::log(picks[h].weights[i]), std::log(judged.weights[i]), 1e-3);
        }
        EXPECT_EQ(picks[h].n_cut, 0);
        n_dropped += picks[h].n_dropped;
      }
    }
    n_taken_back += pursuits->n_taken_back();
  }
  EXPECT_GT(n_taken_back, 0) << "no choice was taken back: that was not tested";
  if (settings.drop_below == 0) {
    EXPECT_GT(n_dropped, 0);
  }
}

TEST(DevicePursuits, HeadsOfDifferentTargetsAreThoseOfALoopEach) {
  for (const bool fast : {false, true}) {
    for (const double drop_below : {-7.0, 0.0}) {
      PursuitSettings settings;
      settings.drop_below = drop_below;
      if (fast) settings.k_choice = 4, settings.nnls_interval = 2;
      std::vector<Head> heads;
      for (std::uint64_t h = 0; h < 4; ++h) heads.push_back(clustered(400, 320, 24, 30 + h, true));
      expect_heads_like_loops(heads, {60, 1, 33, 50}, {17, 0, 33, 12}, settings, {{}, {65, 48}, {70, 5}});
    }
  }
}

// Scans by a coarse table that is wrong: what they miss is for the checks to find.
PursuitKernels misled(const PursuitKernels& kernels) {
  PursuitKernels misled = kernels;
  misled.advance = [&kernels](const PursuitTensors& heads, const PursuitIteration& now) {
    PursuitTensors wrong = heads;
    if (heads.coarse.defined()) {
      wrong.coarse_step = heads.coarse_step * at::arange(1, heads.coarse_step.size(1) + 1, at::kFloat).remainder(7);
    }
    return kernels.advance(wrong, now);
  };
  return misled;
}

TEST(DevicePursuits, KernelsOfHeadsOfDifferentTargetsAreThoseOfALoopEach) {
  for (const bool fast : {false, true}) {
    PursuitSettings settings;
    settings.drop_below = 0.0;
    if (fast) settings.k_choice = 3, settings.nnls_interval = 2;
    std::vector<Head> heads;
    for (std::uint64_t h = 0; h < 3; ++h) heads.push_back(clustered(401, 320, 24, 30 + h, true));
    const PursuitKernels kernels = misled(*emulated_pursuit_kernels());
    expect_heads_like_loops(heads, {40, 1, 33}, {9, 0, 12}, settings, {{65, 48}}, &kernels);
  }
}

// A scan finds what the coarse table's 8 bits tell apart: of these heads all choices, so nothing is taken back and no
// head's table is read for more than its checks.
TEST(DevicePursuits, ScansFindTheBest) {
  std::vector<Head> heads;
  for (std::uint64_t h = 0; h < 2; ++h) heads.push_back(clustered(333, 320, 24, 40 + h, true));
  const auto pursuits = Head::several(heads, {}, {65, 32}, emulated_pursuit_kernels());
  pursuits->run({32, 20});
  const std::vector<PursuitPicks> picks = pursuits->picks({32, 20});
  for (size_t h = 0; h < 2; ++h) EXPECT_EQ(picks[h].order, Judge(heads[h], {}).run(h == 0 ? 32 : 20).order);
  EXPECT_EQ(pursuits->n_taken_back(), 0);
  // For each head the order of the beginning, the check at the end, one choice among the keys at hand and the others by
  // scans of 336 bytes a key.
  const double at_hand = 65.0 / 320, scan = 336.0 / (4 * 333);
  EXPECT_NEAR(pursuits->n_readings(), 2 * (2 + at_hand) + (31 + 19) * scan, 1e-9);
}

// As a GPU's blocks leave them: a head alone and among others, and so many heads that a launch does not take them all.
TEST(DevicePursuits, AHeadHasTheSameBitsAmongOthers) {
  std::vector<Head> heads;
  for (int64_t h = 0; h < 385; ++h)
    heads.push_back(clustered(33, 70, 8, 50 + static_cast<std::uint64_t>(h % 3), false));
  const PursuitKernels* kernels = emulated_pursuit_kernels();
  const auto together = Head::several(heads, {}, {}, kernels);
  together->run(std::vector<int64_t>(heads.size(), 2));
  const std::vector<PursuitPicks> all = together->picks(std::vector<int64_t>(heads.size(), 2));
  for (const size_t h : {0U, 1U, 2U}) {
    const auto alone = Head::several({heads[h]}, {}, {}, kernels);
    alone->run({2});
    const PursuitPicks own = alone->picks({2}).front();
    for (size_t i = h; i < heads.size(); i += 3) {
      EXPECT_EQ(all[i].order, own.order) << i;
      EXPECT_EQ(all[i].weights, own.weights) << i;
    }
  }
}

// Keys, rows and candidates that no block's size divides; many picks at a time.
TEST(DevicePursuits, KernelsTakeOddSizes) {
  for (const auto& [n, t, k, picks] : {std::array{1, 2, 1, 1}, {31, 66, 66, 66}, {130, 257, 100, 120}}) {
    const Head head = clustered(n, t, 8, 60, true);
    PursuitSettings settings;
    settings.k_choice = k;
    DevicePursuit kernels(head.queries, head.keys, head.bias, head.row_max, head.row_sum, settings,
                          emulated_pursuit_kernels());
    DevicePursuit operations(head.queries, head.keys, head.bias, head.row_max, head.row_sum, settings);
    kernels.run(picks);
    operations.run(picks);
    EXPECT_EQ(kernels.picks(picks).order, operations.picks(picks).order) << n;
    EXPECT_GE(kernels.picks(picks).n_dependent, std::max(0, picks - n)) << n;
  }
}

// bfloat16 keys, more of them than are compared in float64, a long run: the same picks by both ways.
TEST(DevicePursuit, PicksAsTheHostDoes) {
  Head head = clustered(700, 500, 32, 21, true);
  head.keys = head.keys.to(at::kBFloat16);
  head.queries = head.queries.to(at::kBFloat16);
  head = complete(head);
  PursuitSettings settings;
  settings.drop_below = -7.0;
  MatchingPursuit host(head.queries, head.keys, head.bias, head.row_max, head.row_sum, settings);
  DevicePursuit device(head.queries, head.keys, head.bias, head.row_max, head.row_sum, settings);
  host.run(150);
  device.run(150);
  for (const int64_t t : {1, 40, 150}) {
    const PursuitPicks a = host.picks(t), b = device.picks(t);
    EXPECT_EQ(a.order, b.order) << t;
    EXPECT_EQ(a.n_dropped, b.n_dropped);
    EXPECT_EQ(a.n_dependent, b.n_dependent);
    for (size_t i = 0; i < a.weights.size(); ++i) EXPECT_NEAR(a.weights[i], b.weights[i], 1e-3 * (1 + a.weights[i]));
  }
}

TEST(DevicePursuit, RefusesMorePicksThanKeys) {
  const Head head = clustered(20, 10, 8, 3, false);
  DevicePursuit pursuit(head.queries, head.keys, head.bias, head.row_max, head.row_sum, {});
  EXPECT_THROW(pursuit.run(11), Error);
  pursuit.run(10);
  EXPECT_EQ(pursuit.picks(10).order.size(), 10U);
  EXPECT_TRUE(pursuit.picks(0).order.empty());
}

}  // namespace
}  // namespace kvc
