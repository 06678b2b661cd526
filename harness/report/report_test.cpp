#include "harness/report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>

#include "harness/core/json_lines.h"
#include "harness/core/stable_hash.h"
#include "harness/report/report_tables.h"
#include "harness/report/test_records.h"
#include "harness/testing/checks.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

using test_records::match;
using test_records::one;
using test_records::Shape;
using ::testing::HasSubstr;

class Folder : public TemporaryFolder {
 public:
  explicit Folder(const std::vector<Record>& records) {
    for (const Record& r : records) append_json_line(file(r.cell_id + ".jsonl"), r.to_json());
  }
};

TEST(Report, WritesTheSameBytesWhateverTheOrder) {
  std::vector<Record> records = test_records::make({});
  const Folder folder(records);
  std::reverse(records.begin(), records.end());
  const Folder other(records);
  write_report(folder.path());
  write_report(other.path());
  for (const char* name : {"report.json", "report.csv", "report.svg"}) {
    EXPECT_GT(folder.read(name).size(), 1000u) << name;
    EXPECT_EQ(folder.read(name), other.read(name)) << name;
  }
  const Json json = Json::parse(folder.read("report.json"));
  EXPECT_EQ(json.at("schema"), "kvcompact.report");
  EXPECT_EQ(json.at("version"), 3);
  EXPECT_EQ(json.at("tables").size(), 4u);
  EXPECT_FALSE(json.at("provenance")[0].contains("started_at"));
  EXPECT_EQ(occurrences(folder.read("report.csv"), "\n"), 1u + 32 * (3 + 2 + 5 + 3));
  EXPECT_THAT(folder.read("report.md"), HasSubstr("![accuracy against kept cache](report.svg)"));
  const std::string before = folder.read("report.md");
  write_report(folder.path() + "/");
  EXPECT_EQ(folder.read("report.md"), before);
}

TEST(Report, TheSweepFileSaysWhatIsComparedWithWhat) {
  Shape shape;
  shape.n_documents = 6;
  const Folder folder(test_records::make(shape));
  std::ofstream(folder.path() + "/config.json") << R"({"compare_to": "h2o", "equivalence": {"kl": 0.3}})";
  write_report(folder.path());
  const Json tables = Json::parse(folder.read("report.json")).at("tables");
  for (const Json& table : tables) {
    const Json& comparison = table.at("comparison");
    EXPECT_EQ(table.at("rows")[comparison.at("reference").get<size_t>()].at("method").at("name"), "h2o");
    EXPECT_EQ(comparison.at("equivalence_margin"), table.at("task").at("name") == "fidelity" ? 0.3 : 0.05);
  }
  EXPECT_THAT(folder.read("report.md"), HasSubstr("### against h2o"));
}

TEST(Report, SharesAndKlStayInTheirRange) {
  const std::regex interval(R"((-?[0-9.]+) \[(-?[0-9.]+), (-?[0-9.]+)\])");
  for (const int n_documents : {2, 6}) {
    Shape shape;
    shape.n_documents = n_documents;
    for (const Table& table : tabulate(test_records::make(shape)).tables) {
      const TextTable text = metric_table(table, 0);
      int seen = 0;
      for (const auto& row : text.rows) {
        for (size_t i = 2; i < row.size(); ++i) {
          std::smatch match;
          if (!std::regex_search(row[i], match, interval)) continue;
          ++seen;
          EXPECT_GE(std::stod(match[2]), 0) << row[i];
          EXPECT_LE(std::stod(match[2]), std::stod(match[1])) << row[i];
          if (table.task.at("name") != "fidelity") {
            EXPECT_LE(std::stod(match[3]), 1) << row[i];
          }
        }
      }
      EXPECT_GT(seen, 20);
    }
  }
}

TEST(Report, TheNewestRecordCounts) {
  Record record = one("exact_match", "h2o", 0.1, {});
  record.status = "failed";
  record.error = "no memory";
  Record again = one("exact_match", "h2o", 0.1, {match("q", true)});
  const Folder folder({record, again});
  write_report(folder.path());
  const Json json = Json::parse(folder.read("report.json"));
  EXPECT_EQ(json.at("tables")[0].at("rows")[0].at("cells")[0].at("metrics").at("accuracy").at("mean"), 1.0);
  EXPECT_TRUE(json.at("failures").empty());
}

TEST(Report, AnEmptyFolderIsAnError) {
  const Folder folder({});
  EXPECT_THROW(write_report(folder.path()), Error);
  EXPECT_THROW(load_report(folder.path() + "/none"), Error);
}

// What `kvc explain` found stands in report.json too, with the name of its cell; of an answer that is right now,
// nothing.
TEST(Report, ExplanationsAreInTheJson) {
  const Record wrong = one("exact_match", "h2o", 0.1, {match("q", false), match("r", true)});
  const Folder folder({one("exact_match", "full_cache", nullptr, {match("q", true), match("r", true)}), wrong});
  write_report(folder.path());
  EXPECT_FALSE(Json::parse(folder.read("report.json")).contains("explanations"));
  for (const char* question : {"q", "r"}) {
    Explanation found;
    found.cell_id = wrong.cell_id;
    found.document_id = "d";
    found.question_id = question;
    found.cause = kEvicted;
    found.sentence = "the text was evicted";
    append_json_line(explanations_file(folder.path()), found.to_json());
  }
  write_report(folder.path());
  const Json list = Json::parse(folder.read("report.json")).at("explanations");
  ASSERT_EQ(list.size(), 1U);
  EXPECT_EQ(list[0].at("question_id"), "q");
  EXPECT_EQ(list[0].at("cell"), "h2o at 0.1");
  EXPECT_EQ(list[0].at("cause"), "evicted");
}

}  // namespace
}  // namespace kvc
