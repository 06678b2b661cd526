#include "harness/report/html_report.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <unordered_map>

#include "harness/core/config_text.h"
#include "harness/report/cause_table.h"
#include "harness/report/compact_json.h"
#include "harness/report/html_assets.h"
#include "harness/report/report.h"
#include "harness/report/series_style.h"
#include "harness/report/svg.h"

namespace kvc {
namespace {

constexpr size_t kShortPrompt = 160;  // bytes of a question in the list; its whole text is among the packed answers

// Cells of a row in the order of report.json: the one without target first.
std::string shortened(const std::string& text) {
  if (text.size() <= kShortPrompt) return text;
  size_t end = kShortPrompt;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80) --end;
  return text.substr(0, end) + "…";
}

// The questions of a table, each once, and where each cell's answer to it is.
class Questions {
 public:
  Questions(const Table& table, const AnswerTexts& texts, size_t index) : table_(table), texts_(texts), index_(index) {
    std::set<std::string> seeds;
    for (const Row& row : table.rows) {
      for (const CellSummary* cell : row.measured()) {
        add_questions(cell->answers);
        for (const ScoredQuestion& question : cell->answers) {
          if (seeds.empty() || *seeds.begin() != question.seed) seeds.insert(question.seed);
        }
      }
    }
    several_seeds_ = seeds.size() > 1;
    for (size_t i = 0; i < list_.size(); ++i) {
      if (documents_.empty() || documents_.back() != list_[i]->document) {
        documents_.push_back(list_[i]->document);
        first_.push_back(i);
      }
      document_of_.push_back(documents_.size() - 1);
    }
    first_.push_back(list_.size());
    for (const Row& row : table.rows) {
      for (const CellSummary* cell : row.measured()) place_answers(*cell);
    }
  }

  bool empty() const { return list_.empty(); }

  // What stands in the page itself.
  void append_json(std::string& text) const {
    text += "{\"documents\":";
    append_compact_json(Json(documents_), text);
    const auto list = [&](const char* name, const auto& write) {
      text += fmt::format(",\"{}\":[", name);
      for (size_t i = 0; i < list_.size(); ++i) {
        if (i > 0) text += ',';
        write(i);
      }
      text += ']';
    };
    const auto optional = [&](const std::optional<double>& value) {
      append_compact_json(value ? Json(*value) : Json(nullptr), text);
    };
    list("doc", [&](size_t i) { text += std::to_string(document_of_[i]); });
    list("id", [&](size_t i) { append_compact_string(list_[i]->question, text); });
    if (several_seeds_) list("seed", [&](size_t i) { append_compact_string(list_[i]->seed, text); });
    const auto short_text = [&](std::int32_t AnswerTexts::Answer::*field) {
      return [this, field, &text](size_t i) {
        const AnswerTexts::Answer* const answer = any_[i];
        const bool there = answer != nullptr && answer->*field >= 0;
        append_compact_string(there ? shortened(texts_.text(answer->*field)) : "", text);
      };
    };
    list("prompt", short_text(&AnswerTexts::Answer::prompt));
    list("gold", short_text(&AnswerTexts::Answer::gold));
    const auto deep = [](const ScoredQuestion* question) { return question->depth_fraction.has_value(); };
    if (std::any_of(list_.begin(), list_.end(), deep)) {
      list("depth", [&](size_t i) { optional(list_[i]->depth_fraction); });
      list("tokens", [&](size_t i) { optional(list_[i]->context_tokens); });
    }
    text += ",\"values\":[";
    for (size_t r = 0; r < table_.rows.size(); ++r) {
      text += r == 0 ? "[" : ",[";
      const auto cells = table_.rows[r].measured();
      for (size_t c = 0; c < cells.size(); ++c) {
        if (c > 0) text += ',';
        append_values(*cells[c], text);
      }
      text += ']';
    }
    text += "]}";
  }

  // {"ROW.CELL": {QUESTION: what is shown of its explanation}}, questions by their place in the lists.
  Json explained(const std::vector<Explanation>& explanations) const {
    Json all = Json::object();
    for (size_t r = 0; r < table_.rows.size(); ++r) {
      const auto cells = table_.rows[r].measured();
      for (size_t c = 0; c < cells.size(); ++c) {
        for (const Explanation* one : explanations_of(*cells[c], explanations)) {
          ScoredQuestion question{one->document_id, texts_.seed_of(one->cell_id), one->question_id, {}, {}, {}};
          const auto place = std::lower_bound(list_.begin(), list_.end(), &question, before);
          if (place == list_.end() || (*place)->key() != question.key()) continue;
          Json shown = one->to_json();
          for (const char* name : {"version", "cell_id", "document_id", "question_id", "answers", "seconds", "asks"})
            shown.erase(name);
          all[fmt::format("{}.{}", r, c)][std::to_string(place - list_.begin())] = std::move(shown);
        }
      }
    }
    return all;
  }

  // One script element a document, in the order of documents.
  void append_blocks(std::string& text) const {
    for (size_t d = 0; d < documents_.size(); ++d) {
      text += fmt::format("<script type=\"text/plain\" id=\"block-{}-{}\">", index_, d);
      text += packed_base64(block(d));
      text += "</script>\n";
    }
  }

 private:
  static bool before(const ScoredQuestion* a, const ScoredQuestion* b) { return a->key() < b->key(); }

  // `answers` are sorted; mostly all of their questions are known.
  void add_questions(const std::vector<ScoredQuestion>& answers) {
    std::vector<const ScoredQuestion*> own, all;
    own.reserve(answers.size());
    for (const ScoredQuestion& answer : answers) own.push_back(&answer);
    if (std::includes(list_.begin(), list_.end(), own.begin(), own.end(), before)) return;
    std::set_union(list_.begin(), list_.end(), own.begin(), own.end(), std::back_inserter(all), before);
    list_ = std::move(all);
  }

  void place_answers(const CellSummary& cell) {
    std::map<std::string, std::string> by_seed;
    for (const std::string& id : cell.cell_ids) by_seed[texts_.seed_of(id)] = id;
    any_.resize(list_.size(), nullptr);
    std::vector<const AnswerTexts::Answer*> answers(list_.size(), nullptr);
    std::vector<double> values(list_.size(), NAN);
    size_t place = 0;
    for (const ScoredQuestion& question : cell.answers) {
      while (list_[place]->key() < question.key()) ++place;
      values[place] = question.values.empty() ? NAN : question.values.front();
      const auto id = by_seed.find(question.seed);
      if (id == by_seed.end()) continue;
      answers[place] = texts_.find(id->second, question.document, question.question);
      if (any_[place] == nullptr || any_[place]->prompt < 0) any_[place] = answers[place];
    }
    answers_.push_back(std::move(answers));
    values_[&cell] = std::move(values);
  }

  // A text of 0, 1 and - where that says it all, else a list of numbers.
  void append_values(const CellSummary& cell, std::string& text) const {
    const std::vector<double>& values = values_.at(&cell);
    if (cell.answers.empty()) {
      text += "null";
      return;
    }
    const bool binary =
        std::all_of(values.begin(), values.end(), [](double v) { return std::isnan(v) || v == 0 || v == 1; });
    if (binary) {
      text += '"';
      for (const double value : values) text += std::isnan(value) ? '-' : value == 0 ? '0' : '1';
      text += '"';
      return;
    }
    text += '[';
    for (size_t i = 0; i < values.size(); ++i) {
      if (i > 0) text += ',';
      if (std::isfinite(values[i])) {
        fmt::format_to(std::back_inserter(text), "{:.4g}", values[i]);
      } else {
        text += "null";
      }
    }
    text += ']';
  }

  // {texts, questions: [[prompt, rendered, reference, gold]], answers: {"ROW.CELL": [[said, details]|null]}} with
  // numbers of texts.
  std::string block(size_t document) const {
    std::unordered_map<std::int32_t, size_t> own;
    std::vector<std::int32_t> used;
    const auto number = [&](std::int32_t text) {
      if (text < 0) return std::string("-1");
      const auto [place, is_new] = own.emplace(text, used.size());
      if (is_new) used.push_back(text);
      return std::to_string(place->second);
    };
    std::string questions, answers;
    for (size_t i = first_[document]; i < first_[document + 1]; ++i) {
      const AnswerTexts::Answer none;
      const AnswerTexts::Answer& any = any_[i] == nullptr ? none : *any_[i];
      questions += fmt::format("{}[{},{},{},{}]", questions.empty() ? "" : ",", number(any.prompt),
                               number(any.rendered), number(any.reference), number(any.gold));
    }
    size_t ordinal = 0;
    for (size_t r = 0; r < table_.rows.size(); ++r) {
      const size_t n_cells = table_.rows[r].measured().size();
      for (size_t c = 0; c < n_cells; ++c, ++ordinal) {
        answers += fmt::format("{}\"{}.{}\":[", answers.empty() ? "" : ",", r, c);
        for (size_t i = first_[document]; i < first_[document + 1]; ++i) {
          if (i > first_[document]) answers += ',';
          const AnswerTexts::Answer* const answer = answers_[ordinal][i];
          answers += answer == nullptr ? "null" : fmt::format("[{},{}]", number(answer->said), number(answer->details));
        }
        answers += ']';
      }
    }
    std::string json = "{\"texts\":[";
    for (size_t i = 0; i < used.size(); ++i) {
      if (i > 0) json += ',';
      append_compact_string(texts_.text(used[i]), json);
    }
    return json + "],\"questions\":[" + questions + "],\"answers\":{" + answers + "}}";
  }

  const Table& table_;
  const AnswerTexts& texts_;
  size_t index_;
  bool several_seeds_ = false;
  std::vector<const ScoredQuestion*> list_;  // sorted
  std::vector<std::string> documents_;
  std::vector<size_t> document_of_, first_;  // by question; of each document, and the end
  std::vector<const AnswerTexts::Answer*> any_;
  std::vector<std::vector<const AnswerTexts::Answer*>> answers_;  // by cell in order, then question
  std::unordered_map<const CellSummary*, std::vector<double>> values_;
};

Json or_null(const Json& object, const char* name) {
  return object.is_object() && object.contains(name) ? object.at(name) : Json(nullptr);
}

// Pairs are many: names once, then a row of values each, the difference's interval among them.
Json pair_columns(const Json& pairs) {
  constexpr const char* kPlain[] = {"first",  "second", "target",     "wins",          "losses", "ties",     "p",
                                    "p_holm", "better", "detectable", "p_equivalence", "p_bh",   "better_bh"};
  Json columns = Json::array();
  for (const char* name : kPlain) columns.push_back(name);
  for (const char* name : {"difference", "low", "high"}) columns.push_back(name);
  Json rows = Json::array();
  for (const Json& pair : pairs) {
    Json row = Json::array();
    for (const char* name : kPlain) row.push_back(or_null(pair, name));
    const Json& difference = pair.at("difference");
    const bool few = difference.at("n_documents").get<int64_t>() < kFewDocuments;
    const Json& by_question = difference.at("interval_by_question");
    const Json& interval = few && by_question.is_object() ? by_question : difference.at("interval");
    row.push_back(difference.at("mean"));
    row.push_back(or_null(interval, "low"));
    row.push_back(or_null(interval, "high"));
    rows.push_back(std::move(row));
  }
  return Json{{"columns", columns}, {"rows", rows}};
}

// What a page needs not: it would be most of its size.
void lighten(Json& table) {
  if (table.at("comparison").is_object()) {
    table["comparison"]["pairs"] = pair_columns(table["comparison"]["pairs"]);
    table["comparison"].erase("areas");
  }
  for (Json& row : table["rows"]) {
    for (Json& cell : row["cells"]) {
      for (auto& [name, metric] : cell["metrics"].items()) metric.erase("interval_bootstrap");
    }
  }
  table.erase("documents");
}

std::string data_json(const Tabulated& tabulated, const std::vector<Questions>& questions, const HtmlExtras& extras) {
  Json data = report_json(tabulated);
  data["name"] = extras.name;
  data["counts"] = extras.counts;
  data["summary"] = extras.summary;
  data["self_proof"] = extras.self_proof;
  data["config"] = extras.config;
  data["styles"] = Json::object();
  for (const auto& [label, style] : series_styles(tabulated))
    data["styles"][label] = Json{{"colour", style.colour}, {"marker", style.marker}};
  Json tables = std::move(data["tables"]);
  data.erase("tables");
  std::string text;
  append_compact_json(data, text);
  text.pop_back();  // the closing brace
  text += ",\"tables\":[";
  for (size_t i = 0; i < tables.size(); ++i) {
    lighten(tables[i]);
    if (const TextTable causes = cause_table(tabulated.tables[i], extras.explanations); !causes.rows.empty()) {
      tables[i]["causes"] = Json{{"header", causes.header}, {"rows", causes.rows}};
      tables[i]["explained"] = questions[i].explained(extras.explanations);
    }
    if (i > 0) text += ',';
    append_compact_json(tables[i], text);
    if (questions[i].empty()) continue;
    text.pop_back();
    text += ",\"questions\":";
    questions[i].append_json(text);
    text += '}';
  }
  return text + "]}";
}

}  // namespace

std::string packed_base64(std::string_view bytes) {
  uLongf length = compressBound(bytes.size());
  std::string packed(length, '\0');
  const int status = compress2(reinterpret_cast<Bytef*>(packed.data()), &length,
                               reinterpret_cast<const Bytef*>(bytes.data()), bytes.size(), 3);
  if (status != Z_OK)
    throw Error(ErrorKind::kInternal, "zlib cannot pack the answers", fmt::format("status {}", status), "");
  packed.resize(length);
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((packed.size() + 2) / 3 * 4);
  for (size_t i = 0; i < packed.size(); i += 3) {
    const size_t n = std::min<size_t>(3, packed.size() - i);
    std::uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) group = group << 8U | (k < n ? static_cast<unsigned char>(packed[i + k]) : 0U);
    for (size_t k = 0; k < 4; ++k) text += k <= n ? kDigits[group >> (18 - 6 * k) & 63U] : '=';
  }
  return text;
}

std::string render_html(const Tabulated& tabulated, const AnswerTexts& texts, const HtmlExtras& extras) {
  std::vector<Questions> questions;
  questions.reserve(tabulated.tables.size());
  for (size_t i = 0; i < tabulated.tables.size(); ++i) questions.emplace_back(tabulated.tables[i], texts, i);
  std::string page;
  const std::string_view form = kHtmlPage;
  const auto fill = [&](std::string_view name) {
    if (name == "TITLE") page += svg_escaped(extras.name);
    if (name == "CSS") page += kHtmlStyle;
    if (name == "JS") page += kHtmlScript;
    if (name == "DATA") page += data_json(tabulated, questions, extras);
    if (name != "BLOCKS") return;
    for (const Questions& one : questions) one.append_blocks(page);
  };
  for (size_t at = 0; at < form.size();) {
    const size_t begin = form.find('@', at);
    const size_t end = begin == std::string_view::npos ? begin : form.find('@', begin + 1);
    page += form.substr(at, begin - at);
    if (end == std::string_view::npos) {
      if (begin != std::string_view::npos) page += form.substr(begin);
      break;
    }
    fill(form.substr(begin + 1, end - begin - 1));
    at = end + 1;
  }
  return page;
}

}  // namespace kvc
