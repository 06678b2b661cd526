// Sweeps measured in shards and brought together again; and that nothing but the cell decides its answers.
#include "harness/sweep/merge.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "harness/core/config_text.h"
#include "harness/core/json_lines.h"
#include "harness/report/report.h"
#include "harness/sweep/record_origin.h"
#include "harness/sweep/results_folder.h"
#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr const char* kSweep =
    "sweep: parts\nseed: [7, 8]\nmodel: tiny.gguf\ndataset: [{dataset: test_notes, documents: 6}]\n"
    "task: [fidelity, exact_match]\nqueries: context_prefill\ntarget: [0.5, 0.2]\n"
    "method: [full_cache, no_context, streaming_llm, h2o]\n";
constexpr int64_t kRecords = 2 * 6 * 2 * (1 + 1 + 2 + 2);

class Shards : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.quiet = true;
    options_.skip_proof = true;
    options_.load_model = [this](const ModelConfig&) { return tiny_model(model_seed_); };
  }

  SweepConfig config(const std::string& results, const std::string& text = kSweep) const {
    SweepConfig config = parse_sweep(ConfigText::from_string(text, "s.yaml"));
    config.results = folder_.file(results);
    return config;
  }
  RunSummary run(const std::string& results, std::optional<Shard> shard = {}, const std::string& text = kSweep) const {
    RunOptions options = options_;
    options.shard = shard;
    return run_sweep(config(results, text), options);
  }
  int64_t run_shards(const std::string& results, int64_t count) const {
    int64_t measured = 0;
    for (int64_t i = 1; i <= count; ++i) measured += run(results, Shard{i, count}).measured;
    return measured;
  }
  std::vector<std::string> shards(const std::string& results) const {
    const auto all = record_folders(folder_.file(results));
    return {all.begin() + 1, all.end()};
  }
  // The report without its times.
  Json report(const std::string& results) const {
    write_report(folder_.file(results));
    std::ifstream file(folder_.file(results) + "/report.json");
    Json report = Json::parse(file);
    report.erase("seconds_per_document");
    for (Json& table : report.at("tables")) {
      for (Json& row : table.at("rows")) {
        for (Json& cell : row.at("cells")) {
          if (cell.is_object()) cell.erase("seconds");
        }
      }
    }
    return report;
  }
  std::map<std::string, Json> answers(const std::string& results) const {
    std::vector<std::string> warnings;
    std::map<std::string, Json> all;
    for (const Record& record : load_records(folder_.file(results), warnings))
      all[record.cell_id + record.document_id] = measured_content(record);
    return all;
  }

  TemporaryFolder folder_;
  RunOptions options_;
  std::uint64_t model_seed_ = 1;
};

TEST_F(Shards, TogetherAreTheWholeSweep) {
  ASSERT_EQ(run("whole").measured, kRecords);
  const Json expected = report("whole");
  for (const int64_t count : {1, 2, 7, 16}) {
    const std::string name = fmt::format("in-{}", count);
    EXPECT_EQ(run_shards(name, count), kRecords);
    EXPECT_THAT(shards(name), SizeIs(static_cast<size_t>(count)));
    EXPECT_EQ(answers(name), answers("whole"));
    EXPECT_EQ(report(name), expected) << count;  // straight from the shards
    const MergeSummary merged = merge_results(shards(name), folder_.file(name + "-merged"));
    EXPECT_EQ(merged.folders, count);
    EXPECT_EQ(merged.records, kRecords);
    EXPECT_EQ(merged.duplicates, 0);
    EXPECT_TRUE(merged.coverage.complete());
    EXPECT_EQ(merged.coverage.expected, kRecords);
    EXPECT_THAT(merged.warnings, IsEmpty());
    EXPECT_EQ(report(name + "-merged"), expected) << count;
    // A run on the merged folder finds everything.
    EXPECT_EQ(run(name + "-merged").already_done, kRecords);
  }
  // Into the sweep's own folder, twice: everything is there once.
  const auto into = [&] { return merge_results(shards("in-7"), folder_.file("in-7")); };
  EXPECT_EQ(into().duplicates, 0);
  EXPECT_EQ(into().duplicates, kRecords);
  EXPECT_EQ(report("in-7"), expected);
  EXPECT_EQ(run("in-7").already_done, kRecords);
}

TEST_F(Shards, ExplanationsComeAlongOnce) {
  run_shards("r", 2);
  const std::vector<std::string> parts = shards("r");
  const Json first = {{"cell_id", "a"}, {"cause", "evicted"}}, second = {{"cell_id", "b"}, {"cause", "unused"}};
  append_json_line(parts[0] + "/explanations/flips.jsonl", first);
  append_json_line(parts[1] + "/explanations/flips.jsonl", second);
  append_json_line(parts[1] + "/explanations/flips.jsonl", first);
  for (int again = 0; again < 2; ++again) {
    merge_results(parts, folder_.file("merged"));
    EXPECT_THAT(read_json_lines(folder_.file("merged/explanations/flips.jsonl")).values, ElementsAre(first, second));
  }
}

TEST_F(Shards, FindWhatOthersHaveMeasured) {
  int64_t count = 0;
  RunOptions options = options_;
  options.shard = Shard{1, 2};
  const int64_t first = run_sweep(config("r"), options).measured;
  EXPECT_GT(first, 0);
  EXPECT_LT(first, kRecords);
  for (int64_t i = 1; i <= 5; ++i) count += run("r", Shard{i, 5}).measured;  // another division
  EXPECT_EQ(count, kRecords - first);
  EXPECT_EQ(run("r").already_done, kRecords);  // undivided
}

TEST_F(Shards, GapsAreListedWithTheCommandsThatFillThem) {
  for (const int64_t i : {1, 2, 4}) run("r", Shard{i, 4});
  const MergeSummary merged = merge_results(shards("r"), folder_.file("r"));
  EXPECT_EQ(merged.coverage.expected, kRecords);
  EXPECT_EQ(static_cast<int64_t>(merged.coverage.gaps.size()), kRecords - merged.records);
  EXPECT_GT(merged.coverage.gaps.size(), 0U);
  for (const Gap& gap : merged.coverage.gaps) EXPECT_EQ(gap.shard, 3);
  EXPECT_THAT(merged.coverage.commands,
              ElementsAre(fmt::format("kvc run s.yaml --results {} --shard 3/4", folder_.file("r"))));
  const std::string text = coverage_text(merged.coverage);
  EXPECT_THAT(text, HasSubstr(fmt::format("missing: {} of {} results\n", kRecords - merged.records, kRecords)));
  EXPECT_THAT(text, HasSubstr("document 'note-"));
  run("r", Shard{3, 4});
  EXPECT_EQ(coverage_text(coverage_of(folder_.file("r"))), "");
}

TEST_F(Shards, AFoldersSweepThatNoRunHasOpenedIsAGap) {
  const std::string two =
      std::string(kSweep).replace(std::string(kSweep).find("tiny.gguf"), 9, "[tiny.gguf, other.gguf]");
  RunOptions options = options_;
  options.load_model = [](const ModelConfig& model) {
    if (model.path == "other.gguf") throw Error(ErrorKind::kData, "no such file", "other.gguf", "");
    return tiny_model(1);
  };
  options.shard = Shard{1, 2};
  EXPECT_EQ(error_of([&] { run_sweep(config("r", two), options); }).substr(0, 12), "no such file");
  const Coverage coverage = coverage_of(folder_.file("r"));
  EXPECT_FALSE(coverage.complete());
  EXPECT_THAT(coverage.unopened, ElementsAre("other.gguf on test_notes, seed 7", "other.gguf on test_notes, seed 8"));
  EXPECT_THAT(coverage.commands, SizeIs(2));
}

TEST_F(Shards, OtherSweepsWeightsDataAndProgramsAreRefused) {
  run("a", Shard{1, 2});
  const std::string more = std::string(kSweep).replace(std::string(kSweep).find("[0.5, 0.2]"), 10, "[0.5, 0.1]");
  run("b", Shard{2, 2}, more);
  const auto merge = [&](const std::string& second, const MergeOptions& options = {}) {
    fs::remove_all(folder_.file("merged"));
    return error_of([&] {
      merge_results({folder_.file("a/shards/1-of-2"), folder_.file(second + "/shards/2-of-2")}, folder_.file("merged"),
                    options);
    });
  };
  EXPECT_THAT(merge("b"), HasSubstr(fmt::format("these were measured for different sweep files: {}/shards/1-of-2 "
                                                "(sweep 'parts', hash ",
                                                folder_.file("a"))));
  model_seed_ = 2;
  run("c", Shard{2, 2});
  EXPECT_THAT(merge("c"), HasSubstr("records of different weights share one name"));
  model_seed_ = 1;
  run("d", Shard{2, 2});
  const auto edit = [&](const std::string& from, const std::string& to) {
    for (const auto& entry : fs::directory_iterator(folder_.file("d/shards/2-of-2"))) {
      if (entry.path().extension() != ".jsonl") continue;
      std::ifstream in(entry.path());
      std::string text{std::istreambuf_iterator<char>(in), {}};
      for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
        text.replace(at, from.size(), to);
      std::ofstream(entry.path()) << text;
    }
  };
  edit("notes-a", "notes-b");
  EXPECT_THAT(merge("d"), HasSubstr("records of different data share one name"));
  edit("notes-b", "notes-a");
  EXPECT_EQ(merge("d"), "no error");
  edit("\"compiler\":\"", "\"compiler\":\"Other ");
  EXPECT_THAT(merge("d"), AllOf(HasSubstr("records from two builds: "), HasSubstr("; and "), HasSubstr("Other "),
                                HasSubstr("--mixed-programs")));
  MergeOptions mixed;
  mixed.mixed_programs = true;
  EXPECT_EQ(merge("d", mixed), "no error");
  std::vector<std::string> warnings;
  load_records(folder_.file("merged"), warnings);
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("the records come from 2 states of the program")));
}

TEST_F(Shards, FoldersThatCannotBeMerged) {
  run("r", Shard{1, 2});
  const std::string root = folder_.file("r"), shard = root + "/shards/1-of-2", into = folder_.file("into");
  EXPECT_THAT(error_of([&] { merge_results({root}, root + "/."); }),
              HasSubstr("a folder cannot be merged into itself"));
  EXPECT_THAT(error_of([&] { merge_results({shard}, root + "/shards/../shards/1-of-2/"); }),
              HasSubstr("a folder cannot be merged into itself"));
  fs::create_directory_symlink(shard, folder_.file("link"));
  EXPECT_THAT(error_of([&] {
                merge_results({shard, folder_.file("link")}, into);
              }),
              HasSubstr("the same folder is named twice"));
  EXPECT_THAT(error_of([&] { merge_results({folder_.file("absent")}, into); }),
              HasSubstr("the results folder does not exist"));
  const ResultsFolder writer(shard);
  EXPECT_THAT(error_of([&] { merge_results({root}, into); }),
              AllOf(HasSubstr("is writing to this results folder"), HasSubstr("merge when it is done")));
  EXPECT_FALSE(fs::exists(into));  // refused before anything was written
}

TEST_F(Shards, AShardMayHaveNoDocuments) {
  const std::string one = std::string(kSweep).replace(std::string(kSweep).find("documents: 6"), 12, "documents: 1");
  const std::string single = std::string(one).replace(one.find("[7, 8]"), 6, "7");
  int64_t empty = 0, measured = 0;
  for (int64_t i = 1; i <= 4; ++i) {
    ::testing::internal::CaptureStderr();
    options_.quiet = false;
    const RunSummary summary = run("r", Shard{i, 4}, single);
    const std::string err = ::testing::internal::GetCapturedStderr();
    measured += summary.measured;
    if (summary.measured > 0) continue;
    ++empty;
    EXPECT_THAT(err, HasSubstr(fmt::format("note: shard {}/4 has no documents", i)));
  }
  EXPECT_EQ(empty, 3);
  EXPECT_EQ(measured, kRecords / 12);
  EXPECT_TRUE(merge_results(shards("r"), folder_.file("r")).coverage.complete());
}

// One question's answer must not depend on what is asked beside it, on the threads, or on the division (float32).
TEST_F(Shards, AnswersDependOnTheCellAlone) {
  const auto text = [](int questions) {
    return std::string(
               "sweep: s\nseed: 7\nmodel: tiny.gguf\ndataset: [{dataset: test_notes, documents: 3, letters: 90, "
               "questions: ") +
           std::to_string(questions) +
           "}]\ntask: [{task: fidelity, max_new_tokens: 6}, {task: exact_match, max_new_tokens: 6}]\n"
           "queries: repeat_prefill\ntarget: 0.3\n"
           "method: [full_cache, snapkv, h2o, {method: attention_matching, select: omp}]\n";
  };
  // (document, method, task, question) -> answer
  const auto by_question = [&](const std::string& results) {
    std::map<std::string, Json> all;
    std::vector<std::string> warnings;
    for (const Record& record : load_records(folder_.file(results), warnings)) {
      EXPECT_EQ(record.status, "done") << record.error;
      for (const Json& answer : record.answers) {
        all[record.document_id + record.cell.at("method").dump() + record.cell.at("task").dump() +
            answer.at("question_id").get<std::string>()] = answer;
      }
    }
    return all;
  };
  // Texts, counts and ids to the letter; log-likelihoods up to float32's rounding over another order of sums.
  const auto expect_same = [](const Json& a, const Json& b, const std::string& where) {
    for (const auto& [name, value] : a.items()) {
      if (value.is_number_float()) {
        const double x = value.get<double>(), y = b.at(name).get<double>();
        EXPECT_NEAR(x, y, 1e-5 + 1e-4 * std::abs(x)) << where << " " << name;
      } else {
        EXPECT_EQ(value, b.at(name)) << where << " " << name;
      }
    }
  };
  const auto expect_all_same = [&](const std::string& few, const std::string& many) {
    const auto a = by_question(few), b = by_question(many);
    EXPECT_FALSE(a.empty());
    for (const auto& [key, answer] : a) {
      ASSERT_TRUE(b.contains(key)) << key;
      expect_same(answer, b.at(key), few + " " + many + ": " + key);
    }
  };
  at::set_num_threads(1);
  for (const int questions : {1, 4, 32}) run(fmt::format("batch-{}", questions), {}, text(questions));
  expect_all_same("batch-1", "batch-4");
  expect_all_same("batch-4", "batch-32");
  at::set_num_threads(2);
  run("threads-2", {}, text(4));
  at::set_num_threads(1);
  expect_all_same("batch-4", "threads-2");
  for (int64_t i = 1; i <= 7; ++i) run("shards-7", Shard{i, 7}, text(4));
  EXPECT_EQ(answers("shards-7"), answers("batch-4"));  // bit by bit
}

}  // namespace
}  // namespace kvc
