#include "harness/sweep/runner.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "harness/core/interrupt.h"
#include "harness/core/json_lines.h"
#include "harness/core/progress.h"
#include "harness/sweep/document_run.h"
#include "harness/sweep/results_folder.h"
#include "harness/sweep/run_info.h"
#include "harness/sweep/self_proof.h"

namespace kvc {
namespace {

// One instance of each plug-in with its options.
template <class Interface>
class Instances {
 public:
  std::shared_ptr<const Interface> get(const Json& part) {
    if (part.is_null()) return nullptr;
    auto& instance = instances_[canonical_json(part)];
    if (instance == nullptr) {
      Json options = part;
      options.erase("name");
      instance = Registry<Interface>::instance().create(part.at("name").get<std::string>(), options);
    }
    return instance;
  }

 private:
  std::map<std::string, std::shared_ptr<const Interface>> instances_;
};

// All cells of one model, seed and data set.
struct Block {
  const SweepModel* model = nullptr;
  Json dataset_cell;
  std::uint64_t seed = 0;
  std::shared_ptr<const Dataset> dataset;
  std::vector<PlannedCell> cells;
  std::map<std::string, std::map<std::string, Json>> done;  // cell id -> document id -> provenance
  std::string key;                                          // in documents.json
  std::vector<Document> documents;
};

std::string task_key(const Json& task) {
  return stable_hash(canonical_json(task));
}

// What a data set's documents depend on: content and version, not the path of the file.
Json content_of(Json dataset_identity) {
  if (dataset_identity.is_object()) dataset_identity.erase("file");
  return dataset_identity;
}

// When and how large the weights are, to notice that the file was replaced without reading it; null where there is no
// file.
Json file_stamp(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) return nullptr;
  const auto time = std::filesystem::last_write_time(path, error);
  if (error) return nullptr;
  return Json{{"bytes", size}, {"modified", time.time_since_epoch().count()}};
}

class SweepRun {
 public:
  SweepRun(const SweepConfig& config, const RunOptions& options)
      : config_(config), options_(options), folder_(config.results), progress_(options.quiet) {}

  RunSummary run() {
    folder_.write_json("config.json", config_.to_json());
    plan();
    note_strangers();
    for (const SweepModel& model : config_.models) run_model(model);
    return summary_;
  }

 private:
  void plan() {
    Instances<Dataset> datasets;
    Instances<Task> tasks;
    Instances<QuerySource> sources;
    Instances<CompactionMethod> methods;
    Instances<BudgetRule> budgets;
    for (const Cell& cell : expand(config_)) {
      const std::string key =
          stable_hash(canonical_json(Json{{"model", cell.model}, {"dataset", cell.dataset}, {"seed", cell.seed}}));
      if (blocks_.empty() || blocks_.back().key != key) {
        Block block;
        block.key = key;
        block.model = &*std::find_if(config_.models.begin(), config_.models.end(),
                                     [&](const SweepModel& m) { return m.cell == cell.model; });
        block.dataset_cell = cell.dataset;
        block.seed = cell.seed;
        block.dataset = datasets.get(cell.dataset);
        blocks_.push_back(std::move(block));
      }
      PlannedCell planned{cell,
                          cell.id(),
                          cell.label(),
                          sources.get(cell.queries),
                          methods.get(cell.method),
                          tasks.get(cell.task),
                          std::nullopt,
                          nullptr};
      if (!cell.target.is_null()) {
        Problems problems;
        planned.target = TargetSize::from_json(cell.target, "/target", problems);
        problems.throw_if_any(ErrorKind::kInternal);
        planned.budget = budgets.get(cell.budget.is_null() ? Json{{"name", "uniform"}} : cell.budget);
      }
      refuse_text_method(planned);
      blocks_.back().done[planned.id] = folder_.done(planned.id);
      blocks_.back().cells.push_back(std::move(planned));
    }
  }

  void refuse_text_method(const PlannedCell& planned) const {
    if (!planned.task->compacts_online() || planned.method->compacts_cache()) return;
    throw Error(
        ErrorKind::kUsage,
        fmt::format("method '{}' works on a text before it is read; task '{}' compacts a cache while it is written",
                    planned.cell.method.value("name", ""), planned.cell.task.value("name", "")),
        config_.path, "take methods on the cache, and full_cache for no compaction; other methods in another sweep");
  }

  // Records of cells that the sweep no longer has are kept, and the report shows them; say so.
  void note_strangers() {
    std::set<std::string> own;
    for (const Block& block : blocks_) {
      for (const PlannedCell& cell : block.cells) own.insert(cell.id + ".jsonl");
    }
    int64_t strangers = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      if (entry.path().extension() == ".jsonl" && !own.contains(entry.path().filename().string())) ++strangers;
    }
    if (strangers > 0) {
      progress_.note(fmt::format("note: {} holds records of {} cells that are not in {}; the report shows them too",
                                 folder_.path(), strangers, config_.path));
    }
  }

  void run_model(const SweepModel& model) {
    std::vector<Block*> blocks;
    for (Block& block : blocks_) {
      if (block.model == &model) blocks.push_back(&block);
    }
    documents_ = folder_.read_json("documents.json");
    if (std::all_of(blocks.begin(), blocks.end(), [&](const Block* block) { return known_complete(*block); })) {
      for (const Block* block : blocks) summary_.already_done += count_done(*block);
      return;
    }
    progress_.note(fmt::format("loading {}", model.config.path));
    const Model loaded = options_.load_model(model.config);
    for (Block* block : blocks) open_block(*block, loaded);
    const std::string& folder = config_.references;
    references_.emplace(folder.empty() ? folder_.file("references") : folder, loaded.identity());
    for (const std::string& warning : references_->warnings()) progress_.note("warning: " + warning);
    for (Block* block : blocks) run_block(*block, loaded);
  }

  // Whether all cells of all documents are done, as far as documents.json knows the documents, and weights and data are
  // still those that were measured.
  bool known_complete(const Block& block) const {
    if (!documents_.is_object() || !documents_.contains(block.key)) return false;
    const Json& known = documents_.at(block.key);
    if (known.value("model_file", Json()) != file_stamp(block.model->config.path)) return false;
    if (content_of(known.value("dataset_identity", Json())) != content_of(block.dataset->identity())) return false;
    for (const auto& [document, tasks] : known.at("documents").items()) {
      for (const PlannedCell& cell : block.cells) {
        const std::string key = task_key(cell.cell.task);
        if (!tasks.contains(key)) return false;
        if (tasks.at(key) > 0 && !block.done.at(cell.id).contains(document)) return false;
      }
    }
    return true;
  }

  static int64_t count_done(const Block& block) {
    int64_t count = 0;
    for (const auto& [cell, documents] : block.done) count += static_cast<int64_t>(documents.size());
    return count;
  }

  // Reads the documents, refuses records of other weights or data, and counts what is to be done.
  void open_block(Block& block, const Model& model) {
    const Tokenizer& tokenizer = model.tokenizer();
    const auto count_tokens = [&](std::string_view text) {
      return static_cast<int64_t>(tokenizer.encode_text(text).size());
    };
    block.documents = block.dataset->load({block.seed, count_tokens});
    check_same_origin(block, model);
    Json documents = Json::object();
    for (const Document& document : block.documents) {
      Json tasks = Json::object();
      for (const PlannedCell& cell : block.cells) {
        const std::string key = task_key(cell.cell.task);
        if (!tasks.contains(key)) tasks[key] = accepted_questions(*cell.task, document).size();
      }
      documents[document.id] = std::move(tasks);
    }
    note_mute_tasks(block, documents);
    if (!documents_.is_object()) documents_ = Json::object();
    documents_[block.key] = Json{{"model", block.model->cell},
                                 {"model_file", file_stamp(block.model->config.path)},
                                 {"dataset", block.dataset_cell},
                                 {"dataset_identity", block.dataset->identity()},
                                 {"seed", block.seed},
                                 {"documents", documents}};
    folder_.write_json("documents.json", documents_);
    for (const Document& document : block.documents) {
      progress_.expect(static_cast<int64_t>(missing_cells(block, document).size()));
    }
    summary_.already_done += count_done(block);
  }

  void check_same_origin(const Block& block, const Model& model) const {
    const Json dataset_identity = block.dataset->identity();
    for (const PlannedCell& cell : block.cells) {
      for (const auto& [document, provenance] : block.done.at(cell.id)) {
        const Json measured_model = provenance.value("model", Json::object());
        for (const char* field : {"content_hash", "dtype"}) {
          refuse_if_other(cell, document, fmt::format("the model's {}", field), measured_model.value(field, Json()),
                          model.identity().value(field, Json()));
        }
        refuse_if_other(cell, document, "the data set's content", content_of(provenance.value("dataset", Json())),
                        content_of(dataset_identity));
      }
    }
  }

  void refuse_if_other(const PlannedCell& cell, const std::string& document, const std::string& what,
                       const Json& measured, const Json& now) const {
    if (measured == now) return;
    throw Error(
        ErrorKind::kData,
        fmt::format("{} is {} now, but was {} when document '{}' was measured", what, now.dump(), measured.dump(),
                    document),
        fmt::format("{}, {}", folder_.file(cell.id + ".jsonl"), cell.label),
        "write to another folder (--results), or delete this one: numbers of different weights or data do not mix");
  }

  void note_mute_tasks(const Block& block, const Json& documents) {
    std::set<std::string> told;
    for (const PlannedCell& cell : block.cells) {
      const std::string key = task_key(cell.cell.task);
      const auto asks = [&](const Json& tasks) { return tasks.at(key) > 0; };
      if (!told.insert(key).second || std::any_of(documents.begin(), documents.end(), asks)) continue;
      progress_.note(fmt::format("note: task {} can ask no question of data set {}; these cells are left out",
                                 cell.cell.task.value("name", ""), block.dataset_cell.value("name", "")));
    }
  }

  std::vector<const PlannedCell*> missing_cells(const Block& block, const Document& document) const {
    std::vector<const PlannedCell*> cells;
    const Json& tasks = documents_.at(block.key).at("documents").at(document.id);
    for (const PlannedCell& cell : block.cells) {
      if (tasks.at(task_key(cell.cell.task)) > 0 && !block.done.at(cell.id).contains(document.id))
        cells.push_back(&cell);
    }
    return cells;
  }

  void run_block(const Block& block, const Model& model) {
    std::vector<std::pair<const Document*, std::vector<const PlannedCell*>>> work;
    for (const Document& document : block.documents) {
      if (auto cells = missing_cells(block, document); !cells.empty()) work.emplace_back(&document, std::move(cells));
    }
    if (work.empty()) return;
    Json provenance = run_info();
    provenance["model"] = model.identity();
    provenance["dataset"] = block.dataset->identity();
    provenance["self_proof"] = options_.skip_proof ? "left out" : ensure_proof(block, model);
    progress_.begin();
    const auto sink = [&](const Record& record) { keep(record); };
    const auto stage = [&](const std::string& what) { progress_.stage(what); };
    const auto keep_texts = [&](const Json& line) { folder_.append_texts(line); };
    for (auto& [document, cells] : work) {
      measure_document({model, *document, std::move(cells), provenance, sink, stage, keep_texts, &*references_});
    }
  }

  void keep(const Record& record) {
    folder_.append(record);
    record.status == "done" ? ++summary_.measured : ++summary_.failed;
    if (record.status == "failed") progress_.note("failed: " + record.error);
    progress_.measured();
    if (options_.after_record) options_.after_record(record);
  }

  // A proof that is on file for the same weights, data, methods and program is not made again. Returns its outcome for
  // the records; a proof that fails throws.
  std::string ensure_proof(const Block& block, const Model& model) {
    std::vector<const PlannedCell*> cells;
    Json methods = Json::array();
    for (const PlannedCell& cell : block.cells) {
      cells.push_back(&cell);
      Json part = {cell.cell.method, cell.cell.queries, cell.cell.target};
      if (std::find(methods.begin(), methods.end(), part) == methods.end()) methods.push_back(std::move(part));
    }
    const Document& document = block.documents.front();
    const Json subject = Json{{"kvc_version", KVC_VERSION},
                              {"model", model.identity()},
                              {"dataset", block.dataset_cell},
                              {"dataset_identity", content_of(block.dataset->identity())},
                              {"seed", block.seed},
                              {"proof_tokens", config_.proof_tokens},
                              {"document", document.id},
                              {"methods", methods}};
    const std::string key = stable_hash(canonical_json(subject));
    Json proofs = folder_.read_json("self_proof.json");
    if (!proofs.is_object()) proofs = Json::object();
    if (proofs.contains(key)) return outcome(proofs.at(key));
    const auto stage = [&](const std::string& what) { progress_.stage(what); };
    Json found = prove({model, document, cells, config_.proof_tokens, stage});
    tell_proof(block, found);
    found["model"] = model.identity();
    found["dataset"] = block.dataset_cell;
    proofs[key] = found;
    folder_.write_json("self_proof.json", proofs);
    return outcome(found);
  }

  static std::string outcome(const Json& found) {
    if (found.contains("skipped")) return "not possible";
    const Json& methods = found.at("methods");
    const bool all = std::none_of(methods.begin(), methods.end(), [](const Json& m) { return m.contains("skipped"); });
    return all ? "passed" : "passed in part";
  }

  void tell_proof(const Block& block, const Json& found) {
    const std::string subject = fmt::format("self-proof on {}", block.dataset_cell.value("name", ""));
    if (found.contains("skipped")) {
      progress_.note(fmt::format("{}: not possible: {}", subject, found.at("skipped").get<std::string>()));
      return;
    }
    double worst = 0;
    int64_t proved = 0;
    for (const Json& method : found.at("methods")) {
      const std::string name = method.at("method").value("name", "");
      if (method.contains("skipped")) {
        progress_.note(
            fmt::format("{}: not possible for {}: {}", subject, name, method.at("skipped").get<std::string>()));
        continue;
      }
      ++proved;
      worst = std::max(worst, method.value("mean_kl", 0.0));
    }
    progress_.note(
        fmt::format("{}, first {} article tokens: {} methods repeat themselves bit by bit; a budget of everything "
                    "reproduces the full cache (mean KL at most {:.1e}); budgets have their effect",
                    subject, found.at("article_tokens").dump(), proved, worst));
  }

  const SweepConfig& config_;
  const RunOptions& options_;
  ResultsFolder folder_;
  Progress progress_;
  RunSummary summary_;
  std::vector<Block> blocks_;
  std::optional<ReferenceStore> references_;  // of the model that is loaded
  Json documents_;                            // documents.json
};

}  // namespace

RunSummary run_sweep(const SweepConfig& config, const RunOptions& options) {
  const c10::InferenceMode inference;
  const InterruptGuard interrupt(fmt::format(
      "interrupted; what was measured is in {}. Run the same command again to go on from there.", config.results));
  return SweepRun(config, options).run();
}

std::vector<CellStatus> sweep_status(const SweepConfig& config) {
  std::vector<CellStatus> list;
  for (const Cell& cell : expand(config)) {
    std::set<std::string> done;
    for (const Json& value : read_json_lines(config.results + "/" + cell.id() + ".jsonl").values) {
      const Record record = Record::from_json(value, cell.id());
      record.status == "done" ? done.insert(record.document_id).second : done.erase(record.document_id) > 0;
    }
    list.push_back({cell.id(), cell.label(), static_cast<int64_t>(done.size())});
  }
  return list;
}

}  // namespace kvc
