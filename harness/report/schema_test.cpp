// Records and report.json are what results/schema says they are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "harness/report/report.h"
#include "harness/report/test_records.h"

namespace kvc {
namespace {

using ::testing::IsEmpty;

bool is_type(const Json& value, const std::string& type) {
  if (type == "number") return value.is_number();
  if (type == "integer") return value.is_number_integer();
  return type == value.type_name();
}

bool allows(const Json& types, const Json& value) {
  if (types.is_string()) return is_type(value, types.get<std::string>());
  return std::any_of(types.begin(), types.end(),
                     [&](const Json& type) { return is_type(value, type.get<std::string>()); });
}

// Breaches of the keywords that our schemas use: const, enum, type, required, properties, additionalProperties, items.
void check(const Json& schema, const Json& value, const std::string& path, std::vector<std::string>& breaches) {
  for (const auto& [keyword, rule] : schema.items()) {
    if (keyword == "const" && value != rule) breaches.push_back(path + ": must be " + rule.dump());
    if (keyword == "enum" && std::find(rule.begin(), rule.end(), value) == rule.end())
      breaches.push_back(path + ": must be one of " + rule.dump());
    if (keyword == "type" && !allows(rule, value)) breaches.push_back(path + ": must be " + rule.dump());
    if (keyword == "items" && value.is_array()) {
      for (size_t i = 0; i < value.size(); ++i) check(rule, value[i], path + "/" + std::to_string(i), breaches);
    }
    if (!value.is_object()) continue;
    if (keyword == "required") {
      for (const Json& name : rule) {
        if (!value.contains(name.get<std::string>())) breaches.push_back(path + ": lacks " + name.dump());
      }
    }
    for (const auto& [name, item] : value.items()) {
      const bool known = schema.contains("properties") && schema.at("properties").contains(name);
      if (keyword == "properties" && known) check(rule.at(name), item, path + "/" + name, breaches);
      if (keyword == "additionalProperties" && !known) check(rule, item, path + "/" + name, breaches);
    }
  }
}

std::vector<std::string> breaches_of(const std::string& schema, const Json& value) {
  std::ifstream file(std::string(KVC_SOURCE_DIR) + "/results/schema/" + schema + ".schema.json");
  std::vector<std::string> breaches;
  check(Json::parse(file), value, "", breaches);
  return breaches;
}

TEST(Schema, RecordsOfThePublishedSweepsFit) {
  int64_t n = 0;
  for (const char* name : {"demo", "methods", "aime", "longhealth", "quality"}) {
    std::ifstream file(std::string(KVC_SOURCE_DIR) + "/results/published/" + name + "/records.jsonl");
    for (std::string line; std::getline(file, line); ++n)
      EXPECT_THAT(breaches_of("record", Json::parse(line)), IsEmpty()) << name;
  }
  EXPECT_GT(n, 500);
}

TEST(Schema, ReportFits) {
  std::vector<Record> records = test_records::make({});
  test_records::fail(records[5], "out of memory");
  EXPECT_THAT(breaches_of("report", report_json(tabulate(records))), IsEmpty());
  EXPECT_THAT(breaches_of("record", records[5].to_json()), IsEmpty());
}

TEST(Schema, NoticesWhatDoesNotFit) {
  Json record = test_records::make({})[0].to_json();
  record["status"] = "fine";
  record["answers"][0].erase("question_id");
  record["sizes"]["kept_fraction"] = "all";
  record.erase("cell_id");
  const auto breaches = breaches_of("record", record);
  ASSERT_EQ(breaches.size(), 4u);
}

}  // namespace
}  // namespace kvc
