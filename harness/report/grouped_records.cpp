#include "harness/report/grouped_records.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include "harness/core/parallel.h"
#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

// Documents whose right answers depend on the seed (needles): a question of one has several.
class RightAnswers {
 public:
  void add(const Record& record) {
    auto& known = texts_[record.document_id];
    for (const Json& answer : record.answers) {
      const std::string* const right = text_in(answer, "gold_answer");
      const std::string* const id = right == nullptr ? nullptr : text_in(answer, "question_id");
      if (id == nullptr) continue;
      const auto [place, is_new] = known.try_emplace(*id, right);
      if (!is_new && *place->second != *right) several_.insert(record.document_id);
    }
  }
  const std::set<std::string>& documents() const { return several_; }

 private:
  static const std::string* text_in(const Json& answer, const char* name) {
    if (!answer.is_object()) return nullptr;
    const auto found = answer.find(name);
    return found != answer.end() && found->is_string() ? &found->get_ref<const std::string&>() : nullptr;
  }

  std::unordered_map<std::string_view, std::unordered_map<std::string_view, const std::string*>> texts_;
  std::set<std::string> several_;
};

struct Growing {
  TableRecords table;
  RightAnswers right_answers;
};

// Where the records of a cell go; the next record mostly has the same cell.
struct CellPlace {
  const Record* like = nullptr;
  Growing* growing = nullptr;
  RowRecords* row = nullptr;
  CellRecords* cell = nullptr;
  std::string seed;
};

using Tables = std::map<std::tuple<std::string, std::string, std::string>, Growing>;

CellPlace place_of(const Record& record, Tables& tables) {
  const Json model = cell_part(record, "model"), dataset = cell_part(record, "dataset"),
             task = cell_part(record, "task");
  Growing& growing = tables[{canonical_json(model), canonical_json(dataset), canonical_json(task)}];
  growing.table.model = model;
  growing.table.dataset = dataset;
  growing.table.task = task;
  const Json method = cell_part(record, "method"), queries = cell_part(record, "queries");
  RowRecords& row = growing.table.rows[canonical_json(Json{method, queries})];
  row.method = method;
  row.queries = queries;
  const Json target = cell_part(record, "target");
  const std::string target_key = canonical_json(target);
  CellRecords& cell = row.cells[target_key];
  cell.target = target;
  if (!target.is_null()) growing.table.targets[target_key] = target;
  return {&record, &growing, &row, &cell, seed_text(record)};
}

// A record with the values of its answers, or why it has none.
struct Judgement {
  JudgedRecord judged;
  std::vector<QuestionValues> values;
};

Judgement judge(const Record& record) {
  Judgement result{{&record, record.status != "done", record.error}, {}};
  if (result.judged.failed) return result;
  try {
    result.values = question_values(record);
  } catch (const Error& e) {  // one record that cannot be read must not cost the others their report
    result.judged.failed = true;
    result.judged.error = e.what();
  }
  return result;
}

void add(const Record& record, const CellPlace& place, Judgement&& judgement) {
  CellRecords& cell = *place.cell;
  cell.cell_ids.insert(record.cell_id);
  place.row->question_aware =
      place.row->question_aware || (record.notes.is_object() && record.notes.contains("question_aware"));
  place.growing->table.documents.insert({record.document_id, place.seed});
  place.growing->right_answers.add(record);
  cell.records.push_back(std::move(judgement.judged));
  const std::optional<double> tokens = number_in(record.sizes, "context_tokens");
  for (QuestionValues& one : judgement.values) {
    cell.answers.push_back({record.document_id, place.seed, std::move(one.question_id), std::move(one.values),
                            one.depth_fraction, tokens, one.gold});
  }
}

bool by_key(const ScoredQuestion& a, const ScoredQuestion& b) {
  return a.key() < b.key();
}

// By document, seed, question; of two answers to one question the later counts.
void sort_answers(std::vector<ScoredQuestion>& answers) {
  if (!std::is_sorted(answers.begin(), answers.end(), by_key)) std::stable_sort(answers.begin(), answers.end(), by_key);
  size_t kept = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (i + 1 < answers.size() && answers[i].key() == answers[i + 1].key()) continue;
    if (kept != i) answers[kept] = std::move(answers[i]);
    ++kept;
  }
  answers.erase(answers.begin() + static_cast<std::ptrdiff_t>(kept), answers.end());
}

// Mean over the answers under all seeds. Equal values stay what they are to the last bit.
std::vector<double> mean_of(const std::vector<const ScoredQuestion*>& answers) {
  std::vector<double> mean = answers.front()->values;
  for (size_t metric = 0; metric < mean.size(); ++metric) {
    double first = std::nan(""), above = 0, count = 0;
    for (const ScoredQuestion* answer : answers) {
      const double value = answer->values[metric];
      if (std::isnan(value)) continue;
      if (count == 0) first = value;
      above += value - first;
      count += 1;
    }
    mean[metric] = count == 0 ? first : first + above / count;
  }
  return mean;
}

// Answers of one question under several seeds are one value: asking again makes no new question.
std::vector<ScoredQuestion> averaged(const std::vector<ScoredQuestion>& answers, const std::set<std::string>& of_seed) {
  std::vector<ScoredQuestion> questions;
  std::vector<std::pair<std::pair<std::string, std::string>, const ScoredQuestion*>> order;  // document, question
  order.reserve(answers.size());
  for (const ScoredQuestion& answer : answers) {
    const bool own = of_seed.count(answer.document) > 0;
    order.push_back({{own ? document_under(answer.document, answer.seed) : answer.document, answer.question}, &answer});
  }
  const auto before = [](const auto& a, const auto& b) { return a.first < b.first; };
  if (!std::is_sorted(order.begin(), order.end(), before)) std::stable_sort(order.begin(), order.end(), before);
  std::vector<const ScoredQuestion*> group;
  for (size_t i = 0; i < order.size(); ++i) {
    group.push_back(order[i].second);
    if (i + 1 < order.size() && order[i + 1].first == order[i].first) continue;
    questions.push_back({std::move(order[i].first.first), "", std::move(order[i].first.second), mean_of(group),
                         group.front()->depth_fraction, group.back()->context_tokens});
    group.clear();
  }
  return questions;
}

}  // namespace

Json cell_part(const Record& record, const char* name) {
  return record.cell.contains(name) ? record.cell.at(name) : Json(nullptr);
}

std::string seed_text(const Record& record) {
  return cell_part(record, "seed").dump();
}

std::optional<double> number_in(const Json& object, const char* name) {
  if (!object.is_object()) return std::nullopt;
  const auto found = object.find(name);
  return found != object.end() && found->is_number() ? std::optional(found->get<double>()) : std::nullopt;
}

std::string document_under(const std::string& document, const std::string& seed) {
  return fmt::format("{} (seed {})", document, seed);
}

std::vector<TableRecords> group_records(const std::vector<Record>& records) {
  Tables tables;
  std::vector<Judgement> judgements(records.size());
  parallel_for(records.size(), [&](size_t i) { judgements[i] = judge(records[i]); });
  CellPlace place;
  for (size_t i = 0; i < records.size(); ++i) {
    if (place.like == nullptr || place.like->cell != records[i].cell) place = place_of(records[i], tables);
    add(records[i], place, std::move(judgements[i]));
  }
  std::vector<TableRecords> list;
  for (auto& [key, growing] : tables) {
    growing.table.of_seed = growing.right_answers.documents();
    for (auto& [row_key, row] : growing.table.rows) {
      for (auto& [target, cell] : row.cells) {
        sort_answers(cell.answers);
        cell.questions = averaged(cell.answers, growing.table.of_seed);
      }
    }
    list.push_back(std::move(growing.table));
  }
  return list;
}

}  // namespace kvc
