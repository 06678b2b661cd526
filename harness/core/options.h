// Options: a JSON object read into a plain struct through its `fields()`.
//
//   struct Options {
//     int64_t n_sink = 4;
//     void fields(auto&& visit) { visit("n_sink", n_sink, "leading entries always kept", at_least(0)); }
//   };
//
// Field types: bool, int64_t, double, std::string, std::vector<std::string>, std::vector<int64_t>, Json for a mapping
// whose keys somebody else checks, and NestedPlugin. The fourth argument, what the value must be, may be left out. A
// struct may also have
//   void complete(const std::string& pointer, Problems& problems);  // of nested plug-ins: fills in and checks
//   void check(const OptionCheck& fail) const { if (last < first) fail("last", "is below first", "first or more"); }
// for what one value alone does not tell; both are called once all fields are read and valid. Integers beyond
// kMostInteger are refused before that, whatever they count.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "harness/core/config_text.h"

namespace kvc {

// What `kvc list` shows of one option.
struct OptionInfo {
  std::string name;
  std::string type;  // "bool", "integer", "number", "text", "list", "map", "plug-in"
  Json default_value;
  std::string help;
};

// A plug-in among the options of another: NAME or {KEY: NAME, option: value}; null where there is none.
// complete_nested() of registry.h fills in and checks what stands in it.
struct NestedPlugin {
  Json value;
};
inline void to_json(Json& json, const NestedPlugin& nested) {
  json = nested.value;
}

// What a value must be beyond its type; of a list, what each element must be.
struct OptionRule {
  std::string must;                                  // "be 0 or more"
  std::function<bool(const Json&)> holds = nullptr;  // none: every value is valid
  std::vector<std::string> names = {};               // of one_of()
  std::string example = "";                          // a mend where there is no useful default

  // "must be 0 or more; got -3", or empty where the value is valid. `written`: what to show in its place.
  std::string problem(const Json& value, const Json* written = nullptr) const;
  // How to mend such a problem.
  std::string mend(const Json& value, const Json& default_value) const;
};
OptionRule at_least(int64_t least);
OptionRule between(double least, double most);    // both included
OptionRule more_than(double bound, double most);  // `most` included
OptionRule odd(int64_t most = std::numeric_limits<int64_t>::max());
OptionRule one_of(std::vector<std::string> names);
OptionRule none_or(OptionRule rule);  // an empty text too
// A text or list that must not be empty: "must name {what}".
OptionRule named(const std::string& what, const std::string& example = "write path: FILE");

// (field name, fact about it, how to mend)
using OptionCheck = std::function<void(const std::string&, const std::string&, const std::string&)>;

// No integer option, and no element of a list of integers, is larger than this or smaller than its negative: options
// count tokens, entries, documents and the like, and code may add or double them without an overflow.
inline constexpr int64_t kMostInteger = 1'000'000'000;

namespace options_detail {

// The number, or the first of a list, that is larger than kMostInteger or smaller than its negative; null where there
// is none. 1e30 counts too, though YAML and JSON read it as a float.
inline const Json* beyond_integers(const Json& value) {
  if (value.is_array()) {
    const auto found = std::find_if(value.begin(), value.end(), beyond_integers);
    return found == value.end() ? nullptr : &*found;
  }
  return value.is_number() && std::abs(value.get<double>()) > static_cast<double>(kMostInteger) ? &value : nullptr;
}

// "must be 128 to 1000000; got 1e+30": the option's own range where it is narrower on that side.
std::string integer_problem(const OptionRule& rule, const Json& beyond);

template <class T>
std::string type_name() {
  if constexpr (std::is_same_v<T, bool>)
    return "bool";
  else if constexpr (std::is_same_v<T, int64_t>)
    return "integer";
  else if constexpr (std::is_same_v<T, double>)
    return "number";
  else if constexpr (std::is_same_v<T, std::string>)
    return "text";
  else if constexpr (std::is_same_v<T, Json>)
    return "map";
  else if constexpr (std::is_same_v<T, NestedPlugin>)
    return "plug-in";
  else
    return "list";
}

// "must be an integer; got 2.5"
std::string wrong_type(const std::string& type, const Json& value);

// False when `value` is not of T's type. An integer is a number; a number is not an integer; a single value is a list
// of one; an integer is text where text is asked (ids such as 20002 are often written without quotes).
inline bool assign(const Json& value, bool& out) {
  if (!value.is_boolean()) return false;
  out = value.get<bool>();
  return true;
}
inline bool assign(const Json& value, int64_t& out) {
  if (!value.is_number_integer()) return false;
  out = value.get<int64_t>();
  return true;
}
inline bool assign(const Json& value, double& out) {
  if (!value.is_number()) return false;
  out = value.get<double>();
  return true;
}
inline bool assign(const Json& value, std::string& out) {
  if (value.is_number_integer()) {
    out = std::to_string(value.get<int64_t>());
    return true;
  }
  if (!value.is_string()) return false;
  out = value.get<std::string>();
  return true;
}
inline bool assign(const Json& value, Json& out) {
  if (!value.is_object()) return false;
  out = value;
  return true;
}
inline bool assign(const Json& value, NestedPlugin& out) {
  if (!value.is_string() && !value.is_object() && !value.is_null()) return false;
  out.value = value;
  return true;
}
template <class T>
bool assign(const Json& value, std::vector<T>& out) {
  std::vector<T> list;
  const Json items = value.is_array() ? value : Json::array({value});
  for (const Json& item : items) {
    T element{};
    if (!assign(item, element)) return false;
    list.push_back(element);
  }
  out = std::move(list);
  return true;
}

}  // namespace options_detail

// Every field with its present value, in the order of fields(): the canonical form that goes into a cell's id.
template <class Options>
Json options_to_json(Options options) {
  Json object = Json::object();
  options.fields([&](const char* name, auto& field, const char* /*help*/, const OptionRule& /*rule*/ = {}) {
    object[name] = field;
  });
  return object;
}

// The rules of all fields and, if they hold, the struct's own check(). `written`: the object that the options were read
// from, whose values a message shows as they stand there (5, not '5', for a text).
template <class Options>
void check_options(const Options& options, const OptionCheck& fail, const Json& written = nullptr) {
  bool valid = true;
  const Json defaults = options_to_json(Options{});
  Options(options).fields([&](const char* name, auto& field, const char* /*help*/, const OptionRule& rule = {}) {
    const bool number = written.is_object() && written.contains(name) && written.at(name).is_number_integer();
    const std::string problem = rule.problem(field, number ? &written.at(name) : nullptr);
    if (problem.empty()) return;
    valid = false;
    fail(name, problem, rule.mend(field, defaults[name]));
  });
  if constexpr (requires { options.check(fail); }) {
    if (valid) options.check(fail);
  }
}

// Reads `object` (null counts as {}) into `out`; unknown keys, wrong types and values become problems at `pointer`/key.
template <class Options>
void read_options(const Json& object, Options& out, const std::string& pointer, Problems& problems) {
  std::vector<std::string> known;
  const size_t before = problems.list().size();
  out.fields([&](const char* name, auto& field, const char* /*help*/, const OptionRule& rule = {}) {
    known.emplace_back(name);
    if (!object.is_object() || !object.contains(name)) return;
    using Field = std::remove_cvref_t<decltype(field)>;
    if constexpr (std::is_same_v<Field, int64_t> || std::is_same_v<Field, std::vector<int64_t>>) {
      if (const Json* beyond = options_detail::beyond_integers(object.at(name))) {
        problems.add(fmt::format("'{}' {}", name, options_detail::integer_problem(rule, *beyond)), pointer + "/" + name,
                     fmt::format("write another number; default: {}", Json(field).dump()));
        return;
      }
    }
    if (!options_detail::assign(object.at(name), field)) {
      problems.add(
          fmt::format("'{}' {}", name, options_detail::wrong_type(options_detail::type_name<Field>(), object.at(name))),
          pointer + "/" + name, fmt::format("default: {}", Json(field).dump()));
    }
  });
  if (!object.is_null() && !object.is_object()) {
    problems.add("options must be 'key: value' pairs", pointer, "write {option: value}");
    return;
  }
  if (object.is_object()) {
    for (const auto& [key, value] : object.items()) {
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        problems.add(fmt::format("unknown option '{}'", key), pointer + "/" + key, suggest_name(key, known));
      }
    }
  }
  if constexpr (requires { out.complete(pointer, problems); }) {
    if (problems.list().size() == before) out.complete(pointer, problems);
  }
  if (problems.list().size() == before) {
    const OptionCheck fail = [&](const std::string& name, const std::string& fact, const std::string& mend) {
      problems.add(fmt::format("'{}' {}", name, fact), pointer + "/" + name, mend);
    };
    check_options(out, fail, object);
  }
}

template <class Options>
std::vector<OptionInfo> describe_options() {
  std::vector<OptionInfo> list;
  Options options;
  options.fields([&](const char* name, auto& field, const char* help, const OptionRule& /*rule*/ = {}) {
    list.push_back({name, options_detail::type_name<std::remove_cvref_t<decltype(field)>>(), Json(field), help});
  });
  return list;
}

struct NoOptions {
  void fields(auto&& /*visit*/) {}
};

}  // namespace kvc
