// value | filter, value is test.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string_view>

#include "harness/text/jinja/fail.h"
#include "harness/text/jinja/run.h"

namespace kvc::jinja {
namespace {

using Filter = Value (*)(Run&, const Value&, const Arguments&);
using Test = bool (*)(Run&, const Value&, const Arguments&);

Value filter_trim(Run& run, const Value& value, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "trim", {"chars"});
  const bool has_set = bound[0] != nullptr && !bound[0]->is_none();
  const std::string* set = has_set ? &run.want_text(*bound[0], "the argument of 'trim'").bytes() : nullptr;
  const Text text = run.print(value);
  run.work(text.size() * (set == nullptr ? 1 : set->size() + 1));
  return run.text(strip(text, set, true, true));
}

template <Casing kCasing>
Value filter_case(Run& run, const Value& value, const Arguments& arguments) {
  run.bind(arguments, "a filter of letters", {});
  return run.text(change_case(run.print(value), kCasing));
}

Value filter_length(Run& run, const Value& value, const Arguments& arguments) {
  run.bind(arguments, "length", {});
  return run.length(value);
}

Value filter_string(Run& run, const Value& value, const Arguments& arguments) {
  run.bind(arguments, "string", {});
  return value.text() != nullptr ? value : Value(run.print(value));
}

Value filter_default(Run& run, const Value& value, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "default", {"default_value", "boolean"});
  const bool replaces = value.is_undefined() || (bound[1] != nullptr && is_true(*bound[1]) && !is_true(value));
  if (!replaces) return value;
  return bound[0] != nullptr ? *bound[0] : Value(Text());
}

Value filter_first(Run& run, const Value& value, const Arguments& arguments) {
  run.bind(arguments, "first", {});
  const auto items = run.elements(value);
  return items->items.empty() ? Value(Undefined{"the first element"}) : items->items.front();
}

Value filter_last(Run& run, const Value& value, const Arguments& arguments) {
  run.bind(arguments, "last", {});
  const auto items = run.elements(value);
  return items->items.empty() ? Value(Undefined{"the last element"}) : items->items.back();
}

Value filter_list(Run& run, const Value& value, const Arguments& arguments) {
  run.bind(arguments, "list", {});
  return run.list(run.elements(value)->items);
}

Value filter_reverse(Run& run, const Value& value, const Arguments& arguments) {
  run.bind(arguments, "reverse", {});
  std::vector<Value> items = run.elements(value)->items;
  std::reverse(items.begin(), items.end());
  if (value.text() == nullptr) return run.list(std::move(items));
  Text text;
  for (const Value& character : items) run.write(text, *character.text());
  return text;
}

// An attribute by a path as "function.name" or "0.name", or by a number.
Value path(Run& run, const Value& value, const Value& name) {
  if (name.text() == nullptr) return item(run, value, name);
  Value at = value;
  run.work(32 * name.text()->size());
  for (const Text& part : split(*name.text(), ".", -1)) {
    const std::string& key = part.bytes();
    int64_t index = 0;
    const auto read = std::from_chars(key.data(), key.data() + key.size(), index);
    const bool number = !key.empty() && read.ec == std::errc() && read.ptr == key.data() + key.size();
    at = number ? item(run, at, index) : item(run, at, part);
  }
  return at;
}

Value filter_join(Run& run, const Value& value, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "join", {"d", "attribute"});
  const Text between = bound[0] == nullptr ? Text() : run.print(*bound[0]);
  const auto items = run.elements(value);
  Text text;
  for (size_t i = 0; i < items->items.size(); ++i) {
    if (i > 0) run.write(text, between);
    const Value& one = items->items[i];
    run.write(text, run.print(bound[1] == nullptr ? one : path(run, one, *bound[1])));
  }
  return text;
}

// What map, select, reject, selectattr and rejectattr walk through: Jinja's take none (and all that is false) as empty.
std::shared_ptr<const List> walked(Run& run, const Value& value) {
  return is_true(value) ? run.elements(value) : std::make_shared<const List>();
}

Value filter_map(Run& run, const Value& value, const Arguments& arguments) {
  std::vector<Value> results;
  const auto items = walked(run, value);
  if (arguments.values.empty()) {
    const auto bound = run.bind(arguments, "map", {"attribute", "default"});
    if (bound[0] == nullptr) run.fail("'map' is given neither a filter nor an attribute");
    for (const Value& one : items->items) {
      Value result = path(run, one, *bound[0]);
      results.push_back(result.is_undefined() && bound[1] != nullptr ? *bound[1] : std::move(result));
    }
    return run.list(std::move(results));
  }
  const std::string name = run.want_text(arguments.values[0], "the filter's name").bytes();
  const Arguments rest{{arguments.values.begin() + 1, arguments.values.end()}, arguments.keywords};
  for (const Value& one : items->items) results.push_back(apply_filter(run, name, one, rest));
  return run.list(std::move(results));
}

// select, reject, selectattr, rejectattr.
template <bool kWanted, bool kByAttribute>
Value filter_select(Run& run, const Value& value, const Arguments& arguments) {
  constexpr size_t kSkipped = kByAttribute ? 1 : 0;
  if (arguments.values.size() < kSkipped) run.fail("'selectattr' and 'rejectattr' need an attribute");
  const bool has_test = arguments.values.size() > kSkipped;
  const std::string name = has_test ? run.want_text(arguments.values[kSkipped], "the test's name").bytes() : "";
  Arguments rest{{}, arguments.keywords};
  if (has_test) rest.values.assign(arguments.values.begin() + kSkipped + 1, arguments.values.end());
  std::vector<Value> results;
  const auto items = walked(run, value);  // kept while the loop looks into it
  for (const Value& one : items->items) {
    const Value subject = kByAttribute ? path(run, one, arguments.values[0]) : one;
    if ((has_test ? apply_test(run, name, subject, rest) : is_true(subject)) == kWanted) results.push_back(one);
  }
  return run.list(std::move(results));
}

Value filter_replace(Run& run, const Value& value, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "replace", {"old", "new", "count"});
  if (bound[0] == nullptr || bound[1] == nullptr) run.fail("'replace' needs what to replace and by what");
  Arguments rest{{run.print(*bound[0]), run.print(*bound[1])}, {}};
  if (bound[2] != nullptr && !bound[2]->is_none()) rest.values.push_back(*bound[2]);
  const Value subject = value.text() != nullptr ? value : Value(run.print(value));
  return call_function(run, Callable{"replace", subject, nullptr}, rest);
}

Value filter_items(Run& run, const Value& value, const Arguments& arguments) {
  run.bind(arguments, "items", {});
  if (value.is_undefined()) return run.list({});
  if (value.dict() == nullptr) run.fail(fmt::format("{} has no items", kind_name(value)));
  return call_function(run, Callable{"items", value, nullptr}, {});
}

Value filter_int(Run& run, const Value& value, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "int", {"default", "base"});
  const Value otherwise = bound[0] != nullptr ? *bound[0] : Value(int64_t{0});
  const int64_t base = bound[1] != nullptr ? run.integer(*bound[1], "a base") : 10;
  if (base < 2 || base > 36) run.fail("a base of 'int' outside 2 to 36 is not supported");
  if (value.integer() != nullptr || value.boolean() != nullptr) return run.integer(value, "a");
  double real = 0;
  if (const Text* text = value.text()) {
    const Text digits = strip(*text, nullptr, true, true);
    const std::string& spelled = digits.bytes();
    const size_t skipped = !spelled.empty() && spelled[0] == '+' ? 1 : 0;
    const char *begin = spelled.data() + skipped, *end = spelled.data() + spelled.size();
    int64_t result = 0;
    const auto whole = std::from_chars(begin, end, result, static_cast<int>(base));
    if (whole.ec == std::errc() && whole.ptr == end) return result;
    const auto read = std::from_chars(begin, end, real);
    if (read.ec != std::errc() || read.ptr != end) return otherwise;
  } else if (const double* number = value.real()) {
    real = *number;
  } else {
    return otherwise;
  }
  if (std::isnan(real) || std::abs(real) > 9e18) return otherwise;
  return static_cast<int64_t>(real);
}

Value filter_float(Run& run, const Value& value, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "float", {"default"});
  if (value.integer() != nullptr || value.boolean() != nullptr) return static_cast<double>(run.integer(value, "a"));
  if (value.real() != nullptr) return value;
  if (const Text* text = value.text()) {
    const Text digits = strip(*text, nullptr, true, true);
    double real = 0;
    const char* end = digits.bytes().data() + digits.size();
    const auto read = std::from_chars(digits.bytes().data(), end, real);
    if (read.ec == std::errc() && read.ptr == end) return real;
  }
  return bound[0] != nullptr ? *bound[0] : Value(0.0);
}

Value filter_abs(Run& run, const Value& value, const Arguments& arguments) {
  run.bind(arguments, "abs", {});
  return run.less(value, int64_t{0}, "abs") ? negated(run, value) : value;
}

Value filter_indent(Run& run, const Value& value, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "indent", {"width", "first", "blank"});
  Text margin("    ", true);
  if (bound[0] != nullptr && bound[0]->text() != nullptr) {
    margin = *bound[0]->text();
  } else if (bound[0] != nullptr) {
    const int64_t width = run.integer(*bound[0], "the width of 'indent'");
    if (width > 1000) run.fail("'indent' is wider than 1000");
    margin = Text(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '), true);
  }
  const bool first = bound[1] != nullptr && is_true(*bound[1]), blank = bound[2] != nullptr && is_true(*bound[2]);
  Text text = run.print(value);
  text.append("\n", true);
  run.work(32 * text.size());
  Text result;
  const std::vector<Text> lines = split_lines(text);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) result.append("\n", true);
    const bool indented = i == 0 ? first : blank || !lines[i].empty();
    if (indented) run.write(result, margin);
    run.write(result, lines[i]);
  }
  return result;
}

Value filter_tojson(Run& run, const Value& value, const Arguments& arguments) {
  const auto bound = run.bind(arguments, "tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  if (bound[0] != nullptr && is_true(*bound[0])) run.fail("'tojson' with 'ensure_ascii' is not supported");
  const bool has_indent = bound[1] != nullptr && !bound[1]->is_none();
  const int64_t indent = has_indent ? run.integer(*bound[1], "the indent of 'tojson'") : -1;
  if (has_indent && (indent < 0 || indent > 100)) run.fail("the indent of 'tojson' must be 0 to 100");
  Text item_separator(has_indent ? "," : ", ", true), key_separator(": ", true);
  if (bound[2] != nullptr && !bound[2]->is_none()) {
    const List* pair = bound[2]->list();
    if (pair == nullptr || pair->items.size() != 2) run.fail("the separators of 'tojson' must be a pair");
    item_separator = run.want_text(pair->items[0], "a separator of 'tojson'");
    key_separator = run.want_text(pair->items[1], "a separator of 'tojson'");
  }
  return run.text(run.json(value, indent, item_separator, key_separator, bound[3] != nullptr && is_true(*bound[3])));
}

Value filter_safe(Run& run, const Value& value, const Arguments& arguments) {
  return filter_string(run, value, arguments);
}

const std::map<std::string_view, Filter>& filters() {
  static const std::map<std::string_view, Filter> known = {
      {"abs", filter_abs},
      {"capitalize", filter_case<Casing::kCapitalize>},
      {"count", filter_length},
      {"d", filter_default},
      {"default", filter_default},
      {"first", filter_first},
      {"float", filter_float},
      {"indent", filter_indent},
      {"int", filter_int},
      {"items", filter_items},
      {"join", filter_join},
      {"last", filter_last},
      {"length", filter_length},
      {"list", filter_list},
      {"lower", filter_case<Casing::kLower>},
      {"map", filter_map},
      {"reject", filter_select<false, false>},
      {"rejectattr", filter_select<false, true>},
      {"replace", filter_replace},
      {"reverse", filter_reverse},
      {"safe", filter_safe},
      {"select", filter_select<true, false>},
      {"selectattr", filter_select<true, true>},
      {"string", filter_string},
      {"title", filter_case<Casing::kTitleWords>},
      {"tojson", filter_tojson},
      {"trim", filter_trim},
      {"upper", filter_case<Casing::kUpper>},
  };
  return known;
}

const Value& operand(Run& run, const Arguments& arguments) {
  if (arguments.values.size() != 1 || !arguments.keywords.empty()) run.fail("a test needs one argument");
  return arguments.values[0];
}

int64_t remainder_of(Run& run, const Value& value, const Value& divisor) {
  return run.integer(arithmetic(run, '%', run.integer(value, "what is tested"), divisor), "a remainder");
}

const std::map<std::string_view, Test>& tests_alone() {
  static const std::map<std::string_view, Test> known = {
      {"boolean", [](Run&, const Value& v, const Arguments&) { return v.boolean() != nullptr; }},
      {"callable", [](Run&, const Value& v, const Arguments&) { return v.callable() != nullptr; }},
      {"defined", [](Run&, const Value& v, const Arguments&) { return !v.is_undefined(); }},
      {"even", [](Run& r, const Value& v, const Arguments&) { return remainder_of(r, v, int64_t{2}) == 0; }},
      {"false", [](Run&, const Value& v, const Arguments&) { return v.boolean() != nullptr && !*v.boolean(); }},
      {"float", [](Run&, const Value& v, const Arguments&) { return v.real() != nullptr; }},
      {"integer", [](Run&, const Value& v, const Arguments&) { return v.integer() != nullptr; }},
      {"iterable",
       [](Run&, const Value& v, const Arguments&) {
         return v.text() != nullptr || v.list() != nullptr || v.dict() != nullptr || v.is_undefined() ||
                v.loop() != nullptr;
       }},
      {"mapping", [](Run&, const Value& v, const Arguments&) { return v.dict() != nullptr; }},
      {"none", [](Run&, const Value& v, const Arguments&) { return v.is_none(); }},
      {"number",
       [](Run&, const Value& v, const Arguments&) {
         return v.integer() != nullptr || v.real() != nullptr || v.boolean() != nullptr;
       }},
      {"odd", [](Run& r, const Value& v, const Arguments&) { return remainder_of(r, v, int64_t{2}) == 1; }},
      {"sequence",
       [](Run&, const Value& v, const Arguments&) {
         return v.text() != nullptr || v.list() != nullptr || v.dict() != nullptr || v.is_undefined();
       }},
      {"string", [](Run&, const Value& v, const Arguments&) { return v.text() != nullptr; }},
      {"true", [](Run&, const Value& v, const Arguments&) { return v.boolean() != nullptr && *v.boolean(); }},
      {"undefined", [](Run&, const Value& v, const Arguments&) { return v.is_undefined(); }},
  };
  return known;
}

const std::map<std::string_view, Test>& tests_with_operand() {
  static const Test same = [](Run& r, const Value& v, const Arguments& a) { return r.equal(v, operand(r, a)); };
  static const Test differs = [](Run& r, const Value& v, const Arguments& a) { return !r.equal(v, operand(r, a)); };
  static const Test less = [](Run& r, const Value& v, const Arguments& a) { return r.less(v, operand(r, a), "<"); };
  static const Test more = [](Run& r, const Value& v, const Arguments& a) { return r.less(operand(r, a), v, ">"); };
  static const Test most = [](Run& r, const Value& v, const Arguments& a) { return !r.less(operand(r, a), v, "<="); };
  static const Test least = [](Run& r, const Value& v, const Arguments& a) { return !r.less(v, operand(r, a), ">="); };
  static const std::map<std::string_view, Test> known = {
      {"!=", differs},
      {"<", less},
      {"<=", most},
      {"==", same},
      {">", more},
      {">=", least},
      {"divisibleby",
       [](Run& r, const Value& v, const Arguments& a) { return remainder_of(r, v, operand(r, a)) == 0; }},
      {"eq", same},
      {"equalto", same},
      {"ge", least},
      {"greaterthan", more},
      {"gt", more},
      {"in", [](Run& r, const Value& v, const Arguments& a) { return r.contains(operand(r, a), v); }},
      {"le", most},
      {"lessthan", less},
      {"lt", less},
      {"ne", differs},
      {"sameas",
       [](Run& r, const Value& v, const Arguments& a) {
         return v.data.index() == operand(r, a).data.index() && r.equal(v, operand(r, a));
       }},
  };
  return known;
}

}  // namespace

Value apply_filter(Run& run, const std::string& name, const Value& subject, const Arguments& arguments) {
  run.step();
  const auto found = filters().find(name);
  if (found == filters().end()) run.fail(fmt::format("the filter '{}' is not supported", excerpt(name)));
  return found->second(run, subject, arguments);
}

bool apply_test(Run& run, const std::string& name, const Value& subject, const Arguments& arguments) {
  run.step();
  if (const auto found = tests_with_operand().find(name); found != tests_with_operand().end()) {
    return found->second(run, subject, arguments);
  }
  const auto found = tests_alone().find(name);
  if (found == tests_alone().end()) run.fail(fmt::format("the test '{}' is not supported", excerpt(name)));
  run.bind(arguments, name, {});
  return found->second(run, subject, arguments);
}

}  // namespace kvc::jinja
