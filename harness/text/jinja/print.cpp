// Values as text: Python's str() and json.dumps().
#include <algorithm>

#include "harness/text/jinja/fail.h"
#include "harness/text/jinja/run.h"

namespace kvc::jinja {

struct JsonStyle {
  int64_t indent = -1;  // -1: all on one line
  const Text& item_separator;
  const Text& key_separator;
  bool sort_keys = false;
};

void Run::print_into(Text& out, const Value& value, bool quoted) {
  step();
  const auto put = [&](std::string_view bytes) { out.append(bytes, true); };
  if (const Text* text = value.text()) {
    work(text->size());
    out.append(quoted ? quoted_for_python(*text) : *text);
  } else if (value.is_undefined()) {
    if (quoted) put("Undefined");
  } else if (value.is_none()) {
    put("None");
  } else if (const bool* b = value.boolean()) {
    put(*b ? "True" : "False");
  } else if (const int64_t* i = value.integer()) {
    put(std::to_string(*i));
  } else if (const double* d = value.real()) {
    put(spell_real(*d));
  } else if (const List* list = value.list()) {
    put(list->tuple ? "(" : "[");
    for (size_t k = 0; k < list->items.size(); ++k) {
      if (k > 0) put(", ");
      print_into(out, list->items[k], true);
    }
    put(!list->tuple ? "]" : list->items.size() == 1 ? ",)" : ")");
  } else if (const Dict* dict = value.dict()) {
    put("{");
    for (size_t k = 0; k < dict->items.size(); ++k) {
      if (k > 0) put(", ");
      print_into(out, dict->items[k].first, true);
      put(": ");
      print_into(out, dict->items[k].second, true);
    }
    put("}");
  } else {
    fail(fmt::format("{} cannot be printed", kind_name(value)));
  }
}

Text Run::print(const Value& value) {
  Text out;
  print_into(out, value, false);
  return out;
}

void Run::json_into(Text& out, const Value& value, const JsonStyle& style, int level) {
  step();
  const auto put = [&](std::string_view bytes) { out.append(bytes, true); };
  const auto new_line = [&](int at_level) {
    if (style.indent < 0) return;
    const auto width = static_cast<size_t>(style.indent) * static_cast<size_t>(at_level);
    work(width);
    put("\n" + std::string(width, ' '));
  };
  if (const Text* text = value.text()) {
    work(2 * text->size());
    out.append(quoted_for_json(*text));
  } else if (value.is_none() || value.boolean() != nullptr) {
    put(value.is_none() ? "null" : *value.boolean() ? "true" : "false");
  } else if (value.integer() != nullptr || value.real() != nullptr) {
    const Text number = print(value);
    const std::string& spelled = number.bytes();
    put(spelled == "nan" ? "NaN" : spelled == "inf" ? "Infinity" : spelled == "-inf" ? "-Infinity" : spelled);
  } else if (const List* list = value.list()) {
    put("[");
    for (size_t k = 0; k < list->items.size(); ++k) {
      if (k > 0) out.append(style.item_separator);
      new_line(level + 1);
      json_into(out, list->items[k], style, level + 1);
    }
    if (!list->items.empty()) new_line(level);
    put("]");
  } else if (const Dict* dict = value.dict()) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict->items) entries.push_back(&entry);
    if (style.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
        return want_text(a->first, "a sorted key").bytes() < want_text(b->first, "a sorted key").bytes();
      });
    }
    put("{");
    for (size_t k = 0; k < entries.size(); ++k) {
      if (k > 0) out.append(style.item_separator);
      new_line(level + 1);
      work(2 * want_text(entries[k]->first, "a key of JSON").size());
      out.append(quoted_for_json(*entries[k]->first.text()));
      out.append(style.key_separator);
      json_into(out, entries[k]->second, style, level + 1);
    }
    if (!entries.empty()) new_line(level);
    put("}");
  } else {
    fail(fmt::format("{} cannot be written as JSON", kind_name(value)));
  }
}

Text Run::json(const Value& value, int64_t indent, const Text& item_separator, const Text& key_separator,
               bool sort_keys) {
  Text out;
  json_into(out, value, JsonStyle{indent, item_separator, key_separator, sort_keys}, 0);
  return out;
}

}  // namespace kvc::jinja
