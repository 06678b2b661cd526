#include "harness/text/jinja/run.h"

#include <algorithm>

#include "harness/text/jinja/fail.h"

namespace kvc::jinja {
namespace {

constexpr int kMaxValueDepth = 64;

// Booleans count as 0 and 1, as in Python.
const double* as_number(const Value& value, double& buffer) {
  if (const bool* b = value.boolean()) {
    buffer = *b ? 1 : 0;
  } else if (const int64_t* i = value.integer()) {
    buffer = static_cast<double>(*i);
  } else if (const double* d = value.real()) {
    buffer = *d;
  } else {
    return nullptr;
  }
  return &buffer;
}

}  // namespace

void Run::fail(const std::string& fact) const {
  jinja::fail("the chat template fails: " + fact, where_, line);
}

void Run::too_much(const char* what) const {
  fail(fmt::format("it takes too many {}", what));
}

void Run::write(Text& out, const Text& text) {
  work(text.size());
  if (static_cast<int64_t>(out.size() + text.size()) > limits_.output_bytes) too_much("bytes of output");
  out.append(text);
}

void Run::check_kept(const Value& value) const {
  if (value.name_space() != nullptr || value.loop() != nullptr || value.callable() != nullptr) {
    fail(fmt::format("{} inside a list, a dict or a namespace is not supported", kind_name(value)));
  }
}

Value Run::list(std::vector<Value> items, bool tuple) {
  step(static_cast<int64_t>(items.size()));
  auto made = std::make_shared<List>();
  for (const Value& value : items) {
    check_kept(value);
    made->depth = std::max(made->depth, depth_of(value) + 1);
  }
  if (made->depth > kMaxValueDepth) fail("lists are nested deeper than 64 levels");
  made->items = std::move(items);
  made->tuple = tuple;
  Value result;
  result.data = std::shared_ptr<const List>(std::move(made));
  return result;
}

Value Run::dict(std::vector<std::pair<Value, Value>> items) {
  auto made = std::make_shared<Dict>();
  for (auto& [key, value] : items) {
    if (depth_of(key) > 0) fail("a list or a dict as a key is not supported");
    check_kept(key);
    check_kept(value);
    made->depth = std::max(made->depth, depth_of(value) + 1);
    auto* known = const_cast<Value*>(find(*made, key));
    if (known != nullptr) {
      *known = std::move(value);
    } else {
      made->items.emplace_back(std::move(key), std::move(value));
    }
  }
  if (made->depth > kMaxValueDepth) fail("dicts are nested deeper than 64 levels");
  Value result;
  result.data = std::shared_ptr<const Dict>(std::move(made));
  return result;
}

const Value* Run::find(const Dict& dict, const Value& key) {
  for (const auto& [known, value] : dict.items) {
    step();
    if (equal(known, key)) return &value;
  }
  return nullptr;
}

bool Run::equal(const Value& a, const Value& b) {
  step();
  if (const Text* s = a.text(), *t = b.text(); s != nullptr && t != nullptr) {
    if (s == t) return true;
    if (s->size() != t->size()) return false;
    work(s->size());
    return s->bytes() == t->bytes();
  }
  if (const int64_t* i = a.integer(), *j = b.integer(); i != nullptr && j != nullptr) return *i == *j;
  double x = 0, y = 0;
  if (as_number(a, x) != nullptr && as_number(b, y) != nullptr) return x == y;
  if (const List* s = a.list(), *t = b.list(); s != nullptr && t != nullptr) {
    return s->tuple == t->tuple && s->items.size() == t->items.size() &&
           std::equal(s->items.begin(), s->items.end(), t->items.begin(),
                      [this](const Value& one, const Value& other) { return equal(one, other); });
  }
  if (const Dict* s = a.dict(), *t = b.dict(); s != nullptr && t != nullptr) {
    if (s == t) return true;
    return s->items.size() == t->items.size() && std::all_of(s->items.begin(), s->items.end(), [&](const auto& entry) {
             const Value* other = find(*t, entry.first);
             return other != nullptr && equal(entry.second, *other);
           });
  }
  if (a.name_space() != nullptr) return a.name_space() == b.name_space();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

bool Run::less(const Value& a, const Value& b, const char* what) {
  if (const Text* s = a.text(), *t = b.text(); s != nullptr && t != nullptr) {
    work(std::min(s->size(), t->size()));
    return s->bytes() < t->bytes();
  }
  if (const int64_t* i = a.integer(), *j = b.integer(); i != nullptr && j != nullptr) return *i < *j;
  double x = 0, y = 0;
  if (as_number(a, x) == nullptr || as_number(b, y) == nullptr) {
    fail(fmt::format("'{}' between {} and {}", what, kind_name(a), kind_name(b)));
  }
  return x < y;
}

bool Run::contains(const Value& container, const Value& item) {
  if (const Text* text = container.text()) {
    const Text& part = want_text(item, "what is looked for in a string");
    work(text->size());
    return text->bytes().find(part.bytes()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) return find(*dict, item) != nullptr;
  const std::shared_ptr<const List> list = elements(container);
  return std::any_of(list->items.begin(), list->items.end(), [&](const Value& one) { return equal(one, item); });
}

std::shared_ptr<const List> Run::elements(const Value& value) {
  if (value.list() != nullptr) return std::get<std::shared_ptr<const List>>(value.data);
  std::vector<Value> items;
  if (const Dict* dict = value.dict()) {
    for (const auto& [key, element] : dict->items) items.push_back(key);
  } else if (const Text* text = value.text()) {
    work(text->size());
    step(count_characters(text->bytes()));
    const std::vector<size_t> offsets = character_offsets(text->bytes());
    for (size_t i = 0; i + 1 < offsets.size(); ++i) items.emplace_back(text->part(offsets[i], offsets[i + 1]));
  } else if (!value.is_undefined()) {
    fail(fmt::format("{} has no elements", kind_name(value)));
  }
  return std::get<std::shared_ptr<const List>>(list(std::move(items)).data);
}

int64_t Run::length(const Value& value) {
  if (value.is_undefined()) return 0;
  if (const Text* text = value.text()) {
    work(text->size());
    return count_characters(text->bytes());
  }
  if (const List* list = value.list()) return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = value.dict()) return static_cast<int64_t>(dict->items.size());
  if (const Loop* loop = value.loop()) return static_cast<int64_t>(loop->items->items.size());
  fail(fmt::format("{} has no length", kind_name(value)));
}

std::vector<const Value*> Run::bind(const Arguments& arguments, const std::string& callee,
                                    std::initializer_list<const char*> parameters) const {
  if (arguments.values.size() > parameters.size()) {
    fail(fmt::format("'{}' takes at most {} arguments, {} are given", callee, parameters.size(),
                     arguments.values.size()));
  }
  std::vector<const Value*> bound(parameters.size(), nullptr);
  for (size_t i = 0; i < arguments.values.size(); ++i) bound[i] = &arguments.values[i];
  for (const auto& [name, value] : arguments.keywords) {
    const auto* known = std::find(parameters.begin(), parameters.end(), name);
    if (known == parameters.end()) fail(fmt::format("'{}' has no argument '{}'", callee, excerpt(name)));
    const Value*& place = bound[static_cast<size_t>(known - parameters.begin())];
    if (place != nullptr) fail(fmt::format("'{}' is given its argument '{}' twice", callee, name));
    place = &value;
  }
  return bound;
}

int64_t Run::integer(const Value& value, const std::string& what) const {
  if (const bool* b = value.boolean()) return *b ? 1 : 0;
  const int64_t* i = value.integer();
  if (i == nullptr) fail(fmt::format("{} must be an integer, it is {}", what, kind_name(value)));
  return *i;
}

const Text& Run::want_text(const Value& value, const std::string& what) const {
  const Text* text = value.text();
  if (text == nullptr) fail(fmt::format("{} must be a string, it is {}", what, kind_name(value)));
  return *text;
}

}  // namespace kvc::jinja
