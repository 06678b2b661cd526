#include "harness/sweep/record_origin.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "harness/core/count.h"
#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

Json member(const Json& object, const char* name) {
  return object.is_object() && object.contains(name) ? object.at(name) : Json(nullptr);
}

bool is_time(const std::string& key) {
  return key == "seconds" || key.ends_with("_s");
}

// Times stand at any depth: a reasoning task notes the seconds of every compaction.
void erase_times(Json& value) {
  if (value.is_object()) {
    for (auto it = value.begin(); it != value.end();) it = is_time(it.key()) ? value.erase(it) : std::next(it);
  }
  if (value.is_structured()) {
    for (Json& item : value) erase_times(item);
  }
}

std::string shortened(const Json& value) {
  constexpr size_t kShown = 80;
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() <= kShown ? text : text.substr(0, kShown) + "...";
}

std::string processor_of(const Json& provenance) {
  return member(member(provenance, "hardware"), "cpu").dump();
}

// What was seen first under a name.
struct Seen {
  Json origin;
  const Record* record;
};

void refuse_if_other(const std::string& what, const Json& origin, const Record& record,
                     std::map<std::string, Seen>& seen, const Json& name) {
  if (origin.is_null()) return;
  const auto [place, is_new] = seen.try_emplace(canonical_json(name), Seen{origin, &record});
  if (is_new || place->second.origin == origin) return;
  throw Error(ErrorKind::kData,
              fmt::format("records of different {} share one name, {}: {} and {}", what, shortened(name),
                          place->second.origin.dump(), origin.dump()),
              fmt::format("{} and {}", place->second.record->place, record.place),
              "move one of the two files away, or measure anew into another folder (--results): numbers of different "
              "weights or data do not mix");
}

// "2 states of the program: A (12 records); B (3 records)"
std::string counts_text(const std::map<std::string, int64_t>& counts) {
  std::vector<std::string> parts;
  for (const auto& [text, n] : counts) parts.push_back(fmt::format("{} ({})", text, count(n, "record")));
  return fmt::format("{}", fmt::join(parts, "; "));
}

}  // namespace

Json weights_of(const Json& provenance) {
  const Json model = member(provenance, "model");
  if (!model.is_object()) return nullptr;
  return Json{{"content_hash", member(model, "content_hash")}, {"dtype", member(model, "dtype")}};
}

Json data_of(const Json& provenance) {
  Json data = member(provenance, "dataset");
  if (data.is_object() && data.contains("content_hash")) data.erase("file");
  return data;
}

Json program_of(const Json& provenance) {
  Json program = member(provenance, "program");
  if (program.is_object()) return program;
  return Json{{"version", member(provenance, "kvc_version")}, {"libtorch", member(provenance, "torch_version")}};
}

std::string program_text(const Json& program) {
  const auto text = [&](const char* name) {
    const Json value = member(program, name);
    return value.is_string() ? value.get<std::string>() : std::string();
  };
  std::string line = text("version").empty() ? "unknown version" : text("version");
  if (const std::string commit = text("commit"); !commit.empty()) line += ", commit " + commit.substr(0, 8);
  if (member(program, "dirty") == Json(true)) line += " with uncommitted changes";
  if (!text("compiler").empty()) line += ", " + text("compiler");
  if (const std::string type = text("build_type"); !type.empty() && type != "Release") line += " (" + type + ")";
  if (!text("libtorch").empty()) line += ", LibTorch " + text("libtorch");
  return line;
}

Json measured_content(const Record& record) {
  Json json = record.to_json();
  for (const char* name : {"provenance", "seconds"}) json.erase(name);
  for (const char* name :
       {"peak_bytes", "peak_device_bytes", "reference_peak_bytes", "reference_peak_device_bytes", "peak_of_process"}) {
    json["sizes"].erase(name);
  }
  // How many reference answers were found and how many were made depends on what ran before.
  if (json.contains("task_notes")) json["task_notes"].erase("references");
  if (json.contains("task_notes") && json["task_notes"].empty()) json.erase("task_notes");
  erase_times(json);
  return json;
}

std::string first_difference(const Record& a, const Record& b) {
  const Json left = measured_content(a), right = measured_content(b);
  if (left == right) return "";
  const Json patch = Json::diff(left, right);
  const std::string path = patch.at(0).at("path").get<std::string>();
  const Json::json_pointer pointer(path);
  const auto shown = [&](const Json& value) {
    return value.contains(pointer) ? shortened(value.at(pointer)) : std::string("nothing");
  };
  return fmt::format("{}: {} and {}", path, shown(left), shown(right));
}

void check_origins(const std::vector<Record>& records, std::vector<std::string>& warnings) {
  std::map<std::string, Seen> weights, data;
  std::map<std::string, int64_t> programs, processors;
  const Record* last = nullptr;  // the record before, mostly of the same origin
  int64_t* n_of_program = nullptr;
  int64_t* n_of_processor = nullptr;
  for (const Record& record : records) {
    if (record.status != "done") continue;
    if (last != nullptr && last->provenance == record.provenance && last->cell == record.cell) {
      ++*n_of_program;
      ++*n_of_processor;
      continue;
    }
    last = &record;
    refuse_if_other("weights", weights_of(record.provenance), record, weights, member(record.cell, "model"));
    refuse_if_other("data", data_of(record.provenance), record, data, member(record.cell, "dataset"));
    n_of_program = &programs[program_text(program_of(record.provenance))];
    n_of_processor = &processors[processor_of(record.provenance)];
    ++*n_of_program;
    ++*n_of_processor;
  }
  if (programs.size() > 1) {
    warnings.push_back(fmt::format("the records come from {} states of the program, which may compute differently: {}",
                                   programs.size(), counts_text(programs)));
  }
  if (processors.size() > 1) {
    warnings.push_back(fmt::format("the records come from {} kinds of processor, so their seconds do not compare: {}",
                                   processors.size(), counts_text(processors)));
  }
}

}  // namespace kvc
