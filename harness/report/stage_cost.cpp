#include "harness/report/stage_cost.h"

#include <fmt/format.h>

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

struct Mean {
  double total = 0;
  double count = 0;
};

// A stage is named by what a reader sees ("compaction snapkv, repeat_prefill"); its parts, each paid once, by what they
// depend on.
struct Stage {
  std::string kind;
  std::map<std::string, Mean> paid;
};

struct Group {
  std::string model_label, dataset_label;
  std::set<std::string> documents;
  std::map<std::string, Stage> stages;  // by shown name
};

// What the records of one cell have in common: labels and the canonical text of its parts.
class CellStages {
 public:
  CellStages(const Record& record, const Labels& labels) : cell_(record.cell), seed_(text_of("seed")) {
    const Json queries = part("queries");
    const std::string source = labels.of("queries", queries);
    const std::string task = labels.of("task", part("task"));
    const std::string method = labels.of("method", part("method")) + (source.empty() ? "" : ", " + source);
    stages_.push_back({"prefill_s", "prefill", "prefill", ""});
    if (!queries.is_null()) add("queries_s", "queries", "queries " + source, {"queries"});
    add("compaction_shared_s", "compaction", "compaction " + method, {"queries", "method"});
    add("compaction_s", "compaction", "compaction " + method, {"queries", "method", "target"});
    add("reference_s", "reference", "reference " + task, {"task"});
    add("drift_s", "reference", "drift " + method, {"queries", "method", "target", "task"});
    add("ask_s", "ask", "ask " + task, {"queries", "method", "target", "task"});
  }

  void collect(const Record& record, Group& group) const {
    const std::string document = canonical_json(Json(record.document_id));
    group.documents.insert(fmt::format("[{},{}]", document, seed_));
    for (const Paid& paid : stages_) {
      const auto seconds = record.seconds.find(paid.seconds);
      if (seconds == record.seconds.end() || !seconds->is_number()) continue;
      Stage& stage = group.stages[paid.shown];
      stage.kind = paid.kind;
      Mean& mean = stage.paid[fmt::format("[\"{}\",{},{}{}]", paid.seconds, document, seed_, paid.depends)];
      mean.total += seconds->get<double>();
      mean.count += 1;
    }
  }

 private:
  // A stage; `depends` is the canonical text of the parts of the cell that it depends on besides document and seed.
  struct Paid {
    const char* seconds;
    std::string kind, shown, depends;
  };

  Json part(const char* name) const { return cell_.value(name, Json()); }
  std::string text_of(const char* name) const { return canonical_json(part(name)); }
  void add(const char* seconds, const std::string& kind, const std::string& shown,
           const std::vector<const char*>& depends) {
    std::string text;
    for (const char* name : depends) text += "," + text_of(name);
    stages_.push_back({seconds, kind, shown, text});
  }

  const Json& cell_;
  std::string seed_;
  std::vector<Paid> stages_;
};

StageCost finish(const Group& group) {
  StageCost cost;
  cost.model_label = group.model_label;
  cost.dataset_label = group.dataset_label;
  cost.n_documents = static_cast<int64_t>(group.documents.size());
  for (const auto& [shown, stage] : group.stages) {
    double seconds = 0;
    for (const auto& [key, mean] : stage.paid) seconds += mean.total / mean.count;
    seconds /= static_cast<double>(cost.n_documents);
    if (stage.kind == "prefill") cost.prefill_s += seconds;
    if (stage.kind == "queries") cost.queries_s += seconds;
    if (stage.kind == "compaction") cost.compaction_s += seconds;
    if (stage.kind == "reference") cost.reference_s += seconds;
    if (stage.kind == "ask") cost.ask_s += seconds;
    if (stage.kind != "prefill") cost.parts.emplace_back(shown, seconds);
  }
  return cost;
}

}  // namespace

std::vector<StageCost> stage_costs(const std::vector<Record>& records, const Labels& labels) {
  std::map<std::pair<std::string, std::string>, Group> groups;
  std::optional<CellStages> stages;
  const Record* last = nullptr;  // mostly of the same cell
  Group* group = nullptr;
  for (const Record& record : records) {
    if (record.status != "done" || !record.seconds.is_object()) continue;
    if (last == nullptr || last->cell != record.cell) {
      const Json model = record.cell.value("model", Json()), dataset = record.cell.value("dataset", Json());
      group = &groups[{canonical_json(model), canonical_json(dataset)}];
      group->model_label = labels.of("model", model);
      group->dataset_label = labels.of("dataset", dataset);
      stages.emplace(record, labels);
      last = &record;
    }
    stages->collect(record, *group);
  }
  std::vector<StageCost> list;
  for (const auto& [key, one] : groups) list.push_back(finish(one));
  return list;
}

}  // namespace kvc
