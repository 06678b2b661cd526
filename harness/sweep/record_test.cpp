#include "harness/sweep/record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "harness/core/json_lines.h"
#include "harness/sweep/sweep_plugins_test.h"

namespace kvc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Record example(const std::string& cell, const std::string& document, const std::string& status = "done") {
  Record record;
  record.cell_id = cell;
  record.document_id = document;
  record.status = status;
  if (status == "failed") record.error = "fact\n  where: there";
  record.cell = Json{{"method", Json{{"name", "m"}}}, {"target", 0.05}};
  record.provenance = Json{{"threads", 2}};
  record.sizes = Json{{"kept_fraction", 0.049}};
  record.seconds = Json{{"prefill_s", 1.5}};
  record.answers = {Json{{"question_id", "q1"}, {"text", "caf\xc3\xa9"}}, Json{{"question_id", "q2"}}};
  record.notes = Json{{"fallbacks", 0}};
  return record;
}

TEST(Record, RoundTrips) {
  for (const std::string status : {"done", "failed"}) {
    const Record record = example("c", "d", status);
    const Record back = Record::from_json(Json::parse(record.to_json().dump()), "here");
    EXPECT_EQ(back.to_json(), record.to_json());
    EXPECT_EQ(back.error, record.error);
    EXPECT_EQ(back.answers.size(), 2u);
  }
}

TEST(Record, NamesWhatIsMissing) {
  const Json whole = example("c", "d").to_json();
  for (const char* name :
       {"version", "cell_id", "document_id", "status", "cell", "provenance", "sizes", "seconds", "answers", "notes"}) {
    Json broken = whole;
    broken.erase(name);
    EXPECT_EQ(error_of([&] { Record::from_json(broken, "f.jsonl, record 3"); }),
              std::string("a record lacks the field '") + name +
                  "'\n  where: f.jsonl, record 3\n  mend:  delete the line and run the sweep again; it measures what "
                  "is missing");
  }
  Json wrong = whole;
  wrong["sizes"] = 3;
  EXPECT_THAT(error_of([&] { Record::from_json(wrong, "f"); }), HasSubstr("a record has a wrong field 'sizes'"));
  wrong = whole;
  wrong["status"] = "perhaps";
  EXPECT_THAT(error_of([&] { Record::from_json(wrong, "f"); }), HasSubstr("status 'perhaps'"));
  wrong = whole;
  wrong["version"] = 99;
  EXPECT_THAT(error_of([&] { Record::from_json(wrong, "f"); }),
              HasSubstr("the record is of version 99, this program reads version 1"));
  EXPECT_THAT(error_of([&] { Record::from_json(Json::array(), "f"); }), HasSubstr("lacks the field 'version'"));
}

TEST(LoadRecords, KeepsTheLaterOfTwoAndSkipsTornLines) {
  const TemporaryFolder folder;
  append_json_line(folder.file("b.jsonl"), example("b", "1", "failed").to_json());
  append_json_line(folder.file("a.jsonl"), example("a", "1").to_json());
  std::ofstream(folder.file("a.jsonl"), std::ios::app) << R"({"version":1,"cell_id":"a","docum)";
  append_json_line(folder.file("a.jsonl"), example("a", "2").to_json());
  append_json_line(folder.file("b.jsonl"), example("b", "1").to_json());
  append_json_line(folder.file("b.jsonl"), example("b", "1").to_json());
  std::ofstream(folder.file("config.json")) << "{}";

  std::vector<std::string> warnings;
  const std::vector<Record> records = load_records(folder.file(""), warnings);
  std::vector<std::string> seen;
  for (const Record& record : records) seen.push_back(record.cell_id + record.document_id + record.status);
  EXPECT_THAT(seen, ElementsAre("a1done", "a2done", "b1done"));
  ASSERT_EQ(warnings.size(), 2u);
  EXPECT_THAT(warnings[0], HasSubstr("a.jsonl: line 2 is no JSON"));
  EXPECT_THAT(warnings[1], HasSubstr("1 duplicate record of a cell of"));
}

TEST(LoadRecords, NamesAMissingFolder) {
  std::vector<std::string> warnings;
  EXPECT_THAT(error_of([&] { load_records("/no/such/folder", warnings); }),
              HasSubstr("there is no such results folder"));
  EXPECT_THAT(warnings, IsEmpty());
}

}  // namespace
}  // namespace kvc
