#include "harness/core/config_text.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

namespace kvc {
namespace {

constexpr std::uintmax_t kMaxConfigBytes = 16u << 20;
constexpr int kMaxDepth = 64;

// A scalar's type follows YAML 1.2's core schema: quoted text is a string, the rest is null, bool, number or string.
Json scalar_to_json(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return text;  // quoted
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return nullptr;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  const char* begin = text.data() + (text[0] == '+' ? 1 : 0);
  const char* end = text.data() + text.size();
  std::int64_t integer = 0;
  if (auto [p, ec] = std::from_chars(begin, end, integer); ec == std::errc() && p == end) return integer;
  const bool digit_first = text.find_first_of("0123456789") != std::string::npos;
  double real = 0;
  if (auto [p, ec] = std::from_chars(begin, end, real); digit_first && ec == std::errc() && p == end) return real;
  return text;
}

struct Converter {
  std::string path;
  std::map<std::string, int>* lines;

  [[noreturn]] void fail(const std::string& fact, const YAML::Mark& mark, const std::string& mend) const {
    throw Error(ErrorKind::kUsage, fact, fmt::format("{}:{}", path, mark.line + 1), mend);
  }

  Json convert(const YAML::Node& node, const std::string& pointer, int depth) const {
    if (depth > kMaxDepth) fail("nested too deeply", node.Mark(), fmt::format("at most {} levels", kMaxDepth));
    lines->emplace(pointer, std::max(1, node.Mark().line + 1));  // an empty file has no mark
    switch (node.Type()) {
      case YAML::NodeType::Scalar:
        return scalar_to_json(node);
      case YAML::NodeType::Sequence: {
        Json list = Json::array();
        for (size_t i = 0; i < node.size(); ++i) {
          list.push_back(convert(node[i], fmt::format("{}/{}", pointer, i), depth + 1));
        }
        return list;
      }
      case YAML::NodeType::Map: {
        Json object = Json::object();
        for (const auto& entry : node) {
          if (!entry.first.IsScalar()) fail("a key is not plain text", entry.first.Mark(), "write 'key: value'");
          const std::string& key = entry.first.Scalar();
          if (object.contains(key)) {
            fail(fmt::format("duplicate key '{}'", key), entry.first.Mark(), "keep one of them");
          }
          const std::string child = pointer + "/" + key;
          (*lines)[child] = entry.first.Mark().line + 1;
          object[key] = convert(entry.second, child, depth + 1);
        }
        return object;
      }
      default:
        return nullptr;
    }
  }
};

// "/method/0/n_sink" -> "method[0].n_sink"
std::string readable(const std::string& pointer) {
  std::string text;
  std::istringstream parts(pointer);
  std::string part;
  while (std::getline(parts, part, '/')) {
    if (part.empty()) continue;
    if (part.find_first_not_of("0123456789") == std::string::npos) {
      text += "[" + part + "]";
    } else {
      text += (text.empty() ? "" : ".") + part;
    }
  }
  return text;
}

}  // namespace

ConfigText ConfigText::from_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw Error(ErrorKind::kUsage, "cannot read the config file", path, "check the path and its permissions");
  }
  std::string text;
  text.resize(kMaxConfigBytes + 1);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (file.gcount() == 0 && !file.eof())) {
    throw Error(ErrorKind::kUsage, "cannot read the config file", path, "is it a folder? Name a YAML or JSON file");
  }
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxConfigBytes) {
    throw Error(ErrorKind::kUsage, "the config file is larger than 16 MiB", path, "is this the right file?");
  }
  return from_string(text, path);
}

ConfigText ConfigText::from_string(const std::string& text, const std::string& path) {
  ConfigText config;
  config.path_ = path;
  YAML::Node root;
  try {
    root = YAML::Load(text);
  } catch (const YAML::Exception& e) {
    throw Error(ErrorKind::kUsage, "not valid YAML or JSON: " + e.msg, fmt::format("{}:{}", path, e.mark.line + 1),
                "mend the syntax there; indentation counts, and tabs are not allowed in YAML");
  }
  config.value_ = Converter{path, &config.lines_}.convert(root, "", 0);
  return config;
}

std::string ConfigText::where(const std::string& pointer) const {
  std::string known = pointer;
  while (!known.empty() && !lines_.contains(known)) known.resize(known.rfind('/'));
  const auto line = lines_.find(known);
  std::string text = fmt::format("{}:{}", path_, line == lines_.end() ? 1 : line->second);
  if (const std::string name = readable(pointer); !name.empty()) text += ", " + name;
  return text;
}

void Problems::add(const std::string& fact, const std::string& pointer, const std::string& mend) {
  list_.push_back({fact, text_ != nullptr ? text_->where(pointer) : readable(pointer), mend});
}

void Problems::throw_if_any(ErrorKind kind) const {
  kvc::throw_if_any(kind, list_, text_ != nullptr ? text_->path() : "the options");
}

}  // namespace kvc
