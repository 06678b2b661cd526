#include "harness/core/options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <span>
#include <utility>

namespace kvc {
namespace {

std::string shown(const Json& value) {
  if (value.is_string()) return "'" + value.get<std::string>() + "'";
  return value.is_number_float() ? fmt::format("{}", value.get<double>()) : value.dump();
}

// The value, or of a list the first element, that the rule forbids; null where there is none.
const Json* forbidden(const OptionRule& rule, const Json& value) {
  if (!rule.holds) return nullptr;
  if (!value.is_array() || value.empty()) return rule.holds(value) ? nullptr : &value;
  const auto found = std::find_if_not(value.begin(), value.end(), rule.holds);
  return found == value.end() ? nullptr : &*found;
}

OptionRule number_rule(const std::string& must, const std::function<bool(double)>& holds) {
  return {"be " + must, [=](const Json& value) { return value.is_array() || holds(value.get<double>()); }};
}

}  // namespace

std::string options_detail::wrong_type(const std::string& type, const Json& value) {
  const std::string wanted = type == "bool"      ? "true or false"
                             : type == "integer" ? "an integer"
                             : type == "map"     ? "a mapping {key: value}"
                             : type == "plug-in" ? "a name or {name: NAME, option: value}"
                                                 : "a " + type;
  return fmt::format("must be {}; got {}", wanted, value.dump());
}

std::string options_detail::integer_problem(const OptionRule& rule, const Json& beyond) {
  const Json limit = beyond.get<double>() > 0 ? kMostInteger : -kMostInteger;
  if (rule.holds && !rule.holds(limit)) return fmt::format("must {}; got {}", rule.must, shown(beyond));
  return fmt::format("must be from {} to {}; got {}", -kMostInteger, kMostInteger, shown(beyond));
}

std::string OptionRule::problem(const Json& value, const Json* written) const {
  const Json* wrong = forbidden(*this, value);
  return wrong == nullptr ? "" : fmt::format("must {}; got {}", must, shown(written == nullptr ? *wrong : *written));
}

std::string OptionRule::mend(const Json& value, const Json& default_value) const {
  if (!example.empty()) return example;
  const Json* wrong = forbidden(*this, value);
  if (!names.empty() && wrong != nullptr && wrong->is_string()) return suggest_name(wrong->get<std::string>(), names);
  return fmt::format("default: {}", default_value.dump());
}

OptionRule at_least(int64_t least) {
  return number_rule(fmt::format("{} or more", least), [=](double x) { return x >= static_cast<double>(least); });
}

OptionRule between(double least, double most) {
  return number_rule(fmt::format("{} to {}", least, most), [=](double x) { return x >= least && x <= most; });
}

OptionRule more_than(double bound, double most) {
  return number_rule(fmt::format("above {} and at most {}", bound, most),
                     [=](double x) { return x > bound && x <= most; });
}

OptionRule odd(int64_t most) {
  const bool bounded = most < std::numeric_limits<int64_t>::max();
  return {bounded ? fmt::format("be an odd number from 1 to {}", most) : "be an odd number from 1",
          [=](const Json& value) {
            const auto x = value.get<int64_t>();
            return x >= 1 && x <= most && x % 2 == 1;
          }};
}

OptionRule one_of(std::vector<std::string> names) {
  const auto but_last = std::span(names).first(names.size() - 1);
  std::string must = fmt::format("be {} or {}", fmt::join(but_last, ", "), names.back());
  const auto holds = [names](const Json& value) {
    return value.is_array() || std::find(names.begin(), names.end(), value.get<std::string>()) != names.end();
  };
  return {std::move(must), holds, std::move(names)};
}

OptionRule none_or(OptionRule rule) {
  rule.must += " (or empty)";
  rule.holds = [holds = std::move(rule.holds)](const Json& value) { return value == "" || holds(value); };
  return rule;
}

OptionRule named(const std::string& what, const std::string& example) {
  return {
      "name " + what, [](const Json& value) { return value.is_string() ? value != "" : !value.empty(); }, {}, example};
}

}  // namespace kvc
