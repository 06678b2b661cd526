#include "harness/files/json_file.h"

#include <fmt/format.h>

#include <set>
#include <vector>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/core/text_file.h"
#include "harness/files/foreign_file.h"

namespace kvc {
namespace {

using nlohmann::json;

constexpr size_t kMostBytes = size_t{64} << 20U;
constexpr int kDeepest = 32;

[[noreturn]] void refuse(const std::string& fact, const std::string& path) {
  throw Error(ErrorKind::kData, fact, path, "the file is damaged: fetch it again");
}

}  // namespace

json parse_json_file(std::string_view text, const std::string& path) {
  refuse_foreign_file(text, path, "JSON file");
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kDeepest) refuse(fmt::format("the file is nested more than {} levels deep", kDeepest), path);
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      refuse(fmt::format("the key '{}' is there twice", printable(parsed.get<std::string>())), path);
    }
    return true;
  };
  try {
    json value = json::parse(text, watch);
    if (!value.is_object()) refuse("the file is not a JSON object", path);
    return value;
  } catch (const json::exception& error) {
    refuse(fmt::format("the file is not JSON: {}", json_fault(error.what())), path);
  }
}

json read_json_file(const std::string& path) {
  return parse_json_file(read_text_file(path, kMostBytes), path);
}

}  // namespace kvc
