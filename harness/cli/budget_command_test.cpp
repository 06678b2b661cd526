// kvc budget on the real demo model: what it finds serves a document it has not seen better than uniform heads do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "harness/cli/cli_test.h"
#include "harness/core/config_text.h"
#include "harness/core/text_file.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

class BudgetCommand : public Cli {
 protected:
  Outcome budget(std::vector<std::string> more) const {
    std::vector<std::string> arguments = {"budget", "--model", kModel, "--quiet", "--out", path("parts.json")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return kvc(arguments);
  }
};

TEST_F(BudgetCommand, BeatsUniformOnADocumentItHasNotSeen) {
  const std::string dataset = "{dataset: needle, documents: 2, tokens: 200, needles: 2}";
  const Outcome found = budget({"--dataset", dataset, "--seed", "7", "--questions", "1", "--answer-tokens", "5",
                                "--targets", "0.05,0.1", "--report", path("report.json")});
  ASSERT_EQ(found.code, 0) << found.err;
  EXPECT_THAT(found.out, HasSubstr("measured on documents that were left out"));
  const Json report = Json::parse(read_text_file(path("report.json")));
  for (const char* part : {"predicted", "check"}) {
    const Json& rows = part == std::string("check") ? report.at("check").at("kl") : report.at("predicted");
    for (const Json& row : rows)
      EXPECT_LT(row.at("found").get<double>(), 0.8 * row.at("uniform").get<double>()) << part << " " << row.dump();
  }
  // Weights add up to the KL of all heads compacted better than what heads cost alone.
  const Json& sums = report.at("additivity").at(0);
  const double together = sums.at("together"), alone = sums.at("sum_alone"), weights = sums.at("sum_weights");
  EXPECT_NEAR(weights / together, 1, 0.35);
  EXPECT_LT(std::abs(weights - together), std::abs(alone - together));

  // A sweep reads the file.
  const std::string sweep =
      write("sweep.yaml", "sweep: t\nseed: 1\nmodel: {path: " + kModel + "}\ndataset: " + dataset +
                              "\ntask: fidelity\nqueries: repeat_prefill\n" +
                              "target: 0.1\nmethod: [snapkv]\nbudget: [uniform, {budget: " + "proportions, file: " +
                              path("parts.json") + "}]\n");
  const Outcome valid = kvc({"validate", sweep});
  EXPECT_EQ(valid.code, 0) << valid.err;
  EXPECT_THAT(valid.out, HasSubstr("2 cells"));
}

// What only 'answers' has is refused for the others, and the help says so of each.
TEST_F(BudgetCommand, TheHelpNamesWhatOnlyAnswersHas) {
  const std::string help = std::regex_replace(kvc({"budget", "--help"}).out, std::regex("\\s+"), " ");
  const size_t at = help.find("Only 'answers' has");
  ASSERT_NE(at, std::string::npos);
  const std::string sentence = help.substr(at, 100);
  for (const std::string option : {"--targets", "--floor", "--baselines", "--check"}) {
    EXPECT_THAT(sentence, HasSubstr(option));
    EXPECT_THAT(budget({"--dataset", "needle", "--by", "gates", option, "1"}).err,
                HasSubstr(option + " belongs to --by answers"));
  }
}

TEST_F(BudgetCommand, ErrorsNameTheOption) {
  const auto expect = [&](std::vector<std::string> arguments, const std::string& fact) {
    const Outcome outcome = budget(std::move(arguments));
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(fact));
  };
  expect({}, "--dataset is required");
  expect({"--dataset", "qualitty"}, "did you mean 'quality'?");
  expect({"--dataset", "{dataset: needle, tokens: x}"}, "must be an integer");
  expect({"--dataset", "needle", "--method", "am"}, "unknown method 'am'");
  expect({"--dataset", "needle", "--queries", "none"}, "unknown queries 'none'");
  expect({"--dataset", "needle", "--targets", "0.1,1.5"}, "a kept fraction must be above 0 and at most 1");
  expect({"--dataset", "needle", "--targets", "0"}, "--targets");
  expect({"--dataset", "needle", "--baselines", "-1"}, "--baselines");
  expect({"--dataset", "needle", "--floor", "2"}, "--floor");
  expect({"--dataset", "needle", "--by", "gates", "--targets", "0.1"}, "--targets belongs to --by answers");
  expect({"--dataset", "needle", "--steps", "5"}, "--steps belongs to --by gates");
  expect({"--dataset", "needle", "--by", "gates", "--penalty", "nan"}, "--penalty");
  expect({"--dataset", "needle", "--method", "summarize"}, "'summarize' has no budget of entries to share");
}

}  // namespace
}  // namespace kvc
