#include "harness/cli/import_am.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <set>

#include "harness/api/dataset.h"
#include "harness/core/count.h"
#include "harness/core/stable_hash.h"
#include "harness/core/text_file.h"
#include "harness/sweep/cell.h"
#include "harness/tasks/judging/paper_choice.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

constexpr const char* kImplementation = "the reference implementation of arXiv:2602.16284";

Json member_of(const Json& object, const char* name) {
  return object.is_object() && object.contains(name) ? object.at(name) : Json();
}
std::string text_of(const Json& object, const char* name) {
  const Json value = member_of(object, name);
  return value.is_string() ? value.get<std::string>() : "";
}
std::string behind_slash(const std::string& text) {
  const size_t slash = text.find_last_of('/');
  return slash == std::string::npos ? text : text.substr(slash + 1);
}

// "quality_20002" is our 20002; "longhealth_group_00_patients_01-05" our patient_01_to_patient_05.
std::string document_id_of(const std::string& article) {
  if (article.starts_with("quality_")) return article.substr(8);
  const size_t at = article.find("patients_");
  if (at == std::string::npos) return article;
  const std::string range = article.substr(at + 9);
  const size_t dash = range.find('-');
  return dash == std::string::npos
             ? "patient_" + range
             : fmt::format("patient_{}_to_patient_{}", range.substr(0, dash), range.substr(dash + 1));
}

// quality, longhealth5 and the like by the names of our data sets.
std::string dataset_name_of(const std::string& name) {
  for (const char* ours : {"quality", "longhealth"}) {
    if (name.starts_with(ours)) return ours;
  }
  return name;
}

// The same method run again on a document is another seed: the first that `taken`, of cell ids and documents, leaves.
void set_free_seed(Record& record, std::set<std::string>& taken) {
  for (std::uint64_t seed = 0; seed == 0 || !taken.insert(record.cell_id + "/" + record.document_id).second; ++seed) {
    record.cell["seed"] = seed;
    record.cell_id = stable_hash(canonical_json(record.cell));
  }
}

class Importer {
 public:
  Importer(const std::vector<Json>& known, const ImportSettings& settings) : known_(known), settings_(settings) {}

  Imported run(const std::string& folder) {
    std::error_code error;
    if (!fs::is_directory(folder, error))
      throw Error(ErrorKind::kData, "no such folder", folder, "name the folder of results");
    std::vector<std::string> files;
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.is_regular_file() && entry.path().extension() == ".json") files.push_back(entry.path().string());
    }
    std::sort(files.begin(), files.end());
    if (files.empty()) {
      throw Error(ErrorKind::kData, "the folder has no .json file", folder,
                  "name the folder that run_qa_evaluation wrote, e.g. logs/qa_evaluation/NAME; folders of this program "
                  "are brought together by kvc merge");
    }
    for (const std::string& file : files) read_file(file);
    imported_.files = static_cast<int64_t>(files.size());
    return std::move(imported_);
  }

 private:
  [[noreturn]] static void refuse(const std::string& file, const std::string& fact) {
    throw Error(ErrorKind::kData, fmt::format("not a result of {}: {}", kImplementation, fact), file,
                "it writes {\"config\": {...}, \"results\": [...]} for an evaluation and {\"article_id\": ..., "
                "\"generations\": [...]} for stored answers; move other files away");
  }

  // A count or a time; 0 where the file does not say it.
  static double number_of(const std::string& where, const Json& object, const char* name) {
    const Json value = member_of(object, name);
    if (value.is_null()) return 0;
    constexpr double kMost = 1e12;
    if (!value.is_number() || !(value.get<double>() >= 0 && value.get<double>() <= kMost))
      refuse(where, fmt::format("'{}' must be a number from 0 to 1e12; got {}", name, value.dump()));
    return value.get<double>();
  }
  static int64_t count_of(const std::string& where, const Json& object, const char* name) {
    const double value = number_of(where, object, name);
    if (value != std::floor(value))
      refuse(where, fmt::format("'{}' must be a whole number; got {}", name, member_of(object, name).dump()));
    return static_cast<int64_t>(value);
  }

  // A kept fraction, or a number of entries.
  static Json target_of(const std::string& where, const Json& result) {
    const Json target = member_of(result, "target_size_param");
    const double value = target.is_number() ? target.get<double>() : 0;
    const bool is_count = value >= 1 && value <= 1e9 && value == std::floor(value);
    if (!is_count && !(value > 0 && value < 1)) {
      refuse(where,
             fmt::format("'target_size_param' must be a number between 0 and 1, or a whole number to 1e9; got {}",
                         target.dump()));
    }
    return is_count ? Json(static_cast<int64_t>(value)) : target;
  }

  static void refuse_duplicate(const std::string& where, const std::string& id, std::set<std::string>& ids) {
    if (!ids.insert(id).second) refuse(where, fmt::format("duplicate 'question_id' {}", Json(id).dump()));
  }

  void read_file(const std::string& file) {
    const Json json = Json::parse(read_text_file(file), nullptr, false);
    if (json.is_discarded()) refuse(file, "the file is not valid JSON");
    if (member_of(json, "generations").is_array()) return read_answers(file, json);
    for (const char* name : {"config", "results"}) {
      if (!json.is_object() || !json.contains(name)) refuse(file, fmt::format("'{}' is missing", name));
    }
    if (!json.at("results").is_array()) refuse(file, "'results' must be a list");
    const Json& config = json.at("config");
    for (const char* name : {"model_name", "dataset_name"}) {
      if (text_of(config, name).empty()) refuse(file, fmt::format("'config.{}' is missing", name));
    }
    for (size_t i = 0; i < json.at("results").size(); ++i) {
      read_result(fmt::format("{}, results[{}]", file, i), json, json.at("results")[i]);
    }
  }

  // --- one method on one article ---

  void read_result(const std::string& where, const Json& run, const Json& result) {
    const std::string article = text_of(result, "article_id"), method = text_of(result, "method");
    if (article.empty()) refuse(where, "'article_id' is missing");
    if (method.empty()) refuse(where, "'method' is missing");
    const Json& qa = member_of(result, "qa_results");
    const Json questions = member_of(qa, "results_per_question");
    if (!questions.is_array()) refuse(where, "'qa_results.results_per_question' is missing");
    if (questions.empty()) {
      imported_.warnings.push_back(where + ": no answers (perplexity only); left out");
      return;
    }
    const Json& config = run.at("config");
    Json cell = cell_of(text_of(config, "model_name"), dataset_name_of(text_of(config, "dataset_name")), article);
    set_method(method, run, cell);
    const bool takes_target = cell["method"].value("name", "") != "no_context" && method != "original";
    if (takes_target) {
      cell["target"] = target_of(where, result);
      cell["queries"] = queries_of(config);
    }
    Record record = record_of(cell, document_id_of(article), where);
    set_sizes(where, result, record);
    record.seconds = {{"prefill_s", number_of(where, result, "extraction_time")},
                      {"queries_s", number_of(where, result, "query_generation_time")},
                      {"compaction_shared_s", 0.0},
                      {"compaction_s", number_of(where, result, "compaction_time")},
                      {"ask_s", number_of(where, qa, "total_generation_time")}};
    std::set<std::string> ids;
    for (size_t q = 0; q < questions.size(); ++q) {
      const std::string place = fmt::format("{}.qa_results.results_per_question[{}]", where, q);
      refuse_duplicate(place, text_of(questions[q], "question_id"), ids);
      add_answer(place, questions[q], record);
    }
    if (!record.answers.empty()) imported_.records.push_back(std::move(record));
  }

  void add_answer(const std::string& where, const Json& question, Record& record) {
    const Json options = member_of(question, "options"), gold = member_of(question, "gold_label"),
               text = member_of(question, "model_answer_text"), id = member_of(question, "question_id");
    if (!id.is_string() || !text.is_string()) refuse(where, "'question_id' or 'model_answer_text' is missing");
    if (!options.is_array() || options.size() < 2 || options.size() > 26 || !gold.is_number_integer()) {
      refuse(where, "'options' and 'gold_label' must be a list of 2 to 26 options and a number");
    }
    const auto n_options = static_cast<int64_t>(options.size());
    if (gold < 1 || gold > n_options)
      refuse(where, fmt::format("'gold_label' must be 1 to {}; got {}", n_options, gold.dump()));
    const auto n_tokens = count_of(where, question, "num_generated_tokens");
    Json answer = {{"question_id", id},
                   {"prompt", text_of(question, "question")},
                   {"text", text},
                   {"stop_reason", n_tokens >= settings_.max_new_tokens ? "length" : "end"},
                   {"n_tokens", n_tokens},
                   {"gold_option", gold.get<int64_t>() - 1},
                   {"n_options", n_options},
                   {"extra", Json::object()},
                   {"reference_choice", member_of(question, "model_choice")}};
    // The reference reads texts of "original" and summaries with five letters, however many options there are.
    const auto choice = paper_choice(text.get<std::string>(), n_options);
    const Json theirs = member_of(question, "is_correct");
    const bool right = choice && *choice == gold.get<int64_t>() - 1;
    ++((theirs == Json(true)) == right ? imported_.judged_alike : imported_.judged_otherwise);
    record.answers.push_back(std::move(answer));
    ++imported_.answers;
  }

  static void set_sizes(const std::string& where, const Json& result, Record& record) {
    const double article = number_of(where, result, "original_article_tokens"),
                 kept = number_of(where, result, "effective_article_tokens"),
                 around = number_of(where, result, "non_article_tokens");
    record.sizes = {{"context_tokens", static_cast<int64_t>(article + around)},
                    {"compactable_tokens", static_cast<int64_t>(article)}};
    if (article > 0) record.sizes["kept_fraction"] = kept / article;
    if (kept > 0) record.sizes["compaction_ratio"] = article / kept;
  }

  // --- stored answers of full contexts ---

  void read_answers(const std::string& file, const Json& json) {
    const std::string article = text_of(json, "article_id"), model = text_of(json, "model_name");
    if (article.empty() || model.empty()) refuse(file, "'article_id' or 'model_name' is missing");
    const std::string dataset = dataset_name_of(article.substr(0, article.find('_')));
    if (settings_.data.empty()) {
      throw Error(ErrorKind::kData, "stored answers do not say which answers are right", file,
                  "give the data set's file: --data quality.jsonl, or LongHealth's benchmark_v5.json");
    }
    if (Registry<Dataset>::instance().find(dataset) == nullptr) refuse(file, fmt::format("no data set '{}'", dataset));
    const std::map<std::string, Question>& right = questions_of(dataset);
    Json cell = cell_of(model, dataset, article);
    set_method("original", json, cell);
    Record record = record_of(cell, document_id_of(article), file);
    int64_t n_unknown = 0;
    std::set<std::string> ids;
    for (const Json& generation : json.at("generations")) {
      const auto found = right.find(text_of(generation, "question_id"));
      const Json text = member_of(generation, "generated_text");
      if (!text.is_string()) refuse(file, "'generated_text' is missing");
      if (found == right.end() || !found->second.gold_option) {
        ++n_unknown;
        continue;
      }
      const Question& question = found->second;
      refuse_duplicate(file, question.id, ids);
      record.answers.push_back({{"question_id", question.id},
                                {"prompt", question.text},
                                {"text", text},
                                {"stop_reason", "end"},
                                {"gold_option", *question.gold_option},
                                {"n_options", question.options.size()},
                                {"extra", question.extra}});
      ++imported_.answers;
    }
    if (n_unknown > 0) {
      imported_.warnings.push_back(fmt::format("{}: {} of {} are not in {}; left out", file, n_unknown,
                                               count(std::ssize(json.at("generations")), "question"), settings_.data));
    }
    if (!record.answers.empty()) imported_.records.push_back(std::move(record));
  }

  const std::map<std::string, Question>& questions_of(const std::string& dataset) {
    auto [place, is_new] = questions_.try_emplace(dataset);
    if (!is_new) return place->second;
    const auto loader = Registry<Dataset>::instance().create(dataset, {{"path", settings_.data}});
    for (const Document& document : loader->load({})) {
      for (const Question& question : document.questions) place->second.emplace(question.id, question);
    }
    return place->second;
  }

  // --- cells ---

  // The known part of this name, or one of the name alone. A model is known by the end of its name: ours may be a file.
  Json part_named(const char* part, const std::string& name) const {
    for (const Json& cell : known_) {
      const Json candidate = member_of(cell, part);
      std::string known = behind_slash(text_of(candidate, "name"));
      if (known.ends_with(".gguf")) known.resize(known.size() - 5);
      if (known == name) return candidate;
    }
    return {{"name", name}};
  }

  // A cell's JSON whose method is still to be set.
  Json cell_of(const std::string& model, const std::string& dataset, const std::string& article) const {
    Json cell = Cell().to_json();
    cell["model"] = part_named("model", behind_slash(model));
    cell["dataset"] = part_named("dataset", dataset);
    // Contexts of five patients and of one are not one data set.
    if (cell["dataset"].size() == 1 && dataset == "longhealth") {
      const size_t at = article.find("patients_");
      const std::string range = at == std::string::npos ? "" : article.substr(at + 9);
      const size_t dash = range.find('-');
      if (dash != std::string::npos) {
        const auto number = [](const std::string& digits) { return std::strtol(digits.c_str(), nullptr, 10); };
        cell["dataset"]["patients_per_context"] = number(range.substr(dash + 1)) - number(range.substr(0, dash)) + 1;
      }
    }
    cell["task"] = part_named("task", "multiple_choice");
    return cell;
  }

  void set_method(const std::string& method, const Json& run, Json& cell) const {
    const bool full = method == "original", none = method == "no_context";
    if (full || none) {
      const char* ours = full ? "full_cache" : "no_context";
      const bool has_own = std::any_of(known_.begin(), known_.end(), [&](const Json& known) {
        return member_of(known, "model") == cell["model"] && member_of(known, "dataset") == cell["dataset"] &&
               text_of(member_of(known, "method"), "name") == ours;
      });
      cell["method"] = {{"name", has_own ? "reference_" + method : std::string(ours)}};
      return;
    }
    cell["method"] = {{"name", "reference_" + method}};
    const Json hyperparameters = member_of(member_of(run, "hyperparameters"), method.c_str());
    if (!hyperparameters.is_object()) return;
    for (const auto& [name, value] : hyperparameters.items()) {
      if (value.is_string()) {
        cell["method"][name] = behind_slash(value.get<std::string>());
      } else if (value.is_primitive() && !value.is_null()) {
        cell["method"][name] = value;
      }
    }
  }

  static Json queries_of(const Json& config) {
    std::vector<std::string> names;
    for (const Json& method : member_of(member_of(config, "query_config"), "method_configs"))
      names.push_back(text_of(method, "method"));
    if (names.empty()) return nullptr;
    return {{"name", fmt::format("{}", fmt::join(names, "+"))}};
  }

  Record record_of(Json cell, const std::string& document, const std::string& where) {
    Record record;
    record.cell = std::move(cell);
    record.document_id = document;
    set_free_seed(record, seen_);
    record.status = "done";
    record.provenance = {{"program", {{"version", kImplementation}}}, {"imported_from", behind_slash(where)}};
    return record;
  }

  const std::vector<Json>& known_;
  const ImportSettings& settings_;
  std::map<std::string, std::map<std::string, Question>> questions_;  // data set -> id -> question
  std::set<std::string> seen_;
  Imported imported_;
};

}  // namespace

namespace {

// Method and article: all of the cell but its seed.
std::string subject_of(const Record& record) {
  Json cell = record.cell;
  cell.erase("seed");
  return canonical_json(cell) + record.document_id;
}

std::string content_of(const Record& record) {
  return subject_of(record) + canonical_json({Json(record.answers), record.sizes, record.seconds});
}

}  // namespace

std::vector<Record> keep_new(std::vector<Record> records, const std::vector<Record>& present) {
  std::map<std::string, std::vector<const Record*>> unmatched;  // of the folder, by content
  std::set<std::string> taken;                                  // cell id and document
  for (const Record& record : present) {
    taken.insert(record.cell_id + "/" + record.document_id);
    if (record.provenance.contains("imported_from")) unmatched[content_of(record)].push_back(&record);
  }
  std::vector<Record> fresh;
  for (Record& record : records) {
    const auto found = unmatched.find(content_of(record));
    if (found == unmatched.end()) {
      fresh.push_back(std::move(record));
      continue;
    }
    found->second.pop_back();
    if (found->second.empty()) unmatched.erase(found);
  }
  std::map<std::string, std::string> changed;  // subject and place -> cell id
  for (const auto& [content, left] : unmatched) {
    for (const Record* old : left) changed[subject_of(*old) + text_of(old->provenance, "imported_from")] = old->cell_id;
  }
  for (Record& record : fresh) {
    const std::string from = text_of(record.provenance, "imported_from");
    if (const auto old = changed.find(subject_of(record) + from); old != changed.end()) {
      throw Error(ErrorKind::kData,
                  fmt::format("the content of '{}', article {}, differs from what was imported before as {}.jsonl",
                              text_of(record.cell.at("method"), "name"), record.document_id, old->second),
                  from, "import into a new folder; if it is another run of the same, give its file another name");
    }
    set_free_seed(record, taken);
  }
  return fresh;
}

Imported import_am(const std::string& folder, const std::vector<Json>& known, const ImportSettings& settings) {
  return Importer(known, settings).run(folder);
}

}  // namespace kvc
