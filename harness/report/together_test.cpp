// The parts of a benchmark as one table.
#include "harness/report/together.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "harness/core/stable_hash.h"
#include "harness/report/report.h"
#include "harness/report/test_records.h"

namespace kvc {
namespace {

using test_records::match;
using test_records::one;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

Json ruler(const std::string& task, int tokens = 1024) {
  return {{"name", "ruler"}, {"task", task}, {"documents", 6}, {"tokens", tokens}};
}

Record on(const Json& dataset, const std::string& method, const Json& target, const std::string& document, bool right) {
  Record r = one("exact_match", method, target, {match("q", right)}, document);
  r.cell["dataset"] = dataset;
  r.cell_id = stable_hash(canonical_json(r.cell));
  r.sizes = {{"kept_fraction", target.is_number() ? target.get<double>() : 1.0}, {"compactable_tokens", 1000}};
  return r;
}

// On every part h2o finds what the full cache finds in all of 6 documents, keydiff in 4.
std::vector<Record> six_documents_of(const std::vector<Json>& parts) {
  std::vector<Record> records;
  for (const Json& part : parts) {
    for (int d = 0; d < 6; ++d) {
      const std::string document = "d" + std::to_string(d);
      records.push_back(on(part, "full_cache", nullptr, document, true));
      records.push_back(on(part, "h2o", 0.5, document, true));
      records.push_back(on(part, "keydiff", 0.5, document, d > 1));
    }
  }
  return records;
}

const Table* whole(const Tabulated& t) {
  for (const Table& table : t.tables) {
    if (!table.parts.empty()) return &table;
  }
  return nullptr;
}

TEST(Together, PairsThatNoPartDecidesAreDecidedByAll) {
  const std::vector<Json> parts = {ruler("vt"), ruler("cwe"), ruler("fwe")};
  const Tabulated t = tabulate(six_documents_of(parts));
  ASSERT_EQ(t.tables.size(), 4u);
  const Table& all = t.tables[0];  // people look at it first
  EXPECT_THAT(all.parts, ElementsAre("cwe", "fwe", "vt"));
  EXPECT_EQ(all.dataset_label, "ruler, 3 data sets");
  EXPECT_EQ(all.dataset, (Json{{"name", "ruler"}, {"documents", 6}, {"tokens", 1024}}));
  EXPECT_EQ(all.documents.size(), 18u);
  ASSERT_EQ(all.rows.size(), 3u);
  const CellSummary& keydiff = *all.rows[2].cells[0];
  EXPECT_EQ(keydiff.n_done, 18);
  EXPECT_EQ(keydiff.n_missing, 0);
  EXPECT_EQ(keydiff.metrics[0].estimate.n_documents, 18);
  EXPECT_DOUBLE_EQ(keydiff.metrics[0].estimate.mean, 12.0 / 18);
  EXPECT_EQ(keydiff.sizes.kept_fraction, 0.5);
  EXPECT_EQ(keydiff.metrics[0].versus_full->pair.losses, 6);
  ASSERT_EQ(all.comparison.pairs.size(), 1u);
  EXPECT_EQ(all.comparison.pairs[0].pair.wins, 6);
  EXPECT_EQ(all.comparison.pairs[0].better_bh, 1);
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_THAT(t.tables[i].parts, IsEmpty());
    EXPECT_EQ(t.tables[i].comparison.pairs.at(0).better_bh, 0) << t.tables[i].dataset_label;
    EXPECT_EQ(whole_of(t, t.tables[i]), &all);
  }
  EXPECT_EQ(whole_of(t, all), nullptr);
}

TEST(Together, NothingIsCountedTwice) {
  std::vector<Record> records = six_documents_of({ruler("vt"), ruler("cwe")});
  const size_t n = records.size();
  test_records::fail(records.back(), "it fell over");
  const Tabulated t = tabulate(records);
  EXPECT_EQ(t.n_records, static_cast<int64_t>(n));
  EXPECT_EQ(t.n_done, static_cast<int64_t>(n) - 1);
  EXPECT_EQ(t.n_failed, 1);
  EXPECT_EQ(t.failures.size(), 1u);
  const std::string lines = score_lines(t);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), static_cast<std::ptrdiff_t>(n) - 1);
  const Table& all = *whole(t);
  EXPECT_EQ(all.rows[2].cells[0]->n_failed, 1);
  EXPECT_EQ(all.rows[2].cells[0]->metrics[0].estimate.n_questions, 11);
  EXPECT_THAT(all.rows[2].cells[0]->cell_ids, IsEmpty());
  EXPECT_THAT(all.rows[2].cells[0]->answers, IsEmpty());
}

// Needles: another document under each seed, in the whole as in its parts.
TEST(Together, DocumentsOfASeedAreOnesOfTheirOwn) {
  std::vector<Record> records;
  for (const char* task : {"vt", "cwe"}) {
    for (const int seed : {1, 2}) {
      Record r = on(ruler(task), "h2o", 0.5, "d", true);
      r.cell["seed"] = seed;
      r.cell_id = stable_hash(canonical_json(r.cell));
      r.answers[0]["gold_answer"] = std::to_string(seed);
      records.push_back(std::move(r));
    }
  }
  const Tabulated t = tabulate(records);
  EXPECT_THAT(whole(t)->documents,
              ElementsAre("cwe: d (seed 1)", "cwe: d (seed 2)", "vt: d (seed 1)", "vt: d (seed 2)"));
  EXPECT_EQ(whole(t)->rows[0].cells[0]->metrics[0].estimate.n_documents, 4);
  EXPECT_EQ(whole(t)->rows[0].cells[0]->n_missing, 0);
}

// Other lengths are other benchmarks, and a subset of a data set has the questions of the whole.
TEST(Together, OnlyTasksAndFilesAreParts) {
  const Json full = {{"name", "quality"}, {"path", "q.jsonl"}, {"subset", "full"}};
  const Json hard = {{"name", "quality"}, {"path", "q.jsonl"}, {"subset", "hard"}};
  EXPECT_EQ(whole(tabulate(six_documents_of({full, hard}))), nullptr);
  EXPECT_EQ(whole(tabulate(six_documents_of({ruler("vt")}))), nullptr);
  const Tabulated lengths = tabulate(
      six_documents_of({ruler("vt"), ruler("cwe"), ruler("vt", 4096), ruler("cwe", 4096), ruler("fwe", 8192)}));
  ASSERT_EQ(lengths.tables.size(), 7u);
  EXPECT_EQ(
      std::count_if(lengths.tables.begin(), lengths.tables.end(), [](const Table& x) { return !x.parts.empty(); }), 2);
  Record heads = six_documents_of({ruler("vt")})[1];
  heads.cell["task"] = {{"name", "head_errors"}};
  Record others = heads;
  others.cell["dataset"] = ruler("cwe");
  EXPECT_EQ(whole(tabulate({heads, others})), nullptr);
}

TEST(Together, FilesOfOneNameStayApart) {
  const auto file = [](const char* path) { return Json{{"name", "longbench"}, {"path", path}, {"lines", 6}}; };
  const Tabulated t = tabulate(six_documents_of({file("a/qasper.jsonl"), file("b/qasper.jsonl"), file("b/lcc.jsonl")}));
  const Table* const all = whole(t);
  ASSERT_NE(all, nullptr);
  EXPECT_THAT(all->parts, ElementsAre("qasper", "lcc", "qasper (2)"));
  EXPECT_EQ(all->rows[1].cells[0]->metrics[0].estimate.n_questions, 18);
}

// Where parts have different numbers of questions their mean over questions is not the mean of their means.
TEST(Together, ItsNoteSaysWhatIsAveraged) {
  std::vector<Record> records = six_documents_of({ruler("vt"), ruler("cwe")});
  EXPECT_EQ(parts_note(*whole(tabulate(records))),
            "Means over the questions of cwe, vt: 6 of each, so they are the means of the data sets' means too; a row "
            "with fewer (n) "
            "is only of the tasks it has.");
  std::erase_if(records,
                [](const Record& r) { return r.cell.at("dataset").at("task") == "vt" && r.document_id > "d3"; });
  const Tabulated t = tabulate(records);
  EXPECT_EQ(parts_note(*whole(t)),
            "Means over the questions of cwe, vt: 4 to 6 of each, so a data set with more of them counts more.");
  EXPECT_EQ(parts_note(t.tables.back()), "");
  // One row that lacks a task: every table says how much it has.
  records = six_documents_of({ruler("vt"), ruler("cwe")});
  std::erase_if(records, [](const Record& r) {
    return r.cell.at("dataset").at("task") == "vt" && r.cell.at("method").at("name") == "keydiff";
  });
  const std::string markdown = report_markdown(tabulate(records), "x");
  EXPECT_THAT(markdown, HasSubstr("interval for documents like these 6 to 12."));
  const size_t versus = markdown.find("### against the full cache");
  ASSERT_NE(versus, std::string::npos);
  EXPECT_THAT(markdown.substr(versus, markdown.find("###", versus + 3) - versus), HasSubstr("(n=6)"));
}

TEST(Together, ReportsShowItFirst) {
  const Tabulated t = tabulate(six_documents_of({ruler("vt"), ruler("cwe"), ruler("fwe")}));
  const std::string markdown = report_markdown(t, "x"), terminal = report_terminal(t), csv = report_csv(t);
  EXPECT_LT(markdown.find("## ruler, 3 data sets, exact_match"), markdown.find("## ruler (task=cwe), exact_match"));
  EXPECT_THAT(markdown, HasSubstr("6 of each, so they are the means"));
  EXPECT_THAT(markdown, Not(HasSubstr("## ruler, 3 data sets: size and seconds")));
  EXPECT_THAT(terminal, HasSubstr("ruler, 3 data sets"));
  EXPECT_THAT(terminal, HasSubstr("Each has tables of its own in report.md."));
  EXPECT_THAT(terminal, Not(HasSubstr("ruler (task=cwe), exact_match:")));
  EXPECT_THAT(csv, HasSubstr("\"ruler, 3 data sets\",exact_match,keydiff"));
  EXPECT_THAT(report_pairs_csv(t), HasSubstr("\"ruler, 3 data sets\",exact_match,0.5,h2o,keydiff"));
  EXPECT_EQ(report_json(t).at("tables").at(0).at("parts"), (Json{"cwe", "fwe", "vt"}));
  EXPECT_FALSE(report_json(t).at("tables").at(1).contains("parts"));
}

// Tasks of unlike difficulty, as many documents of each: the interval of the mean over all documents is one of the
// mean of these tasks, on the wide side.
TEST(Together, IntervalsCoverTheMeanOfTheTasks) {
  std::mt19937_64 random(5);
  const auto uniform = [&] { return static_cast<double>(random() >> 11U) * 0x1p-53; };
  constexpr int kRuns = 2000, kTasks = 11, kDocuments = 12;
  int covered = 0, difference_covered = 0;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<Observation> values;
    std::vector<PairedValues> pairs;
    for (int task = 0; task < kTasks; ++task) {
      const double share = 0.05 + 0.09 * task;
      for (int d = 0; d < kDocuments; ++d) {
        const std::string document = std::to_string(task) + ": " + std::to_string(d);
        const double value = uniform() < share, other = uniform() < share / 2;
        values.push_back({document, value});
        pairs.push_back({document, value, other});
      }
    }
    const Interval interval = estimate(values, MetricScale::kShare).interval;
    covered += interval.low <= 0.5 && 0.5 <= interval.high;
    const Interval difference = compare_pair(pairs, MetricScale::kShare).difference.interval;
    difference_covered += difference.low <= 0.25 && 0.25 <= difference.high;
  }
  EXPECT_GE(covered, 0.95 * kRuns);
  EXPECT_GE(difference_covered, 0.945 * kRuns);  // 0.95 less the noise of 2,000 runs
  RecordProperty("covered", covered);
  RecordProperty("difference_covered", difference_covered);
  std::printf("covered %d, difference %d of %d\n", covered, difference_covered, kRuns);
}

}  // namespace
}  // namespace kvc
