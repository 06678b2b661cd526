#include "harness/core/config_text.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>
#include <string_view>

#include "harness/core/printable.h"

namespace kvc {
namespace {

constexpr std::uintmax_t kMaxConfigBytes = 16u << 20;
constexpr int kMaxDepth = 64;
constexpr int kMaxValues = 1'000'000;  // aliases of YAML can name one list a billion times

bool is_whole_number(std::string_view text) {
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

// Of a whole number that int64 does not hold: read as another type it would silently be another number.
constexpr const char* kBeyondMend = "write a smaller number, or quotes around it if it is a name";
std::string beyond_integers(std::string_view text) {
  const std::string digits = text.size() > 40 ? std::string(text.substr(0, 40)) + "..." : std::string(text);
  return fmt::format("the whole number {} is beyond {} to {}, the integers that are read", digits,
                     std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max());
}

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
  mutable int n_values = 0;

  [[noreturn]] void fail(const std::string& fact, const YAML::Mark& mark, const std::string& mend) const {
    throw Error(ErrorKind::kUsage, fact, fmt::format("{}:{}", path, mark.line + 1), mend);
  }

  Json convert(const YAML::Node& node, const std::string& pointer, int depth) const {
    if (depth > kMaxDepth) fail("nested too deeply", node.Mark(), fmt::format("at most {} levels", kMaxDepth));
    if (++n_values > kMaxValues) fail("the file holds more than a million values", node.Mark(), "repeat fewer aliases");
    lines->emplace(pointer, std::max(1, node.Mark().line + 1));  // an empty file has no mark
    switch (node.Type()) {
      case YAML::NodeType::Scalar: {
        Json value = scalar_to_json(node);
        if (!value.is_number_integer() && node.Tag() != "!" && is_whole_number(node.Scalar()))
          fail(beyond_integers(node.Scalar()), node.Mark(), kBeyondMend);
        return value;
      }
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

// Reads a text byte by byte for the JSON parser and counts what has been read, so that a value's line can be told.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, size_t* n_read) : at_(at), n_read_(n_read) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    ++at_;
    ++*n_read_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }

 private:
  const char* at_;
  size_t* n_read_;
};

// JSON as RFC 8259 has it, surrogate pairs included; duplicate keys are an error.
class JsonBuilder final : public nlohmann::json_sax<Json> {
 public:
  JsonBuilder(std::string_view text, const std::string& path, std::map<std::string, int>& lines)
      : text_(text), path_(path), lines_(lines) {}

  Json read() {
    Json::sax_parse(CountingIterator(text_.data(), &n_read_), CountingIterator(text_.data() + text_.size(), &n_read_),
                    this);
    return std::move(root_);
  }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value, 1); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max()))
      fail(beyond_integers(std::to_string(value)), n_read_ - 1, kBeyondMend);
    return put(value, 1);
  }
  bool number_float(number_float_t value, const string_t& text) override {
    if (is_whole_number(text)) fail(beyond_integers(text), n_read_ - 1, kBeyondMend);
    return put(value, 1);
  }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& value) override {
    key_ = std::move(value);
    if (open_.back().value->contains(key_)) {
      fail(fmt::format("duplicate key '{}'", printable(key_)), n_read_, "keep one of them");
    }
    key_line_ = line_at(n_read_);
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    const size_t at = std::min(position == 0 ? 0 : position - 1, text_.size());
    std::string fault = json_fault(e.what());
    if (const size_t colon = fault.find(": "); fault.starts_with("line ") && colon != std::string::npos) {
      fault.erase(0, colon + 2);  // the place is told beside it
    }
    fail("not valid JSON: " + fault, at, "mend the syntax there");
  }

 private:
  struct Open {
    Json* value;
    std::string pointer;
  };

  int line_at(size_t offset) {
    for (; counted_ < offset && counted_ < text_.size(); ++counted_) line_ += text_[counted_] == '\n' ? 1 : 0;
    return line_;
  }
  [[noreturn]] void fail(const std::string& fact, size_t offset, const std::string& mend) const {
    const std::string_view before = text_.substr(0, offset);
    const size_t line_start = before.rfind('\n') + 1;  // 0 where there is none
    throw Error(ErrorKind::kUsage, fact,
                fmt::format("{}:{}:{}", path_, std::count(before.begin(), before.end(), '\n') + 1,
                            before.size() - line_start + 1),
                mend);
  }
  // A number is known only when the byte behind it has been read.
  Json* place(Json value, size_t n_ahead) {
    if (open_.size() > kMaxDepth) fail("nested too deeply", n_read_, fmt::format("at most {} levels", kMaxDepth));
    const size_t at = n_read_ - std::min(n_ahead, n_read_);
    if (open_.empty()) {
      lines_.emplace("", line_at(at));
      root_ = std::move(value);
      return &root_;
    }
    Open& parent = open_.back();
    if (parent.value->is_array()) {
      pointer_ = fmt::format("{}/{}", parent.pointer, parent.value->size());
      lines_.emplace(pointer_, line_at(at));
      parent.value->push_back(std::move(value));
      return &parent.value->back();
    }
    pointer_ = parent.pointer + "/" + key_;
    lines_.emplace(pointer_, key_line_);
    return &((*parent.value)[key_] = std::move(value));
  }
  bool put(Json value, size_t n_ahead = 0) {
    place(std::move(value), n_ahead);
    return true;
  }
  bool open(Json value) {
    const bool is_root = open_.empty();
    Json* placed = place(std::move(value), 0);
    open_.push_back({placed, is_root ? "" : pointer_});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view text_;
  const std::string& path_;
  std::map<std::string, int>& lines_;
  size_t n_read_ = 0, counted_ = 0;
  int line_ = 1, key_line_ = 1;
  Json root_;
  std::vector<Open> open_;  // containers not yet closed; each is the last value of its parent, so none moves
  std::string key_, pointer_;
};

// A file named .json is JSON; of other texts one that is JSON from end to end. The rest is YAML, of which JSON's
// brackets are a part.
bool is_json(const std::string& text, const std::string& path) {
  if (path.ends_with(".json")) return true;
  const size_t first = text.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  return first != std::string::npos && (text[first] == '{' || text[first] == '[') && Json::accept(text);
}

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
  if (is_json(text, path)) {
    config.value_ = JsonBuilder(text, path, config.lines_).read();
    return config;
  }
  std::vector<YAML::Node> documents;
  try {
    documents = YAML::LoadAll(text);
  } catch (const YAML::Exception& e) {
    throw Error(ErrorKind::kUsage, "not valid YAML or JSON: " + e.msg, fmt::format("{}:{}", path, e.mark.line + 1),
                "mend the syntax there; indentation counts, and tabs are not allowed in YAML");
  }
  if (documents.size() > 1) {
    throw Error(ErrorKind::kUsage, fmt::format("the file holds {} YAML documents; only one is read", documents.size()),
                fmt::format("{}:{}", path, std::max(1, documents[1].Mark().line + 1)),
                "remove the line '---' and what does not belong here, or write two files");
  }
  const YAML::Node root = documents.empty() ? YAML::Node() : documents.front();
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
