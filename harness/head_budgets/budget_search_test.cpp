// The whole search on the small model: what it writes, that it goes on where it was killed, what it refuses.
#include "harness/head_budgets/budget_search.h"

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <numeric>

#include "harness/core/config_text.h"
#include "harness/core/text_file.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;

int64_t& makes_left() {  // before the process is killed; -1 = never
  static int64_t left = -1;
  return left;
}
int& signal_sent() {
  static int number = SIGKILL;
  return number;
}
int64_t& makes() {
  static int64_t count = 0;
  return count;
}

// Queries of repeat_prefill that may take the whole process with them.
struct TestKilling final : QuerySource {
  using Options = NoOptions;
  explicit TestKilling(const Options&) {}
  std::unique_ptr<LayerQueries> make(const QueryRequest& request) const override {
    if (makes_left() == 0) ::raise(signal_sent());
    --makes_left();
    ++makes();
    return Registry<QuerySource>::instance().create("repeat_prefill", Json::object())->make(request);
  }
};
KVC_REGISTER_QUERIES(TestKilling, "test_killing", "test");

class BudgetSearchTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }  // a forked child has no pool of threads
  void SetUp() override {
    makes_left() = -1;
    signal_sent() = SIGKILL;
    makes() = 0;
  }

  BudgetSearch search(const std::string& name) const {
    BudgetSearch search;
    search.dataset = plugin_from_text<Dataset>("dataset", "{dataset: test_notes, documents: 3}", "--dataset");
    search.method = plugin_from_text<CompactionMethod>("method", "am_highest_attention", "--method");
    search.queries = plugin_from_text<QuerySource>("queries", "test_killing", "--queries");
    search.targets = {0.1, 0.3};
    search.curves.fractions = {0.05, 0.1, 0.2, 0.4, 0.8};
    search.curves.baselines = {0.2};
    search.curves.answer_tokens = 4;
    search.seed = 7;
    search.out = folder_.file(name);
    search.curves_file = search.out + ".curves.jsonl";
    search.quiet = true;
    search.load_model = [](const ModelConfig&) { return tiny_model(1, at::kFloat, 1024); };
    return search;
  }

  TemporaryFolder folder_;
};

TEST_F(BudgetSearchTest, WritesPartsThatTheRuleReads) {
  const BudgetSearch wanted = search("a.json");
  const Json report = search_budget(wanted);
  const Json parts = Json::parse(read_text_file(wanted.out));
  ASSERT_EQ(parts.size(), 4u);
  double sum = 0;
  for (const auto& [head, part] : parts.items()) {
    EXPECT_GE(part.get<double>(), 0.25 / 4 - 1e-12);
    sum += part.get<double>();
  }
  EXPECT_NEAR(sum, 1, 1e-12);
  const auto rule = Registry<BudgetRule>::instance().create("proportions", {{"file", wanted.out}});
  TargetSize target;
  target.fraction = 0.1;
  const HeadBudget budget = rule->spread({target, {{1000, 1000}, {1000, 1000}}});
  EXPECT_EQ(total_length(budget), 400);
  EXPECT_NEAR(static_cast<double>(budget.at(1, 0)), 400 * parts.at("L1H0").get<double>(), 1);

  EXPECT_EQ(report.at("documents"), Json::parse(R"(["note-0", "note-1"])"));
  EXPECT_EQ(report.at("check").at("documents"), Json::parse(R"(["note-2"])"));
  for (const Json& row : report.at("predicted"))
    EXPECT_LE(row.at("found").get<double>(), 1.5 * row.at("uniform").get<double>());
  double found = 0, uniform = 0;
  for (const Json& row : report.at("predicted")) {
    found += row.at("found").get<double>();
    uniform += row.at("uniform").get<double>();
  }
  EXPECT_LE(found, uniform + 1e-12);  // the mean over targets is what is made small
  for (const Json& row : report.at("check").at("kl")) EXPECT_GT(row.at("uniform").get<double>(), 0);
  EXPECT_THAT(budget_report_text(report), HasSubstr("largest: L"));
}

TEST_F(BudgetSearchTest, GoesOnWhereItWasKilledToTheSameBytes) {
  const BudgetSearch whole = search("whole.json");
  const std::string report = search_budget(whole).dump();
  EXPECT_EQ(makes(), 3);  // two measured, one checked
  const BudgetSearch killed = search("killed.json");
  for (const int64_t after : {1, 1}) {  // in the second document, then in the check
    const pid_t child = ::fork();
    if (child == 0) {
      makes_left() = after;
      search_budget(killed);
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    std::ofstream(killed.curves_file, std::ios::app) << R"({"kind": "curves", "key": "note-)";  // torn
  }
  makes() = 0;
  EXPECT_EQ(search_budget(killed).dump(), report);
  EXPECT_EQ(makes(), 1);
  EXPECT_EQ(read_text_file(killed.out), read_text_file(whole.out));
  // Nothing is left to do, and nothing is done.
  EXPECT_EQ(search_budget(killed).dump(), report);
  EXPECT_EQ(makes(), 1);
}

// That the same command goes on is said only where it has something to go on from.
TEST_F(BudgetSearchTest, AnInterruptSaysWhetherAnythingWasKept) {
  const BudgetSearch wanted = search("interrupted.json");
  const std::string said = folder_.file("stderr.txt");
  const auto interrupted_after = [&](int64_t documents) {
    const pid_t child = ::fork();
    if (child == 0) {
      if (::freopen(said.c_str(), "w", stderr) == nullptr) ::_exit(99);
      makes_left() = documents;
      signal_sent() = SIGINT;
      search_budget(wanted);
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGINT);
    return read_text_file(said);
  };
  EXPECT_EQ(interrupted_after(0), "\ninterrupted before anything was kept; the same command begins anew.\n");
  const std::string go_on = "\ninterrupted; what was measured is in " + wanted.curves_file +
                            ". Run the same command again to go on from there.\n";
  EXPECT_EQ(interrupted_after(1), go_on);
  EXPECT_EQ(interrupted_after(0), go_on);  // found, not measured now
}

// A kill while the first line was written leaves a part of it: the file is this program's, and begins anew.
TEST_F(BudgetSearchTest, ATornFirstLineIsMeasuredAgain) {
  BudgetSearch wanted = search("torn.json");
  wanted.documents = 1;
  wanted.check = 0;
  const std::string report = search_budget(wanted).dump();
  const std::string whole = read_text_file(wanted.curves_file);
  const size_t head = whole.find('\n');
  for (const size_t length : {size_t{1}, size_t{20}, head / 2, head - 1}) {
    std::ofstream(wanted.curves_file) << whole.substr(0, length);
    EXPECT_EQ(search_budget(wanted).dump(), report) << length;
    EXPECT_EQ(read_text_file(wanted.curves_file), whole) << length;
  }
  BudgetSearch other = wanted;  // with other settings nothing else was lost
  other.seed = 8;
  std::ofstream(other.curves_file) << whole.substr(0, head / 2);
  search_budget(other);
  // Another's file, torn or not, is left alone.
  for (const std::string& text :
       {std::string(R"({"format": "kvcompact.cache.v1", "sett)"), std::string("{\"L0H0\": 0."), std::string("notes"),
        whole.substr(0, head / 2) + "\nnotes\n"}) {
    std::ofstream(wanted.curves_file) << text;
    EXPECT_THAT(error_of([&] { search_budget(wanted); }), HasSubstr("not a file of head curves")) << text;
    EXPECT_EQ(read_text_file(wanted.curves_file), text);
  }
}

TEST_F(BudgetSearchTest, OtherTargetsNeedNoNewCurvesOtherSettingsAnotherFile) {
  BudgetSearch wanted = search("b.json");
  wanted.check = 0;
  wanted.documents = 1;
  EXPECT_TRUE(search_budget(wanted).at("check").is_null());
  EXPECT_EQ(makes(), 1);
  wanted.targets = {0.5};
  wanted.floor_share = 0;
  search_budget(wanted);
  EXPECT_EQ(makes(), 1);
  wanted.documents = 2;  // one more is measured
  search_budget(wanted);
  EXPECT_EQ(makes(), 2);

  BudgetSearch other = wanted;
  other.seed = 8;
  EXPECT_THAT(error_of([&] { search_budget(other); }), HasSubstr("seed is 8 now, but was 7"));
  other = wanted;
  other.method = plugin_from_text<CompactionMethod>("method", "snapkv", "--method");
  EXPECT_THAT(error_of([&] { search_budget(other); }), HasSubstr("method is {"));
  other = wanted;
  other.load_model = [](const ModelConfig&) { return tiny_model(2, at::kFloat, 1024); };
  EXPECT_THAT(error_of([&] { search_budget(other); }), HasSubstr("model is {"));
  EXPECT_EQ(makes(), 2);
}

TEST_F(BudgetSearchTest, TwoDoNotMeasureIntoOneFile) {
  const BudgetSearch wanted = search("d.json");
  const int other = ::open(wanted.curves_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  ASSERT_EQ(::flock(other, LOCK_EX | LOCK_NB), 0);
  EXPECT_THAT(error_of([&] { search_budget(wanted); }), HasSubstr("another process is measuring into this file"));
  ::close(other);
  EXPECT_EQ(makes(), 0);
}

TEST_F(BudgetSearchTest, RefusesWhatCannotBeDoneBeforeItBegins) {
  BudgetSearch wanted = search("c.json");
  wanted.targets = {0.001};
  EXPECT_THAT(error_of([&] { search_budget(wanted); }), HasSubstr("0.001"));
  wanted = search("c.json");
  wanted.documents = 4;
  EXPECT_THAT(error_of([&] { search_budget(wanted); }), HasSubstr("the data set has 3 documents, not 4"));
  wanted = search("c.json");
  wanted.method = plugin_from_text<CompactionMethod>("method", "full_cache", "--method");
  EXPECT_THAT(error_of([&] { search_budget(wanted); }), HasSubstr("'full_cache' has no budget"));
  wanted = search("c.json");
  std::ofstream(wanted.curves_file) << R"({"L0H0": 1})"
                                    << "\n";
  EXPECT_THAT(error_of([&] { search_budget(wanted); }), HasSubstr("not a file of head curves"));
  EXPECT_EQ(makes(), 0);
}

}  // namespace
}  // namespace kvc
