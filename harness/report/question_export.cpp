#include "harness/report/question_export.h"

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "harness/report/csv_line.h"

namespace kvc {
namespace {

struct ExportedQuestion {
  const Table& table;
  const Row& row;
  const CellSummary& cell;
  const ScoredQuestion& question;
  const AnswerTexts::Answer* answer;  // null where the record has no such answer
};

void for_questions(const LoadedReport& loaded, const std::function<void(const ExportedQuestion&)>& visit) {
  const auto cell_questions = [&](const Table& table, const Row& row, const CellSummary& cell) {
    std::map<std::string, std::string> by_seed;
    for (const std::string& id : cell.cell_ids) by_seed[loaded.texts.seed_of(id)] = id;
    for (const ScoredQuestion& question : cell.answers) {
      const auto id = by_seed.find(question.seed);
      const auto* const answer =
          id == by_seed.end() ? nullptr : loaded.texts.find(id->second, question.document, question.question);
      visit({table, row, cell, question, answer});
    }
  };
  for (const Table& table : loaded.tabulated.tables) {
    for (const Row& row : table.rows) {
      if (row.untargeted) cell_questions(table, row, *row.untargeted);
      for (const auto& cell : row.cells) {
        if (cell) cell_questions(table, row, *cell);
      }
    }
  }
}

std::string text_of(const AnswerTexts& texts, const AnswerTexts::Answer* answer,
                    std::int32_t AnswerTexts::Answer::*field) {
  return answer == nullptr || answer->*field < 0 ? "" : texts.text(answer->*field);
}

std::vector<std::string> all_metrics(const Tabulated& tabulated) {
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (const Table& table : tabulated.tables) {
    for (const MetricInfo& metric : metrics_of_task(table.task.is_object() ? table.task.value("name", "") : "")) {
      if (seen.insert(metric.name).second) names.push_back(metric.name);
    }
  }
  return names;
}

std::optional<double> value_of(const ExportedQuestion& one, const std::string& metric) {
  for (size_t i = 0; i < one.question.values.size() && i < one.cell.metrics.size(); ++i) {
    if (one.cell.metrics[i].info.name == metric && !std::isnan(one.question.values[i])) return one.question.values[i];
  }
  return std::nullopt;
}

}  // namespace

std::string questions_csv(const LoadedReport& loaded) {
  const std::vector<std::string> metrics = all_metrics(loaded.tabulated);
  CsvLine header;
  for (const char* name :
       {"model", "dataset", "task", "method", "queries", "target", "seed", "document_id", "question_id",
        "kept_fraction", "compaction_ratio", "bytes_after", "depth_fraction", "prompt", "gold", "answer"})
    header.add(std::string(name));
  for (const std::string& name : metrics) header.add(name);
  std::string csv = header.text();
  for_questions(loaded, [&](const ExportedQuestion& one) {
    CsvLine line;
    line.add(one.table.model_label).add(one.table.dataset_label).add(one.table.task_label).add(one.row.method_label);
    line.add(one.row.queries_label).add(target_text(one.cell.target)).add(one.question.seed);
    line.add(one.question.document).add(one.question.question);
    line.add(one.cell.sizes.kept_fraction).add(one.cell.sizes.compaction_ratio).add(one.cell.sizes.bytes_after);
    line.add(one.question.depth_fraction).add(text_of(loaded.texts, one.answer, &AnswerTexts::Answer::prompt));
    line.add(text_of(loaded.texts, one.answer, &AnswerTexts::Answer::gold));
    line.add(text_of(loaded.texts, one.answer, &AnswerTexts::Answer::said));
    for (const std::string& name : metrics) line.add(value_of(one, name));
    csv += line.text();
  });
  return csv;
}

std::string questions_jsonl(const LoadedReport& loaded) {
  std::string lines;
  for_questions(loaded, [&](const ExportedQuestion& one) {
    Json line = Json{{"model", one.table.model_label},       {"dataset", one.table.dataset_label},
                     {"task", one.table.task_label},         {"method", one.row.method_label},
                     {"queries", one.row.queries_label},     {"target", one.cell.target},
                     {"document_id", one.question.document}, {"question_id", one.question.question}};
    const auto seed = Json::parse(one.question.seed, nullptr, false);
    if (!seed.is_discarded()) line["seed"] = seed;
    const auto number = [&](const char* name, const std::optional<double>& value) {
      if (value) line[name] = *value;
    };
    number("kept_fraction", one.cell.sizes.kept_fraction);
    number("compaction_ratio", one.cell.sizes.compaction_ratio);
    number("bytes_after", one.cell.sizes.bytes_after);
    number("depth_fraction", one.question.depth_fraction);
    const auto text = [&](const char* name, std::int32_t AnswerTexts::Answer::*field) {
      if (one.answer != nullptr && one.answer->*field >= 0) line[name] = loaded.texts.text(one.answer->*field);
    };
    text("prompt", &AnswerTexts::Answer::prompt);
    text("gold", &AnswerTexts::Answer::gold);
    text("answer", &AnswerTexts::Answer::said);
    Json values = Json::object();
    for (size_t i = 0; i < one.question.values.size() && i < one.cell.metrics.size(); ++i) {
      if (!std::isnan(one.question.values[i])) values[one.cell.metrics[i].info.name] = one.question.values[i];
    }
    line["values"] = values;
    lines += line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  });
  return lines;
}

}  // namespace kvc
