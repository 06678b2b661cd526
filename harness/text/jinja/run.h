// One rendering: its limits, and what every part of the interpreter needs to make, print and compare values.
//
// A template comes from a downloaded file, so its work is bounded: steps (evaluated nodes, elements touched), bytes
// (made, copied or searched), bytes of output, nesting of calls and of values. A limit reached is an Error(kData).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "harness/text/jinja/value.h"

namespace kvc::jinja {

struct Limits {
  int64_t steps = 1'000'000;
  int64_t bytes = int64_t{64} << 20U;
  int64_t output_bytes = int64_t{16} << 20U;
};

struct Date {
  int year = 2024, month = 7, day = 26;  // what Llama 3's own templates fall back on
};

struct Arguments {
  std::vector<Value> values;
  std::vector<std::pair<std::string, Value>> keywords;
};

class Run {
 public:
  Run(std::string where, const Limits& limits, const Date& today)
      : date(today), limits_(limits), where_(std::move(where)) {}

  [[noreturn]] void fail(const std::string& fact) const;

  void step(int64_t count = 1) {
    if ((steps_ += count) > limits_.steps) too_much("steps");
  }
  void work(size_t bytes) {
    if ((bytes_ += static_cast<int64_t>(bytes)) > limits_.bytes) too_much("bytes of text");
  }
  void write(Text& out, const Text& text);

  // Values made by a template. Lists and dicts hold no namespaces, loops and functions and are at most 64 deep.
  Value text(Text text) {
    work(text.size());
    return text;
  }
  Value list(std::vector<Value> items, bool tuple = false);
  Value dict(std::vector<std::pair<Value, Value>> items);
  void check_kept(const Value& value) const;

  // What Python's str() gives; undefined prints as nothing.
  Text print(const Value& value);
  Text json(const Value& value, int64_t indent, const Text& item_separator, const Text& key_separator, bool sort_keys);
  bool equal(const Value& a, const Value& b);
  // Of two numbers or two strings; `what` names the operation.
  bool less(const Value& a, const Value& b, const char* what);
  bool contains(const Value& container, const Value& item);
  // The value under a key that is equal, or null.
  const Value* find(const Dict& dict, const Value& key);
  // What a loop over the value visits: elements, keys, characters.
  std::shared_ptr<const List> elements(const Value& value);
  int64_t length(const Value& value);

  // Arguments by parameter name, null where not given. Fails on too many, twice the same, or an unknown name.
  std::vector<const Value*> bind(const Arguments& arguments, const std::string& callee,
                                 std::initializer_list<const char*> parameters) const;
  int64_t integer(const Value& value, const std::string& what) const;
  const Text& want_text(const Value& value, const std::string& what) const;

  Date date;
  int line = 1;   // of what is evaluated now
  int depth = 0;  // of evaluations inside each other

 private:
  [[noreturn]] void too_much(const char* what) const;
  void print_into(Text& out, const Value& value, bool quoted);
  void json_into(Text& out, const Value& value, const struct JsonStyle& style, int level);

  Limits limits_;
  std::string where_;
  int64_t steps_ = 0;
  int64_t bytes_ = 0;
};

// value.name and value[key]; what is not there is undefined. Fails on an attribute of an undefined value.
Value attribute(Run& run, const Value& value, const std::string& name);
Value item(Run& run, const Value& value, const Value& key);
// value[start:stop:step], null where left out.
Value slice(Run& run, const Value& value, const Value* start, const Value* stop, const Value* step);

Value apply_filter(Run& run, const std::string& name, const Value& subject, const Arguments& arguments);
bool apply_test(Run& run, const std::string& name, const Value& subject, const Arguments& arguments);
// A global function or a method.
Value call_function(Run& run, const Callable& function, const Arguments& arguments);
// A function that every template knows, or undefined.
Value global_function(const std::string& name);
// A method of a value, or undefined.
Value method(const Value& self, const std::string& name);

// +, -, *, /, //, %, ** by their sign, negation, and ~.
Value arithmetic(Run& run, char sign, const Value& a, const Value& b);  // '\\' is //, '^' is **
Value negated(Run& run, const Value& value);

}  // namespace kvc::jinja
