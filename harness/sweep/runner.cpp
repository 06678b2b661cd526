#include "harness/sweep/runner.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "harness/core/build_info.h"
#include "harness/core/count.h"
#include "harness/core/interrupt.h"
#include "harness/core/json_lines.h"
#include "harness/core/stable_hash.h"
#include "harness/core/stopwatch.h"
#include "harness/sweep/calibration.h"
#include "harness/sweep/coverage.h"
#include "harness/sweep/file_stamp.h"
#include "harness/sweep/known_blocks.h"
#include "harness/sweep/record_origin.h"
#include "harness/sweep/results_folder.h"
#include "harness/sweep/run_info.h"
#include "harness/sweep/self_proof.h"
#include "harness/sweep/sweep_blocks.h"
#include "harness/sweep/sweep_plan.h"

namespace kvc {
namespace {

class SweepRun {
 public:
  SweepRun(const SweepConfig& config, const RunOptions& options)
      : config_(config),
        options_(options),
        folder_(records_folder(config, options.shard), config.results),
        own_progress_(options.quiet),
        progress_(options.progress == nullptr ? own_progress_ : *options.progress) {}

  RunSummary run() {
    folder_.write_json("config.json", config_.to_json());
    folder_.write_json("sweep.json",
                       sweep_json(config_, options_.shard ? Json(options_.shard->text()) : Json(nullptr)));
    blocks_ = make_blocks(config_, [&](const std::string& cell) { return folder_.done(cell); });
    warn_foreign_records();
    forget_stopped();
    for (const SweepModel& model : config_.models) run_model(model);
    if (options_.shard && summary_.already_done + summary_.measured + summary_.failed == 0) {
      progress_.note(
          fmt::format("note: shard {} has no documents; there is nothing to measure in it", options_.shard->text()));
    }
    return summary_;
  }

 private:
  // Records of cells that the sweep no longer has stay in the folder and in its report.
  void warn_foreign_records() {
    std::set<std::string> own;
    for (const Block& block : blocks_) {
      for (const PlannedCell& cell : block.cells) own.insert(cell.id + ".jsonl");
    }
    int64_t foreign = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      if (entry.path().extension() == ".jsonl" && !own.contains(entry.path().filename().string())) ++foreign;
    }
    if (foreign > 0) {
      progress_.note(fmt::format("note: {} holds records of {} not in {}; the report shows them too", folder_.path(),
                                 count(foreign, "cell"), config_.path));
    }
  }

  // What an earlier run said of these cells may be by another tolerance.
  void forget_stopped() {
    const Json before = stopped_cells(folder_.path());
    Json now = before;
    for (const Block& block : blocks_) {
      for (const PlannedCell& cell : block.cells) now.erase(cell.id);
    }
    if (now != before) folder_.write_json("stopped.json", now);
  }

  // The rule of a block whose documents are told by `tasks`, document id -> task key -> questions; it knows what is on
  // disk.
  void start_rule(const Block& block, const Json& tasks) {
    if (!options_.stop_rule) return;
    rules_[block.key] = rule_of(options_.stop_rule, block, tasks, folder_.path());
    tell_stopped(*rules_.at(block.key));
  }

  bool wanted(const Block& block, const std::string& cell, const std::string& document) const {
    const auto rule = rules_.find(block.key);
    return rule == rules_.end() || rule->second->wants(cell, document);
  }

  std::vector<const PlannedCell*> missing_cells(const Block& block, const Document& document) const {
    std::vector<const PlannedCell*> cells = block.missing_cells(document);
    std::erase_if(cells, [&](const PlannedCell* cell) { return !wanted(block, cell->id, document.id); });
    return cells;
  }

  void tell_stopped(StopRule& rule) {
    const Json before = stopped_cells(folder_.path());
    Json now = before;
    now.update(rule.stopped());
    if (now != before) folder_.write_json("stopped.json", now);
  }

  void run_model(const SweepModel& model) {
    std::vector<Block*> blocks;
    for (Block& block : blocks_) {
      if (block.model == &model) blocks.push_back(&block);
    }
    documents_ = folder_.read_json("documents.json");
    for (const Block* block : blocks) {
      if (const Json known = known_block(documents_, *block); !known.is_null())
        start_rule(*block, known.at("documents"));
    }
    const auto all = [&](const auto& holds) { return std::all_of(blocks.begin(), blocks.end(), holds); };
    const bool measured = all([&](const Block* block) { return is_measured(*block); });
    const Json stamp = file_stamp(model.config.path);
    const bool same_file = measured && !stamp.is_null() && all([&](const Block* block) {
                             return known_block(documents_, *block).value("model_file", Json()) == stamp;
                           });
    if (same_file) {
      for (const Block* block : blocks) summary_.already_done += count_done(*block);
      return;
    }
    progress_.note(fmt::format("loading {}", model.config.path));
    std::optional<Model> opened;
    try {
      opened = options_.load_model(model.config);
    } catch (const Error&) {
      if (!measured || !stamp.is_null()) throw;
      progress_.note(
          fmt::format("note: {} is not there to be compared with what was measured; nothing of it is left "
                      "to measure",
                      model.config.path));
      for (const Block* block : blocks) summary_.already_done += count_done(*block);
      return;
    }
    const Model& loaded = *opened;
    for (Block* block : blocks) open_block(*block, loaded);
    plan_model(blocks, loaded);
    const std::string& folder = config_.references;
    references_.emplace(folder.empty() ? folder_.file("references") : folder, loaded.identity());
    for (const std::string& warning : references_->warnings()) progress_.note("warning: " + warning);
    for (Block* block : blocks) run_block(*block, loaded);
  }

  bool is_measured(const Block& block) const {
    const auto rule = rules_.find(block.key);
    StopRule* const own = rule == rules_.end() ? nullptr : rule->second.get();
    return kvc::is_measured(known_block(documents_, block), block, options_.shard, own);
  }

  bool is_ours(const Block& block, const std::string& document) const {
    return kvc::is_ours(options_.shard, block, document);
  }

  int64_t count_done(const Block& block) const {
    int64_t count = 0;
    for (const auto& [cell, documents] : block.done) {
      count +=
          std::count_if(documents.begin(), documents.end(), [&](const auto& d) { return is_ours(block, d.first); });
    }
    return count;
  }

  // Reads the documents and refuses records of other weights or data.
  void open_block(Block& block, const Model& model) {
    load_documents(block, model.tokenizer());
    tell_notes(block);
    check_same_origin(block, model);
    warn_tasks_without_questions(block);
    if (!documents_.is_object()) documents_ = Json::object();
    documents_[block.key] = Json{{"model", block.model->cell},
                                 {"model_file", file_stamp(block.model->config.path)},
                                 {"dataset", block.dataset_cell},
                                 {"dataset_identity", block.dataset->identity()},
                                 {"seed", block.seed},
                                 {"documents", block.tasks}};
    folder_.write_json("documents.json", documents_);
    summary_.already_done += count_done(block);
    // The self-proof is on the data set's first document, whichever shard has it.
    if (!block.documents.empty()) proof_documents_.insert_or_assign(block.key, block.documents.front());
    std::erase_if(block.documents, [&](const Document& document) { return !is_ours(block, document.id); });
    start_rule(block, block.tasks);
    if (options_.stop_rule) shuffle(block);
  }

  static void shuffle(Block& block) {
    std::vector<std::string> ids;
    for (const Document& document : block.documents) ids.push_back(document.id);
    ids = shuffled_documents(ids, block.seed);
    std::map<std::string, size_t> place;
    for (size_t i = 0; i < ids.size(); ++i) place[ids[i]] = i;
    std::sort(block.documents.begin(), block.documents.end(),
              [&](const Document& a, const Document& b) { return place.at(a.id) < place.at(b.id); });
  }

  void check_same_origin(const Block& block, const Model& model) const {
    const Json now = {{"model", model.identity()}, {"dataset", block.dataset->identity()}};
    for (const PlannedCell& cell : block.cells) {
      for (const auto& [document, provenance] : block.done.at(cell.id)) {
        const Json was = weights_of(provenance), is = weights_of(now);
        for (const char* field : {"content_hash", "dtype"}) {
          refuse_if_other(cell, document, fmt::format("the model's {}", field), was.is_null() ? was : was.at(field),
                          is.at(field));
        }
        refuse_if_other(cell, document, "the data set's identity", data_of(provenance), data_of(now));
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

  // Once for each data set, however many seeds and models there are.
  void tell_notes(const Block& block) {
    if (!told_.insert(canonical_json(block.dataset_cell)).second) return;
    for (const std::string& note : block.dataset->notes()) {
      progress_.note(fmt::format("note: data set {}: {}", block.dataset_cell.value("name", ""), note));
    }
  }

  void warn_tasks_without_questions(const Block& block) {
    std::set<std::string> told;
    for (const PlannedCell& cell : block.cells) {
      const std::string key = task_key(cell.cell.task);
      const auto asks = [&](const Json& tasks) { return tasks.at(key) > 0; };
      if (!told.insert(key).second || std::any_of(block.tasks.begin(), block.tasks.end(), asks)) continue;
      progress_.note(fmt::format("note: task {} cannot ask any question of data set {}; these cells are skipped",
                                 cell.cell.task.value("name", ""), block.dataset_cell.value("name", "")));
    }
  }

  // A data set of which no document fits into the model's positions would be one failure a record, behind a proof.
  void refuse_what_never_fits(const Block& block, const Model& model) const {
    std::optional<Error> first;
    int64_t n_failing = 0;
    for (const Document& document : block.documents) {
      const std::vector<const PlannedCell*> cells = missing_cells(block, document);
      const bool reads = std::any_of(cells.begin(), cells.end(),
                                     [](const PlannedCell* cell) { return !cell->task->compacts_online(); });
      if (!reads) continue;
      try {
        make_context(model, document.text);
        return;
      } catch (const Error& error) {
        if (++n_failing == 1) first = error;
      }
    }
    if (!first) return;
    throw Error(ErrorKind::kData,
                fmt::format("data set {}: none of its documents ({}) can be read: {}",
                            block.dataset_cell.value("name", ""), n_failing, first->fact()),
                first->where(), first->mend());
  }

  // What the model's blocks will take, told to the progress line; by records where nobody asked for a plan.
  void plan_model(const std::vector<Block*>& blocks, const Model& model) {
    units_.clear();
    for (const Block* block : blocks) refuse_what_never_fits(*block, model);
    int64_t missing = 0;
    for (const Block* block : blocks) {
      for (const Document& document : block->documents)
        missing += static_cast<int64_t>(missing_cells(*block, document).size());
    }
    Plan plan;
    if (options_.plan && missing > 0) {
      StageRates rates;
      plan.earlier_records = add_earlier_records(config_.results, model, rates);
      for (const Block* block : blocks) {
        calibrate(model, *block, rates, [&](const std::string& what) { progress_.stage("calibration: " + what); },
                  {config_.ask_together});
      }
      plan = plan_blocks(model, {blocks.begin(), blocks.end()}, rates, config_.proof_tokens);
      if (options_.skip_proof) plan.proof_s = 0;
      for (UnitPlan& unit : plan.units) units_[{unit.block_key, unit.document_id}] = std::move(unit.cells);
      summary_.planned_s += plan.stages.total() + plan.proof_s;
      summary_.planned_all = summary_.planned_all && plan.unknown.empty();
    }
    expected_ += missing;
    progress_.expect(missing, plan.stages.total());
  }

  // Seconds that the plan gives the cells of a document, by cell id; nothing without a plan.
  std::map<std::string, double> planned_cells(const Block& block, const Document& document) const {
    std::map<std::string, double> seconds;
    const auto place = units_.find({block.key, document.id});
    if (place == units_.end()) return seconds;
    const std::vector<const PlannedCell*> cells = block.missing_cells(document);  // as planned
    for (size_t i = 0; i < cells.size(); ++i) seconds[cells[i]->id] = place->second.at(i).total();
    return seconds;
  }

  void run_block(const Block& block, const Model& model) {
    const bool any = std::any_of(block.documents.begin(), block.documents.end(),
                                 [&](const Document& document) { return !missing_cells(block, document).empty(); });
    if (!any) return;
    const Stopwatch clock;
    Json provenance = run_info();
    provenance["model"] = model.identity();
    provenance["dataset"] = block.dataset->identity();
    provenance["self_proof"] = options_.skip_proof ? "left out" : ensure_proof(block, model);
    progress_.begin();
    for (const Document& document : block.documents) {
      // Asked here and not before: what a rule wants depends on the documents so far.
      std::vector<const PlannedCell*> cells = missing_cells(block, document);
      if (cells.empty()) continue;
      if (options_.within_s > 0 && clock_.seconds() + longest_document_s_ > options_.within_s) {
        summary_.out_of_time = true;
        break;
      }
      const Stopwatch own;
      measure(block, model, document, std::move(cells), provenance);
      longest_document_s_ = std::max(longest_document_s_, own.seconds());
      show_first_look(document.id);
    }
    summary_.took_s += clock.seconds();
  }

  void measure(const Block& block, const Model& model, const Document& document, std::vector<const PlannedCell*> cells,
               const Json& provenance) {
    const std::map<std::string, double> planned = planned_cells(block, document);
    const auto rule = rules_.find(block.key);
    const auto sink = [&](const Record& record) {
      const auto seconds = planned.find(record.cell_id);
      keep(record, seconds == planned.end() ? 0 : seconds->second);
      if (rule != rules_.end()) rule->second->add(record);
    };
    const auto stage = [&](const std::string& what) { progress_.stage(what); };
    const auto keep_texts = [&](const Json& line) { folder_.append_texts(line); };
    DocumentJob job{model, document, std::move(cells), provenance, sink, stage, keep_texts, &*references_};
    if (options_.device) job.device = *options_.device;
    job.together.caches = config_.ask_together;
    measure_document(job);
    if (rule != rules_.end()) tell_stopped(*rule->second);
  }

  // Once, in a sweep that had nothing measured and has more documents to come.
  void show_first_look(const std::string& document_id) {
    const bool wanted = options_.first_look && !options_.quiet && !looked_ && summary_.already_done == 0;
    looked_ = true;
    if (!wanted || summary_.measured >= expected_) return;
    if (const std::string look = options_.first_look(); !look.empty())
      progress_.note(fmt::format("after the first document, {}; more to come:\n{}", document_id, look));
  }

  void keep(const Record& record, double planned_s) {
    folder_.append(record);
    record.status == "done" ? ++summary_.measured : ++summary_.failed;
    if (record.status == "failed") progress_.failed(record.error);
    progress_.measured(planned_s);
    if (options_.after_record) options_.after_record(record);
  }

  // A proof that is on file for the same weights, data, methods and program is not made again. Returns its outcome for
  // the records; a proof that fails throws.
  std::string ensure_proof(const Block& block, const Model& model) {
    std::vector<const PlannedCell*> cells;
    Json methods = Json::array();
    for (const PlannedCell& cell : block.cells) {
      cells.push_back(&cell);
      Json part = {cell.cell.method, cell.cell.queries, target_json(cell.cell.target)};
      if (std::find(methods.begin(), methods.end(), part) == methods.end()) methods.push_back(std::move(part));
    }
    const Document& document = proof_documents_.at(block.key);
    const Json subject = Json{{"program", build_info_json()},
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
    for (const std::string& note : proof_notes(found, block.dataset_cell.value("name", ""))) progress_.note(note);
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

  const SweepConfig& config_;
  const RunOptions& options_;
  ResultsFolder folder_;
  Progress own_progress_;
  Progress& progress_;
  RunSummary summary_;
  std::vector<Block> blocks_;
  std::optional<ReferenceStore> references_;                // of the model that is loaded
  Json documents_;                                          // documents.json
  std::map<std::string, Document> proof_documents_;         // by block
  std::map<std::string, std::unique_ptr<StopRule>> rules_;  // by block
  Stopwatch clock_;                                         // since the run began
  double longest_document_s_ = 0;
  int64_t expected_ = 0;        // records to be measured, of the models so far
  bool looked_ = false;         // the first document's results were shown, or not wanted
  std::set<std::string> told_;  // data sets whose notes were told
  // The plan of the model that is loaded: seconds of the missing cells of (block, document).
  std::map<std::pair<std::string, std::string>, std::vector<CellSeconds>> units_;
};

}  // namespace

std::string records_folder(const SweepConfig& config, const std::optional<Shard>& shard) {
  return shard ? fmt::format("{}/shards/{}", config.results, shard->name()) : config.results;
}

RunSummary run_sweep(const SweepConfig& config, const RunOptions& options) {
  if (config.stop_when && options.shard) {
    throw Error(ErrorKind::kUsage,
                "a sweep with stop_when cannot be divided into shards: which documents are measured "
                "depends on all documents before",
                config.path, "delete stop_when, or run the sweep whole");
  }
  if (config.stop_when && !options.stop_rule) {
    throw Error(ErrorKind::kInternal, "the sweep has stop_when, but the program gave no rule for it", config.path, "");
  }
  const c10::InferenceMode inference;
  const InterruptGuard interrupt(
      fmt::format("interrupted; what was measured is in {}. Run the same command again to go on from there.",
                  records_folder(config, options.shard)),
      options.progress == nullptr ? -1 : options.progress->log_file(),
      options.progress == nullptr ? "" : options.progress->line_of_interrupt());
  return SweepRun(config, options).run();
}

std::vector<CellStatus> sweep_status(const SweepConfig& config) {
  std::vector<CellStatus> list;
  for (const Cell& cell : expand(config)) {
    std::set<std::string> done;
    for (const std::string& folder : record_folders(config.results)) {
      for (const Json& value : read_json_lines(folder + "/" + cell.id() + ".jsonl").values) {
        const Record record = Record::from_json(value, cell.id());
        if (record.status == "done") done.insert(record.document_id);
      }
    }
    list.push_back({cell.id(), cell.label(), static_cast<int64_t>(done.size())});
  }
  return list;
}

}  // namespace kvc
