#include "harness/explain/explain_run.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <tuple>

#include "harness/core/interrupt.h"
#include "harness/core/json_lines.h"
#include "harness/core/progress.h"
#include "harness/core/stable_hash.h"
#include "harness/core/text_file.h"
#include "harness/sweep/coverage.h"
#include "harness/sweep/record_origin.h"
#include "harness/sweep/sweep_blocks.h"

namespace kvc {
namespace {

using FlipKey = std::tuple<std::string, std::string, std::string>;

FlipKey key_of(const LostAnswer& flip) {
  return {flip.compact->cell_id, flip.document(), flip.question()};
}

// An explanation holds for these two answers and settings.
std::string answers_hash(const LostAnswer& flip, const ExplainSettings& settings) {
  return stable_hash(
      canonical_json(Json{flip.full->answers[flip.full_answer], flip.compact->answers[flip.compact_answer],
                          settings.noise, settings.draws, settings.max_tests}));
}

// Where the weights of a cell's model lie, as a sweep that wrote to this folder had them.
std::string model_path(const std::string& folder, const std::string& name) {
  for (const std::string& part : record_folders(folder)) {
    const Json config = read_json_of_run(part + "/config.json");
    if (!config.is_object()) continue;
    for (const Json& model : config.value("model", Json::array())) {
      const std::string path = model.is_object() ? model.value("path", "") : "";
      if (last_name(path) == name) return path;
    }
  }
  throw Error(ErrorKind::kUsage, fmt::format("the folder does not say where the weights of '{}' are", name), folder,
              "give them: --model PATH");
}

ModelConfig config_of(const Json& cell, const std::string& path, const std::string& device) {
  ModelConfig config;
  config.path = path;
  config.device = device;
  config.dtype = cell.value("dtype", config.dtype);
  config.chat_template = cell.value("chat_template", "");
  config.thinking = cell.value("thinking", "");
  config.rope_scaling = cell.value("rope_scaling", Json::object());
  return config;
}

void refuse_other(const char* what, const Json& measured, const Json& now, const std::string& where,
                  const std::string& mend) {
  if (measured == now) return;
  throw Error(ErrorKind::kData,
              fmt::format("{} must be that of the records, {}; got {}", what, measured.dump(), now.dump()), where,
              mend);
}

class Explaining {
 public:
  explicit Explaining(const ExplainRequest& request) : request_(request), progress_(request.quiet) {}

  ExplainResult run() {
    const std::vector<Record> records = load_records(request_.folder, result_.notes);
    if (records.empty()) {
      throw Error(ErrorKind::kData, "there are no records in the results folder", request_.folder,
                  "run the sweep first: kvc run CONFIG");
    }
    LostAnswers flips = find_lost_answers(records, request_.filter);
    result_.notes.insert(result_.notes.end(), flips.notes.begin(), flips.notes.end());
    result_.n_compared = flips.n_compared;
    result_.n_flips = static_cast<int64_t>(flips.list.size());
    std::vector<LostAnswer> chosen = chosen_answers(flips.list, request_.limit);
    result_.left_out = result_.n_flips - static_cast<int64_t>(chosen.size());
    take_known(chosen);
    work_through(chosen);
    for (const LostAnswer& flip : chosen_answers(flips.list, request_.limit)) {
      if (const auto known = known_.find(key_of(flip)); known != known_.end())
        result_.explanations.push_back(known->second);
    }
    std::sort(result_.explanations.begin(), result_.explanations.end(), [](const auto& a, const auto& b) {
      return std::tie(a.cell_id, a.document_id, a.question_id) < std::tie(b.cell_id, b.document_id, b.question_id);
    });
    return std::move(result_);
  }

 private:
  // Removes from `chosen` what is explained on disk.
  void take_known(std::vector<LostAnswer>& chosen) {
    std::map<FlipKey, Explanation> on_disk;
    for (Explanation& one : load_explanations(request_.folder, result_.notes)) {
      FlipKey key{one.cell_id, one.document_id, one.question_id};
      on_disk.emplace(std::move(key), std::move(one));
    }
    std::erase_if(chosen, [&](const LostAnswer& flip) {
      const auto found = on_disk.find(key_of(flip));
      if (request_.again || found == on_disk.end() || found->second.answers != answers_hash(flip, request_.settings))
        return false;
      ++result_.found;
      known_.insert_or_assign(key_of(flip), found->second);
      return true;
    });
  }

  // What is dear is made once: model, data set, document, queries, compact cache, from the outside in.
  void work_through(std::vector<LostAnswer>& flips) {
    std::vector<std::pair<std::vector<std::string>, LostAnswer>> ordered;
    for (const LostAnswer& flip : flips) {
      const Cell cell = Cell::from_json(flip.compact->cell, flip.compact->place);
      ordered.push_back({{canonical_json(cell.model), canonical_json(cell.dataset), std::to_string(cell.seed),
                          flip.document(), canonical_json(cell.queries), flip.compact->cell_id, flip.question()},
                         flip});
    }
    std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    progress_.expect(static_cast<int64_t>(ordered.size()));
    for (const auto& [order, flip] : ordered) {
      const PlannedCell cell = plugins_.planned(Cell::from_json(flip.compact->cell, flip.compact->place));
      open_model(cell.cell, *flip.compact);
      open_dataset(cell.cell, *flip.compact);
      if (const auto failure = failure_of([&] { explain(flip, cell); }, DeviceCare::of(model_->decoder().devices()))) {
        result_.failures.push_back(fmt::format("{}\n  cell:  {} ({}), document '{}', question '{}'", *failure,
                                               cell.label, cell.id, flip.document(), flip.question()));
        progress_.failed(result_.failures.back());
      }
      progress_.measured();
    }
  }

  void open_model(const Cell& cell, const Record& record) {
    if (model_ && model_cell_ == cell.model) return;
    close_dataset();
    model_.reset();
    const std::string name = cell.model.value("name", "");
    const std::string path = request_.model_path.empty() ? model_path(request_.folder, name) : request_.model_path;
    if (!std::filesystem::exists(path)) {
      throw Error(ErrorKind::kData, fmt::format("there are no weights at '{}'", path),
                  request_.model_path.empty() ? request_.folder + "/config.json" : "--model",
                  "say where they are: --model PATH");
    }
    progress_.note("loading " + path);
    model_.emplace(request_.load_model(config_of(cell.model, path, request_.device)));
    model_cell_ = cell.model;
    refuse_other("the model's weights and dtype", weights_of(record.provenance),
                 weights_of(Json{{"model", model_->identity()}}), path,
                 "give the model that the records were measured on: --model PATH");
    progress_.begin();
  }

  void open_dataset(const Cell& cell, const Record& record) {
    if (dataset_cell_ == cell.dataset && seed_ == cell.seed) return;
    close_dataset();
    const auto dataset = plugins_.get<Dataset>(cell.dataset);
    refuse_other("the data set", data_of(record.provenance), data_of(Json{{"dataset", dataset->identity()}}),
                 record.place, "put the data back as they were measured, or measure again");
    documents_ = dataset->load({cell.seed, [&](std::string_view text) {
                                  return static_cast<int64_t>(model_->tokenizer().encode_text(text).size());
                                }});
    dataset_cell_ = cell.dataset;
    seed_ = cell.seed;
  }

  void close_dataset() {
    close_document();
    documents_.clear();
    dataset_cell_ = nullptr;
  }

  void close_document() {
    compact_.reset();
    cell_id_.clear();
    queries_.reset();
    queries_cell_ = nullptr;
    queries_made_ = false;
    read_.reset();
    document_ = nullptr;
  }

  void open_document(const LostAnswer& flip) {
    if (document_ != nullptr && document_->id == flip.document()) return;
    close_document();
    const auto found = std::find_if(documents_.begin(), documents_.end(),
                                    [&](const Document& document) { return document.id == flip.document(); });
    if (found == documents_.end()) {
      throw Error(ErrorKind::kData, fmt::format("the data set has no document '{}' any more", flip.document()),
                  flip.compact->place, "put the data back as they were measured");
    }
    progress_.stage(fmt::format("{}: prefill", found->id));
    read_.emplace(ReadDocument::read(*model_, found->text));
    document_ = &*found;
  }

  void open_compact(const PlannedCell& cell) {
    if (cell_id_ == cell.id) return;
    compact_.reset();
    cell_id_.clear();
    if (!queries_made_ || queries_cell_ != cell.cell.queries) {
      queries_.reset();
      queries_ = read_->queries(*model_, cell.queries.get(), document_seed(seed_, "queries", document_->id));
      queries_cell_ = cell.cell.queries;
      queries_made_ = true;
    }
    progress_.stage(fmt::format("{}: {}", document_->id, cell.label));
    compact_.emplace(compact_cell(*model_, *read_, cell, queries_.get(), document_->id));
    cell_id_ = cell.id;
  }

  void explain(const LostAnswer& flip, const PlannedCell& cell) {
    open_document(flip);
    open_compact(cell);
    const std::string id = flip.question();
    const auto question = std::find_if(document_->questions.begin(), document_->questions.end(),
                                       [&](const Question& one) { return one.id == id; });
    if (question == document_->questions.end()) {
      throw Error(ErrorKind::kData, fmt::format("the document has no question '{}' any more", id), flip.compact->place,
                  "put the data back as they were measured");
    }
    progress_.stage(fmt::format("{}, {}", id, cell.label));
    Explanation explanation =
        explain_flip({*model_, *read_, compact_->cache, *cell.task, cell.cell.task.value("name", ""), *question,
                      document_seed(seed_, "ask", document_->id)},
                     request_.settings);
    explanation.cell_id = cell.id;
    explanation.document_id = document_->id;
    explanation.question_id = id;
    explanation.answers = answers_hash(flip, request_.settings);
    append_json_line(explanations_file(request_.folder), explanation.to_json());
    ++result_.made;
    known_.insert_or_assign(key_of(flip), std::move(explanation));
  }

  const ExplainRequest& request_;
  Progress progress_;
  ExplainResult result_;
  std::map<FlipKey, Explanation> known_;
  CellPlugins plugins_;

  std::optional<Model> model_;
  Json model_cell_, dataset_cell_, queries_cell_;
  std::uint64_t seed_ = 0;
  std::vector<Document> documents_;
  const Document* document_ = nullptr;
  std::optional<ReadDocument> read_;
  std::unique_ptr<LayerQueries> queries_;
  bool queries_made_ = false;
  std::string cell_id_;  // of compact_
  std::optional<Compaction> compact_;
};

}  // namespace

ExplainResult explain_results(const ExplainRequest& request) {
  const c10::InferenceMode inference;
  const InterruptGuard interrupt(
      fmt::format("interrupted; what was explained is in {}. Run the same command again to go on from there.",
                  explanations_file(request.folder)));
  return Explaining(request).run();
}

}  // namespace kvc
