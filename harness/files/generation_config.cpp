#include "harness/files/generation_config.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/files/json_file.h"

namespace kvc {
namespace {

using nlohmann::json;

constexpr int64_t kMostIds = int64_t{1} << 24U;

class Reader {
 public:
  explicit Reader(std::string path) : path_(std::move(path)), value_(read_json_file(path_)) {}

  std::optional<double> number(const char* key, double least, double most) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number() || !(*value >= least && *value <= most)) refuse(key, *value);
    return value->get<double>();
  }
  std::optional<int64_t> integer(const char* key, int64_t most) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    return checked(key, *value, most);
  }
  std::optional<bool> boolean(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_boolean()) refuse(key, *value);
    return value->get<bool>();
  }
  std::vector<int64_t> ids(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return {};
    if (!value->is_array()) return {checked(key, *value, kMostIds)};
    std::vector<int64_t> list;
    for (const json& id : *value) list.push_back(checked(key, id, kMostIds));
    return list;
  }

 private:
  const json* find(const char* key) const {
    const auto found = value_.find(key);
    return found == value_.end() || found->is_null() ? nullptr : &*found;
  }
  int64_t checked(const char* key, const json& value, int64_t most) const {
    if (!value.is_number_integer() || !(value >= 0 && value <= most)) refuse(key, value);
    return value.get<int64_t>();
  }
  [[noreturn]] void refuse(const char* key, const json& value) const {
    throw Error(ErrorKind::kData,
                fmt::format("'{}' is {}", key, printable(value.dump(-1, ' ', true, json::error_handler_t::replace))),
                path_, "the file is damaged: fetch it again");
  }

  std::string path_;
  json value_;
};

}  // namespace

nlohmann::ordered_json SamplingDefaults::to_json() const {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  const auto add = [&](const char* key, const auto& value) {
    if (value) object[key] = *value;
  };
  add("do_sample", do_sample);
  add("temperature", temperature);
  add("top_k", top_k);
  add("top_p", top_p);
  add("min_p", min_p);
  add("repetition_penalty", repetition_penalty);
  if (!end_ids.empty()) object["end_ids"] = end_ids;
  return object;
}

SamplingDefaults read_generation_config(const std::string& folder) {
  SamplingDefaults defaults;
  const std::string path = folder + "/generation_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return defaults;
  const Reader reader(path);
  defaults.do_sample = reader.boolean("do_sample");
  defaults.temperature = reader.number("temperature", 0, 1e6);
  defaults.top_p = reader.number("top_p", 0, 1);
  defaults.min_p = reader.number("min_p", 0, 1);
  defaults.repetition_penalty = reader.number("repetition_penalty", 0, 1e6);
  defaults.top_k = reader.integer("top_k", kMostIds);
  defaults.end_ids = reader.ids("eos_token_id");
  return defaults;
}

}  // namespace kvc
