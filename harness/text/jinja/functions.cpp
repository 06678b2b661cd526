// Global functions, and the methods of strings, dicts and loops.
#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "harness/text/jinja/fail.h"
#include "harness/text/jinja/run.h"

namespace kvc::jinja {
namespace {

using Method = Value (*)(Run&, const Value& self, const Arguments&);
using Function = Value (*)(Run&, const Arguments&);

// --- of strings
// --------------------------------------------------------------------------------------------------------

template <bool kLeft, bool kRight>
Value text_strip(Run& run, const Value& self, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "strip", {"chars"});
  const bool has_set = bound[0] != nullptr && !bound[0]->is_none();
  const std::string* set = has_set ? &run.want_text(*bound[0], "the argument of 'strip'").bytes() : nullptr;
  run.work(self.text()->size() * (set == nullptr ? 1 : set->size() + 1));
  return run.text(strip(*self.text(), set, kLeft, kRight));
}

template <bool kStart>
Value text_starts(Run& run, const Value& self, const Arguments& arguments) {
  const auto bound = run.bind(arguments, kStart ? "startswith" : "endswith", {"part"});
  if (bound[0] == nullptr) run.fail("'startswith' and 'endswith' need an argument");
  const std::string& text = self.text()->bytes();
  const auto fits = [&](const Value& value) {
    const std::string& part = run.want_text(value, "the argument of 'startswith' or 'endswith'").bytes();
    run.step();
    run.work(std::min(part.size(), text.size()));
    return kStart ? text.starts_with(part) : text.ends_with(part);
  };
  if (const List* list = bound[0]->list(); list != nullptr && list->tuple) {
    return std::any_of(list->items.begin(), list->items.end(), fits);
  }
  return fits(*bound[0]);
}

Value texts(Run& run, std::vector<Text> pieces) {
  std::vector<Value> items;
  for (Text& piece : pieces) items.emplace_back(std::move(piece));
  return run.list(std::move(items));
}

// Pieces are counted before they are made, so that no more are made than the limits allow.
void count_pieces(Run& run, const Text& text, const std::string& separator) {
  int64_t count = 1;
  for (size_t at = 0; (at = text.bytes().find(separator, at)) != std::string::npos; at += separator.size()) ++count;
  run.step(count);
}

Value text_split(Run& run, const Value& self, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "split", {"sep", "maxsplit"});
  const int64_t limit = bound[1] == nullptr ? -1 : run.integer(*bound[1], "the limit of 'split'");
  const Text& text = *self.text();
  run.work(2 * text.size());
  if (bound[0] == nullptr || bound[0]->is_none()) {
    run.work(32 * text.size());
    return texts(run, split_words(text, limit));
  }
  const std::string& separator = run.want_text(*bound[0], "the argument of 'split'").bytes();
  if (separator.empty()) run.fail("'split' is given an empty separator");
  count_pieces(run, text, separator);
  return texts(run, split(text, separator, limit));
}

Value text_rsplit(Run& run, const Value& self, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "rsplit", {"sep", "maxsplit"});
  if (bound[0] == nullptr || bound[0]->is_none()) run.fail("'rsplit' without a separator is not supported");
  const std::string& separator = run.want_text(*bound[0], "the argument of 'rsplit'").bytes();
  if (separator.empty()) run.fail("'rsplit' is given an empty separator");
  int64_t limit = bound[1] == nullptr ? -1 : run.integer(*bound[1], "the limit of 'rsplit'");
  const Text& text = *self.text();
  run.work(2 * text.size());
  count_pieces(run, text, separator);
  std::vector<Text> pieces;
  size_t end = text.size();
  for (; limit != 0 && end >= separator.size(); --limit) {
    const size_t found = text.bytes().rfind(separator, end - separator.size());
    if (found == std::string::npos) break;
    pieces.push_back(text.part(found + separator.size(), end));
    end = found;
  }
  pieces.push_back(text.part(0, end));
  std::reverse(pieces.begin(), pieces.end());
  return texts(run, std::move(pieces));
}

Value text_splitlines(Run& run, const Value& self, const Arguments& arguments) {
  run.bind(arguments, "splitlines", {});
  run.work(32 * self.text()->size());
  return texts(run, split_lines(*self.text()));
}

Value text_replace(Run& run, const Value& self, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "replace", {"old", "new", "count"});
  if (bound[0] == nullptr || bound[1] == nullptr) run.fail("'replace' needs what to replace and by what");
  const Text& text = *self.text();
  const std::string& old_text = run.want_text(*bound[0], "the argument of 'replace'").bytes();
  const Text& new_text = run.want_text(*bound[1], "the argument of 'replace'");
  const int64_t limit = bound[2] == nullptr ? -1 : run.integer(*bound[2], "the count of 'replace'");
  // Counted first, so that no text is made that is longer than the limits allow.
  int64_t found = old_text.empty() ? count_characters(text.bytes()) + 1 : 0;
  for (size_t at = 0; !old_text.empty() && (at = text.bytes().find(old_text, at)) != std::string::npos;) {
    ++found;
    at += old_text.size();
  }
  if (limit >= 0) found = std::min(found, limit);
  run.step(found / 64);
  run.work(text.size() + static_cast<size_t>(found) * new_text.size());
  return replace(text, old_text, new_text, limit);
}

template <Casing kCasing>
Value text_case(Run& run, const Value& self, const Arguments& arguments) {
  run.bind(arguments, "a method of letters", {});
  return run.text(change_case(*self.text(), kCasing));
}

Value text_find(Run& run, const Value& self, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "find", {"part"});
  if (bound[0] == nullptr) run.fail("'find' needs an argument");
  run.work(self.text()->size());
  const std::string& text = self.text()->bytes();
  const size_t found = text.find(run.want_text(*bound[0], "the argument of 'find'").bytes());
  return found == std::string::npos ? int64_t{-1} : count_characters(std::string_view(text).substr(0, found));
}

Value text_count(Run& run, const Value& self, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "count", {"part"});
  if (bound[0] == nullptr) run.fail("'count' needs an argument");
  const std::string& part = run.want_text(*bound[0], "the argument of 'count'").bytes();
  if (part.empty()) return run.length(self) + 1;
  run.work(self.text()->size());
  int64_t count = 0;
  for (size_t at = 0; (at = self.text()->bytes().find(part, at)) != std::string::npos; at += part.size()) ++count;
  return count;
}

Value text_join(Run& run, const Value& self, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "join", {"items"});
  if (bound[0] == nullptr) run.fail("'join' needs an argument");
  Text text;
  bool first = true;
  const auto items = run.elements(*bound[0]);  // kept while the loop looks into it
  for (const Value& one : items->items) {
    if (!first) run.write(text, *self.text());
    run.write(text, run.want_text(one, "what 'join' joins"));
    first = false;
  }
  return text;
}

Value text_isdigit(Run& run, const Value& self, const Arguments& arguments) {
  run.bind(arguments, "isdigit", {});
  const std::string& text = self.text()->bytes();
  run.work(text.size());
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

template <bool kStart>
Value text_remove(Run& run, const Value& self, const Arguments& arguments) {
  const auto bound = run.bind(arguments, kStart ? "removeprefix" : "removesuffix", {"part"});
  if (bound[0] == nullptr) run.fail("'removeprefix' and 'removesuffix' need an argument");
  const size_t size = self.text()->size();
  const std::string& part = run.want_text(*bound[0], "what is removed").bytes();
  run.work(size);
  if (kStart && self.text()->bytes().starts_with(part)) return self.text()->part(part.size(), size);
  if (!kStart && self.text()->bytes().ends_with(part)) return self.text()->part(0, size - part.size());
  return self;
}

const std::map<std::string_view, Method>& text_methods() {
  static const std::map<std::string_view, Method> known = {
      {"capitalize", text_case<Casing::kCapitalize>},
      {"count", text_count},
      {"endswith", text_starts<false>},
      {"find", text_find},
      {"isdigit", text_isdigit},
      {"join", text_join},
      {"lower", text_case<Casing::kLower>},
      {"lstrip", text_strip<true, false>},
      {"removeprefix", text_remove<true>},
      {"removesuffix", text_remove<false>},
      {"replace", text_replace},
      {"rsplit", text_rsplit},
      {"rstrip", text_strip<false, true>},
      {"split", text_split},
      {"splitlines", text_splitlines},
      {"startswith", text_starts<true>},
      {"strip", text_strip<true, true>},
      {"title", text_case<Casing::kTitle>},
      {"upper", text_case<Casing::kUpper>},
  };
  return known;
}

// --- of dicts and loops
// ------------------------------------------------------------------------------------------------

Value dict_items(Run& run, const Value& self, const Arguments& arguments) {
  run.bind(arguments, "items", {});
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.dict()->items) pairs.push_back(run.list({key, value}, true));
  return run.list(std::move(pairs));
}

Value dict_keys(Run& run, const Value& self, const Arguments& arguments) {
  run.bind(arguments, "keys", {});
  std::vector<Value> keys;
  for (const auto& [key, value] : self.dict()->items) keys.push_back(key);
  return run.list(std::move(keys));
}

Value dict_values(Run& run, const Value& self, const Arguments& arguments) {
  run.bind(arguments, "values", {});
  std::vector<Value> values;
  for (const auto& [key, value] : self.dict()->items) values.push_back(value);
  return run.list(std::move(values));
}

Value dict_get(Run& run, const Value& self, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "get", {"key", "default"});
  if (bound[0] == nullptr) run.fail("'get' needs a key");
  if (const Value* found = run.find(*self.dict(), *bound[0])) return *found;
  return bound[1] != nullptr ? *bound[1] : Value(nullptr);
}

const std::map<std::string_view, Method>& dict_methods() {
  static const std::map<std::string_view, Method> known = {
      {"get", dict_get}, {"items", dict_items}, {"keys", dict_keys}, {"values", dict_values}};
  return known;
}

Value loop_cycle(Run& run, const Value& self, const Arguments& arguments) {
  if (arguments.values.empty()) run.fail("'cycle' needs an argument");
  return arguments.values[self.loop()->index % arguments.values.size()];
}

const std::map<std::string_view, Method>& loop_methods() {
  static const std::map<std::string_view, Method> known = {{"cycle", loop_cycle}};
  return known;
}

const std::map<std::string_view, Method>* methods_of(const Value& value) {
  if (value.text() != nullptr) return &text_methods();
  if (value.dict() != nullptr) return &dict_methods();
  return value.loop() != nullptr ? &loop_methods() : nullptr;
}

// --- global functions
// --------------------------------------------------------------------------------------------------

Value raise_exception(Run& run, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "raise_exception", {"message"});
  const Text message = bound[0] == nullptr ? Text() : run.print(*bound[0]);
  std::string shown = message.bytes().substr(0, 500);
  std::replace_if(
      shown.begin(), shown.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  run.fail(fmt::format("it refuses the conversation: {}", shown));
}

Value name_space(Run& run, const Arguments& arguments) {
  auto made = std::make_shared<Namespace>();
  for (const Value& from : arguments.values) {
    if (from.dict() == nullptr) run.fail("'namespace' takes a dict or named arguments");
    for (const auto& [key, value] : from.dict()->items) {
      made->attributes[run.want_text(key, "the name of an attribute").bytes()] = value;
    }
  }
  for (const auto& [name, value] : arguments.keywords) {
    run.check_kept(value);
    made->attributes[name] = value;
  }
  Value result;
  result.data = std::move(made);
  return result;
}

Value range(Run& run, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "range", {"start", "stop", "step"});
  if (bound[0] == nullptr) run.fail("'range' needs an argument");
  const int64_t first = run.integer(*bound[0], "an argument of 'range'");
  const int64_t begin = bound[1] == nullptr ? 0 : first;
  const int64_t end = bound[1] == nullptr ? first : run.integer(*bound[1], "an argument of 'range'");
  const int64_t step = bound[2] == nullptr ? 1 : run.integer(*bound[2], "an argument of 'range'");
  if (step == 0) run.fail("the step of 'range' is 0");
  constexpr size_t kMost = 100'000;  // as in Jinja's sandbox
  std::vector<Value> items;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (items.size() == kMost) run.fail("'range' gives more than 100,000 numbers");
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return run.list(std::move(items));
}

Value dict(Run& run, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  for (const Value& from : arguments.values) {
    if (from.dict() == nullptr) run.fail("'dict' takes a dict or named arguments");
    items.insert(items.end(), from.dict()->items.begin(), from.dict()->items.end());
  }
  for (const auto& [name, value] : arguments.keywords) items.emplace_back(make_text(name, true), value);
  return run.dict(std::move(items));
}

int day_of_year(const Date& date) {
  static constexpr std::array<int, 12> kBefore = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
  const bool leap = (date.year % 4 == 0 && date.year % 100 != 0) || date.year % 400 == 0;
  return kBefore.at(static_cast<size_t>(date.month - 1)) + date.day + (leap && date.month > 2 ? 1 : 0);
}

// 0 is Sunday (Sakamoto's method).
int weekday(const Date& date) {
  static constexpr std::array<int, 12> kShift = {0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4};
  const int year = date.month < 3 ? date.year - 1 : date.year;
  return (year + year / 4 - year / 100 + year / 400 + kShift.at(static_cast<size_t>(date.month - 1)) + date.day) % 7;
}

// Midnight of the fixed date: a rendering does not depend on the day it is made.
std::string spell_date(Run& run, char code, bool padded) {
  static constexpr std::array<const char*, 12> kMonths = {"January",   "February", "March",    "April",
                                                          "May",       "June",     "July",     "August",
                                                          "September", "October",  "November", "December"};
  static constexpr std::array<const char*, 7> kDays = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                                       "Thursday", "Friday", "Saturday"};
  const Date& date = run.date;
  const std::string month = kMonths.at(static_cast<size_t>(date.month - 1));
  const std::string day = kDays.at(static_cast<size_t>(weekday(date)));
  const auto number = [&](int value, int width) { return fmt::format("{:0{}}", value, padded ? width : 1); };
  switch (code) {
    case 'd':
      return number(date.day, 2);
    case 'e':
      return fmt::format("{:2}", date.day);
    case 'm':
      return number(date.month, 2);
    case 'y':
      return number(date.year % 100, 2);
    case 'Y':
      return fmt::format("{:04}", date.year);
    case 'b':
    case 'h':
      return month.substr(0, 3);
    case 'B':
      return month;
    case 'a':
      return day.substr(0, 3);
    case 'A':
      return day;
    case 'j':
      return number(day_of_year(date), 3);
    case 'F':
      return fmt::format("{:04}-{:02}-{:02}", date.year, date.month, date.day);
    case 'D':
      return fmt::format("{:02}/{:02}/{:02}", date.month, date.day, date.year % 100);
    case 'T':
      return "00:00:00";
    case 'H':
    case 'M':
    case 'S':
      return number(0, 2);
    case 'I':
      return "12";
    case 'p':
      return "AM";
    case '%':
      return "%";
    default:
      run.fail(fmt::format("'strftime_now' with '%{}' is not supported", excerpt(std::string(1, code))));
  }
}

Value strftime_now(Run& run, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "strftime_now", {"format"});
  if (bound[0] == nullptr) run.fail("'strftime_now' needs a format");
  const std::string& format = run.want_text(*bound[0], "the format of 'strftime_now'").bytes();
  run.work(16 * format.size());
  std::string text;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      text += format[i];
      continue;
    }
    const bool plain = i + 2 < format.size() && format[i + 1] == '-';
    i += plain ? 2 : 1;
    if (i >= format.size()) run.fail("the format of 'strftime_now' ends in '%'");
    text += spell_date(run, format[i], !plain);
  }
  return Text(std::move(text), true);
}

const std::map<std::string_view, Function>& functions() {
  static const std::map<std::string_view, Function> known = {{"dict", dict},
                                                             {"namespace", name_space},
                                                             {"raise_exception", raise_exception},
                                                             {"range", range},
                                                             {"strftime_now", strftime_now}};
  return known;
}

Value callable(Callable made) {
  Value result;
  result.data = std::make_shared<const Callable>(std::move(made));
  return result;
}

}  // namespace

Value global_function(const std::string& name) {
  if (!functions().contains(name)) return Undefined{name};
  return callable({name, {}, nullptr});
}

Value method(const Value& self, const std::string& name) {
  const auto* known = methods_of(self);
  if (known == nullptr || !known->contains(name)) return Undefined{name};
  return callable({name, self, nullptr});
}

Value call_function(Run& run, const Callable& function, const Arguments& arguments) {
  run.step();
  if (function.self.is_undefined()) return functions().at(function.name)(run, arguments);
  return methods_of(function.self)->at(function.name)(run, function.self, arguments);
}

}  // namespace kvc::jinja
