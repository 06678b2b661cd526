// What kvc run and validate refuse before anything is read: all problems together, and no model that nothing needs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>

#include "harness/cli/cli_test.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class RunChecks : public Cli {
 protected:
  // The demo model under a name of its own, which a test may take away.
  std::string model(const std::string& name) const {
    const std::string file = path(name);
    fs::remove(file);
    fs::create_symlink(kModel, file);
    return file;
  }
  std::string sweep(const std::string& models, const std::string& rest) const {
    return write("sweep.yaml",
                 "sweep: t\nseed: 7\nproof_tokens: 48\nmodel: [" + models +
                     "]\ndataset: {dataset: needle, documents: 1, tokens: 200, needles: 1, path: " + kRoot +
                     "/datasets/samples/quality.jsonl}\ntask: exact_match\nresults: " + path("results") + "\n" + rest);
  }
};

TEST_F(RunChecks, AMissingModelIsNamedBeforeAnotherIsMeasured) {
  const std::string both = model("here.gguf") + ", " + path("absent.gguf");
  const Outcome alone = kvc({"run", sweep(both, "method: [full_cache]\n")});
  EXPECT_EQ(alone.code, 3);
  EXPECT_THAT(alone.err, AllOf(HasSubstr("absent.gguf"), Not(HasSubstr("loading")), Not(HasSubstr("here.gguf"))));
  EXPECT_FALSE(fs::exists(path("results")));

  // Beside a target that no cache meets, and a file of weights that is none.
  write("broken.gguf", "no weights");
  const Outcome beside = kvc({"run", sweep(both + ", " + path("broken.gguf"), "method: [key_norm]\ntarget: 1024 B\n")});
  EXPECT_EQ(beside.code, 3);
  EXPECT_THAT(beside.err, AllOf(HasSubstr("3 problems in"), HasSubstr("absent.gguf"), HasSubstr("broken.gguf"),
                                HasSubstr("a target of 1024 B is too small for here.gguf"), Not(HasSubstr("loading"))));
  EXPECT_FALSE(fs::exists(path("results")));
}

TEST_F(RunChecks, WhatIsMeasuredNeedsNoModel) {
  const std::string first = model("first.gguf"), rest = "method: [full_cache]\n";
  const Outcome measured = kvc({"run", sweep(first, rest), "--quiet"});
  ASSERT_EQ(measured.code, 0) << measured.err;
  fs::remove(first);
  fs::remove(path("results/report.md"));
  const Outcome again = kvc({"run", sweep(first, rest)});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.err, AllOf(HasSubstr("0 records measured, 1 found"), HasSubstr("first.gguf is not there")));
  EXPECT_TRUE(fs::exists(path("results/report.md")));
  EXPECT_EQ(again.out, measured.out);

  // Of a sweep that is not finished, the part that is: only what is still to be measured is named.
  const Outcome second = kvc({"run", sweep(first + ", " + path("second.gguf"), rest)});
  EXPECT_EQ(second.code, 3);
  EXPECT_THAT(second.err, AllOf(HasSubstr("second.gguf"), Not(HasSubstr("first.gguf")), Not(HasSubstr("loading"))));
  const Outcome more = kvc({"run", sweep(first, "method: [full_cache, no_context]\n")});
  EXPECT_EQ(more.code, 3);
  EXPECT_THAT(more.err, HasSubstr("first.gguf"));
}

TEST_F(RunChecks, FilesThatEntriesNameHideNothing) {
  const std::string text =
      sweep(path("absent.gguf") + ", " + kModel,
            "target: 1 kB\nmethod:\n  - {method: snapkv, window: 8, queries: {queries: calibration_text, file: " +
                path("no.txt") + "}}\n  - {method: keydiff, budget: {budget: lu_kv, file: " + path("no.npy") +
                "}}\n  - {method: key_norm, budget: {budget: proportions, file: " + path("no.json") + "}}\n  - tova\n");
  for (const std::string command : {"validate", "run"}) {
    const Outcome outcome = kvc({command, text});
    EXPECT_EQ(outcome.code, 2);
    EXPECT_THAT(outcome.err,
                AllOf(HasSubstr("5 problems in"), HasSubstr("no.txt"), HasSubstr("no.npy"), HasSubstr("no.json"),
                      HasSubstr("absent.gguf"), HasSubstr("a target of 1 kB is too small"), HasSubstr("sweep.yaml:")));
  }
  EXPECT_THAT(kvc({"run", text, "--dry-run"}).err, HasSubstr("5 problems in"));
  EXPECT_FALSE(fs::exists(path("results")));
  // Data and models may be elsewhere; what the file's own entries name may not.
  EXPECT_THAT(kvc({"validate", text, "--config-only"}).err,
              AllOf(HasSubstr("3 problems in"), Not(HasSubstr("absent"))));
}

TEST_F(RunChecks, TheSmallestCacheAddsUp) {
  const Outcome outcome = kvc({"validate", sweep(kModel, "method: [key_norm]\ntarget: \"1.5 kB\"\n")});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_THAT(outcome.err, HasSubstr("a target of 1.5 kB is too small"));
  std::smatch sum;
  ASSERT_TRUE(
      std::regex_search(outcome.err, sum,
                        std::regex("has (\\d+) bytes: (\\d+) heads x (\\d+) entries \\((\\d+) of the template and "
                                   "one of the document\\) x (\\d+) bytes \\+ (\\d+) bytes of offsets")))
      << outcome.err;
  const auto number = [&](size_t i) { return std::stoll(sum[i]); };
  EXPECT_EQ(number(2), 90);
  EXPECT_EQ(number(3), number(4) + 1);
  EXPECT_EQ(number(5), 2 * 64 * 2);
  EXPECT_EQ(number(6), 960);
  EXPECT_EQ(number(2) * number(3) * number(5) + number(6), number(1));
}

}  // namespace
}  // namespace kvc
