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
              HasSubstr("the record has version 99, but this program reads version 1"));
  EXPECT_THAT(error_of([&] { Record::from_json(Json::array(), "f"); }), HasSubstr("lacks the field 'version'"));
}

TEST(LoadRecords, TakesEachOnceAndSkipsTornLines) {
  const TemporaryFolder folder;
  append_json_line(folder.file("b.jsonl"), example("b", "1", "failed").to_json());
  append_json_line(folder.file("a.jsonl"), example("a", "1").to_json());
  std::ofstream(folder.file("a.jsonl"), std::ios::app) << R"({"version":1,"cell_id":"a","docum)";
  append_json_line(folder.file("a.jsonl"), example("a", "2").to_json());
  append_json_line(folder.file("b.jsonl"), example("b", "1").to_json());
  // The same job twice: other times, the same answers.
  Record again = example("b", "1");
  again.seconds["prefill_s"] = 3.0;
  again.sizes["peak_bytes"] = 12345;
  again.provenance["threads"] = 1;
  again.task_notes["references"] = Json{{"kept", 1}, {"made", 0}};
  append_json_line(folder.file("shards/2-of-16/b.jsonl"), again.to_json());
  append_json_line(folder.file("shards/10-of-16/b.jsonl"), example("b", "1", "failed").to_json());
  std::ofstream(folder.file("config.json")) << "{}";

  std::vector<std::string> warnings;
  const std::vector<Record> records = load_records(folder.file(""), warnings);
  std::vector<std::string> seen;
  for (const Record& record : records) seen.push_back(record.cell_id + record.document_id + record.status);
  EXPECT_THAT(seen, ElementsAre("a1done", "a2done", "b1done"));
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0], HasSubstr("a.jsonl: line 2 is not valid JSON"));
}

TEST(LoadRecords, TwoResultsOfOneCellAreShown) {
  const TemporaryFolder folder;
  append_json_line(folder.file("a.jsonl"), example("a", "1").to_json());
  Record other = example("a", "1");
  other.answers[1]["text"] = "another answer";
  append_json_line(folder.file("shards/1-of-2/a.jsonl"), other.to_json());
  std::vector<std::string> warnings;
  const std::string error = error_of([&] { load_records(folder.file("."), warnings); });
  EXPECT_THAT(error, HasSubstr("document '1' has two different results in one cell, a: /answers/1/text: nothing and "
                               "\"another answer\""));
  EXPECT_THAT(error, HasSubstr("/a.jsonl, record 1 and "));
  EXPECT_THAT(error, HasSubstr("shards/1-of-2/a.jsonl, record 1"));
}

TEST(LoadRecords, RefusesOtherWeightsOrDataUnderOneName) {
  const auto measured_on = [](const std::string& cell, const std::string& weights, const std::string& data) {
    Record record = example(cell, "1");
    record.cell = Json{{"model", Json{{"name", "m"}}}, {"dataset", Json{{"name", "d"}}}, {"target", cell}};
    record.provenance = Json{{"model", Json{{"content_hash", weights}, {"dtype", "float32"}}},
                             {"dataset", Json{{"file", cell + ".json"}, {"content_hash", data}}}};
    return record;
  };
  const auto load = [&](const Record& second) {
    const TemporaryFolder folder;
    append_json_line(folder.file("a.jsonl"), measured_on("a", "w1", "d1").to_json());
    append_json_line(folder.file("b.jsonl"), second.to_json());
    std::vector<std::string> warnings;
    return error_of([&] { load_records(folder.file(""), warnings); });
  };
  EXPECT_EQ(load(measured_on("b", "w1", "d1")), "no error");  // where a file lies makes no difference
  const std::string weights = load(measured_on("b", "w2", "d1"));
  EXPECT_THAT(weights, HasSubstr("records of different weights share one name, {\"name\":\"m\"}: "));
  EXPECT_THAT(weights, HasSubstr("w1"));
  EXPECT_THAT(weights, HasSubstr("w2"));
  EXPECT_THAT(weights, HasSubstr("a.jsonl, record 1 and "));
  EXPECT_THAT(load(measured_on("b", "w1", "d2")), HasSubstr("records of different data share one name"));
  Record failed = measured_on("b", "w2", "d2");
  failed.status = "failed";
  failed.error = "no memory";
  EXPECT_EQ(load(failed), "no error");
}

TEST(LoadRecords, NamesStatesOfTheProgramAndProcessors) {
  const TemporaryFolder folder;
  const auto measured_by = [](const std::string& document, const std::string& commit, const std::string& cpu) {
    Record record = example("a", document);
    record.provenance = Json{{"hardware", Json{{"cpu", cpu}}},
                             {"program", Json{{"version", "0.1.0"},
                                              {"commit", commit},
                                              {"dirty", commit == "bbbbbbbbbb"},
                                              {"compiler", "GNU 12.2.0"},
                                              {"libtorch", "2.13.0"}}}};
    return record;
  };
  std::vector<std::string> warnings;
  append_json_line(folder.file("a.jsonl"), measured_by("1", "aaaaaaaaaa", "x").to_json());
  load_records(folder.file(""), warnings);
  EXPECT_THAT(warnings, IsEmpty());
  append_json_line(folder.file("a.jsonl"), measured_by("2", "bbbbbbbbbb", "x").to_json());
  append_json_line(folder.file("a.jsonl"), measured_by("3", "bbbbbbbbbb", "y").to_json());
  load_records(folder.file(""), warnings);
  EXPECT_THAT(warnings,
              ElementsAre("the records come from 2 states of the program, which may compute differently: 0.1.0, commit "
                          "aaaaaaaa, GNU 12.2.0, LibTorch 2.13.0 (1 record); 0.1.0, commit bbbbbbbb with uncommitted "
                          "changes, GNU 12.2.0, LibTorch 2.13.0 (2 records)",
                          "the records come from 2 kinds of processor, so their seconds do not compare: \"x\" (2 "
                          "records); \"y\" (1 record)"));
}

TEST(LoadRecords, NamesAMissingFolder) {
  std::vector<std::string> warnings;
  EXPECT_THAT(error_of([&] { load_records("/no/such/folder", warnings); }),
              HasSubstr("the results folder does not exist"));
  EXPECT_THAT(warnings, IsEmpty());
}

}  // namespace
}  // namespace kvc
