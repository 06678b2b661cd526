#include "harness/api/plugin_entry.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace kvc {

Json as_list(const Json& value) {
  return value.is_array() ? value : Json::array({value});
}

std::string item_pointer(const Json& section, const std::string& pointer, size_t index) {
  return section.is_array() ? fmt::format("{}/{}", pointer, index) : pointer;
}

namespace {

bool is_axis(const Json& value, const std::string& type) {
  if (!value.is_array()) return false;
  return type != "list" || (!value.empty() && value.front().is_array());
}

}  // namespace

std::vector<Json> variants(const Json& given, const std::vector<OptionInfo>& options, const std::string& pointer,
                           Problems& problems) {
  std::vector<Json> list = {Json::object()};
  for (const auto& [key, value] : given.items()) {
    const auto info = std::find_if(options.begin(), options.end(), [&](const auto& o) { return o.name == key; });
    if (info == options.end() || !is_axis(value, info->type)) {
      for (Json& variant : list) variant[key] = value;
      continue;
    }
    if (value.empty()) problems.add(fmt::format("'{}' is an empty list", key), pointer + "/" + key, "name a value");
    std::vector<Json> wider;
    for (const Json& variant : list) {
      for (const Json& choice : value) {
        wider.push_back(variant);
        wider.back()[key] = choice;
      }
    }
    list = std::move(wider);
  }
  return list;
}

Json with_name(const std::string& name, const Json& options) {
  Json object = Json{{"name", name}};
  for (const auto& [key, value] : options.items()) object[key] = value;
  return object;
}

bool split_entry(const Json& entry, const std::string& key, const std::vector<std::string>& names,
                 const std::string& pointer, Problems& problems, std::string& name, Json& options) {
  options = Json::object();
  if (entry.is_string()) {
    name = entry.get<std::string>();
  } else if (entry.is_object() && entry.contains(key) && entry.at(key).is_string()) {
    name = entry.at(key).get<std::string>();
    for (const auto& [k, v] : entry.items()) {
      if (k != key) options[k] = v;
    }
  } else {
    problems.add(fmt::format("an entry of '{}' has no name", key), pointer,
                 fmt::format("write a name, or {{{}: NAME, option: value}}; known: {}", key, fmt::join(names, ", ")));
    return false;
  }
  if (std::find(names.begin(), names.end(), name) != names.end()) return true;
  problems.add(fmt::format("unknown {} '{}'", key, name), entry.is_object() ? pointer + "/" + key : pointer,
               suggest_name(name, names));
  return false;
}

}  // namespace kvc
