// Attributes, elements, slices; arithmetic.
#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/text/jinja/fail.h"
#include "harness/text/jinja/run.h"

namespace kvc::jinja {
namespace {

Value loop_attribute(const Loop& loop, const std::string& name) {
  const std::vector<Value>& items = loop.items->items;
  const auto index = static_cast<int64_t>(loop.index), length = static_cast<int64_t>(items.size());
  if (name == "index") return index + 1;
  if (name == "index0") return index;
  if (name == "revindex") return length - index;
  if (name == "revindex0") return length - index - 1;
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 == length;
  if (name == "length") return length;
  if (name == "previtem" && index > 0) return items[loop.index - 1];
  if (name == "nextitem" && index + 1 < length) return items[loop.index + 1];
  return Undefined{"loop." + name};
}

// The offset_of of `index` counted from the front, or from the back if negative; -1 outside.
int64_t offset_of(int64_t index, int64_t length) {
  if (index < 0) index += length;
  return index < 0 || index >= length ? -1 : index;
}

Value list_item(Run& run, const Value& value, int64_t index) {
  if (const List* list = value.list()) {
    const int64_t at = offset_of(index, static_cast<int64_t>(list->items.size()));
    return at < 0 ? Value(Undefined{"an element"}) : list->items[static_cast<size_t>(at)];
  }
  const Text& text = *value.text();
  run.work(8 * text.size());
  const std::vector<size_t> offsets = character_offsets(text.bytes());
  const int64_t at = offset_of(index, static_cast<int64_t>(offsets.size()) - 1);
  if (at < 0) return Undefined{"a character"};
  return text.part(offsets[static_cast<size_t>(at)], offsets[static_cast<size_t>(at) + 1]);
}

// Python's slice.indices(): begin, step, count.
struct Slice {
  int64_t begin, step, count;
};
Slice slice_range(Run& run, const Value* start, const Value* stop, const Value* step, int64_t length) {
  const auto given = [](const Value* value) { return value != nullptr && !value->is_none(); };
  const int64_t by = given(step) ? run.integer(*step, "the step of a slice") : 1;
  if (by == 0) run.fail("the step of a slice is 0");
  const int64_t lowest = by > 0 ? 0 : -1, highest = by > 0 ? length : length - 1;
  const auto bound = [&](const Value* value, int64_t otherwise) {
    if (!given(value)) return otherwise;
    const int64_t index = run.integer(*value, "the bound of a slice");
    return std::clamp(index < 0 ? std::max(index, -length - 1) + length : index, lowest, highest);
  };
  const int64_t begin = bound(start, by > 0 ? lowest : highest), end = bound(stop, by > 0 ? highest : lowest);
  const int64_t span = by > 0 ? end - begin : begin - end;
  // The smallest integer has no positive counterpart.
  const int64_t width = by > 0 ? by : by == std::numeric_limits<int64_t>::min() ? length + 1 : -by;
  return {begin, by, span <= 0 ? 0 : (span - 1) / std::max<int64_t>(width, 1) + 1};
}

double real(const Value& value) {
  if (const bool* b = value.boolean()) return *b ? 1 : 0;
  if (const int64_t* i = value.integer()) return static_cast<double>(*i);
  return *value.real();
}
bool is_integer(const Value& value) {
  return value.integer() != nullptr || value.boolean() != nullptr;
}
bool is_number(const Value& value) {
  return is_integer(value) || value.real() != nullptr;
}

Value of_integers(Run& run, char sign, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflows = false;
  if (sign == '+') overflows = __builtin_add_overflow(a, b, &result);
  if (sign == '-') overflows = __builtin_sub_overflow(a, b, &result);
  if (sign == '*') overflows = __builtin_mul_overflow(a, b, &result);
  if (sign == '\\' || sign == '%') {
    if (b == 0) run.fail("a division by zero");
    if (b == -1) {
      overflows = sign == '\\' && __builtin_sub_overflow(int64_t{0}, a, &result);
    } else {
      const int64_t rest = a % b, rounds_down = rest != 0 && (rest < 0) != (b < 0) ? 1 : 0;
      result = sign == '%' ? rest + rounds_down * b : a / b - rounds_down;
    }
  }
  if (sign == '^') {
    result = 1;
    for (int64_t i = 0; i < b && !overflows; ++i) {
      run.step();
      overflows = __builtin_mul_overflow(result, a, &result);
      if (result == 0 || (a == 1)) break;
    }
  }
  if (overflows) run.fail("a number is out of range");
  return result;
}

Value of_reals(Run& run, char sign, double a, double b) {
  if (sign == '+') return a + b;
  if (sign == '-') return a - b;
  if (sign == '*') return a * b;
  if (sign == '^') return std::pow(a, b);
  if (b == 0) run.fail("a division by zero");
  if (sign == '/') return a / b;
  if (sign == '\\') return std::floor(a / b);
  const double rest = std::fmod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value repeated(Run& run, const Value& value, int64_t times) {
  times = std::max<int64_t>(times, 0);
  const auto check = [&](size_t size) {
    if (size > 0 && times > (int64_t{1} << 40U) / static_cast<int64_t>(size)) run.fail("a repetition is too long");
    return static_cast<int64_t>(size) * times;
  };
  if (const Text* text = value.text()) {
    run.work(static_cast<size_t>(check(text->size())));
    Text result;
    for (int64_t i = 0; i < times && !text->empty(); ++i) result.append(*text);
    return result;
  }
  const List& list = *value.list();
  run.step(check(list.items.size()));
  std::vector<Value> items;
  for (int64_t i = 0; i < times && !list.items.empty(); ++i) {
    items.insert(items.end(), list.items.begin(), list.items.end());
  }
  return run.list(std::move(items), list.tuple);
}

}  // namespace

Value attribute(Run& run, const Value& value, const std::string& name) {
  if (const Namespace* space = value.name_space()) {
    const auto found = space->attributes.find(name);
    return found == space->attributes.end() ? Value(Undefined{name}) : found->second;
  }
  if (const Loop* loop = value.loop(); loop != nullptr && name != "cycle") return loop_attribute(*loop, name);
  if (const auto* undefined = std::get_if<Undefined>(&value.data)) {
    run.fail(fmt::format("'{}' is undefined, it has no '{}'", excerpt(undefined->name), excerpt(name)));
  }
  Value found = method(value, name);
  if (!found.is_undefined()) return found;
  if (const Dict* dict = value.dict()) {
    for (const auto& [key, element] : dict->items) {
      run.step();
      if (key.text() != nullptr && key.text()->bytes() == name) return element;
    }
  }
  return Undefined{name};
}

Value item(Run& run, const Value& value, const Value& key) {
  if (const Dict* dict = value.dict()) {
    if (const Value* found = run.find(*dict, key)) return *found;
  } else if ((value.list() != nullptr || value.text() != nullptr) && is_integer(key)) {
    return list_item(run, value, run.integer(key, "an index"));
  }
  if (const Text* name = key.text()) {
    if (name->size() <= 256) return attribute(run, value, name->bytes());
  }
  if (value.is_undefined()) run.fail("an element of an undefined value");
  return Undefined{"an element"};
}

Value slice(Run& run, const Value& value, const Value* start, const Value* stop, const Value* step) {
  if (const List* list = value.list()) {
    const Slice range = slice_range(run, start, stop, step, static_cast<int64_t>(list->items.size()));
    std::vector<Value> items;
    for (int64_t i = 0; i < range.count; ++i) {
      items.push_back(list->items[static_cast<size_t>(range.begin + i * range.step)]);
    }
    return run.list(std::move(items), list->tuple);
  }
  const Text* text = value.text();
  if (text == nullptr) run.fail(fmt::format("{} cannot be sliced", kind_name(value)));
  run.work(text->size() * 8);
  const std::vector<size_t> offsets = character_offsets(text->bytes());
  const Slice range = slice_range(run, start, stop, step, static_cast<int64_t>(offsets.size()) - 1);
  Text result;
  for (int64_t i = 0; i < range.count; ++i) {
    const auto at = static_cast<size_t>(range.begin + i * range.step);
    result.append(*text, offsets[at], offsets[at + 1]);
  }
  return result;
}

Value arithmetic(Run& run, char sign, const Value& a, const Value& b) {
  const bool numbers = is_number(a) && is_number(b);
  if (numbers && is_integer(a) && is_integer(b) && sign != '/') {
    const int64_t x = run.integer(a, "a"), y = run.integer(b, "b");
    if (sign != '^' || y >= 0) return of_integers(run, sign, x, y);
  }
  if (numbers) return of_reals(run, sign, real(a), real(b));
  if (sign == '+' && a.text() != nullptr && b.text() != nullptr) {
    run.work(a.text()->size() + b.text()->size());
    Text result = *a.text();
    result.append(*b.text());
    return result;
  }
  if (sign == '+' && a.list() != nullptr && b.list() != nullptr && a.list()->tuple == b.list()->tuple) {
    std::vector<Value> items = a.list()->items;
    items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
    return run.list(std::move(items), a.list()->tuple);
  }
  const auto repeats = [](const Value& value) { return value.text() != nullptr || value.list() != nullptr; };
  if (sign == '*' && repeats(a) && is_integer(b)) return repeated(run, a, run.integer(b, "a count"));
  if (sign == '*' && repeats(b) && is_integer(a)) return repeated(run, b, run.integer(a, "a count"));
  const std::string spelled = sign == '\\' ? "//" : sign == '^' ? "**" : std::string(1, sign);
  const auto named = [](const Value& value) {
    const auto* undefined = std::get_if<Undefined>(&value.data);
    return undefined == nullptr ? kind_name(value) : fmt::format("'{}', which is undefined", excerpt(undefined->name));
  };
  run.fail(fmt::format("'{}' between {} and {}", spelled, named(a), named(b)));
}

Value negated(Run& run, const Value& value) {
  if (!is_number(value)) run.fail(fmt::format("'-' in front of {}", kind_name(value)));
  if (is_integer(value)) return of_integers(run, '-', 0, run.integer(value, "a"));
  return -*value.real();
}

}  // namespace kvc::jinja
