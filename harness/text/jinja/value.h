// What a template's expressions give: Python's plain values, with text that knows its origin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "harness/text/jinja/text.h"

namespace kvc::jinja {

struct Value;
struct Macro;  // a macro's statement, see syntax.h

struct Undefined {
  std::string name;  // of what was looked for
};
struct List {
  std::vector<Value> items;
  bool tuple = false;
  int depth = 1;  // of lists and dicts inside each other
};
struct Dict {
  std::vector<std::pair<Value, Value>> items;  // in order, keys unequal
  int depth = 1;
};
// The only value that changes once it is made. It is never kept inside another value, so there are no cycles.
struct Namespace {
  std::map<std::string, Value> attributes;
};
struct Loop {
  std::shared_ptr<const List> items;
  size_t index = 0;
};
// A macro, a global function, or a method of `self`.
struct Callable;

struct Value {
  std::variant<Undefined, std::nullptr_t, bool, int64_t, double, std::shared_ptr<const Text>,
               std::shared_ptr<const List>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
               std::shared_ptr<const Loop>, std::shared_ptr<const Callable>>
      data = Undefined{};

  Value() = default;
  Value(bool value) : data(value) {}                                           // NOLINT(google-explicit-constructor)
  Value(int64_t value) : data(value) {}                                        // NOLINT(google-explicit-constructor)
  Value(double value) : data(value) {}                                         // NOLINT(google-explicit-constructor)
  Value(std::nullptr_t value) : data(value) {}                                 // NOLINT(google-explicit-constructor)
  Value(Undefined value) : data(std::move(value)) {}                           // NOLINT(google-explicit-constructor)
  Value(Text value) : data(std::make_shared<const Text>(std::move(value))) {}  // NOLINT(google-explicit-constructor)
  Value(const char*) = delete;                                                 // would be a bool

  bool is_undefined() const { return std::holds_alternative<Undefined>(data); }
  bool is_none() const { return std::holds_alternative<std::nullptr_t>(data); }
  // Null where the value is of another kind.
  const Text* text() const { return pointer<const Text>(); }
  const List* list() const { return pointer<const List>(); }
  const Dict* dict() const { return pointer<const Dict>(); }
  Namespace* name_space() const { return pointer<Namespace>(); }
  const Loop* loop() const { return pointer<const Loop>(); }
  const Callable* callable() const { return pointer<const Callable>(); }
  const int64_t* integer() const { return std::get_if<int64_t>(&data); }
  const bool* boolean() const { return std::get_if<bool>(&data); }
  const double* real() const { return std::get_if<double>(&data); }

 private:
  template <typename T>
  T* pointer() const {
    const auto* held = std::get_if<std::shared_ptr<T>>(&data);
    return held == nullptr ? nullptr : held->get();
  }
};

struct Callable {
  std::string name;
  Value self;                    // of a method
  const Macro* macro = nullptr;  // null: a global function or a method
};

// "a string", "a list": for messages.
const char* kind_name(const Value& value);
bool is_true(const Value& value);
// As Python writes a float.
std::string spell_real(double value);

// Of messages as a template gets them. Texts are data unless `control`.
// Of lists and dicts inside each other; 0 for anything else.
int depth_of(const Value& value);
Value make_text(std::string bytes, bool control);
Value make_dict(std::vector<std::pair<std::string, Value>> items);
Value make_list(std::vector<Value> items);

}  // namespace kvc::jinja
