#include "harness/kv/head_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "harness/core/error.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Lengths = HeadTable<int64_t>;
using Scores = HeadTable<std::vector<float>>;

std::string problem_of(const Json& value) {
  Problems problems;
  (void)TargetSize::from_json(value, "/target/0", problems);
  return problems.empty() ? "none" : problems.list()[0].fact + " | " + problems.list()[0].mend;
}

TargetSize target_of(const Json& value) {
  Problems problems;
  TargetSize target = TargetSize::from_json(value, "/target/0", problems);
  EXPECT_TRUE(problems.empty()) << value.dump();
  return target;
}

TEST(TargetSize, ReadsFractionsAndEntries) {
  for (const Json& value : {Json(0.05), Json(1.0), Json(1e-3), Json("512 entries"), Json("1 entries")}) {
    const TargetSize target = target_of(value);
    EXPECT_EQ(target.to_json(), value);
    EXPECT_EQ(target_of(target.to_json()), target);
  }
  EXPECT_EQ(target_of(0.05).text(), "0.05");
  EXPECT_EQ(target_of("512 entries").entries, 512);
  EXPECT_EQ(target_of("512 entries").text(), "512 entries");
}

TEST(TargetSize, ReadsWhatAPersonWrites) {
  const auto json = [](const char* text) { return target_of(text).to_json(); };
  for (const char* text : {".05", "5e-2", "0.05", "5 %", "5%", " 5 % ", "5.0 %", "0.5e1 %"}) {
    EXPECT_EQ(json(text), 0.05) << text;
  }
  EXPECT_EQ(json("0.1 %"), 0.001);  // 0.1 / 100 is another float64
  EXPECT_EQ(json("100 %"), 1.0);
  for (const char* text : {"512", "512 entries", "512entries", " 512  entries "}) EXPECT_EQ(json(text), "512 entries");
  EXPECT_EQ(target_of(512).to_json(), "512 entries");
  EXPECT_EQ(json("1 entry"), "1 entries");
  // 1 alone is the fraction, everything.
  EXPECT_EQ(target_of(1).to_json(), 1.0);
  EXPECT_EQ(json("1"), 1.0);
}

TEST(TargetSize, RefusesWithAReason) {
  EXPECT_THAT(problem_of(0), HasSubstr("target must keep at least one entry; got 0 | write a fraction (0.05"));
  EXPECT_THAT(problem_of(-3), HasSubstr("at least one entry; got -3"));
  for (const double value : {0.0, -0.5, 1.5, 512.0, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THAT(problem_of(value), HasSubstr("target must be above 0 and at most 1 as a fraction; got ")) << value;
  }
  EXPECT_THAT(problem_of("120 %"), HasSubstr("at most 1 as a fraction; got \"120 %\""));
  for (const char* text : {"0 entries", "-2 entries", "0"}) {
    EXPECT_THAT(problem_of(text), HasSubstr("at least one entry")) << text;
  }
  for (const char* text : {"entries", " entries", "%", "", "0x5 entries", "5.5 entries", "a lot", "nan", "inf", "MiB",
                           "much MiB", "0x5 MiB", "9e300 GiB"}) {
    EXPECT_THAT(problem_of(text), HasSubstr("target must be a fraction, a number of entries or bytes")) << text;
  }
  for (const Json& value : {Json(true), Json::array({0.1}), Json(nullptr)}) {
    EXPECT_THAT(problem_of(value), HasSubstr("target must be a fraction, a number of entries or bytes"))
        << value.dump();
  }
}

TEST(TargetSize, RefusesACountTooLargeAsACount) {
  for (const Json& value :
       {Json("99999999999999999999"), Json(" 9223372036854775808 entries"), Json(18446744073709551615ULL)}) {
    EXPECT_THAT(problem_of(value), HasSubstr("target must be at most 9223372036854775807 as a number of entries; got "))
        << value.dump();
  }
  EXPECT_EQ(target_of("9223372036854775807").to_json(), "9223372036854775807 entries");
}

TEST(TargetSize, ReadsBytes) {
  const auto json = [](const char* text) { return target_of(text).to_json(); };
  EXPECT_EQ(json("64 MiB"), "64 MiB");
  EXPECT_EQ(json(" 64MiB "), "64 MiB");
  EXPECT_EQ(json("65536 KiB"), "64 MiB");
  EXPECT_EQ(json("1.5 GiB"), "1536 MiB");
  EXPECT_EQ(json("1 MB"), "1000000 B");
  EXPECT_EQ(json("800 kB"), "800000 B");
  EXPECT_EQ(json("4096 bytes"), "4 KiB");
  EXPECT_EQ(json("1 B"), "1 B");
  EXPECT_EQ(target_of(target_of("1 MB").to_json()), target_of("1 MB"));
  EXPECT_EQ(target_of("2 KiB").bytes, 2048);
  for (const char* text : {"0 MiB", "-3 kB", "0.1 B"})
    EXPECT_THAT(problem_of(text), HasSubstr("at least one byte")) << text;
}

// 100 entries of 24 bytes for 2 x 2 heads; the template has 3 entries a head.
TEST(TargetSize, SpendsBytesOnWhatFitsBesideTheTemplate) {
  const EntrySizes sizes{24, 12};
  const Lengths even(2, {100, 100}), ragged = {{100, 50}, {25, 25}};
  const auto lengths = [&](const char* text, const Lengths& source_len) {
    return uniform_budget(target_of(text), source_len, sizes).target_len;
  };
  EXPECT_EQ(lengths("1248 B", even), (Lengths(2, {10, 10})));  // 12 + 40 entries
  EXPECT_EQ(lengths("1271 B", even), (Lengths(2, {10, 10})));  // an entry more does not fit
  EXPECT_EQ(lengths("1272 B", even), (Lengths{{11, 10}, {10, 10}}));
  EXPECT_EQ(lengths("1248 B", ragged), (Lengths{{20, 10}, {5, 5}}));
  EXPECT_EQ(lengths("1 GiB", ragged), ragged);  // all there is
  EXPECT_THAT([&] { lengths("372 B", even); }, ThrowsMessage<Error>(HasSubstr("the template 288 bytes, and 4 heads")));
  EXPECT_THAT([&] { uniform_budget(target_of("1 MiB"), even); },
              ThrowsMessage<Error>(HasSubstr("entries have a size")));
}

TEST(TargetSize, NamesTheKey) {
  Problems problems;
  (void)TargetSize::from_json(0, "/target/3", problems);
  EXPECT_THAT(problems.list().at(0).where, HasSubstr("target[3]"));
}

TEST(HeadBudget, RoundsFractionsDown) {
  const HeadBudget budget = uniform_budget(target_of(0.05), Lengths(2, std::vector<int64_t>(3, 2957)));
  ASSERT_EQ(budget.target_len.n_layers(), 2);
  ASSERT_EQ(budget.target_len.n_heads(), 3);
  EXPECT_EQ(budget.at(1, 2), 147);  // 147.85
  EXPECT_EQ(uniform_budget(target_of(0.29), Lengths(1, std::vector<int64_t>(1, 100))).at(0, 0),
            29);  // 28.999999999999996 in float64
  EXPECT_EQ(uniform_budget(target_of(1.0), Lengths(1, std::vector<int64_t>(1, 2957))).at(0, 0), 2957);
}

TEST(HeadBudget, TakesEntriesAsTheyAre) {
  EXPECT_EQ(uniform_budget(target_of("512 entries"), Lengths(1, std::vector<int64_t>(1, 512))).at(0, 0), 512);
  EXPECT_THAT([] { (void)uniform_budget(target_of("513 entries"), Lengths(1, std::vector<int64_t>(1, 512))); },
              ThrowsMessage<Error>(HasSubstr("a target of 513 entries is more than the 512 compactable entries")));
}

TEST(HeadBudget, RefusesLessThanOneEntry) {
  EXPECT_THAT(
      [] { (void)uniform_budget(target_of(0.01), Lengths(1, std::vector<int64_t>(1, 99))); },
      ThrowsMessage<Error>(HasSubstr("a target of 0.01 of 99 compactable entries is 0.99 entries, less than one")));
  EXPECT_EQ(uniform_budget(target_of(0.01), Lengths(1, std::vector<int64_t>(1, 100))).at(0, 0), 1);
}

TEST(HeadTable, HoldsAValueForEveryHead) {
  Lengths table = {{1, 2, 3}, {4, 5, 6}};
  EXPECT_EQ(table.n_layers(), 2);
  EXPECT_EQ(table.n_heads(), 3);
  EXPECT_EQ(table.at(1, 0), 4);
  table.at(0, 2) = 7;
  EXPECT_THAT(table.layer(0), ::testing::ElementsAre(1, 2, 7));
  EXPECT_THAT(table.all(), ::testing::ElementsAre(1, 2, 7, 4, 5, 6));
  EXPECT_EQ(table.map([](int64_t value) { return -value; }), (Lengths{{-1, -2, -7}, {-4, -5, -6}}));
  EXPECT_EQ(Lengths::make(2, 2, [](int64_t l, int64_t h) { return 10 * l + h; }), (Lengths{{0, 1}, {10, 11}}));
  EXPECT_THROW((void)table.at(2, 0), std::out_of_range);
  EXPECT_THROW((void)table.at(0, 3), std::out_of_range);
  EXPECT_THROW((void)table.at(-1, 0), std::out_of_range);
  EXPECT_THROW(table.add_layer({1, 2}), std::invalid_argument);
  EXPECT_EQ(Lengths().n_layers(), 0);
}

TEST(ProportionalLengths, SumIsExactAndFullHeadsHandOn) {
  // 6 : 3 : 1 of 10 without a limit.
  EXPECT_EQ(proportional_lengths({{6, 3}, {1, 0}}, {{9, 9}, {9, 9}}, 10), (Lengths{{6, 3}, {1, 0}}));
  // The first head is full at 2; the other 8 are shared 3 : 1.
  EXPECT_EQ(proportional_lengths({{6, 3}, {1, 0}}, {{2, 9}, {9, 9}}, 10), (Lengths{{2, 6}, {2, 0}}));
  // Where nothing else has weight, the rest is spread evenly.
  EXPECT_EQ(proportional_lengths({{1, 0}, {0, 0}}, {{3, 9}, {9, 9}}, 9), (Lengths{{3, 2}, {2, 2}}));
  // Remainders: 10 over three equal heads.
  EXPECT_EQ(proportional_lengths({{1, 1, 1}}, {{9, 9, 9}}, 10), (Lengths{{4, 3, 3}}));
  EXPECT_EQ(proportional_lengths({{1, 1, 1}}, {{9, 9, 9}}, 27), (Lengths{{9, 9, 9}}));
  EXPECT_EQ(proportional_lengths({{1, 1, 1}}, {{9, 9, 9}}, 0), (Lengths{{0, 0, 0}}));
  EXPECT_THROW(proportional_lengths({{1, 1, 1}}, {{9, 9, 9}}, 28), Error);
  EXPECT_THROW(proportional_lengths({{1, 1}}, {{9, 9, 9}}, 3), Error);
}

TEST(ProportionalLengths, EveryCaseSumsAndStaysWithinRoom) {
  std::uint64_t state = 1;
  const auto next = [&] { return (state = state * 6364136223846793005ULL + 1442695040888963407ULL) >> 33; };
  for (int round = 0; round < 200; ++round) {
    HeadTable<double> weights(3, std::vector<double>(4));
    Lengths room(3, std::vector<int64_t>(4));
    int64_t sum = 0;
    for (size_t i = 0; i < 12; ++i) {
      weights.all()[i] = static_cast<double>(next() % 7);
      sum += room.all()[i] = static_cast<int64_t>(next() % 50);
    }
    const int64_t total = sum > 0 ? static_cast<int64_t>(next() % static_cast<std::uint64_t>(sum + 1)) : 0;
    const Lengths lengths = proportional_lengths(weights, room, total);
    int64_t given = 0;
    for (size_t i = 0; i < 12; ++i) {
      EXPECT_GE(lengths.all()[i], 0);
      EXPECT_LE(lengths.all()[i], room.all()[i]);
      given += lengths.all()[i];
    }
    EXPECT_EQ(given, total) << "round " << round;
  }
}

TEST(AdaptiveLengths, BestEntriesOfTheScopeWinAndFloorsHold) {
  const Scores scores = {{{9, 8, 7, 6}, {1, 2, 3, 4}}, {{5, 5, 5, 5}, {0, 0, 0, 10}}};
  const Lengths start = {{2, 2}, {2, 2}};
  using Scope = AdaptiveShare::Scope;
  EXPECT_EQ(adaptive_lengths({Scope::kLayer, 0.0}, start, scores), (Lengths{{4, 0}, {3, 1}}));
  EXPECT_EQ(adaptive_lengths({Scope::kLayer, 0.5}, start, scores), (Lengths{{3, 1}, {3, 1}}));
  EXPECT_EQ(adaptive_lengths({Scope::kLayer, 1.0}, start, scores), start);
  // All layers: 10, 9, 8, 7, 6, then the first three of the fives.
  EXPECT_EQ(adaptive_lengths({Scope::kAll, 0.0}, start, scores), (Lengths{{4, 0}, {3, 1}}));
  EXPECT_EQ(adaptive_lengths({Scope::kAll, 0.0}, {{1, 1}, {1, 1}}, scores), (Lengths{{3, 0}, {0, 1}}));
}

// Six entries of the first head are better than all of the second, its other four worse: free competition gives 6
// and 4.
TEST(AdaptiveLengths, ABlendIsPartEqualAndPartFree) {
  using Scope = AdaptiveShare::Scope;
  using Safeguard = AdaptiveShare::Safeguard;
  const Scores scores = {{{20, 19, 18, 17, 16, 15, 1, 2, 3, 4}, {10, 10, 10, 10, 10, 10, 10, 10, 10, 10}}};
  const auto blended = [&](double fraction) {
    return adaptive_lengths({Scope::kLayer, fraction, Safeguard::kBlend}, {{5, 5}}, scores);
  };
  EXPECT_EQ(blended(0.0), (Lengths{{6, 4}}));
  EXPECT_EQ(blended(0.4), (Lengths{{6, 4}}));  // 5.6 and 4.4
  EXPECT_EQ(blended(0.6), (Lengths{{5, 5}}));  // 5.4 and 4.6; a floor of 3 each would leave 6 and 4
  EXPECT_EQ(adaptive_lengths({Scope::kLayer, 0.6}, {{5, 5}}, scores), (Lengths{{6, 4}}));
  EXPECT_EQ(blended(1.0), (Lengths{{5, 5}}));
}

TEST(AdaptiveLengths, ScoresThatAreNoNumberComeLast) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(adaptive_lengths({AdaptiveShare::Scope::kLayer, 0.0}, {{1, 1}}, {{{nan, nan}, {-5, -6}}}),
            (Lengths{{0, 2}}));
  EXPECT_EQ(adaptive_lengths({AdaptiveShare::Scope::kLayer, 0.0}, {{2, 1}}, {{{nan, nan}, {-5, -6}}}),
            (Lengths{{1, 2}}));
}

// --- whole layers compete

TEST(LayersCompete, ByTheMeanOfTheirHeadsPlaces) {
  AdaptiveShare share;
  share.scope = AdaptiveShare::Scope::kLayers;
  share.floor_fraction = 0;
  // Places of layer 0: (9 + 1) / 2 = 5, (4 + 1) / 2 = 2.5, 0.5; of layer 1: 3, 2.75, 1.
  const Scores scores = {{{0, 9, 4}, {1, 1, 1}}, {{3, 2.5, 1}, {3, 1, 3}}};
  EXPECT_EQ(adaptive_lengths(share, Lengths(2, {1, 1}), scores), (Lengths{{1, 1}, {1, 1}}));  // 5, 3
  EXPECT_EQ(adaptive_lengths(share, {{2, 2}, {1, 1}}, scores), (Lengths{{1, 1}, {2, 2}}));    // and 2.75
  EXPECT_EQ(adaptive_lengths(share, {{2, 2}, {2, 1}}, scores), (Lengths{{2, 1}, {2, 2}}));    // and half of 2.5
  EXPECT_EQ(adaptive_lengths(share, Lengths(2, {3, 3}), scores), (Lengths(2, {3, 3})));
  share.floor_fraction = 1;
  EXPECT_EQ(adaptive_lengths(share, {{2, 2}, {1, 1}}, scores), (Lengths{{2, 2}, {1, 1}}));
}

TEST(LayersCompete, ByWhatHoldsTheirScores) {
  AdaptiveShare share;
  share.scope = AdaptiveShare::Scope::kUncertainty;
  share.floor_fraction = 0.2;
  share.mass_fraction = 0.9;
  // Layer 0 needs 1 and 3 entries of 10, layer 1 needs 9 and 9 for nine tenths: means 2 and 9.
  std::vector<float> peak(10, 0.0F), few(10, 0.0F), even(10, 1.0F);
  peak[4] = 2;
  few[0] = few[5] = few[9] = 1;
  const Scores scores = {{peak, few}, {even, even}};
  // B = 4: 0.2 * 4 + 0.8 * 4 * 2 * 2 / 11 = 1.96, and 6.04.
  EXPECT_EQ(adaptive_lengths(share, Lengths(2, {4, 4}), scores), (Lengths{{2, 2}, {6, 6}}));
  share.floor_fraction = 1;
  EXPECT_EQ(adaptive_lengths(share, Lengths(2, {4, 4}), scores), (Lengths(2, {4, 4})));
  // Scores that say nothing: every layer alike.
  share.floor_fraction = 0;
  const std::vector<float> negative(10, -1.0F);
  EXPECT_EQ(adaptive_lengths(share, Lengths(2, {4, 4}), {{negative, negative}, {negative, negative}}),
            (Lengths(2, {4, 4})));
  // What a layer cannot take goes to the other.
  EXPECT_EQ(adaptive_lengths(share, Lengths(2, {8, 8}), scores), (Lengths{{6, 6}, {10, 10}}));
}

}  // namespace
}  // namespace kvc
