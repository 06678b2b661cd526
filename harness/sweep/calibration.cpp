#include "harness/sweep/calibration.h"

#include <algorithm>
#include <map>

#include "harness/core/stable_hash.h"
#include "harness/core/stopwatch.h"
#include "harness/sweep/self_proof.h"

namespace kvc {
namespace {

using TimedCells = std::vector<const PlannedCell*>;

// Article tokens: a third of a document, and a third of that.
constexpr int64_t kLeastTokens = 96, kMostTokens = 1536;
constexpr size_t kMostQuestions = 16;

struct OutOfTime {};

double fraction(const PlannedCell& cell) {
  const std::optional<TargetSize>& target = cell.cell.target;
  if (!target) return 1;
  return target->unit == TargetSize::Unit::kFraction ? target->fraction : 0.5;
}

class Calibration {
 public:
  Calibration(const Model& model, const Block& block, StageRates& rates,
              const std::function<void(const std::string&)>& stage, const AskTogether& together, double limit_s)
      : model_(model), block_(block), rates_(rates), stage_(stage), together_(together), limit_s_(limit_s) {}

  void run() {
    const Document* document = typical_document();
    if (document == nullptr) return;
    const TimedCells asking = asking_cells(*document), compacting = compacting_cells(*document);
    const int64_t tokens = static_cast<int64_t>(model_.tokenizer().encode_text(document->text).size());
    const int64_t large = std::min(tokens, std::clamp(tokens / 3, kLeastTokens, kMostTokens));
    try {
      // What is touched for the first time is slow once: weights and code that are not in memory yet.
      measure(*document, large / 3, 1, asking, [](const Record&) {});
      for (const int64_t size : {large / 3, large}) {
        measure(*document, size, kMostQuestions, asking, [&](const Record& record) { rates_.add(record); });
        measure(*document, size, 1, compacting, [&](const Record& record) { rates_.add_compaction(record); });
      }
    } catch (const OutOfTime&) {
    }
  }

 private:
  // Of middle length among those with something to measure.
  const Document* typical_document() const {
    std::vector<const Document*> list;
    for (const Document& document : block_.documents) {
      if (!block_.missing_cells(document).empty()) list.push_back(&document);
    }
    if (list.empty()) return nullptr;
    std::nth_element(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(list.size() / 2), list.end(),
                     [](const Document* a, const Document* b) { return a->text.size() < b->text.size(); });
    return list[list.size() / 2];
  }

  bool usable(const PlannedCell& cell) const { return !cell.task->compacts_online(); }

  // Each task on the cache that keeps most and on the one that keeps least, of the method that needs least work.
  TimedCells asking_cells(const Document& document) const {
    std::map<std::string, std::pair<const PlannedCell*, const PlannedCell*>> by_task;
    for (const PlannedCell* cell : block_.missing_cells(document)) {
      if (!usable(*cell) || rates_.knows_ask(cell->cell) || !cell->method->compacts_cache()) continue;
      auto& [most, least] = by_task[canonical_json(cell->cell.task)];
      if (most == nullptr || fraction(*cell) > fraction(*most)) most = cell;
      if (least == nullptr || fraction(*cell) < fraction(*least)) least = cell;
    }
    TimedCells list;
    for (const auto& [task, cells] : by_task) {
      list.push_back(cells.first);
      list.push_back(cells.second);
      const Task& asked = *cells.second->task;
      if (asked.batch(model_, accepted_questions(asked, document)).sequences == 0 || together_.caches == 1) continue;
      // With all targets of the method, which the sweep asks together.
      for (const PlannedCell* cell : block_.missing_cells(document)) {
        if (cell->task == cells.second->task && cell->cell.method == cells.second->cell.method &&
            cell->cell.queries == cells.second->cell.queries && cell->cell.budget == cells.second->cell.budget)
          list.push_back(cell);
      }
    }
    return in_order(list);
  }

  // Each method with its largest and its least target; one task is enough.
  TimedCells compacting_cells(const Document& document) const {
    std::map<std::string, std::pair<const PlannedCell*, const PlannedCell*>> by_method;
    for (const PlannedCell* cell : block_.missing_cells(document)) {
      if (!usable(*cell) || rates_.knows_compaction(cell->cell)) continue;
      auto& [most, least] =
          by_method[canonical_json(Json::array({cell->cell.method, cell->cell.queries, cell->cell.budget}))];
      if (most == nullptr || fraction(*cell) > fraction(*most)) most = cell;
      if (least == nullptr || fraction(*cell) < fraction(*least)) least = cell;
    }
    TimedCells list;
    for (const auto& [method, cells] : by_method) {
      list.push_back(cells.first);
      if (cells.second != cells.first) list.push_back(cells.second);
    }
    return in_order(list);
  }

  // Of the sweep, which keeps cells that share work together.
  TimedCells in_order(const TimedCells& wanted) const {
    TimedCells list;
    for (const PlannedCell& cell : block_.cells) {
      if (std::find(wanted.begin(), wanted.end(), &cell) != wanted.end()) list.push_back(&cell);
    }
    return list;
  }

  void measure(const Document& whole, int64_t tokens, size_t n_questions, const TimedCells& cells,
               const std::function<void(const Record&)>& keep) {
    if (cells.empty()) return;
    Document document = whole;
    document.text = cut_text(model_.tokenizer(), whole.text, std::max<int64_t>(tokens, 16));
    document.questions.clear();
    std::map<const Task*, size_t> taken;
    for (const Question& question : whole.questions) {
      bool wanted = false;
      for (const PlannedCell* cell : cells) {
        if (!cell->task->accepts(question)) continue;
        wanted = wanted || taken[cell->task.get()] < n_questions;
      }
      if (!wanted) continue;
      document.questions.push_back(question);
      for (const auto& [task, n] : std::map(taken)) taken[task] += task->accepts(question) ? 1 : 0;
    }
    TimedCells askable;
    for (const PlannedCell* cell : cells) {
      if (!accepted_questions(*cell->task, document).empty()) askable.push_back(cell);
    }
    const auto sink = [&](const Record& record) {
      keep(record);
      if (clock_.seconds() > limit_s_) throw OutOfTime();
    };
    DocumentJob job{model_, document, askable, Json::object(), sink, stage_};
    job.together = together_;
    measure_document(job);
  }

  const Model& model_;
  const Block& block_;
  StageRates& rates_;
  const std::function<void(const std::string&)>& stage_;
  AskTogether together_;
  double limit_s_;
  Stopwatch clock_;
};

}  // namespace

void calibrate(const Model& model, const Block& block, StageRates& rates,
               const std::function<void(const std::string&)>& stage, const AskTogether& together, double limit_s) {
  Calibration(model, block, rates, stage, together, limit_s).run();
}

}  // namespace kvc
