// Shards, merge, submit and the plan as a user meets them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "harness/cli/cli_test.h"

namespace kvc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class ClusterCommands : public Cli {
 protected:
  std::string config() const {
    return write("sweep.yaml",
                 "sweep: tiny\nseed: 11\nmodel: [{path: " + kModel +
                     ", dtype: float32}]\ndataset: [{dataset: needle, documents: 3, tokens: 120, needles: "
                     "1, path: " +
                     kRoot +
                     "/datasets/samples/quality.jsonl}]\ntask: [{task: fidelity, max_new_tokens: 3}]\n"
                     "queries: [context_prefill]\ntarget: [0.2]\nmethod: [full_cache, snapkv]\n");
  }
};

TEST_F(ClusterCommands, MeasureInShardsAndMerge) {
  const std::string results = path("results");
  for (const char* shard : {"1/2", "2/2"}) {
    const Outcome outcome = kvc({"run", config(), "--results", results, "--shard", shard, "--skip-proof", "--no-plan"});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.out, "");  // no report of a part
    EXPECT_THAT(outcome.err, HasSubstr(std::string("records in ") + results + "/shards/" + shard[0] + "-of-2"));
    if (shard[0] == '2') break;
    const Outcome half = kvc({"merge", results + "/shards/1-of-2", "--into", path("half")});
    EXPECT_EQ(half.code, 1);
    EXPECT_THAT(half.err, AllOf(HasSubstr("missing: "), HasSubstr("--shard 2/2")));
  }
  const Outcome merged = kvc({"merge", results + "/shards/1-of-2", results + "/shards/2-of-2", "--into", results});
  EXPECT_EQ(merged.code, 0) << merged.err;
  EXPECT_THAT(merged.out, HasSubstr("6 records: 6 done"));
  EXPECT_THAT(merged.err, HasSubstr("2 folders merged: 6 records"));
  const Outcome report = kvc({"report", results});
  EXPECT_EQ(report.code, 0);
  EXPECT_EQ(report.out, merged.out);
  EXPECT_EQ(report.err, "");
  EXPECT_EQ(kvc({"merge", results, "--into", results}).code, 2);
}

TEST_F(ClusterCommands, PlanWithoutMeasuring) {
  const std::string results = path("results");
  const Outcome plan = kvc({"run", config(), "--results", results, "--dry-run", "--within", "6h", "--quiet"});
  EXPECT_EQ(plan.code, 0) << plan.err;
  for (const char* part : {"2 cells, 3 documents", "6 of 6 records to be measured", "prefill", "by a calibration of",
                           "memory at the peak: ", "longest document: ", "within 6 h 00 min: 1 shard"}) {
    EXPECT_THAT(plan.out, HasSubstr(part));
  }
  EXPECT_FALSE(std::filesystem::exists(results));
  EXPECT_EQ(kvc({"run", config(), "--dry-run", "--within", "soon"}).code, 2);
  EXPECT_EQ(kvc({"run", config(), "--within", "6h"}).code, 2);
  EXPECT_EQ(kvc({"run", config(), "--results", results, "--shard", "5/4"}).code, 2);
  EXPECT_EQ(kvc({"run", config(), "--results", results, "--shard", "a/b"}).code, 2);
}

TEST_F(ClusterCommands, SubmitWritesScriptsAndNeedsSlurm) {
  const std::string results = path("results with blank");
  const Outcome dry = kvc({"submit", config(), "--shards", "16", "--results", results, "--no-plan", "--dry-run",
                           "--partition", "gpu", "--gres=gpu:1"});
  EXPECT_EQ(dry.code, 0) << dry.err;
  EXPECT_THAT(dry.out,
              AllOf(HasSubstr("--array=1-16"), HasSubstr("--requeue"), HasSubstr("--partition gpu --gres=gpu:1"),
                    HasSubstr("--dependency=afterany:JOB"), HasSubstr("--partition=gpu")));
  std::ifstream script(results + "/slurm/shards.sh");
  const std::string text{std::istreambuf_iterator<char>(script), {}};
  EXPECT_THAT(text, AllOf(HasSubstr("--results '" + results + "' --shard \"$SLURM_ARRAY_TASK_ID/16\"")));
  const std::string old = std::getenv("PATH");
  ::setenv("PATH", "/nowhere", 1);
  const Outcome none = kvc({"submit", config(), "--shards", "2", "--results", results, "--no-plan"});
  ::setenv("PATH", old.c_str(), 1);
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.err, HasSubstr("there is no sbatch on this machine"));
  EXPECT_EQ(kvc({"submit", config(), "--shards", "0"}).code, 2);
  EXPECT_EQ(kvc({"submit", config()}).code, 2);
}

}  // namespace
}  // namespace kvc
