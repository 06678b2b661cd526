#include "harness/cli/starter.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <sstream>

#include "harness/api/dataset.h"
#include "harness/api/task.h"
#include "harness/core/count.h"
#include "harness/core/error.h"
#include "harness/core/text_file.h"
#include "harness/sweep/document_run.h"
#include "harness/sweep/preflight.h"

namespace kvc {
namespace {

// Tasks in the order in which they are proposed: those that are made for few questions before those that take any.
constexpr const char* kTasks[] = {"published_score", "side_effects", "exact_match", "likelihood",  "multiple_choice",
                                  "reasoning",       "fidelity",     "turns",       "string_match"};

std::string task_name(const Json& task) {
  return task.is_object() ? task.at("task").get<std::string>() : task.get<std::string>();
}

// A sweep file's list of what a new sweep asks: the task that the data are made for, else the first that accepts their
// questions and a second that judges them as well as it does.
std::vector<std::string> proposed_tasks(const FoundData& data) {
  if (!data.preferred_task.is_null()) {
    if (data.preferred_task.is_string()) return {data.preferred_task};
    std::string text;
    for (const auto& [key, value] : data.preferred_task.items())
      text = fmt::format("{}: {}", key, value.is_string() ? value.get<std::string>() : value.dump()) +
             (text.empty() ? "" : ", " + text);
    return {"{" + text + "}"};
  }
  std::vector<std::string> tasks = data.tasks;
  tasks.resize(std::min<size_t>(tasks.front() == "published_score" ? 1 : 2, tasks.size()));
  if (tasks.size() == 2 && (tasks[1] == "reasoning" || tasks[1] == "string_match" || tasks[1] == "turns"))
    tasks.pop_back();
  return tasks;
}

FoundData load_as(const std::string& dataset, const Json& options, const Tokenizer* tokenizer) {
  const auto count_tokens = [&](std::string_view text) {
    return tokenizer == nullptr ? count_words(text) : static_cast<int64_t>(tokenizer->encode_text(text).size());
  };
  const auto loader = Registry<Dataset>::instance().create(dataset, options);
  const auto documents = loader->load({0, count_tokens});
  FoundData found{
      dataset, options, static_cast<int64_t>(documents.size()), 0, {}, 0, loader->notes(), 0, loader->preferred_task()};
  for (const Document& document : documents) {
    // Short ones alone matter, and a token has at least a byte.
    if (found.shortest_tokens == 0 || static_cast<int64_t>(document.text.size()) < 8 * found.shortest_tokens) {
      const int64_t n = count_tokens(document.text);
      if (found.shortest_tokens == 0 || n < found.shortest_tokens) found.shortest_tokens = n;
    }
    found.questions += static_cast<int64_t>(document.questions.size());
    found.written_by_model += std::count_if(document.questions.begin(), document.questions.end(),
                                            [](const Question& question) { return question.written_by_model; });
  }
  for (const char* name : kTasks) {
    const auto* entry = Registry<Task>::instance().find(name);
    if (entry == nullptr) continue;
    const auto task = entry->create(Json::object());
    const auto asks = [&](const Document& document) { return !accepted_questions(*task, document).empty(); };
    if (std::any_of(documents.begin(), documents.end(), asks)) found.tasks.emplace_back(name);
  }
  if (!found.preferred_task.is_null()) {
    const auto first = std::find(found.tasks.begin(), found.tasks.end(), task_name(found.preferred_task));
    if (first == found.tasks.end())
      found.preferred_task = nullptr;
    else
      std::rotate(found.tasks.begin(), first, first + 1);
  }
  return found;
}

bool has_path_option(const Registry<Dataset>::Entry& entry) {
  return std::any_of(entry.options.begin(), entry.options.end(), [](const OptionInfo& o) { return o.name == "path"; });
}

// Those that hide statements in somebody's articles read a file for another purpose than its questions.
bool builds_on_articles(const std::string& dataset) {
  return dataset.rfind("needle", 0) == 0 || dataset == "ruler";
}

// SQuAD's or HotpotQA's JSON, which RULER asks questions of.
bool is_qa_file(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return false;
  return (text[first] == '{' && text.find("\"paragraphs\"") != std::string::npos) ||
         (text[first] == '[' && text.find("\"context\"") != std::string::npos);
}

// Its first ten questions, each with a document; the first one where the file has fewer, which also says what is wrong
// with the file.
FoundData load_qa(const std::string& path, const Tokenizer* tokenizer) {
  const auto with = [&](int64_t documents) {
    return load_as("ruler", {{"task", "qa"}, {"qa_path", path}, {"documents", documents}}, tokenizer);
  };
  try {
    return with(10);
  } catch (const Error&) {
    return with(1);
  }
}

// The first JSON object that stands in a line of its own; null where there is none.
Json first_entry(const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line)) {
    if (Json json = Json::parse(line, nullptr, false); json.is_object()) return json;
  }
  return nullptr;
}

// Keys of the longest of the data set's forms that the entry has; 0 where it has none of them.
size_t keys_found(const Dataset& dataset, const Json& entry) {
  size_t most = 0;
  for (const std::vector<std::string>& keys : dataset.file_keys()) {
    const auto has = [&](const std::string& key) { return entry.contains(key); };
    if (std::all_of(keys.begin(), keys.end(), has)) most = std::max(most, keys.size());
  }
  return most;
}

std::string quoted(const std::string& text) {
  return Json(text).dump();  // a JSON string is a YAML string
}

}  // namespace

std::string FoundData::counts() const {
  const std::string text = count(documents, "document") + ", " + count(questions, "question");
  return written_by_model == 0 ? text
                               : fmt::format("{}, {} of them to be written by the model", text, written_by_model);
}

FoundData find_data(const std::string& data, const Tokenizer* tokenizer) {
  const auto& registry = Registry<Dataset>::instance();
  if (registry.find(data) != nullptr) return load_as(data, Json::object(), tokenizer);
  std::error_code error;
  if (std::filesystem::is_directory(data, error)) return load_as("jsonl", {{"path", data}}, tokenizer);
  if (!std::filesystem::is_regular_file(data, error)) {
    throw Error(ErrorKind::kData, fmt::format("'{}' is neither a file, a folder nor a data set", data), "--data",
                suggest_name(data, registry.names()));
  }
  const std::string file = read_text_file(data);
  if (is_qa_file(file)) return load_qa(data, tokenizer);
  std::string reasons;
  const Json entry_of_file = first_entry(file);
  size_t most_keys = 0;  // of the data set that the file was probably meant for
  std::optional<Error> meant_error;
  for (const auto& [name, entry] : registry.entries()) {
    if (builds_on_articles(name) || !has_path_option(entry)) continue;
    try {
      return load_as(name, {{"path", data}}, tokenizer);
    } catch (const Error& e) {
      const size_t n_keys = keys_found(*registry.create(name, {{"path", data}}), entry_of_file);
      const bool plain = name == "jsonl" && most_keys == 0 && data.ends_with(".jsonl");
      if (n_keys > most_keys || plain) meant_error = e;
      most_keys = std::max(most_keys, n_keys);
      reasons += fmt::format("\n    {}: {}", name, e.fact().substr(0, e.fact().find('\n')));
    }
  }
  if (meant_error) throw *meant_error;
  throw Error(ErrorKind::kData, "no data set reads this file:" + reasons, data,
              "bring it into one of these forms; datasets/README.md shows them");
}

std::string starter_sweep(const std::string& name, const std::string& model, const FoundData& data) {
  std::string dataset = data.dataset;
  if (!data.options.empty()) {
    dataset = "{dataset: " + data.dataset;
    for (const auto& [key, value] : data.options.items()) dataset += fmt::format(", {}: {}", key, value.dump());
    dataset += "}";
  }
  std::string text = fmt::format("# {}. Every key: configs/README.md; names and options: kvc list.\n", data.counts());
  text += fmt::format("sweep: {}                   # results go to results/{}\n", name, name);
  text += "seed: 7                        # of everything random; a list measures each seed\n";
  text += fmt::format(
      "model:\n  - path: {}\n    dtype: auto                # float32 or bfloat16, whichever is faster here\n",
      quoted(model));
  text += fmt::format("dataset: {}\n", dataset);
  const std::vector<std::string> tasks = proposed_tasks(data);
  // Reasoning compacts what the model writes: methods on the text alone do not run under it.
  const bool online = std::any_of(tasks.begin(), tasks.end(),
                                  [](const std::string& task) { return task.find("reasoning") != std::string::npos; });
  text += fmt::format("task: [{}]        # this data also allows: {}\n", fmt::join(tasks, ", "),
                      fmt::join(data.tasks, ", "));
  constexpr int64_t kShort = 500;  // where snapkv's window of 64 would be a large part of a document, or longer than it
  const bool is_short = data.shortest_tokens < kShort;
  text +=
      is_short
          ? fmt::format("target: [0.5, 0.3]             # kept fraction; the shortest document has {} tokens\n",
                        data.shortest_tokens)
          : "target: [0.5, 0.2, 0.1]        # kept fraction of the document's entries; 512 is a number of entries\n";
  text += "# queries: [repeat_prefill]     # for all methods that need some; without it each has its paper's own\n";
  text += "method:\n  - full_cache                 # the ceiling\n";
  if (!online) text += "  - no_context                 # the floor: what the model knows by itself\n";
  text += "  - streaming_llm              # first and last entries\n";
  text += is_short ? fmt::format("  - {{method: snapkv, window: {}}}  # what the last queries attend to\n",
                                 std::max<int64_t>(1, data.shortest_tokens / 8))
                   : "  - snapkv                     # what the last queries attend to\n";
  text += "  - am_highest_attention       # Attention Matching: keys chosen, biases and values fitted\n";
  return text;
}

}  // namespace kvc
