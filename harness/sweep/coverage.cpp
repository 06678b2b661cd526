#include "harness/sweep/coverage.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "harness/core/build_info.h"
#include "harness/core/count.h"
#include "harness/core/stable_hash.h"
#include "harness/sweep/record_set.h"
#include "harness/sweep/results_folder.h"
#include "harness/sweep/shard.h"
#include "harness/sweep/stop_rule.h"

namespace kvc {
namespace {

constexpr int kSweepVersion = 1;

std::string shown_config(const Json& sweep) {
  return sweep.value("config", std::string("CONFIG"));
}

std::string shell_word(const std::string& path) {
  return path.find_first_of(" '\"$&();") == std::string::npos ? path : fmt::format("'{}'", path);
}

class Reader {
 public:
  explicit Reader(const std::string& folder) : folder_(folder), folders_(record_folders(folder)) {}

  Coverage read() {
    // The folder itself may be left from an earlier state of the sweep file; its shards count.
    const std::vector<std::string> shards(folders_.begin() + 1, folders_.end());
    sweep_ = common_sweep(shards);
    if (sweep_.is_null()) sweep_ = common_sweep({folder_});
    for (const std::string& part : folders_) {
      if (const auto writer = writer_of(part)) result_.writers.push_back(fmt::format("{} ({})", *writer, part));
    }
    if (sweep_.is_null()) return result_;
    count_shards();
    read_documents();
    stopped_ = stopped_cells(folder_);
    std::vector<std::string> warnings;
    RecordSet records;
    for (const std::string& part : folders_) records.add_folder(part, warnings);
    for (const Record& record : records.list()) status_[{record.cell_id, record.document_id}] = record.status;
    for (const Json& cell : sweep_.at("cells")) add_cell(cell);
    name_commands();
    return result_;
  }

 private:
  void count_shards() {
    std::set<std::int64_t> counts;
    for (const std::string& part : folders_) {
      const Json sweep = read_json_of_run(part + "/sweep.json");
      if (!sweep.is_object()) continue;
      if (sweep.value("shards", Json()).is_number_integer()) counts.insert(sweep.at("shards").get<std::int64_t>());
      const Json shard = sweep.value("shard", Json());
      if (shard.is_string()) counts.insert(parse_shard(shard.get<std::string>(), {}).count);
    }
    if (counts.size() == 1) result_.shards = *counts.begin();
  }

  // Every run lists all documents of what it opened, those of other shards too.
  void read_documents() {
    for (const std::string& part : folders_) {
      const Json known = read_json_of_run(part + "/documents.json");
      if (!known.is_object()) continue;
      for (const auto& [key, block] : known.items()) blocks_[key] = block;
    }
  }

  void add_cell(const Json& cell) {
    const std::string id = cell.at("id"), key = cell.at("block"), task = cell.at("task"), label = cell.at("label");
    const auto place = blocks_.find(key);
    if (place == blocks_.end()) {
      const std::string name = cell.value("opens", key);
      if (std::find(result_.unopened.begin(), result_.unopened.end(), name) == result_.unopened.end())
        result_.unopened.push_back(name);
      return;
    }
    const Json& block = place->second;
    for (const auto& [document, tasks] : block.at("documents").items()) {
      if (!tasks.contains(task) || tasks.at(task) == 0) continue;
      const auto status = status_.find({id, document});
      if (status == status_.end() && stopped_.contains(id)) continue;  // nobody asks for it
      ++result_.expected;
      if (status != status_.end() && status->second == "done") continue;
      Gap gap{id, label, document, status != status_.end(), 0};
      if (result_.shards > 0) {
        gap.shard = shard_of(block.at("model"), block.at("dataset"), block.at("seed").get<std::uint64_t>(), document,
                             result_.shards);
      }
      result_.gaps.push_back(std::move(gap));
    }
  }

  void name_commands() {
    if (result_.complete()) return;
    const std::string config = shell_word(shown_config(sweep_));
    const bool all = result_.shards == 0 || !result_.unopened.empty();
    if (result_.shards == 0) {
      result_.commands.push_back(fmt::format("kvc run {} --results {}", config, shell_word(folder_)));
      return;
    }
    std::set<std::int64_t> shards;
    for (const Gap& gap : result_.gaps) shards.insert(gap.shard);
    for (std::int64_t i = 1; i <= result_.shards; ++i) {
      if (all || shards.contains(i)) {
        result_.commands.push_back(
            fmt::format("kvc run {} --results {} --shard {}/{}", config, shell_word(folder_), i, result_.shards));
      }
    }
  }

  std::string folder_;
  std::vector<std::string> folders_;
  Json sweep_;
  std::map<std::string, Json> blocks_;
  Json stopped_;
  std::map<std::pair<std::string, std::string>, std::string> status_;  // (cell, document)
  Coverage result_;
};

}  // namespace

std::string block_key(const Cell& cell) {
  return stable_hash(canonical_json(Json{{"model", cell.model}, {"dataset", cell.dataset}, {"seed", cell.seed}}));
}

std::string task_key(const Json& task) {
  return stable_hash(canonical_json(task));
}

Json sweep_json(const SweepConfig& config, const Json& shard) {
  std::vector<std::string> ids;
  Json cells = Json::array();
  for (const Cell& cell : expand(config)) {
    ids.push_back(cell.id());
    cells.push_back(Json{{"id", ids.back()},
                         {"label", cell.label()},
                         {"block", block_key(cell)},
                         {"task", task_key(cell.task)},
                         {"opens", fmt::format("{} on {}, seed {}", cell.model.value("name", ""),
                                               cell.dataset.value("name", ""), cell.seed)}});
  }
  std::sort(ids.begin(), ids.end());
  return Json{{"version", kSweepVersion},
              {"sweep", config.name},
              {"config", config.path},
              {"hash", stable_hash(canonical_json(Json{{"cells", ids}, {"proof_tokens", config.proof_tokens}}))},
              {"shard", shard},
              {"program", build_info_json()},
              {"cells", cells}};
}

Json read_json_of_run(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return nullptr;
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  Json value = Json::parse(text, nullptr, false);
  if (value.is_discarded()) {
    throw Error(ErrorKind::kData, "the file is not valid JSON", path, "delete it; the next run writes it again");
  }
  return value;
}

Json common_sweep(const std::vector<std::string>& folders) {
  Json first;
  std::string first_folder;
  for (const std::string& folder : folders) {
    const Json sweep = read_json_of_run(folder + "/sweep.json");
    if (sweep.is_null()) continue;
    const bool readable = sweep.is_object() && sweep.value("version", Json()) == kSweepVersion &&
                          sweep.value("hash", Json()).is_string() && sweep.value("cells", Json()).is_array();
    if (!readable) {
      throw Error(ErrorKind::kData, fmt::format("sweep.json must be of version {}", kSweepVersion),
                  folder + "/sweep.json", "delete it; the next run into this folder writes it anew");
    }
    if (first.is_null()) {
      first = sweep;
      first_folder = folder;
    } else if (sweep.at("hash") != first.at("hash")) {
      throw Error(ErrorKind::kData,
                  fmt::format("these were measured for different sweep files: {} (sweep '{}', hash {}) and {} (sweep "
                              "'{}', hash {})",
                              first_folder, first.value("sweep", ""), first.value("hash", ""), folder,
                              sweep.value("sweep", ""), sweep.value("hash", "")),
                  folder, "move the older one away, or run its shard again with the sweep file as it is now");
    }
  }
  return first;
}

Coverage coverage_of(const std::string& folder) {
  return Reader(folder).read();
}

std::string coverage_text(const Coverage& coverage) {
  constexpr size_t kShown = 10;
  std::string text;
  for (const std::string& writer : coverage.writers) text += fmt::format("still being measured by {}\n", writer);
  if (coverage.complete()) return text;
  const auto n_failed =
      std::count_if(coverage.gaps.begin(), coverage.gaps.end(), [](const Gap& g) { return g.failed; });
  text += fmt::format("missing: {} of {}{}\n", coverage.gaps.size(), count(coverage.expected, "result"),
                      n_failed > 0 ? fmt::format(", {} of them failed", n_failed) : "");
  for (size_t i = 0; i < std::min(kShown, coverage.gaps.size()); ++i) {
    const Gap& gap = coverage.gaps[i];
    text += fmt::format("  {} ({}), document '{}'{}\n", gap.label, gap.cell_id, gap.document_id,
                        gap.failed ? ": failed" : "");
  }
  if (coverage.gaps.size() > kShown) text += fmt::format("  and {} more\n", coverage.gaps.size() - kShown);
  for (const std::string& name : coverage.unopened) text += fmt::format("  all of {}: not started\n", name);
  text += fmt::format("fill them with:\n  {}\n", fmt::join(coverage.commands, "\n  "));
  return text;
}

}  // namespace kvc
