#include "harness/report/label.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

// The file a budget is read from; "" where it is none.
std::string budget_file(const Json& value) {
  if (!value.is_object() || !value.contains("file") || !value.at("file").is_string()) return "";
  return value.at("file").get<std::string>();
}

std::string stem_of(const std::string& path) {
  return std::filesystem::path(path).stem().string();
}

}  // namespace

std::string plugin_name(const Json& plugin) {
  if (!plugin.is_object() || !plugin.contains("name") || !plugin.at("name").is_string()) return "?";
  return plugin.at("name").get<std::string>();
}

bool is_chosen(const std::string& wanted, const std::string& label, const Json& plugin) {
  return wanted.empty() || wanted == label || (plugin.is_object() && plugin.value("name", "") == wanted);
}

Labels::Labels(const std::vector<Record>& records, const Json& defaults) : defaults_(defaults) {
  std::map<std::pair<std::string, std::string>, std::map<std::string, Json>>
      seen;                    // plug-ins of one name by canonical text
  const Json* last = nullptr;  // cell of the record before: mostly the same
  for (const Record& record : records) {
    if (last != nullptr && *last == record.cell) continue;
    last = &record.cell;
    const std::string file = record.cell.contains("budget") ? budget_file(record.cell.at("budget")) : "";
    if (!file.empty()) files_[stem_of(file)].insert(file);
    for (const char* kind : {"model", "dataset", "task", "queries", "method"}) {
      if (!record.cell.contains(kind) || !record.cell.at(kind).is_object()) continue;
      const Json& plugin = record.cell.at(kind);
      seen[{kind, plugin_name(plugin)}].emplace(canonical_json(plugin), plugin);
    }
  }
  for (const auto& [key, plugins] : seen) {
    for (const auto& [text, plugin] : plugins) {
      for (const auto& [option, value] : plugin.items()) {
        for (const auto& [other_text, other] : plugins) {
          if (!other.contains(option) || other.at(option) != value) varying_[key].insert(option);
        }
      }
    }
  }
}

bool Labels::shown(const std::string& kind, const Json& plugin, const std::string& option) const {
  const std::string name = plugin_name(plugin);
  const auto found = varying_.find({kind, name});
  if (found != varying_.end() && found->second.count(option) > 0) return true;
  if (!defaults_.is_object() || !defaults_.contains(kind) || !defaults_.at(kind).contains(name)) return false;
  const Json& known = defaults_.at(kind).at(name);
  return !known.contains(option) || known.at(option) != plugin.at(option);
}

// A plug-in inside a plug-in (a stage of a stacked method, a budget) is shown by its name and the options that differ
// from its defaults.
std::string Labels::value_text(const Json& value) const {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_object() || !value.contains("name")) return value.dump();
  const std::string name = plugin_name(value);
  std::vector<std::string> options;
  for (const auto& [option, inner] : value.items()) {
    if (option == "name" || option == "content_hash") continue;
    bool is_default = !defaults_.is_object();
    for (const char* kind : {"method", "queries", "budget"}) {
      if (is_default || !defaults_.contains(kind) || !defaults_.at(kind).contains(name)) continue;
      const Json& known = defaults_.at(kind).at(name);
      is_default = known.contains(option) && known.at(option) == inner;
    }
    if (!is_default && inner != Json{{"name", "uniform"}}) options.push_back(option + "=" + value_text(inner));
  }
  return options.empty() ? name : fmt::format("{}({})", name, fmt::join(options, ", "));
}

// A file by its stem; where another file has the same one, with its folder.
std::string Labels::file_text(const std::string& path) const {
  const auto same = files_.find(stem_of(path));
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (same == files_.end() || same->second.size() < 2 || folder.empty()) return stem_of(path);
  return fmt::format("{}/{}", folder.filename().string(), stem_of(path));
}

// "h2o (recent_fraction=0) + found budgets": a budget that comes from a file is named by the file.
std::string Labels::of(const std::string& kind, const Json& plugin) const {
  if (!plugin.is_object()) return "";
  std::vector<std::string> options;
  std::string found;
  for (const auto& [option, value] : plugin.items()) {
    const std::string file = option == "budget" ? budget_file(value) : "";
    if (option == "name" || (file.empty() && !shown(kind, plugin, option))) continue;
    if (file.empty()) {
      options.push_back(option + "=" + value_text(value));
    } else {
      Json rest = value;
      rest.erase("file");
      const std::string more = value_text(rest);
      const size_t bracket = more.find('(');
      found = fmt::format(" + {} budgets{}", file_text(file),
                          bracket == std::string::npos ? "" : " " + more.substr(bracket));
    }
  }
  const std::string name = plugin_name(plugin);
  return (options.empty() ? name : fmt::format("{} ({})", name, fmt::join(options, ", "))) + found;
}

}  // namespace kvc
