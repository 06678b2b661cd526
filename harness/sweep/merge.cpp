#include "harness/sweep/merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "harness/core/json_lines.h"
#include "harness/core/stable_hash.h"
#include "harness/sweep/record_origin.h"
#include "harness/sweep/record_set.h"
#include "harness/sweep/results_folder.h"
#include "harness/sweep/shard.h"
#include "harness/sweep/stop_rule.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

std::string real_path(const std::string& path) {
  std::error_code error;
  const fs::path real = fs::weakly_canonical(fs::path(path) / "", error);
  std::string text = error ? path : real.string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

class Merge {
 public:
  Merge(const std::vector<std::string>& sources, const std::string& target, const MergeOptions& options)
      : target_path_(target), options_(options) {
    for (const std::string& source : sources) add_source(source);
  }

  MergeSummary run() {
    check_sweeps();
    const ResultsFolder target(target_path_);
    RecordSet records;
    records.add_folder(target_path_, summary_.warnings);
    for (const std::string& folder : folders_) records.add_folder(folder, summary_.warnings);
    if (!options_.mixed_programs) refuse_other_programs(records.list());
    check_origins(records.list(), summary_.warnings);
    merge_documents(target);
    write_records(records.list());
    merge_side_files(target);
    summary_.folders = static_cast<std::int64_t>(folders_.size());
    summary_.records = static_cast<std::int64_t>(records.list().size());
    summary_.duplicates = records.duplicates();
    summary_.coverage = coverage_of(target_path_);
    summary_.coverage.writers.clear();  // that is this merge
    return summary_;
  }

 private:
  void add_source(const std::string& source) {
    std::error_code error;
    if (!fs::is_directory(source, error)) {
      throw Error(ErrorKind::kData, "the results folder does not exist", source, "name the folders of the shards");
    }
    if (real_path(source) == real_path(target_path_)) {
      throw Error(ErrorKind::kUsage, "a folder cannot be merged into itself", source,
                  fmt::format("to bring its shards together: kvc merge {}/shards/* --into {}", source, target_path_));
    }
    for (const std::string& folder : record_folders(source)) {
      if (!seen_.insert(real_path(folder)).second) {
        throw Error(ErrorKind::kUsage, "the same folder is named twice", folder, "name each folder once");
      }
      if (const auto writer = writer_of(folder)) {
        throw Error(ErrorKind::kUsage, fmt::format("{} is writing to this results folder", *writer), folder,
                    "merge when it is done");
      }
      folders_.push_back(folder);
    }
  }

  bool is_parent_of_sources() const {
    return std::all_of(folders_.begin(), folders_.end(), [&](const std::string& folder) {
      return fs::path(real_path(folder)).parent_path() == fs::path(real_path(target_path_)) / "shards";
    });
  }

  // A sweep's own folder may be left from an earlier state of the sweep file; any other must belong to the same.
  void check_sweeps() {
    std::vector<std::string> all = folders_;
    if (!is_parent_of_sources()) all.push_back(target_path_);
    sweep_ = common_sweep(all);
  }

  void refuse_other_programs(const std::vector<Record>& records) const {
    const Record* first = nullptr;
    for (const Record& record : records) {
      if (record.status != "done") continue;
      if (first == nullptr) first = &record;
      const std::string a = program_text(program_of(first->provenance)),
                        b = program_text(program_of(record.provenance));
      if (a == b) continue;
      throw Error(ErrorKind::kData, fmt::format("records from two builds: {}; and {}", a, b),
                  fmt::format("{} and {}", first->place, record.place),
                  "measure the older ones anew with the newer program, or merge with --mixed-programs: the report then "
                  "says so");
    }
  }

  // Every run lists all documents of its data sets, so two lists of one data set must be the same.
  void merge_documents(const ResultsFolder& target) {
    std::map<std::string, std::string> first_folder;
    documents_ = target.read_json("documents.json");
    if (!documents_.is_object() || is_parent_of_sources()) documents_ = Json::object();
    for (const std::string& folder : folders_) {
      const Json known = read_json_of_run(folder + "/documents.json");
      if (!known.is_object()) continue;
      for (const auto& [key, block] : known.items()) {
        const auto [place, is_new] = first_folder.try_emplace(key, folder);
        if (is_new) documents_[key] = block;
        if (!is_new && documents_[key].value("documents", Json()) != block.value("documents", Json())) {
          throw Error(ErrorKind::kData,
                      fmt::format("the data set '{}' has other documents in {} than in {}",
                                  block.value("dataset", Json::object()).value("name", ""), folder, place->second),
                      folder + "/documents.json", "measure the shards on the same data");
        }
      }
    }
    if (!documents_.empty()) target.write_json("documents.json", documents_);
  }

  // By cell, in the order in which the data set has its documents.
  void write_records(const std::vector<Record>& records) const {
    std::map<std::string, std::size_t> order;
    for (const auto& [key, block] : documents_.items()) {
      for (const auto& [document, tasks] : block.at("documents").items()) order.emplace(document, order.size());
    }
    std::map<std::string, std::vector<const Record*>> cells;
    for (const Record& record : records) cells[record.cell_id].push_back(&record);
    for (auto& [cell, list] : cells) {
      std::stable_sort(list.begin(), list.end(), [&](const Record* a, const Record* b) {
        const auto place = [&](const Record* r) {
          const auto found = order.find(r->document_id);
          return found == order.end() ? order.size() : found->second;
        };
        return place(a) < place(b);
      });
      std::vector<Json> lines;
      for (const Record* record : list) lines.push_back(record->to_json());
      write_lines(cell + ".jsonl", lines);
    }
  }

  void write_lines(const std::string& name, const std::vector<Json>& lines) const {
    std::string text;
    for (const Json& line : lines) text += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    write_file_atomically(target_path_ + "/" + name, text);
  }

  void merge_side_files(const ResultsFolder& target) const {
    Json proofs = target.read_json("self_proof.json");
    if (!proofs.is_object()) proofs = Json::object();
    std::vector<std::string> all = {target_path_};
    all.insert(all.end(), folders_.begin(), folders_.end());
    for (const std::string& folder : folders_) {
      const Json more = read_json_of_run(folder + "/self_proof.json");
      if (more.is_object()) proofs.update(more);
      Json stopped = stopped_cells(target_path_);
      const size_t before = stopped.size();
      stopped.update(stopped_cells(folder));
      if (stopped.size() > before) target.write_json("stopped.json", stopped);
      const Json config = read_json_of_run(folder + "/config.json");
      if (config.is_object()) target.write_json("config.json", config);
    }
    if (!proofs.empty()) target.write_json("self_proof.json", proofs);
    if (sweep_.is_object()) target.write_json("sweep.json", merged_sweep());
    for (const char* name : {"texts/queries.jsonl", "explanations/flips.jsonl"})
      merge_lines(all, name, [](const Json& line) { return canonical_json(line); });
    std::set<std::string> stores;
    for (const std::string& folder : folders_) {
      std::error_code error;
      for (fs::directory_iterator it(folder + "/references", error), end; !error && it != end; it.increment(error)) {
        if (it->path().extension() == ".jsonl") stores.insert("references/" + it->path().filename().string());
      }
    }
    for (const std::string& store : stores) {
      merge_lines(all, store, [](const Json& line) {
        return canonical_json(line.is_object() && line.contains("key") ? line.at("key") : line);
      });
    }
  }

  template <class KeyOf>
  void merge_lines(const std::vector<std::string>& folders, const std::string& name, const KeyOf& key_of) const {
    std::vector<Json> lines;
    std::set<std::string> keys;
    for (const std::string& folder : folders) {
      for (Json& line : read_json_lines(folder + "/" + name).values) {
        if (keys.insert(key_of(line)).second) lines.push_back(std::move(line));
      }
    }
    if (!lines.empty()) write_lines(name, lines);
  }

  // Of how many shards the results are, if all are of the same number: gaps are then named by shard.
  Json merged_sweep() const {
    Json sweep = sweep_;
    std::set<std::int64_t> counts;
    for (const std::string& folder : folders_) {
      const Json own = read_json_of_run(folder + "/sweep.json");
      const Json shard = own.is_object() ? own.value("shard", Json()) : Json();
      counts.insert(shard.is_string() ? parse_shard(shard.get<std::string>(), {}).count : 0);
    }
    sweep["shard"] = nullptr;
    sweep["shards"] = counts.size() == 1 && *counts.begin() > 0 ? Json(*counts.begin()) : Json(nullptr);
    return sweep;
  }

  std::string target_path_;
  const MergeOptions& options_;
  std::vector<std::string> folders_;
  std::set<std::string> seen_;
  Json sweep_;      // of the sources
  Json documents_;  // documents.json of the target
  MergeSummary summary_;
};

}  // namespace

MergeSummary merge_results(const std::vector<std::string>& sources, const std::string& target,
                           const MergeOptions& options) {
  return Merge(sources, target, options).run();
}

}  // namespace kvc
