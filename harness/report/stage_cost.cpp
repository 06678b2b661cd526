#include "harness/report/stage_cost.h"

#include <map>
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

class Collector {
 public:
  Collector(const Record& record, Group& group) : record_(record), group_(group) {}

  // `depends` names the parts of the cell that the stage depends on besides document and seed.
  void pay(const char* seconds, const std::string& kind, const std::string& shown,
           const std::vector<const char*>& depends) {
    if (!record_.seconds.contains(seconds) || !record_.seconds.at(seconds).is_number()) return;
    Json key = Json::array({seconds, record_.document_id, record_.cell.value("seed", Json())});
    for (const char* part : depends) key.push_back(record_.cell.value(part, Json()));
    Stage& stage = group_.stages[shown];
    stage.kind = kind;
    Mean& mean = stage.paid[canonical_json(key)];
    mean.total += record_.seconds.at(seconds).get<double>();
    mean.count += 1;
  }

 private:
  const Record& record_;
  Group& group_;
};

void collect(const Record& record, const Labels& labels, Group& group) {
  const Json queries = record.cell.value("queries", Json());
  const std::string source = labels.of("queries", queries);
  const std::string task = labels.of("task", record.cell.value("task", Json()));
  const std::string method =
      labels.of("method", record.cell.value("method", Json())) + (source.empty() ? "" : ", " + source);
  group.documents.insert(canonical_json(Json::array({record.document_id, record.cell.value("seed", Json())})));
  Collector collector(record, group);
  collector.pay("prefill_s", "prefill", "prefill", {});
  if (!queries.is_null()) collector.pay("queries_s", "queries", "queries " + source, {"queries"});
  collector.pay("compaction_shared_s", "compaction", "compaction " + method, {"queries", "method"});
  collector.pay("compaction_s", "compaction", "compaction " + method, {"queries", "method", "target"});
  collector.pay("reference_s", "reference", "reference " + task, {"task"});
  collector.pay("drift_s", "reference", "drift " + method, {"queries", "method", "target", "task"});
  collector.pay("ask_s", "ask", "ask " + task, {"queries", "method", "target", "task"});
}

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
  for (const Record& record : records) {
    if (record.status != "done" || !record.seconds.is_object()) continue;
    const Json model = record.cell.value("model", Json()), dataset = record.cell.value("dataset", Json());
    Group& group = groups[{canonical_json(model), canonical_json(dataset)}];
    group.model_label = labels.of("model", model);
    group.dataset_label = labels.of("dataset", dataset);
    collect(record, labels, group);
  }
  std::vector<StageCost> list;
  for (const auto& [key, group] : groups) list.push_back(finish(group));
  return list;
}

}  // namespace kvc
