#include "harness/report/tabulate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "harness/core/stable_hash.h"
#include "harness/report/label.h"
#include "harness/report/stage_cost.h"

namespace kvc {
namespace {

using Answer = std::tuple<std::string, std::string, std::string>;  // document, seed, question
using Question = std::pair<std::string, std::string>;              // document, question

struct Judged {
  const Record* record = nullptr;
  bool failed = false;
  std::string error;
  std::vector<QuestionValues> values;
};

// All records of one (row, target).
struct CellData {
  Json target;
  std::set<std::string> cell_ids;
  std::vector<Judged> records;
  std::map<Answer, QuestionValues> answers;
  std::map<Question, QuestionValues> values;                                            // means over seeds
  std::map<std::pair<std::string, std::string>, std::optional<double>> context_tokens;  // by document, seed
};

struct RowData {
  Json method, queries;
  std::map<std::string, CellData> cells;  // by canonical target
};

struct TableData {
  Json model, dataset, task;
  std::map<std::string, RowData> rows;                      // by canonical (method, queries)
  std::set<std::pair<std::string, std::string>> documents;  // with seed
  std::map<std::string, Json> targets;
  std::map<Question, std::set<std::string>> right_answers;  // texts; several: the document depends on the seed
};

Json part(const Record& record, const char* name) {
  return record.cell.contains(name) ? record.cell.at(name) : Json(nullptr);
}

std::string seed_of(const Record& record) {
  return part(record, "seed").dump();
}

std::optional<double> number(const Json& object, const char* name) {
  if (!object.is_object() || !object.contains(name) || !object.at(name).is_number()) return std::nullopt;
  return object.at(name).get<double>();
}

Judged judge(const Record& record) {
  Judged judged{&record, record.status != "done", record.error, {}};
  if (judged.failed) return judged;
  try {
    judged.values = question_values(record);
  } catch (const Error& e) {  // one record that cannot be read must not cost the others their report
    judged.failed = true;
    judged.error = e.what();
  }
  return judged;
}

void add(TableData& table, const Record& record) {
  const Json target = part(record, "target");
  RowData& row = table.rows[canonical_json(Json{part(record, "method"), part(record, "queries")})];
  row.method = part(record, "method");
  row.queries = part(record, "queries");
  CellData& cell = row.cells[canonical_json(target)];
  cell.target = target;
  cell.cell_ids.insert(record.cell_id);
  cell.records.push_back(judge(record));
  const std::string seed = seed_of(record);
  for (const QuestionValues& question : cell.records.back().values) {
    cell.answers[{record.document_id, seed, question.question_id}] = question;
  }
  for (const Json& answer : record.answers) {
    const Json right = answer.is_object() ? answer.value("gold_answer", Json()) : Json();
    const Json id = right.is_string() ? answer.value("question_id", Json()) : Json();
    if (id.is_string())
      table.right_answers[{record.document_id, id.get<std::string>()}].insert(right.get<std::string>());
  }
  cell.context_tokens[{record.document_id, seed}] = number(record.sizes, "context_tokens");
  table.documents.insert({record.document_id, seed});
  if (!target.is_null()) table.targets[canonical_json(target)] = target;
}

std::string document_under(const std::string& document, const std::string& seed) {
  return fmt::format("{} (seed {})", document, seed);
}

// Mean over the answers under all seeds. Equal values stay what they are to the last bit.
void average(const std::vector<const QuestionValues*>& answers, QuestionValues& mean) {
  mean = *answers.front();
  for (size_t metric = 0; metric < mean.values.size(); ++metric) {
    double first = std::nan(""), above = 0, count = 0;
    for (const QuestionValues* answer : answers) {
      const double value = answer->values[metric];
      if (std::isnan(value)) continue;
      if (count == 0) first = value;
      above += value - first;
      count += 1;
    }
    mean.values[metric] = count == 0 ? first : first + above / count;
  }
}

// Answers of one question under several seeds are one value: asking again makes no new question.
void average_over_seeds(TableData& table) {
  std::set<std::string> of_seed;
  for (const auto& [question, texts] : table.right_answers) {
    if (texts.size() > 1) of_seed.insert(question.first);
  }
  for (auto& [key, row] : table.rows) {
    for (auto& [target, cell] : row.cells) {
      std::map<Question, std::vector<const QuestionValues*>> answers;
      for (const auto& [answer, values] : cell.answers) {
        const auto& [document, seed, question] = answer;
        const bool own = of_seed.count(document) > 0;
        answers[{own ? document_under(document, seed) : document, question}].push_back(&values);
      }
      for (const auto& [question, list] : answers) average(list, cell.values[question]);
    }
  }
}

// Sums `name` over the done records that have it.
struct Sum {
  double total = 0;
  int64_t count = 0;
  double least = 0, most = 0;
  std::optional<double> mean() const {
    return count == 0 ? std::nullopt : std::optional(total / static_cast<double>(count));
  }
};

Sum sum(const CellData& cell, const Json Record::*object, const char* name) {
  Sum result;
  for (const Judged& judged : cell.records) {
    const auto value = number(judged.record->*object, name);
    if (judged.failed || !value) continue;
    result.least = result.count == 0 ? *value : std::min(result.least, *value);
    result.most = result.count == 0 ? *value : std::max(result.most, *value);
    result.total += *value;
    ++result.count;
  }
  return result;
}

SizeSummary sizes_of(const CellData& cell) {
  SizeSummary sizes;
  double kept = 0;
  double span = 0;
  for (const Judged& judged : cell.records) {
    const auto fraction = number(judged.record->sizes, "kept_fraction");
    const auto tokens = number(judged.record->sizes, "compactable_tokens");
    if (judged.failed || !fraction || !tokens) continue;
    kept += *fraction * *tokens;
    span += *tokens;
  }
  if (span > 0) sizes.kept_fraction = kept / span;
  if (kept > 0) sizes.compaction_ratio = span / kept;
  const Sum before = sum(cell, &Record::sizes, "bytes_before");
  const Sum after = sum(cell, &Record::sizes, "bytes_after");
  sizes.bytes_before = before.mean();
  sizes.bytes_after = after.mean();
  if (after.total > 0) sizes.bytes_ratio = before.total / after.total;
  sizes.allocated_bytes_after = sum(cell, &Record::sizes, "allocated_bytes_after").mean();
  const Sum least = sum(cell, &Record::sizes, "head_len_min");
  const Sum most = sum(cell, &Record::sizes, "head_len_max");
  if (least.count > 0) sizes.head_len_min = least.least;
  if (most.count > 0) sizes.head_len_max = most.most;
  sizes.head_len_mean = sum(cell, &Record::sizes, "head_len_mean").mean();
  return sizes;
}

std::vector<Observation> column(const CellData& cell, size_t metric) {
  std::vector<Observation> list;
  for (const auto& [question, values] : cell.values) {
    if (!std::isnan(values.values[metric])) list.push_back({question.first, values.values[metric]});
  }
  return list;
}

MetricScale scale_of(const MetricInfo& info, const std::vector<Observation>& values) {
  if (info.share) return MetricScale::kShare;
  const bool negative = std::any_of(values.begin(), values.end(), [](const Observation& o) { return o.value < 0; });
  return negative ? MetricScale::kReal : MetricScale::kPositive;
}

// What full cache and floor have on the questions of this cell.
void compare(const CellData& cell, const CellData* full, const CellData* floor, size_t metric, MetricScale scale,
             double margin, MetricSummary& summary) {
  std::vector<PairedValues> pairs;
  std::vector<RetainedObservation> retained;
  bool full_is_zero = scale == MetricScale::kPositive;  // KL: the full cache against itself
  for (const auto& [question, own] : cell.values) {
    if (full == nullptr || full->values.count(question) == 0) continue;
    const double value = own.values[metric];
    const double ceiling = full->values.at(question).values[metric];
    if (std::isnan(value) || std::isnan(ceiling)) continue;
    pairs.push_back({question.first, value, ceiling});
    full_is_zero = full_is_zero && ceiling == 0;
    if (floor == nullptr || floor->values.count(question) == 0) continue;
    const double least = floor->values.at(question).values[metric];
    if (!std::isnan(least)) retained.push_back({question.first, value - least, ceiling - least});
  }
  if (!pairs.empty()) {
    VersusFull versus;
    versus.pair = compare_pair(pairs, scale);
    if (full_is_zero) {
      std::vector<Observation> values;
      for (const PairedValues& pair : pairs) values.push_back({pair.document, pair.first});
      versus.pair.difference = estimate(values, scale);
      versus.pair.test = PairTest::kTooFew;  // that it is above 0 is no finding
      versus.pair.p = std::nullopt;
    }
    versus.p_equivalence =
        full_is_zero ? below_margin_test(versus.pair.difference, margin) : equivalence_test(versus.pair, scale, margin);
    summary.versus_full = std::move(versus);
  }
  if (summary.info.share && summary.info.higher_is_better) summary.retained = retained_of(retained);
}

const CellData* untargeted_of(const TableData& table, const std::string& method) {
  for (const auto& [key, row] : table.rows) {
    if (plugin_name(row.method) == method && row.cells.count("null") > 0) return &row.cells.at("null");
  }
  return nullptr;
}

// Adds `other` to `total`, list by list; false where their shapes differ or something is no number.
bool add_lists(Json& total, const Json& other) {
  if (total.is_number() && other.is_number()) {
    total = total.get<double>() + other.get<double>();
    return true;
  }
  if (!total.is_array() || !other.is_array() || total.size() != other.size()) return false;
  for (size_t i = 0; i < total.size(); ++i) {
    if (!add_lists(total[i], other[i])) return false;
  }
  return true;
}

void divide_lists(Json& total, double count) {
  if (total.is_number()) total = total.get<double>() / count;
  if (!total.is_array()) return;
  for (Json& item : total) divide_lists(item, count);
}

// Means over documents of what task head_errors notes; null where there is nothing, or not of one shape.
Json heads_of(const CellData& cell) {
  Json heads;
  double count = 0;
  for (const Judged& judged : cell.records) {
    const Json own = judged.failed ? Json() : judged.record->task_notes.value("heads", Json());
    if (!own.is_object()) continue;
    count += 1;
    if (heads.is_null()) {
      heads = own;
      continue;
    }
    for (auto& [name, list] : heads.items()) {
      if (!own.contains(name) || !add_lists(list, own.at(name))) return nullptr;
    }
  }
  if (heads.is_null()) return nullptr;
  for (auto& [name, list] : heads.items()) divide_lists(list, count);
  return heads;
}

CellSummary summarize(const CellData& cell, const TableData& table, const ComparisonSettings& settings) {
  CellSummary summary;
  summary.target = cell.target;
  summary.cell_ids.assign(cell.cell_ids.begin(), cell.cell_ids.end());
  for (const Judged& judged : cell.records) {
    ++(judged.failed ? summary.n_failed : summary.n_done);
    if (judged.failed && summary.first_error.empty()) summary.first_error = judged.error;
  }
  summary.n_missing = static_cast<int64_t>(table.documents.size()) - summary.n_done - summary.n_failed;
  for (const std::string& id : summary.cell_ids) {
    const auto found = settings.stopped.find(id);
    if (found == settings.stopped.end()) continue;
    summary.stopped = found->second;
    summary.n_missing = 0;  // nobody asks for them
  }
  const CellData* full = untargeted_of(table, "full_cache");
  const CellData* floor = untargeted_of(table, "no_context");
  const std::vector<MetricInfo>& metrics = metrics_of_task(plugin_name(table.task));
  for (size_t i = 0; i < metrics.size(); ++i) {
    const std::vector<Observation> values = column(cell, i);
    const MetricScale scale = scale_of(metrics[i], values);
    MetricSummary metric{metrics[i], estimate(values, scale), std::nullopt, std::nullopt};
    if (!summary.stopped.is_null()) {
      metric.estimate.interval = metric.estimate.questions = metric.estimate.bootstrap = {};
    } else if (&cell != full) {
      compare(cell, full, floor, i, scale, margin_of(settings, metrics[i]), metric);
    }
    summary.metrics.push_back(std::move(metric));
  }
  std::map<Question, std::optional<double>> context_tokens;
  for (const auto& [answer, own] : cell.answers) {
    const auto& [document, seed, id] = answer;
    const std::optional<double> tokens = cell.context_tokens.at({document, seed});
    summary.answers.push_back({document, seed, id, own.values, own.depth_fraction, tokens});
    context_tokens[{document, id}] = tokens;
    context_tokens[{document_under(document, seed), id}] = tokens;
  }
  for (const auto& [question, own] : cell.values) {
    summary.questions.push_back(
        {question.first, "", question.second, own.values, own.depth_fraction, context_tokens.at(question)});
  }
  summary.sizes = sizes_of(cell);
  summary.heads = heads_of(cell);
  summary.compaction_shared_s = sum(cell, &Record::seconds, "compaction_shared_s").mean();
  summary.compaction_s = sum(cell, &Record::seconds, "compaction_s").mean();
  return summary;
}

// Fractions from large to small, then numbers of entries from large to small.
bool before(const Json& a, const Json& b) {
  const auto key = [](const Json& target) {
    const double size = target.is_number()
                            ? target.get<double>()
                            : std::strtod(target.is_string() ? target.get<std::string>().c_str() : "0", nullptr);
    return std::tuple(target.is_number() ? 0 : 1, -size, target.dump());
  };
  return key(a) < key(b);
}

Row finish_row(const RowData& data, const TableData& table, const std::vector<Json>& targets, const Labels& labels,
               const ComparisonSettings& settings) {
  Row row;
  row.method = data.method;
  row.queries = data.queries;
  row.method_label = labels.of("method", data.method);
  row.queries_label = labels.of("queries", data.queries);
  const std::string name = plugin_name(data.method);
  row.role = name == "full_cache" ? Role::kCeiling : name == "no_context" ? Role::kFloor : Role::kMethod;
  if (const auto found = data.cells.find("null"); found != data.cells.end()) {
    row.untargeted = summarize(found->second, table, settings);
  }
  for (const Json& target : targets) {
    const auto found = data.cells.find(canonical_json(target));
    if (found != data.cells.end()) {
      row.cells.emplace_back(summarize(found->second, table, settings));
    } else if (row.untargeted) {
      row.cells.emplace_back(std::nullopt);
    } else {  // not one record yet, though other methods have this target
      CellData none;
      none.target = target;
      row.cells.emplace_back(summarize(none, table, settings));
    }
  }
  return row;
}

// Holm over the methods of a target, for difference and equivalence each. A cell without a target is one of its own.
void correct_versus_full(Table& table) {
  const auto& metrics = metrics_of_task(plugin_name(table.task));
  for (size_t metric = 0; metric < metrics.size(); ++metric) {
    for (size_t target = 0; target <= table.targets.size(); ++target) {
      std::vector<VersusFull*> tested, bounded;
      for (Row& row : table.rows) {
        std::optional<CellSummary>& cell = target < table.targets.size() ? row.cells[target] : row.untargeted;
        if (row.role != Role::kMethod || !cell || !cell->metrics[metric].versus_full) continue;
        VersusFull& versus = *cell->metrics[metric].versus_full;
        if (versus.pair.p) tested.push_back(&versus);
        if (versus.p_equivalence) bounded.push_back(&versus);
      }
      std::vector<double> p, p_equivalence;
      for (const VersusFull* versus : tested) p.push_back(*versus->pair.p);
      for (const VersusFull* versus : bounded) p_equivalence.push_back(*versus->p_equivalence);
      p = holm(p);
      p_equivalence = holm(p_equivalence);
      for (size_t i = 0; i < tested.size(); ++i) tested[i]->p_holm = p[i];
      for (size_t i = 0; i < bounded.size(); ++i) bounded[i]->p_equivalence_holm = p_equivalence[i];
    }
  }
}

Table finish(const TableData& data, const Labels& labels, const ComparisonSettings& settings) {
  Table table{data.model,
              data.dataset,
              data.task,
              labels.of("model", data.model),
              labels.of("dataset", data.dataset),
              labels.of("task", data.task),
              {},
              {},
              {},
              {}};
  for (const auto& [document, seed] : data.documents) {
    if (table.documents.empty() || table.documents.back() != document) table.documents.push_back(document);
  }
  for (const auto& [key, target] : data.targets) table.targets.push_back(target);
  std::sort(table.targets.begin(), table.targets.end(), before);
  for (const auto& [key, row] : data.rows) table.rows.push_back(finish_row(row, data, table.targets, labels, settings));
  std::stable_sort(table.rows.begin(), table.rows.end(), [](const Row& a, const Row& b) {
    return std::tuple(a.role, a.method_label, a.queries_label) < std::tuple(b.role, b.method_label, b.queries_label);
  });
  correct_versus_full(table);
  table.comparison = compare_methods(table, settings);
  return table;
}

std::vector<Json> distinct_provenance(const std::vector<Record>& records) {
  std::map<std::string, Json> seen;
  for (const Record& record : records) {
    Json provenance = record.provenance;
    if (!provenance.is_object()) continue;
    provenance.erase("started_at");
    seen.emplace(canonical_json(provenance), provenance);
  }
  std::vector<Json> list;
  for (const auto& [text, provenance] : seen) list.push_back(provenance);
  return list;
}

void count(const TableData& table, const Labels& labels, const ComparisonSettings& settings, Tabulated& result) {
  for (const auto& [key, row] : table.rows) {
    for (const auto& [target, cell] : row.cells) {
      int64_t missing = static_cast<int64_t>(table.documents.size());
      for (const Judged& judged : cell.records) {
        --missing;
        ++(judged.failed ? result.n_failed : result.n_done);
        if (!judged.failed) continue;
        std::string label = fmt::format("{}, {} on {}", labels.of("method", row.method), plugin_name(table.task),
                                        plugin_name(table.dataset));
        if (!cell.target.is_null()) label += " at " + target_text(cell.target);
        result.failures.push_back({judged.record->cell_id, label, judged.record->document_id, judged.error});
      }
      const bool stopped = std::any_of(cell.cell_ids.begin(), cell.cell_ids.end(),
                                       [&](const std::string& id) { return settings.stopped.contains(id); });
      result.n_missing += stopped ? 0 : missing;
      result.n_stopped += stopped ? 1 : 0;
    }
    if (row.cells.count("null") > 0) continue;
    for (const auto& [target, value] : table.targets) {
      if (row.cells.count(target) == 0) result.n_missing += static_cast<int64_t>(table.documents.size());
    }
  }
}

// All cells of a task share a document's reference answers; what one run made, a later one finds.
void count_references(const TableData& table, Tabulated& result) {
  std::map<std::pair<std::string, std::string>, std::pair<int64_t, int64_t>> made;  // all and kept, by document, seed
  for (const auto& [key, row] : table.rows) {
    for (const auto& [target, cell] : row.cells) {
      for (const Judged& judged : cell.records) {
        const Json notes = judged.record->task_notes.value("references", Json());
        const auto kept = number(notes, "kept"), fresh = number(notes, "made");
        if (!kept || !fresh) continue;
        const std::pair counts{static_cast<int64_t>(*kept + *fresh), static_cast<int64_t>(*kept)};
        const auto [place, is_new] = made.try_emplace({judged.record->document_id, seed_of(*judged.record)}, counts);
        if (!is_new) place->second.second = std::min(place->second.second, counts.second);
      }
    }
  }
  for (const auto& [document, counts] : made) {
    result.n_references += counts.first;
    result.n_references_kept += counts.second;
  }
}

// Questions of the documents which the task did not ask, e.g. those whose options name other options.
void warn_of_questions_left_out(const TableData& table, Tabulated& result) {
  std::map<std::pair<std::string, std::string>, Json> counts;  // by document, seed
  for (const auto& [key, row] : table.rows) {
    for (const auto& [target, cell] : row.cells) {
      for (const Judged& judged : cell.records) {
        const Json found = judged.record->task_notes.value("questions", Json());
        if (found.is_object()) counts[{judged.record->document_id, seed_of(*judged.record)}] = found;
      }
    }
  }
  int64_t asked = 0, all = 0;
  for (const auto& [document, found] : counts) {
    asked += static_cast<int64_t>(number(found, "asked").value_or(0));
    all += static_cast<int64_t>(number(found, "in_document").value_or(0));
  }
  if (all == asked) return;
  result.warnings.push_back(
      fmt::format("{} on {}: {} of {} questions in {} were left out: the task cannot ask them", plugin_name(table.task),
                  plugin_name(table.dataset), all - asked, all,
                  counts.size() == 1 ? "one document" : fmt::format("{} documents", counts.size())));
}

// Questions that the model wrote itself have no right answer that somebody vouches for.
void tell_written_questions(const TableData& table, const Table& shown, Tabulated& result) {
  std::set<std::pair<std::string, std::string>> written, all;
  for (const auto& [key, row] : table.rows) {
    for (const auto& [target, cell] : row.cells) {
      for (const Judged& judged : cell.records) {
        for (const Json& answer : judged.record->answers) {
          if (!answer.is_object()) continue;
          const std::pair id{judged.record->document_id,
                             answer.value("question_id", Json()).dump(-1, ' ', false, Json::error_handler_t::replace)};
          all.insert(id);
          const Json extra = answer.value("extra", Json());
          if (extra.is_object() && extra.value("written_by", Json()) == Json("model")) written.insert(id);
        }
      }
    }
  }
  if (written.empty()) return;
  result.warnings.push_back(
      fmt::format("{}, {}: {} of {} questions were written by the model itself. They show how far a compact cache "
                  "moves it from its "
                  "own answers with the full cache; whether these are right is not judged.",
                  shown.dataset_label, shown.task_label, written.size(), all.size()));
}

}  // namespace

std::vector<const CellSummary*> Row::measured() const {
  std::vector<const CellSummary*> list;
  if (untargeted) list.push_back(&*untargeted);
  for (const auto& cell : cells) {
    if (cell) list.push_back(&*cell);
  }
  return list;
}

std::string target_text(const Json& target) {
  if (target.is_null()) return "";
  return target.is_string() ? target.get<std::string>() : target.dump();
}

Tabulated tabulate(std::vector<Record> records, const Json& defaults, const ComparisonSettings& settings) {
  // How heads share a target is part of what a row stands for; the rule counts as one more option of its method.
  for (Record& record : records) {
    if (record.cell.contains("budget") && record.cell.contains("method") && record.cell.at("method").is_object()) {
      record.cell["method"]["budget"] = record.cell.at("budget");
    }
  }
  std::stable_sort(records.begin(), records.end(), [](const Record& a, const Record& b) {
    return std::tie(a.cell_id, a.document_id) < std::tie(b.cell_id, b.document_id);
  });
  Tabulated result;
  const Labels labels(records, defaults);
  std::map<std::tuple<std::string, std::string, std::string>, TableData> tables;
  for (const Record& record : records) {
    const Json model = part(record, "model"), dataset = part(record, "dataset"), task = part(record, "task");
    TableData& table = tables[{canonical_json(model), canonical_json(dataset), canonical_json(task)}];
    table.model = model;
    table.dataset = dataset;
    table.task = task;
    add(table, record);
  }
  for (auto& [key, table] : tables) {
    average_over_seeds(table);
    if (metrics_of_task(plugin_name(table.task)).empty()) {
      result.warnings.push_back(
          fmt::format("task '{}' has no metric in this program: sizes and seconds only", plugin_name(table.task)));
    }
    result.tables.push_back(finish(table, labels, settings));
    const std::vector<std::string>& warnings = result.tables.back().comparison.warnings;
    result.warnings.insert(result.warnings.end(), warnings.begin(), warnings.end());
    count(table, labels, settings, result);
    count_references(table, result);
    warn_of_questions_left_out(table, result);
    tell_written_questions(table, result.tables.back(), result);
  }
  result.stages = stage_costs(records, labels);
  result.provenance = distinct_provenance(records);
  result.n_records = static_cast<int64_t>(records.size());
  return result;
}

}  // namespace kvc
