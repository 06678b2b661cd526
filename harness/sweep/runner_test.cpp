#include "harness/sweep/runner.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "harness/core/interrupt.h"
#include "harness/core/json_lines.h"
#include "harness/core/stable_hash.h"
#include "harness/sweep/cell.h"
#include "harness/sweep/results_folder.h"
#include "harness/sweep/sweep_fixture_test.h"

namespace kvc {
namespace {

TEST_F(Sweep, MeasuresEveryCellAndSharesTheWork) {
  const RunSummary summary = run(sweep_text(kMethods));
  EXPECT_EQ(summary.measured, kRecords);
  EXPECT_EQ(summary.failed, 0);
  EXPECT_EQ(calls().loads, 1);
  EXPECT_EQ(calls().queries, 2);       // once per document
  EXPECT_EQ(calls().compacts, 2 * 4);  // once per document and method, for all targets
  EXPECT_EQ(calls().budgets, 2 * 9);
  EXPECT_EQ(calls().references, 2);
  const auto list = records();
  ASSERT_EQ(list.size(), static_cast<size_t>(kRecords));
  EXPECT_TRUE(warnings_.empty());
  for (const Record& record : list) {
    EXPECT_EQ(record.status, "done");
    EXPECT_EQ(record.cell_id, stable_hash(canonical_json(record.cell)));
    EXPECT_EQ(record.provenance["self_proof"], "left out");
    EXPECT_EQ(record.provenance["model"]["content_hash"], tiny_model(1).identity()["content_hash"]);
    EXPECT_EQ(record.provenance["dataset"]["content_hash"], "notes-a");
    ASSERT_EQ(record.answers.size(), 2u);
    EXPECT_EQ(record.answers[1]["question_id"], record.document_id + "/q1");
    EXPECT_EQ(record.answers[1]["gold_answer"], "x");
    EXPECT_EQ(record.answers[1]["n_options"], 0);
    EXPECT_EQ(record.answers[1]["extra"]["number"], 1);
  }
}

// What a source had the model write is kept, and a sweep that replays it has the same queries.
TEST_F(Sweep, KeepsTheTextsOfQuerySourcesForReplay) {
  const auto text = [](const std::string& more) {
    return "sweep: t\nseed: 7\nmodel: tiny.gguf\ndataset: [test_notes]\ntask: [test_probe]\n"
           "queries: {queries: self_study, conversations: [summarize], max_new_tokens: 5" +
           more + "}\ntarget: [0.5, 0.25]\nmethod: [test_queried]\n";
  };
  EXPECT_EQ(run(text("")).measured, 2 * 2);
  const std::string kept = folder_.file("results") + "/texts/queries.jsonl";
  const JsonLines lines = read_json_lines(kept);
  ASSERT_EQ(lines.values.size(), 2U);  // one for each document, whatever the number of targets
  EXPECT_NE(lines.values[0].at("document_id"), lines.values[1].at("document_id"));
  EXPECT_EQ(lines.values[0].at("queries").at("name"), "self_study");
  EXPECT_EQ(lines.values[0].at("notes").at("self_study").at("texts").size(), 1U);
  EXPECT_EQ(records().size(), 4U);  // the file is none of a cell

  const std::string moved = folder_.file("texts.jsonl");
  std::filesystem::rename(kept, moved);
  std::filesystem::remove_all(folder_.file("results"));
  EXPECT_EQ(run(text(", replay: " + moved)).measured, 2 * 2);
  const JsonLines again = read_json_lines(kept);
  ASSERT_EQ(again.values.size(), 2U);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(again.values[i].at("notes"), lines.values[i].at("notes"));
}

TEST_F(Sweep, MeasuresSizesOverTheCompactableSpan) {
  run(sweep_text("test_full, test_queried"));
  for (const Record& record : records()) {
    const Json& sizes = record.sizes;
    const double target = record.cell["target"].is_null() ? 1.0 : record.cell["target"].get<double>();
    const int64_t article = sizes["compactable_tokens"];
    const auto kept = static_cast<int64_t>(target * static_cast<double>(article));
    const int64_t context = sizes["context_tokens"];
    EXPECT_EQ(article, 60);
    EXPECT_EQ(sizes["entries_before"], 4 * context);
    EXPECT_EQ(sizes["entries_after"], 4 * (context - article + kept));
    EXPECT_DOUBLE_EQ(sizes["kept_fraction"], static_cast<double>(kept) / 60);
    EXPECT_DOUBLE_EQ(sizes["compaction_ratio"], 60.0 / static_cast<double>(kept));
    EXPECT_EQ(sizes["head_len_min"], context - article + kept);
    EXPECT_EQ(sizes["head_len_max"], context - article + kept);
    EXPECT_EQ(sizes["n_queries"], record.cell["queries"].is_null() ? 0 : 4);
    EXPECT_DOUBLE_EQ(sizes["bytes_ratio"], sizes["bytes_before"].get<double>() / sizes["bytes_after"].get<double>());
    EXPECT_GE(sizes["allocated_bytes_after"], sizes["bytes_after"]);
    EXPECT_GT(sizes["peak_bytes"], 1 << 20);
    EXPECT_GT(sizes["reference_peak_bytes"], 1 << 20);
    EXPECT_EQ(record.seconds["compaction_shared_s"], 0.25);
    EXPECT_EQ(record.seconds["compaction_s"], 0.5);
    for (const char* stage : {"prefill_s", "queries_s", "reference_s", "ask_s"})
      EXPECT_GE(record.seconds[stage], 0.0) << stage;
  }
}

TEST_F(Sweep, MeasuresNothingTheSecondTime) {
  run(sweep_text(kMethods));
  const auto before = comparable();
  calls() = Calls();
  const RunSummary again = run(sweep_text(kMethods));
  EXPECT_EQ(again.measured, 0);
  EXPECT_EQ(again.already_done, kRecords);
  EXPECT_EQ(calls().loads, 0);  // not even the model
  EXPECT_EQ(calls().asks, 0);
  EXPECT_EQ(comparable(), before);
}

TEST_F(Sweep, MeasuresOnlyWhatIsNew) {
  run(sweep_text("test_keep_first"));
  calls() = Calls();
  std::string wider = sweep_text("test_keep_first");
  wider.replace(wider.find("0.25, 0.1"), 9, "0.25, 0.1, 0.8");
  EXPECT_EQ(run(wider).measured, 2);
  EXPECT_EQ(calls().budgets, 2);
  EXPECT_EQ(calls().queries, 0);
}

TEST_F(Sweep, GoesOnAfterAKill) {
  run(sweep_text(kMethods));
  const auto expected = comparable();
  for (const int64_t survivors : {1, 7, 13}) {
    std::filesystem::remove_all(folder_.file("results"));
    const int status = in_child([&] {
      ::signal(SIGHUP, SIG_DFL);  // the tests may run under nohup
      RunOptions options = options_;
      int64_t count = 0;
      options.after_record = [&](const Record&) {
        if (++count == survivors) ::raise(SIGKILL);
      };
      run_sweep(config(sweep_text(kMethods)), options);
    });
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    EXPECT_EQ(static_cast<int64_t>(records().size()), survivors);
    EXPECT_EQ(run(sweep_text(kMethods)).measured, kRecords - survivors);
    EXPECT_EQ(comparable(), expected);
  }
}

TEST_F(Sweep, ATornLineIsMeasuredAgain) {
  run(sweep_text(kMethods));
  const auto expected = comparable();
  const std::string path = folder_.file("results/" + records().front().cell_id + ".jsonl");
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 9);
  EXPECT_EQ(run(sweep_text(kMethods)).measured, 1);
  EXPECT_EQ(comparable(), expected);
  EXPECT_THAT(warnings_, ::testing::ElementsAre(HasSubstr("is not valid JSON and was skipped")));
}

TEST_F(Sweep, AFolderOfSomebodyElseIsLeftAlone) {
  const std::string theirs = R"({"architectures": ["LlamaForCausalLM"]})";
  std::filesystem::create_directories(folder_.file("results"));
  std::ofstream(folder_.file("results/config.json")) << theirs;
  EXPECT_THROW(run(sweep_text(kMethods)), Error);
  std::ifstream file(folder_.file("results/config.json"));
  EXPECT_EQ((std::string{std::istreambuf_iterator<char>(file), {}}), theirs);
  EXPECT_FALSE(std::filesystem::exists(folder_.file("results/.lock")));
}

TEST_F(Sweep, EndsWithAMessageOnSignals) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    std::filesystem::remove_all(folder_.file("results"));
    const int status = in_child([&] {
      ::signal(SIGHUP, SIG_DFL);  // the tests may run under nohup
      RunOptions options = options_;
      int64_t count = 0;
      options.after_record = [&](const Record&) {
        if (++count == 5) ::raise(signal);
      };
      run_sweep(config(sweep_text(kMethods)), options);
    });
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 128 + signal);
    EXPECT_EQ(records().size(), 5u);
    EXPECT_EQ(run(sweep_text(kMethods)).measured, kRecords - 5);
  }
}

TEST_F(Sweep, ASignalWaitsForAWrite) {
  const std::string path = folder_.file("after_write");
  const int status = in_child([&] {
    const InterruptGuard guard("interrupted");
    {
      const UninterruptedWrite write;
      ::raise(SIGINT);
      std::ofstream(path) << "whole";
    }
    std::ofstream(path) << "too late";
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 128 + SIGINT);
  std::ifstream file(path);
  EXPECT_EQ((std::string{std::istreambuf_iterator<char>(file), {}}), "whole");
}

TEST_F(Sweep, FailedCellsAreRecordedAndTriedAgain) {
  flaky_fails() = true;
  const std::string text = sweep_text("test_full, test_flaky");
  const RunSummary first = run(text);
  EXPECT_EQ(first.measured, 2);
  EXPECT_EQ(first.failed, 6);
  int64_t failed = 0;
  for (const Record& record : records()) {
    if (record.status != "failed") continue;
    ++failed;
    EXPECT_EQ(
        record.error,
        fmt::format("the weather is bad\n  mend:  wait\n  cell:  test_flaky at {}, test_probe on test_notes ({}), "
                    "document '{}'",
                    record.cell["target"].dump(), record.cell_id, record.document_id));
  }
  EXPECT_EQ(failed, 6);
  flaky_fails() = false;
  const RunSummary second = run(text);
  EXPECT_EQ(second.measured, 6);
  EXPECT_EQ(second.failed, 0);
  for (const Record& record : records()) EXPECT_EQ(record.status, "done");
  EXPECT_EQ(run(text).measured, 0);
}

TEST_F(Sweep, AFailureStaysWithItsOwnCell) {
  struct {
    std::string text;
    int64_t measured, failed;
    std::string message;
  } cases[] = {
      // 60 letters: 30, 15 and 6 entries; fewer than 10 are refused
      {sweep_text("{method: test_broken, how: small}"), 4, 2, "6 entries are too few"},
      {sweep_text("test_full, {method: test_broken, how: torch}"), 2, 6, "LibTorch: "},
      {sweep_text("test_full, {method: test_broken, how: memory}"), 2, 6, "out of memory"},
      {sweep_text("test_full, {method: test_queried, queries: {queries: test_queries, refuse: true}}"), 2, 6,
       "too few positions for the text twice"},
      {sweep_text("test_full, test_keep_first", "{dataset: test_notes, long_document: true}"), 8, 4, "'long'"},
      // half an entry
      {sweep_text("{method: test_keep_first, target: [0.5, 0.008]}"), 2, 2, "test_keep_first at 0.008"},
  };
  for (const auto& c : cases) {
    std::filesystem::remove_all(folder_.file("results"));
    const RunSummary summary = run(c.text);
    EXPECT_EQ(summary.measured, c.measured) << c.text;
    EXPECT_EQ(summary.failed, c.failed) << c.text;
    for (const Record& record : records()) {
      if (record.status == "failed") {
        EXPECT_THAT(record.error, HasSubstr(c.message));
      }
    }
  }
}

// A pretended GPU: its memory runs out in one method, what the others took is in their records.
TEST_F(Sweep, AFullGpuFailsItsOwnCells) {
  int released = 0;
  int64_t peak = 1000;
  options_.device = DeviceCare{[] {}, [&] { ++released; }, [&] { return peak += 10; }};
  const RunSummary summary = run(sweep_text("{method: test_broken, how: gpu_memory}, test_keep_first"));
  EXPECT_EQ(summary.measured, 6);
  EXPECT_EQ(summary.failed, 6);
  EXPECT_GE(released, 6);
  for (const Record& record : records()) {
    if (record.status == "done") {
      EXPECT_GT(record.sizes.at("peak_device_bytes"), 1000);
      EXPECT_LE(record.sizes.at("peak_device_bytes"), peak);
      EXPECT_LE(record.sizes.at("reference_peak_device_bytes"), peak);
    } else {
      EXPECT_GT(record.sizes.at("peak_device_bytes"), 1000);
      EXPECT_GT(record.sizes.at("peak_bytes"), 1 << 20);
      EXPECT_EQ(record.sizes.at("compactable_tokens"), 60);
      EXPECT_THAT(record.error,
                  HasSubstr("the GPU's memory is too small: CUDA out of memory. Tried to allocate 9 GiB."));
    }
  }
}

// Nothing is recorded as failed that a lost GPU could not do, and the next run goes on from there.
TEST_F(Sweep, ALostGpuEndsTheRun) {
  const std::string text = sweep_text("test_keep_first, {method: test_broken, how: torch}, {method: test_flaky}");
  options_.device =
      DeviceCare{[] { TORCH_CHECK(false, "CUDA error: an illegal memory access was encountered"); }, {}, {}};
  EXPECT_THAT(error_of([&] { run(text); }), HasSubstr("the GPU no longer works for this process"));
  const auto kept = records();
  EXPECT_EQ(kept.size(), 3U);  // of the first document, before the failure
  for (const Record& record : kept) EXPECT_EQ(record.status, "done");
  options_.device = DeviceCare{[] {}, {}, {}};
  const RunSummary summary = run(text);
  EXPECT_EQ(summary.measured, 3 + 2 * 3);
  EXPECT_EQ(summary.failed, 6);
}

TEST_F(Sweep, ATaskThatThrowsFailsItsDocumentOnly) {
  std::string text = sweep_text("test_full");
  text.replace(text.find("task: [test_probe"), 17, "task: [{task: test_probe, refuse: note-1}");
  const RunSummary summary = run(text);
  EXPECT_EQ(summary.measured, 1);
  EXPECT_EQ(summary.failed, 1);
}

TEST_F(Sweep, RefusesRecordsOfOtherWeightsOrData) {
  const std::string text = sweep_text("test_full");
  run(text);
  const std::string path = folder_.file("results/" + records().front().cell_id + ".jsonl");
  model_seed_ = 2;
  const std::string more = sweep_text("test_full, test_keep_first");
  EXPECT_THAT(
      error_of([&] { run(more); }),
      HasSubstr("the model's content_hash is \"tiny-2-Float\" now, but was \"tiny-1-Float\" when document 'note-0' was "
                "measured\n  where: " +
                path));
  model_seed_ = 1;
  EXPECT_EQ(run(more).measured, 6);
  // The same cell, other data.
  Record changed = records().front();
  changed.provenance["dataset"]["content_hash"] = "notes-old";
  append_json_line(folder_.file("results/" + changed.cell_id + ".jsonl"), changed.to_json());
  EXPECT_THAT(error_of([&] { run(sweep_text("test_full, test_keep_first, test_queried")); }),
              HasSubstr("the data set's identity is"));
}

// A finished sweep loads no model, unless its weights were replaced: by a file of the same name, in a folder of the
// same name, of the same size, of the same time of writing.
TEST_F(Sweep, NoticesReplacedWeights) {
  namespace fs = std::filesystem;
  const std::string text =
      "sweep: t\nseed: 7\nmodel: folder\ndataset: [test_notes]\ntask: [test_probe]\n"
      "method: [test_full]\n";
  const std::string folder = folder_.file("folder");
  const auto write = [&](const std::string& content) {
    fs::create_directories(folder);
    std::ofstream(folder + "/config.json") << "{}";
    std::ofstream(folder + "/model.safetensors") << content;
  };
  write("weights 1");
  EXPECT_EQ(run(text).measured, 2);
  EXPECT_EQ(run(text).already_done, 2);
  EXPECT_EQ(calls().loads, 1);

  const fs::file_time_type time = fs::last_write_time(folder + "/model.safetensors");
  model_seed_ = 2;
  write("weights 2");
  fs::last_write_time(folder + "/model.safetensors", time);
  EXPECT_THAT(error_of([&] { run(text); }), HasSubstr("the model's content_hash is \"tiny-2-Float\" now, but was"));

  model_seed_ = 1;
  fs::remove_all(folder);
  fs::create_directories(folder_.file("elsewhere"));
  fs::create_directory_symlink(folder_.file("elsewhere"), folder);
  write("weights 1");
  calls() = Calls();
  EXPECT_EQ(run(text).already_done, 2);  // the same weights elsewhere: looked at, found equal
  EXPECT_EQ(calls().loads, 1);
  EXPECT_EQ(run(text).already_done, 2);
  EXPECT_EQ(calls().loads, 1);

  fs::remove_all(folder);  // nothing to compare with is no proof of equality
  EXPECT_EQ(run(text).already_done, 2);
  EXPECT_EQ(calls().loads, 2);
}

// What is measured to the end needs no weights: neither named as missing nor loaded.
TEST_F(Sweep, OnlyUnfinishedModelsAreNeeded) {
  const std::string text =
      "sweep: t\nseed: 7\nmodel: [tiny.gguf, other.gguf]\ndataset: [test_notes]\ntask: [test_probe]\n"
      "method: [test_full]\n";
  const auto needed = [&](const SweepConfig& sweep, const std::optional<Shard>& shard = {}) {
    std::vector<std::string> names;
    for (const SweepModel* model : models_to_load(sweep, shard, {}))
      names.push_back(std::filesystem::path(model->config.path).filename());
    return names;
  };
  const SweepConfig sweep = config(text);
  EXPECT_THAT(needed(sweep), ::testing::UnorderedElementsAre("tiny.gguf", "other.gguf"));
  SweepConfig first = sweep;
  first.models.pop_back();
  EXPECT_EQ(run_sweep(first, options_).measured, 2);
  EXPECT_THAT(needed(sweep), ::testing::ElementsAre("other.gguf"));
  EXPECT_THAT(needed(sweep, Shard{1, 2}), ::testing::UnorderedElementsAre("tiny.gguf", "other.gguf"));

  options_.load_model = [](const ModelConfig&) -> Model { throw Error(ErrorKind::kData, "no such file", "", ""); };
  std::filesystem::remove(folder_.file("tiny.gguf"));
  EXPECT_THAT(needed(first), ::testing::IsEmpty());
  EXPECT_EQ(run_sweep(first, options_).already_done, 2);
  EXPECT_THAT(error_of([&] { run_sweep(sweep, options_); }), HasSubstr("no such file"));
  // Something new is to be measured, or other weights lie there now.
  SweepConfig more = config(sweep_text("test_full, test_keep_first"));
  EXPECT_THAT(needed(more), ::testing::ElementsAre("tiny.gguf"));
  EXPECT_THAT(error_of([&] { run_sweep(more, options_); }), HasSubstr("no such file"));
  std::ofstream(folder_.file("tiny.gguf")) << "weights 2";
  EXPECT_THAT(needed(first), ::testing::ElementsAre("tiny.gguf"));
  EXPECT_THAT(error_of([&] { run_sweep(first, options_); }), HasSubstr("no such file"));
}

TEST_F(Sweep, OneWriterAtATime) {
  const ResultsFolder other(folder_.file("results"));
  const std::string writer = writer_of(folder_.file("results")).value_or("nobody");
  EXPECT_THAT(writer, ::testing::MatchesRegex(fmt::format("process {} on .+", ::getpid())));
  EXPECT_EQ(error_of([&] { run(sweep_text("test_full")); }),
            fmt::format("{} is writing to this results folder\n  where: {}\n  mend:  wait until it is done, or choose "
                        "another folder with --results",
                        writer, folder_.file("results")));
}

// As on a network file system where another machine's lock is not seen: the job was requeued, its first copy lives on.
TEST_F(Sweep, TheFirstOfTwoCopiesStops) {
  options_.after_record = [&](const Record&) { std::ofstream(folder_.file("results/.lock")) << "99 node7 1234\n"; };
  EXPECT_THAT(error_of([&] { run(sweep_text(kMethods)); }), HasSubstr("process 99 on node7 now owns this folder"));
  EXPECT_EQ(records().size(), 1U);
  options_.after_record = nullptr;
  EXPECT_EQ(run(sweep_text(kMethods)).measured, kRecords - 1);
  EXPECT_EQ(writer_of(folder_.file("results")), std::nullopt);
}

TEST_F(Sweep, AnUnwritableFolderIsAClearError) {
  std::ofstream(folder_.file("results")) << "a file, no folder";
  EXPECT_THAT(error_of([&] { run(sweep_text("test_full")); }), HasSubstr("cannot create the results folder"));
  SweepConfig config = this->config(sweep_text("test_full"));
  config.results = "/proc/kvc";
  EXPECT_THAT(error_of([&] { run_sweep(config, options_); }),
              HasSubstr("where: /proc/kvc\n  mend:  choose a folder you may write to"));
  EXPECT_EQ(calls().loads, 0);
}

TEST_F(Sweep, WritesTheConfigAsUnderstood) {
  const std::string text = sweep_text(kMethods);
  run(text);
  std::ifstream file(folder_.file("results/config.json"));
  EXPECT_EQ(Json::parse(file), config(text).to_json());
}

TEST_F(Sweep, StatusCountsWithoutModel) {
  const auto sum = [&] {
    int64_t done = 0;
    for (const CellStatus& cell : sweep_status(config(sweep_text(kMethods)))) done += cell.done;
    return done;
  };
  EXPECT_EQ(sum(), 0);
  run(sweep_text("test_full"));
  EXPECT_EQ(sum(), 2);
  EXPECT_EQ(calls().loads, 1);
}

}  // namespace
}  // namespace kvc
