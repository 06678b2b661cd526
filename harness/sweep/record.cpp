#include "harness/sweep/record.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "harness/core/json_lines.h"
#include "harness/sweep/record_origin.h"
#include "harness/sweep/record_set.h"

namespace kvc {
namespace {

Json& field(Json& json, const char* name, Json::value_t type, const std::string& where) {
  const bool there = json.is_object() && json.contains(name);
  if (!there || json.at(name).type() != type) {
    throw Error(ErrorKind::kData, fmt::format("a record {} field '{}'", there ? "has a wrong" : "lacks the", name),
                where, "delete the line and run the sweep again; it measures what is missing");
  }
  return json.at(name);
}

std::vector<std::string> record_files(const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".jsonl") paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

void RecordSet::add_folder(const std::string& folder, std::vector<std::string>& warnings) {
  for (const std::string& path : record_files(folder)) {
    size_t n_records = 0;
    const std::vector<int64_t> broken = for_each_json_line(path, [&](Json&& line) {
      const std::string place = fmt::format("{}, record {}", path, ++n_records);
      Record record = Record::from_json(std::move(line), place);
      record.place = place;
      add(std::move(record));
    });
    // A kill tears the last line only; the next append then starts a line of its own, so a torn line may stand
    // anywhere.
    if (!broken.empty()) {
      warnings.push_back(fmt::format("{}: line {} is not valid JSON and was skipped (cut off by a kill, or edited)",
                                     path, fmt::join(broken, ", ")));
    }
  }
}

void RecordSet::add(Record record) {
  const auto [place, is_new] = places_.emplace(std::pair(record.cell_id, record.document_id), records_.size());
  if (is_new) {
    records_.push_back(std::move(record));
    return;
  }
  Record& earlier = records_[place->second];
  if (earlier.status == "done" && record.status == "done") {
    const std::string difference = first_difference(earlier, record);
    if (difference.empty()) {
      ++duplicates_;
      return;
    }
    throw Error(ErrorKind::kData,
                fmt::format("document '{}' has two different results in one cell, {}: {}", record.document_id,
                            record.cell_id, difference),
                fmt::format("{} and {}", earlier.place, record.place),
                "find out which of the two is valid (see the provenance of both), and delete the other line");
  }
  if (earlier.status != "done") earlier = std::move(record);
}

Json Record::to_json() const {
  Json json = Json{{"version", kVersion}, {"cell_id", cell_id}, {"document_id", document_id}, {"status", status}};
  if (!error.empty()) json["error"] = error;
  json["cell"] = cell;
  json["provenance"] = provenance;
  json["sizes"] = sizes;
  json["seconds"] = seconds;
  json["answers"] = Json::array();
  for (const Json& answer : answers) json["answers"].push_back(answer);
  json["notes"] = notes;
  if (!task_notes.empty()) json["task_notes"] = task_notes;
  return json;
}

Record Record::from_json(Json json, const std::string& where) {
  using Type = Json::value_t;
  const bool numbered = json.is_object() && json.contains("version") && json.at("version").is_number_integer();
  if (numbered && json.at("version") != kVersion) {
    throw Error(ErrorKind::kData,
                fmt::format("the record has version {}, but this program reads version {}", json.at("version").dump(),
                            kVersion),
                where, "read it with the program that wrote it, or measure again into another folder");
  }
  if (!numbered) field(json, "version", Type::number_integer, where);
  Record record;
  record.cell_id = field(json, "cell_id", Type::string, where).get<std::string>();
  record.document_id = field(json, "document_id", Type::string, where).get<std::string>();
  record.status = field(json, "status", Type::string, where).get<std::string>();
  if (record.status != "done" && record.status != "failed") {
    throw Error(ErrorKind::kData, fmt::format("a record has the status '{}'", record.status), where, "done or failed");
  }
  if (record.status == "failed") record.error = field(json, "error", Type::string, where).get<std::string>();
  record.cell = std::move(field(json, "cell", Type::object, where));
  record.provenance = std::move(field(json, "provenance", Type::object, where));
  record.sizes = std::move(field(json, "sizes", Type::object, where));
  record.seconds = std::move(field(json, "seconds", Type::object, where));
  record.answers = std::move(field(json, "answers", Type::array, where).get_ref<Json::array_t&>());
  record.notes = std::move(field(json, "notes", Type::object, where));
  if (json.contains("task_notes")) record.task_notes = std::move(field(json, "task_notes", Type::object, where));
  return record;
}

std::vector<std::string> record_folders(const std::string& folder) {
  std::vector<std::pair<std::pair<int64_t, int64_t>, std::string>> shards;
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::path(folder) / "shards";
  for (std::filesystem::directory_iterator it(parent, error), end; !error && it != end; it.increment(error)) {
    int64_t index = 0, count = 0;
    int used = 0;
    const std::string name = it->path().filename().string();
    if (std::sscanf(name.c_str(), "%" SCNd64 "-of-%" SCNd64 "%n", &index, &count, &used) == 2 &&
        static_cast<size_t>(used) == name.size()) {
      shards.push_back({{count, index}, it->path().string()});
    }
  }
  std::sort(shards.begin(), shards.end());
  std::vector<std::string> list = {folder};
  for (auto& [order, path] : shards) list.push_back(std::move(path));
  return list;
}

std::vector<Record> load_records(const std::string& folder, std::vector<std::string>& warnings) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    throw Error(ErrorKind::kData, "the results folder does not exist", folder, "run the sweep first: kvc run CONFIG");
  }
  RecordSet records;
  for (const std::string& part : record_folders(folder)) records.add_folder(part, warnings);
  check_origins(records.list(), warnings);
  return records.take();
}

}  // namespace kvc
