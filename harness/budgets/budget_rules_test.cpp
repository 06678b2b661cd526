// Every registered budget rule, and each one's own shape.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "harness/api/budget_rule.h"
#include "harness/core/error.h"
#include "harness/testing/integer_options.h"

namespace kvc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Lengths = HeadTable<int64_t>;

std::string write_file(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + name;
  std::ofstream(path) << text;
  return path;
}

// The file of a rule that reads one.
Json file_options(const std::string& name) {
  if (name == "proportions")
    return {{"file", write_file("kvc_proportions.json", R"({"L0H0": 0.7, "L0H1": 0.1, "L1H0": 0.1, "L1H1": 0.1})")}};
  if (name == "duo_attention") return {{"file", write_file("kvc_heads.tsv", "0.9\t0.1\n0.1\t0.95\n")}};
  if (name != "lu_kv") return Json::object();
  // What head h of layer l has lost when step + 1 % are gone: the whole percentage, less for the first head.
  std::string header = "{'descr': '<f8', 'fortran_order': False, 'shape': (99, 2, 2), }";
  header.resize(118, ' ');
  std::string bytes = std::string("\x93NUMPY\x01", 7) + std::string{'\0', 'v', '\0'} + header;  // 'v' is 118
  for (int step = 0; step < 99; ++step) {
    for (int head = 0; head < 4; ++head) {
      const double lost = (head == 0 ? 0.5 : 1.0) * (step + 1) / 100;
      bytes.append(reinterpret_cast<const char*>(&lost), sizeof lost);
    }
  }
  return {{"file", write_file("kvc_profile.npy", bytes)}};
}

std::unique_ptr<BudgetRule> rule(const std::string& name, Json options = Json::object()) {
  if (!options.contains("file")) options.update(file_options(name));
  return Registry<BudgetRule>::instance().create(name, options);
}

TargetSize fraction(double value) {
  TargetSize target;
  target.fraction = value;
  return target;
}

TEST(BudgetRules, AllSpendTheUniformTotalWithinTheHeads) {
  const Lengths ragged = {{100, 40}, {100, 7}};
  for (const std::string& name : Registry<BudgetRule>::instance().names()) {
    for (const Lengths& source_len : {Lengths{{1000, 1000}, {1000, 1000}}, ragged}) {
      for (const double kept : {1.0, 0.9, 0.5, 0.2}) {
        const int64_t total = total_length(uniform_budget(fraction(kept), source_len));
        const HeadBudget budget = rule(name)->spread({fraction(kept), source_len});
        EXPECT_EQ(total_length(budget), total) << name << " at " << kept;
        if (kept == 1.0) {
          EXPECT_EQ(budget.target_len, source_len) << name;
        }
        for (size_t i = 0; i < 4; ++i)
          EXPECT_LE(budget.target_len.all()[i], source_len.all()[i]) << name << " at " << kept;
      }
    }
    EXPECT_THROW(rule(name)->spread({fraction(0.001), ragged}), Error) << name;
  }
}

TEST(BudgetRules, PyramidIsAStraightLine) {
  const Lengths source_len(4, {1000, 1000});
  // Mean 100: 195 at the bottom, 5 at the top (beta 20), steps of 190 / 3.
  EXPECT_EQ(rule("pyramid")->spread({fraction(0.1), source_len}).target_len,
            (Lengths{{195, 195}, {132, 132}, {68, 68}, {5, 5}}));
  EXPECT_EQ(rule("pyramid", {{"beta", 1.0}})->spread({fraction(0.1), source_len}).target_len, Lengths(4, {100, 100}));
  // At half, the bottom would need 975 of 1000; at 0.6 it is full, and the others share the rest.
  const Lengths full = rule("pyramid")->spread({fraction(0.6), source_len}).target_len;
  EXPECT_THAT(full.layer(0), ElementsAre(1000, 1000));
  EXPECT_GT(full.at(1, 0), 790);
}

TEST(BudgetRules, ProportionsAreThoseOfTheFile) {
  const Lengths source_len(2, {1000, 1000});
  EXPECT_EQ(rule("proportions")->spread({fraction(0.1), source_len}).target_len, (Lengths{{280, 40}, {40, 40}}));
  EXPECT_EQ(rule("proportions", {{"cap", 0.2}})->spread({fraction(0.1), source_len}).target_len,
            (Lengths{{200, 67}, {67, 66}}));
  const std::string part = write_file("kvc_part.json", R"({"L1H1": 0.55})");
  // The others have the uniform part, 0.25 each; all weights are then brought to the sum.
  EXPECT_EQ(rule("proportions", {{"file", part}})->spread({fraction(0.13), source_len}).target_len,
            (Lengths{{100, 100}, {100, 220}}));
  EXPECT_THAT(
      [&] {
        rule("proportions", {{"cap", 0.2}})->spread({fraction(0.5), source_len});
      },
      ThrowsMessage<Error>(HasSubstr("more than a cap of 0.2 leaves room for")));
  EXPECT_THAT(
      [&] {
        rule("proportions")->spread({fraction(0.5), {{1000}}});
      },
      ThrowsMessage<Error>(
          ::testing::AllOf(HasSubstr("the model has no head L0H1 (it has 1 layers of 1 KV heads)"),
                           HasSubstr("mend:  take this model's file, or make one by kvc budget --model"),
                           ::testing::Not(HasSubstr("write {")))));
}

TEST(BudgetRules, AdaptiveTakesEitherSafeguard) {
  using Safeguard = AdaptiveShare::Safeguard;
  const auto safeguard = [](const Json& options) {
    return rule("adaptive", options.is_null() ? Json::object() : options)
        ->spread({fraction(0.5), {{10, 10}}})
        .adaptive->safeguard;
  };
  EXPECT_EQ(safeguard({}), Safeguard::kFloor);
  EXPECT_EQ(safeguard({{"safeguard", "blend"}}), Safeguard::kBlend);
  EXPECT_THAT(
      [&] {
        safeguard({{"safeguard", "both"}});
      },
      ThrowsMessage<Error>(HasSubstr("must be floor or blend; got 'both'")));
}

TEST(BudgetRules, BrokenProportionsAreRefused) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"[1]", "must be a JSON object of heads"},
      {"{}", "must be a JSON object of heads"},
      {"{\"L0H0\": 0.5", "must be a JSON object of heads"},
      {R"({"layer": 1.0})", "a head must be written like L0H0; got 'layer'"},
      {R"({"L0H": 1.0})", "got 'L0H'"},
      {R"({"L-1H0": 1.0})", "got 'L-1H0'"},
      {R"({"L99999999999999999999H0": 1.0})", "must be written like L0H0"},
      {R"({"L0H0": "x"})", "the share of L0H0 must be a number; got \"x\""},
      {R"({"L0H0": -0.5})", "must be 0 to 1; got -0.5"},
      {R"({"L0H0": 0.9, "L0H1": 0.9})", "the shares must sum to 1; got 1.8"},
      {R"({"L0H0": 0.5, "L00H0": 0.5})", "duplicate head L00H0"},
      {R"({"L0H0": 0})", "all shares are 0"}};
  for (const auto& [text, fact] : cases) {
    const std::string file = write_file("kvc_broken.json", text);
    EXPECT_THAT([&] { rule("proportions", {{"file", file}}); }, ThrowsMessage<Error>(HasSubstr(fact))) << text;
  }
  EXPECT_THROW(rule("proportions", {{"file", "/no/such/file.json"}}), Error);
  EXPECT_THAT([] { Registry<BudgetRule>::instance().create("proportions", Json::object()); },
              ThrowsMessage<Error>(HasSubstr("'file' must name a file")));
}

TEST(BudgetRules, AProportionsFileIsKnownByItsContent) {
  const std::string file = write_file("kvc_known.json", R"({"L0H0": 0.5, "L0H1": 0.5})");
  const Json identity = rule("proportions", {{"file", file}})->identity();
  EXPECT_NO_THROW(rule("proportions", {{"file", file}, {"content_hash", identity.at("content_hash")}}));
  write_file("kvc_known.json", R"({"L0H0": 0.4, "L0H1": 0.6})");
  EXPECT_THAT(
      [&] {
        rule("proportions", {{"file", file}, {"content_hash", identity.at("content_hash")}});
      },
      ThrowsMessage<Error>(HasSubstr("the file is")));
}

TEST(BudgetRules, DuoAttentionFillsRetrievalHeadsFirst) {
  const Lengths source_len(2, {1000, 1000});
  const auto lengths = [&](double kept, Json options = Json::object()) {
    options["n_sink"] = 20;
    options["n_recent"] = 80;
    return rule("duo_attention", options)->spread({fraction(kept), source_len}).target_len;
  };
  // 4000 entries: 400 for all heads as streaming ones; the rest to L1H1, then to L0H0.
  EXPECT_EQ(lengths(0.1), (Lengths(2, {100, 100})));
  EXPECT_EQ(lengths(0.2), (Lengths{{100, 100}, {100, 500}}));
  EXPECT_EQ(lengths(0.5), (Lengths{{800, 100}, {100, 1000}}));
  EXPECT_EQ(lengths(0.05), (Lengths(2, {50, 50})));  // less than streaming heads keep: in proportion
  const std::string ties = write_file("kvc_ties.tsv", "7 0.5\n0.5 -2\n");  // clipped to 1, 0.5, 0.5 and 0
  EXPECT_EQ(lengths(0.6, {{"file", ties}}), (Lengths{{1000, 1000}, {300, 100}}));
  const std::string marked = write_file("kvc_marked.tsv",
                                        "\xEF\xBB\xBF"
                                        "7 0.5\n0.5 -2\n");  // a byte order mark
  EXPECT_EQ(lengths(0.6, {{"file", marked}}), lengths(0.6, {{"file", ties}}));
}

TEST(BudgetRules, DuoAttentionRefusesOtherModelsAndFiles) {
  const auto refusal = [&](const std::string& text, const Lengths& source_len) {
    try {
      rule("duo_attention", {{"file", write_file("kvc_refused.tsv", text)}})->spread({fraction(0.5), source_len});
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const Lengths two(2, {1000, 1000});
  EXPECT_THAT(refusal("0.1 0.2 0.3\n0.1 0.2 0.3\n", two),
              HasSubstr("the head classes are of a model with 2 layers of 3 KV heads; this one has 2 of 2"));
  EXPECT_THAT(refusal("0.1 0.2\n", two), HasSubstr("1 layers of 2 KV heads"));
  EXPECT_THAT(refusal("0.1 0.2\n0.1\n", two), HasSubstr("line 2 has 1 heads, the first has 2"));
  EXPECT_THAT(refusal("0.1 full\n", two), HasSubstr("line 1: must be a number; got 'full'"));
  EXPECT_THAT(refusal("0.1 nan\n", two), HasSubstr("line 1: must be a number; got 'nan'"));
  EXPECT_THAT(refusal("\n", two), HasSubstr("the file has no heads"));
  EXPECT_THAT([] { Registry<BudgetRule>::instance().create("duo_attention", Json::object()); },
              ThrowsMessage<Error>(HasSubstr("'file' must name a file")));
}

TEST(BudgetRules, NewScopesAreAskedForByName) {
  const auto share = [](const std::string& name, const Json& options) {
    return *rule(name, options)->spread({fraction(0.5), {{10, 10}}}).adaptive;
  };
  EXPECT_EQ(share("adaptive", {{"scope", "layers"}}).scope, AdaptiveShare::Scope::kLayers);
  EXPECT_EQ(share("zigzag", Json::object()).scope, AdaptiveShare::Scope::kUncertainty);
  EXPECT_EQ(share("zigzag", {{"mass_fraction", 0.5}}).mass_fraction, 0.5);
  EXPECT_EQ(share("zigzag", Json::object()).floor_fraction, 0.2);
  EXPECT_THAT(
      [&] {
        share("adaptive", {{"scope", "layers"}, {"safeguard", "blend"}});
      },
      ThrowsMessage<Error>(HasSubstr("whole layers have not")));
  EXPECT_THAT([&] { share("zigzag", {{"mass_fraction", 0.0}}); }, ThrowsMessage<Error>(HasSubstr("mass_fraction")));
}

TEST(BudgetRules, AllTakeBytes) {
  TargetSize target;
  target.unit = TargetSize::Unit::kBytes;
  target.bytes = 100 * (40 + 800);
  for (const std::string& name : Registry<BudgetRule>::instance().names()) {
    const HeadBudget budget = rule(name)->spread({target, {{1000, 1000}, {1000, 1000}}, {100, 40}});
    EXPECT_EQ(total_length(budget), 800) << name;
  }
}

TEST(BudgetRules, IntegerOptionsEndInARefusalOrABudget) {
  const Lengths source_len = {{1000, 1000}, {1000, 1000}};
  expect_limits_of_integer_options<BudgetRule>(
      [&](const std::string& name, const BudgetRule& rule) {
        EXPECT_EQ(total_length(rule.spread({fraction(0.2), source_len})), 800) << name;
      },
      [](const std::string& name) { return file_options(name); });
}

}  // namespace
}  // namespace kvc
