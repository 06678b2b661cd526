#include "harness/report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "harness/core/json_lines.h"
#include "harness/core/stable_hash.h"
#include "harness/report/conclusions.h"
#include "harness/report/html_report.h"
#include "harness/report/picture_file.h"
#include "harness/report/report_files.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

// A JSON file of the results folder; null where there is none or it cannot be read: the page then lacks that part.
Json json_file(const fs::path& path) {
  std::ifstream file(path);
  if (!file) return nullptr;
  std::stringstream text;
  text << file.rdbuf();
  Json json = Json::parse(text.str(), nullptr, false);
  return json.is_discarded() ? Json(nullptr) : json;
}

std::string name_of(const fs::path& folder) {
  return (folder.has_filename() ? folder : folder.parent_path()).filename().string();
}

// Of objects; empty where there is no such file.
Json json_object(const std::string& path, std::vector<std::string>& warnings) {
  std::ifstream file(path);
  if (!file) return Json::object();
  const Json json = Json::parse(file, nullptr, false);
  const bool valid =
      json.is_object() && std::all_of(json.begin(), json.end(), [](const Json& value) { return value.is_object(); });
  if (valid) return json;
  warnings.push_back(fmt::format("{} is not an object of objects and was not read", path));
  return Json::object();
}

// By method with its budget as an option, as a table's rows are: at which targets the sweep file asks it.
std::map<std::string, std::set<std::string>> targets_of(const Json& config) {
  std::map<std::string, std::set<std::string>> targets;
  for (const Json& entry : config.value("method", Json::array())) {
    if (!entry.is_object() || !entry.contains("method") || !entry.at("method").is_object()) continue;
    for (const Json& budget : entry.value("budget", Json::array({nullptr}))) {
      Json method = entry.at("method");
      if (!budget.is_null()) method["budget"] = budget;
      std::set<std::string>& asked = targets[canonical_json(method)];
      for (const Json& target : entry.value("target", Json::array())) asked.insert(canonical_json(target));
    }
  }
  return targets;
}

// What the sweep file of this folder says about its report; nothing where there is none.
ComparisonSettings settings_of(const std::string& folder, std::vector<std::string>& warnings) {
  ComparisonSettings settings;
  std::ifstream file(folder + "/config.json");
  if (!file) return settings;
  const Json config = Json::parse(file, nullptr, false);
  if (!config.is_object()) {
    warnings.push_back("config.json must be a JSON object; its compare_to and equivalence are ignored");
    return settings;
  }
  if (config.contains("compare_to") && config.at("compare_to").is_string())
    settings.compare_to = config.at("compare_to").get<std::string>();
  settings.targets = targets_of(config);
  const Json stopped = json_object(folder + "/stopped.json", warnings);
  for (const auto& [cell, what] : stopped.items()) settings.stopped[cell] = what;
  const Json margins = config.value("equivalence", Json());
  if (!margins.is_object()) return settings;
  for (const auto& [metric, margin] : margins.items()) {
    if (margin.is_number()) settings.margin[metric] = margin.get<double>();
  }
  return settings;
}

}  // namespace

LoadedReport load_report(const std::string& results_folder, const Json& defaults, bool with_texts) {
  const std::string folder = fs::path(results_folder).lexically_normal().string();
  std::vector<std::string> warnings;
  std::vector<Record> records = load_records(folder, warnings);
  if (records.empty()) {
    throw Error(ErrorKind::kData, "there are no records in the results folder", folder,
                "run the sweep first: kvc run CONFIG");
  }
  LoadedReport loaded;
  loaded.name = name_of(folder);
  loaded.explanations = load_explanations(folder, warnings);
  if (with_texts) loaded.texts = AnswerTexts(records);
  loaded.tabulated = tabulate(std::move(records), defaults, settings_of(folder, warnings));
  for (std::string& warning : warnings) {  // a report does not depend on where its folder lies
    for (const std::string& prefix : {folder + "/", folder}) {
      if (warning.rfind(prefix, 0) == 0) warning.erase(0, prefix.size());
    }
  }
  std::vector<std::string>& all = loaded.tabulated.warnings;
  all.insert(all.begin(), warnings.begin(), warnings.end());
  return loaded;
}

std::string write_report(const std::string& results_folder, const Json& defaults, const ReportOptions& options) {
  const fs::path folder = fs::path(results_folder).lexically_normal();
  const LoadedReport loaded = load_report(results_folder, defaults, options.html);
  const Tabulated& tabulated = loaded.tabulated;
  const auto write = [&](const std::string& file, std::string_view text) {
    write_file_atomically((folder / file).string(), text);
  };
  std::string pictures, unconverted;
  const Files plots = plot_files(tabulated);
  for (const auto& [file, svg] : can_convert_pictures() ? plots : Files()) {
    const fs::path pdf = (folder / file).replace_extension(".pdf");
    try {
      write_picture(pdf.string(), svg);
    } catch (const Error& e) {  // the SVG is there
      unconverted += fmt::format("{} was not written: {}\n", pdf.filename().string(), e.what());
    }
  }
  for (const auto& files : {plots, depth_files(tabulated), head_files(tabulated)}) {
    for (const auto& [file, svg] : files) {
      write(file, svg);
      pictures += (pictures.empty() ? "" : ", ") + file;
    }
  }
  write("report.csv", report_csv(tabulated));
  write("report_pairs.csv", report_pairs_csv(tabulated));
  write("report.md", report_markdown(tabulated, loaded.name, loaded.explanations));
  write("report.json",
        report_json(tabulated, loaded.explanations).dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  if (options.html) {
    const HtmlExtras extras{loaded.name,
                            counts_text(tabulated),
                            conclusions(tabulated),
                            json_file(folder / "self_proof.json"),
                            json_file(folder / "config.json"),
                            loaded.explanations};
    write("report.html", render_html(tabulated, loaded.texts, extras));
  }
  std::string files = fmt::format("In {}: ", folder.string());
  if (options.html) files += "report.html to look around, ";
  if (!pictures.empty()) files += fmt::format("pictures {}, ", pictures);
  files += "tables report.md and report.csv.";
  return report_terminal(tabulated, options.width) + wrapped_text(files, options.width) + "\n" + unconverted;
}

std::string score_answers(const std::string& results_folder, std::vector<Failure>& failures, const Json& defaults) {
  const Tabulated tabulated = load_report(results_folder, defaults, false).tabulated;
  failures = tabulated.failures;
  return score_lines(tabulated);
}

}  // namespace kvc
