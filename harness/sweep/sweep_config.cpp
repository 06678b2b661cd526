#include "harness/sweep/sweep_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>

#include "harness/api/budget_rule.h"
#include "harness/api/compaction_method.h"
#include "harness/api/dataset.h"
#include "harness/api/plugin_entry.h"
#include "harness/api/query_source.h"
#include "harness/api/task.h"
#include "harness/core/stable_hash.h"
#include "harness/core/text_file.h"

namespace kvc {
namespace {

const std::vector<std::string> kKeys = {
    "sweep",   "seed",   "results", "references", "proof_tokens", "model",       "dataset",   "task",
    "queries", "target", "budget",  "method",     "compare_to",   "equivalence", "stop_when", "ask_together"};

class Parser {
 public:
  explicit Parser(const ConfigText& text) : text_(text), root_(text.value()), problems_(&text), of_files_(&text) {}

  LoadedSweep parse() {
    if (!root_.is_object()) {
      problems_.add(root_.is_null() ? "the file is empty" : "the file must be 'key: value' pairs", "",
                    fmt::format("a sweep has the keys {}", fmt::join(kKeys, ", ")));
      finish();
    }
    for (const auto& [key, value] : text_.value().items()) {
      if (std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end()) continue;
      problems_.add(fmt::format("unknown key '{}'", key), "/" + key, suggest_name(key, kKeys));
      // Read as what it was meant to be: it is not missing as well.
      if (const std::string meant = nearest_name(key, kKeys); !meant.empty() && !has(meant)) root_[meant] = value;
    }
    read_head();
    read_models();
    config_.datasets = plain_section<Dataset>("dataset", true);
    config_.tasks = plain_section<Task>("task", true);
    queries_ = plain_section<QuerySource>("queries", false);
    targets_ = read_targets("target", "/target");
    if (has("budget")) budgets_ = budgets(root_.at("budget"), "/budget");
    read_methods();
    read_report();
    if (has("stop_when")) config_.stop_when = read_stop_when(root_.at("stop_when"), problems_);
    finish();
    return {std::move(config_), once_each(of_files_.list())};
  }

 private:
  bool has(const std::string& key) const { return root_.contains(key) && !root_.at(key).is_null(); }

  void read_head() {
    config_.path = text_.path();
    if (has("sweep") && !root_.at("sweep").is_structured() && !root_.at("sweep").is_string()) {
      const std::string given = root_.at("sweep").dump();
      problems_.add(fmt::format("the sweep's name must be a text; got {}", given), "/sweep",
                    fmt::format("write it in quotes: sweep: \"{}\"", given));
    } else if (!has("sweep") || !root_.at("sweep").is_string()) {
      problems_.add("the sweep has no name", "/sweep", "write 'sweep: NAME'");
    } else {
      config_.name = root_.at("sweep").get<std::string>();
      check_name();
    }
    config_.results = "results/" + config_.name;
    if (has("results")) {
      if (root_.at("results").is_string() && !root_.at("results").get<std::string>().empty()) {
        config_.results = root_.at("results").get<std::string>();
      } else {
        problems_.add("'results' must be a folder name", "/results", "write 'results: FOLDER', or leave it out");
      }
    }
    if (has("references")) {
      if (root_.at("references").is_string() && !root_.at("references").get<std::string>().empty()) {
        config_.references = root_.at("references").get<std::string>();
      } else {
        problems_.add("'references' must be a folder name", "/references",
                      "write 'references: FOLDER', or leave it out");
      }
    }
    if (has("proof_tokens")) {
      const Json& value = root_.at("proof_tokens");
      if (value.is_number_integer() && value.get<int64_t>() >= 0) {
        config_.proof_tokens = value.get<int64_t>();
      } else {
        problems_.add(fmt::format("'proof_tokens' must be a whole number from 0; got {}", value.dump()),
                      "/proof_tokens", "write a number of tokens, or 0 for the whole article");
      }
    }
    read_ask_together();
    read_seeds();
  }

  void read_ask_together() {
    if (!has("ask_together")) return;
    const Json& value = root_.at("ask_together");
    if (value == Json("auto")) return;
    if (value.is_number_integer() && value.get<int64_t>() >= 1) {
      config_.ask_together = value.get<int64_t>();
    } else {
      problems_.add(fmt::format("'ask_together' must be auto or a number from 1; got {}", value.dump()),
                    "/ask_together", "write 1 to ask each cache alone, or leave it out");
    }
  }

  void check_name() {
    const std::string& name = config_.name;
    const bool safe = !name.empty() && name.size() <= 64 && name[0] != '.' && name[0] != '-' &&
                      std::all_of(name.begin(), name.end(), [](unsigned char c) {
                        return c < 128 && (std::isalnum(c) || c == '_' || c == '-' || c == '.');
                      });
    if (!safe) {
      problems_.add(fmt::format("the sweep's name must be a safe folder name; got '{}'", name), "/sweep",
                    "use 1 to 64 of the letters a-z, A-Z, 0-9, '_', '-' and '.', the first one a letter, digit or '_'");
    }
  }

  void read_seeds() {
    config_.seeds = {0};
    if (!root_.contains("seed")) return;
    config_.seeds.clear();
    const Json& section = root_.at("seed");
    for (const Json& value : as_list(section)) {
      if (!value.is_number_integer() || value.get<int64_t>() < 0) {
        problems_.add(fmt::format("a seed must be a whole number from 0; got {}", value.dump()), "/seed",
                      "write 'seed: 7'");
        continue;
      }
      const std::uint64_t seed = static_cast<std::uint64_t>(value.get<int64_t>());
      if (std::find(config_.seeds.begin(), config_.seeds.end(), seed) != config_.seeds.end()) {
        problems_.add(fmt::format("duplicate seed {}", seed), "/seed", "keep one of them");
      }
      config_.seeds.push_back(seed);
    }
    if (section.is_array() && section.empty()) problems_.add("'seed' is an empty list", "/seed", "name a seed");
  }

  // The section as given, or null after naming it as missing.
  const Json* section(const std::string& key, bool required) {
    if (!has(key)) {
      if (required) problems_.add(fmt::format("section '{}' is missing", key), "/" + key, "add it: " + example(key));
      return nullptr;
    }
    const Json& value = root_.at(key);
    if (!value.is_array() || !value.empty()) return &value;
    problems_.add(fmt::format("section '{}' is empty", key), "/" + key, "name at least one");
    return nullptr;
  }

  static std::string example(const std::string& key) {
    if (key == "model") return "model: [{path: models/smollm2-135m-instruct.gguf}]";
    if (key == "dataset") return names_example(key, Registry<Dataset>::instance().names());
    if (key == "task") return names_example(key, Registry<Task>::instance().names());
    return names_example(key, Registry<CompactionMethod>::instance().names());
  }
  static std::string names_example(const std::string& key, const std::vector<std::string>& names) {
    return fmt::format("'{}: [NAME]'; known: {}", key, fmt::join(names, ", "));
  }

  void read_models() {
    const Json* given = section("model", true);
    if (given == nullptr) return;
    const Json list = as_list(*given);
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string pointer = item_pointer(*given, "/model", i);
      const Json entry = list[i].is_string() ? Json{{"path", list[i]}} : list[i];
      if (!entry.is_object() || !entry.contains("path")) {
        problems_.add("a model has no path", pointer, "write {path: FILE.gguf} or {path: FOLDER}");
        continue;
      }
      for (const Json& variant : variants(entry, describe_options<ModelConfig>(), pointer, problems_)) {
        const size_t before = problems_.list().size();
        SweepModel model;
        read_options(variant, model.config, pointer, problems_);
        if (problems_.list().size() != before) continue;
        model.cell = Json{{"name", last_name(model.config.path)},
                          {"dtype", model.config.dtype},
                          {"chat_template", model.config.chat_template}};
        if (!model.config.thinking.empty()) model.cell["thinking"] = model.config.thinking;
        if (!model.config.rope_scaling.empty()) model.cell["rope_scaling"] = model.config.rope_scaling;
        const auto same = [&](const SweepModel& other) { return other.cell == model.cell; };
        if (std::any_of(config_.models.begin(), config_.models.end(), same)) {
          problems_.add(fmt::format("two models have the same name in results: {}", model.cell.dump()), pointer,
                        "keep one of them, or give the files different names");
        }
        config_.models.push_back(std::move(model));
      }
    }
  }

  // Entries of `given`, resolved; equal ones are a problem.
  template <class Interface>
  std::vector<Json> entries(const std::string& key, const Json& given, const std::string& pointer) {
    std::vector<Json> list;
    const Json items = as_list(given);
    for (size_t i = 0; i < items.size(); ++i) {
      const std::string at = item_pointer(given, pointer, i);
      std::string name;
      Json options;
      if (!split_entry(items[i], key, Registry<Interface>::instance().names(), at, problems_, name, options)) continue;
      for (auto& resolved : resolve<Interface>(name, options, at, problems_, &of_files_)) {
        if constexpr (std::is_same_v<Interface, Dataset>) {
          // own.jsonl and its absolute path are one data set; its content is checked before anything is measured.
          if (resolved.value.contains("path") && resolved.value.at("path").is_string()) {
            resolved.value["path"] = short_path(resolved.value.at("path").template get<std::string>());
          }
        }
        if (std::find(list.begin(), list.end(), resolved.value) != list.end()) {
          problems_.add(fmt::format("duplicate {} {}", key, resolved.value.dump()), at, "keep one of them");
          continue;
        }
        config_.plugins->add<Interface>(resolved.value, std::move(resolved.plugin));
        list.push_back(std::move(resolved.value));
      }
    }
    return list;
  }

  template <class Interface>
  std::vector<Json> plain_section(const std::string& key, bool required) {
    const Json* given = section(key, required);
    return given == nullptr ? std::vector<Json>{} : entries<Interface>(key, *given, "/" + key);
  }

  std::vector<std::optional<TargetSize>> read_targets(const std::string& key, const std::string& pointer) {
    const Json* given = section(key, false);
    return given == nullptr ? std::vector<std::optional<TargetSize>>{} : targets(*given, pointer);
  }

  std::vector<std::optional<TargetSize>> targets(const Json& given, const std::string& pointer) {
    std::vector<std::optional<TargetSize>> list;
    const Json items = as_list(given);
    if (items.empty()) problems_.add("the list of targets is empty", pointer, "name a target, e.g. 0.1");
    for (size_t i = 0; i < items.size(); ++i) {
      const std::string at = item_pointer(given, pointer, i);
      const size_t before = problems_.list().size();
      const TargetSize target = TargetSize::from_json(items[i], at, problems_);
      if (problems_.list().size() != before) continue;
      if (std::find(list.begin(), list.end(), std::optional(target)) != list.end()) {
        problems_.add(fmt::format("duplicate target {}", target.text()), at, "keep one of them");
        continue;
      }
      if (target.unit == TargetSize::Unit::kBytes) config_.written_bytes[target.bytes] = items[i].get<std::string>();
      list.push_back(target);
    }
    return list;
  }

  std::vector<Json> budgets(const Json& given, const std::string& pointer) {
    std::vector<Json> list = entries<BudgetRule>("budget", given, pointer);
    if (list.empty() && given.is_array() && given.empty()) {
      problems_.add("the list of budgets is empty", pointer, "name a budget, e.g. uniform");
    }
    for (Json& budget : list) {
      if (budget == Json{{"name", "uniform"}}) budget = nullptr;
    }
    return list;
  }

  void read_methods() {
    const Json* given = section("method", true);
    if (given == nullptr) return;
    const Json items = as_list(*given);
    for (size_t i = 0; i < items.size(); ++i) read_method(items[i], item_pointer(*given, "/method", i));
  }

  void read_method(const Json& entry, const std::string& pointer) {
    std::string name;
    Json options;
    const auto names = Registry<CompactionMethod>::instance().names();
    if (!split_entry(entry, "method", names, pointer, problems_, name, options)) return;
    method_names_.insert(name);
    std::optional<std::vector<Json>> own_queries;
    std::optional<std::vector<std::optional<TargetSize>>> own_targets;
    if (options.contains("queries")) {
      own_queries = entries<QuerySource>("queries", options.at("queries"), pointer + "/queries");
      options.erase("queries");
    }
    if (options.contains("target")) {
      own_targets = targets(options.at("target"), pointer + "/target");
      options.erase("target");
    }
    std::optional<std::vector<Json>> own_budgets;
    if (options.contains("budget")) {
      own_budgets = budgets(options.at("budget"), pointer + "/budget");
      options.erase("budget");
    }
    for (const auto& resolved : resolve<CompactionMethod>(name, options, pointer, problems_, &of_files_)) {
      SweepMethod method{resolved.value, {nullptr}, {std::nullopt}, {nullptr}};
      if (resolved.plugin->needs_queries()) {
        method.queries = own_queries ? *own_queries : has("queries") ? queries_ : own_source(*resolved.plugin);
      } else if (own_queries) {
        problems_.add(fmt::format("method '{}' takes no queries", name), pointer + "/queries", "delete the key");
      }
      if (resolved.plugin->needs_target()) {
        method.targets = own_targets.value_or(targets_);
        method.budgets = {nullptr};
        if (resolved.plugin->compacts_cache()) method.budgets = own_budgets.value_or(budgets_);
        if (!own_targets && !has("target")) {
          problems_.add(fmt::format("method '{}' needs a target, but none is given", name), pointer,
                        "add 'target: [0.1, 0.05]'");
        }
      } else if (own_targets) {
        problems_.add(fmt::format("method '{}' takes no target", name), pointer + "/target", "delete the key");
      }
      if (own_budgets && !(resolved.plugin->needs_target() && resolved.plugin->compacts_cache())) {
        problems_.add(fmt::format("method '{}' takes no budget", name), pointer + "/budget", "delete the key");
      }
      check_question_aware(method, own_queries ? pointer + "/queries" : "/queries");
      check_twice(method, pointer);
      config_.plugins->add<CompactionMethod>(resolved.value, resolved.plugin);
      config_.methods.push_back(std::move(method));
    }
  }

  // What the method's paper uses, for sweeps that name no queries.
  std::vector<Json> own_source(const CompactionMethod& method) {
    Json source = method.published_queries();
    complete_nested<QuerySource>(source, "queries", "/queries", problems_);
    return {source};
  }

  // A task that compacts while the model writes does so for whatever comes next, not for a question.
  void check_question_aware(const SweepMethod& method, const std::string& pointer) {
    for (const Json& task : config_.tasks) {
      if (!create_nested<Task>(task)->compacts_online()) continue;
      for (const Json& queries : method.queries) {
        if (queries.is_null() || !create_nested<QuerySource>(queries)->question_aware()) continue;
        problems_.add(fmt::format("task '{}' compacts what the model writes, so it cannot use the query source '{}'",
                                  task.at("name").get<std::string>(), queries.at("name").get<std::string>()),
                      pointer, "take context_prefill or repeat_prefill, or ask another task");
        return;
      }
    }
  }

  // The same method may stand in two entries with other queries or targets, but a cell is measured once.
  void check_twice(const SweepMethod& method, const std::string& pointer) {
    for (const Json& queries : method.queries) {
      for (const auto& target : method.targets) {
        for (const Json& budget : method.budgets) {
          const Json cell = {method.method, queries, target_json(target), budget};
          const auto [first, is_new] = method_places_.emplace(canonical_json(cell), pointer);
          if (is_new) continue;
          problems_.add(fmt::format("duplicate method {}", method.method.dump()), pointer,
                        fmt::format("keep one of them; the other: {}", text_.where(first->second)));
          return;
        }
      }
    }
  }

  // What the report compares with what. A label begins with its method's name: "snapkv (window=64)".
  void read_report() {
    if (has("compare_to")) {
      const Json& value = root_.at("compare_to");
      const std::string wanted = value.is_string() ? value.get<std::string>() : "";
      const bool known = std::any_of(method_names_.begin(), method_names_.end(), [&](const std::string& name) {
        return wanted == name || wanted.rfind(name + " (", 0) == 0 || wanted.rfind(name + ",", 0) == 0;
      });
      if (!known) {
        problems_.add(fmt::format("'compare_to' must be a method of this sweep; got {}", value.dump()), "/compare_to",
                      fmt::format("one of: {}", fmt::join(method_names_, ", ")));
      }
      config_.compare_to = wanted;
    }
    if (!has("equivalence")) return;
    const Json& margins = root_.at("equivalence");
    config_.equivalence = margins;
    const bool valid = margins.is_object() && std::all_of(margins.begin(), margins.end(), [](const Json& margin) {
                         return margin.is_number() && margin.get<double>() > 0;
                       });
    if (!valid) {
      problems_.add(fmt::format("'equivalence' must be a margin above 0 for each metric; got {}", margins.dump()),
                    "/equivalence", "write 'equivalence: {accuracy: 0.05, kl: 0.1}'");
    }
  }

  // A mistake beside an axis shows once for each value of the axis; it is told once.
  static std::vector<Problem> once_each(const std::vector<Problem>& problems) {
    std::vector<Problem> unique;
    std::set<std::string> seen;
    for (const Problem& problem : problems) {
      if (seen.insert(problem.fact + "\n" + problem.where).second) unique.push_back(problem);
    }
    return unique;
  }

  // Throws what is wrong with the sweep file itself, files that are missing beside it.
  void finish() const {
    if (problems_.empty()) return;
    std::vector<Problem> all = problems_.list();
    all.insert(all.end(), of_files_.list().begin(), of_files_.list().end());
    throw_if_any(ErrorKind::kUsage, once_each(all), text_.path());
  }

  const ConfigText& text_;
  Json root_;
  Problems problems_, of_files_;
  SweepConfig config_;
  std::vector<Json> queries_;
  std::vector<std::optional<TargetSize>> targets_;
  std::vector<Json> budgets_ = {nullptr};
  std::map<std::string, std::string> method_places_;
  std::set<std::string> method_names_;  // also of entries that are left out for a problem
};

}  // namespace

SweepConfig parse_sweep(const ConfigText& text) {
  LoadedSweep loaded = Parser(text).parse();
  throw_if_any(ErrorKind::kUsage, loaded.of_files, text.path());
  return std::move(loaded.sweep);
}

SweepConfig load_sweep(const std::string& path) {
  return parse_sweep(ConfigText::from_file(path));
}

LoadedSweep load_sweep_and_files(const std::string& path) {
  return Parser(ConfigText::from_file(path)).parse();
}

Json SweepConfig::to_json() const {
  Json list_of_models = Json::array();
  for (const SweepModel& model : models) list_of_models.push_back(options_to_json(model.config));
  Json list_of_methods = Json::array();
  for (const SweepMethod& method : methods) {
    Json targets = Json::array();
    for (const auto& target : method.targets) targets.push_back(target_json(target));
    list_of_methods.push_back(Json{{"method", method.method}, {"queries", method.queries}, {"target", targets}});
    if (method.budgets != std::vector<Json>{nullptr}) list_of_methods.back()["budget"] = method.budgets;
  }
  Json json = Json{{"sweep", name},       {"seed", seeds}, {"proof_tokens", proof_tokens}, {"model", list_of_models},
                   {"dataset", datasets}, {"task", tasks}, {"method", list_of_methods}};
  if (ask_together > 0) json["ask_together"] = ask_together;
  if (!compare_to.empty()) json["compare_to"] = compare_to;
  if (!equivalence.is_null()) json["equivalence"] = equivalence;
  if (stop_when) json["stop_when"] = stop_when->to_json();
  return json;
}

}  // namespace kvc
