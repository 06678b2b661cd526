#include "harness/text/jinja/value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace kvc::jinja {

const char* kind_name(const Value& value) {
  static constexpr std::array<const char*, 11> kNames = {
      "an undefined value", "none",   "a boolean", "an integer", "a float", "a string", "a list", "a dict",
      "a namespace",        "a loop", "a function"};
  return kNames.at(value.data.index());
}

bool is_true(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (const bool* b = value.boolean()) return *b;
  if (const int64_t* i = value.integer()) return *i != 0;
  if (const double* d = value.real()) return *d != 0;
  if (const Text* t = value.text()) return !t->empty();
  if (const List* l = value.list()) return !l->items.empty();
  if (const Dict* d = value.dict()) return !d->items.empty();
  return true;
}

std::string spell_real(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 64> buffer{};
  const auto scientific = std::to_chars(buffer.begin(), buffer.end(), value, std::chars_format::scientific);
  const std::string text(buffer.begin(), scientific.ptr);
  const int exponent = std::stoi(text.substr(text.find('e') + 1));
  if (exponent < -4 || exponent >= 16) return text;
  const auto fixed = std::to_chars(buffer.begin(), buffer.end(), value, std::chars_format::fixed);
  std::string plain(buffer.begin(), fixed.ptr);
  return plain.find('.') == std::string::npos ? plain + ".0" : plain;
}

Value make_text(std::string bytes, bool control) {
  return Text(std::move(bytes), control);
}

int depth_of(const Value& value) {
  if (const List* l = value.list()) return l->depth;
  if (const Dict* d = value.dict()) return d->depth;
  return 0;
}

Value make_dict(std::vector<std::pair<std::string, Value>> items) {
  auto dict = std::make_shared<Dict>();
  for (auto& [key, value] : items) {
    dict->depth = std::max(dict->depth, depth_of(value) + 1);
    dict->items.emplace_back(make_text(std::move(key), true), std::move(value));
  }
  Value result;
  result.data = std::shared_ptr<const Dict>(std::move(dict));
  return result;
}

Value make_list(std::vector<Value> items) {
  auto list = std::make_shared<List>();
  for (const Value& value : items) list->depth = std::max(list->depth, depth_of(value) + 1);
  list->items = std::move(items);
  Value result;
  result.data = std::shared_ptr<const List>(std::move(list));
  return result;
}

}  // namespace kvc::jinja
