#include "harness/sweep/stop_when.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

namespace kvc {
namespace {

class StopWhenReader {
 public:
  explicit StopWhenReader(Problems& problems) : problems_(problems) {}

  // 'decided', or {rule: decided, tolerance: {accuracy: 1 %, kl: 0.1}, confidence: 95 %, kl_bound: 2}.
  StopWhen read(const Json& value) {
    const Json given = value.is_string() ? Json{{"rule", value}} : value;
    const std::vector<std::string> known = {"rule", "tolerance", "confidence", "kl_bound", "give_up", "halving"};
    StopWhen stop;
    if (!given.is_object()) {
      problems_.add(fmt::format("'stop_when' must be a rule or a mapping; got {}", value.dump()), "/stop_when",
                    "write 'stop_when: decided'");
      return stop;
    }
    for (const auto& [key, unused] : given.items()) {
      if (std::find(known.begin(), known.end(), key) == known.end())
        problems_.add(fmt::format("unknown key '{}'", key), "/stop_when/" + key, suggest_name(key, known));
    }
    const Json rule = given.value("rule", Json());
    stop.rule = rule.is_string() ? rule.get<std::string>() : "";
    if (stop.rule != "decided" && stop.rule != "certified") {
      problems_.add(fmt::format("'rule' must be decided or certified; got {}", rule.dump()), "/stop_when/rule",
                    suggest_name(stop.rule, {"decided", "certified"}));
    }
    const std::string number = "write a number, e.g. 0.05 or 5 %";
    if (given.contains("confidence")) {
      const auto share = share_of(given.at("confidence"));
      if (!share || *share <= 0.5 || *share >= 1)
        problems_.add(fmt::format("'confidence' must be above 0.5 and below 1; got {}", given.at("confidence").dump()),
                      "/stop_when/confidence", number);
      stop.confidence = share.value_or(0.95);
    }
    if (given.contains("kl_bound")) {
      const Json& bound = given.at("kl_bound");
      const bool valid = bound.is_number() && bound.get<double>() > 0;
      if (!valid)
        problems_.add(fmt::format("'kl_bound' must be nats above 0; got {}", bound.dump()), "/stop_when/kl_bound",
                      "write 'kl_bound: 2'");
      if (valid) stop.kl_bound = bound.get<double>();
    }
    const auto read_switch = [&](const std::string& key, bool& setting) {
      if (!given.contains(key)) return;
      const Json& json = given.at(key);
      if (!json.is_boolean())
        problems_.add(fmt::format("'{}' must be true or false; got {}", key, json.dump()), "/stop_when/" + key,
                      fmt::format("write '{}: {}'", key, !setting));
      if (json.is_boolean()) setting = json.get<bool>();
    };
    read_switch("give_up", stop.give_up);
    read_switch("halving", stop.halving);
    if (stop.halving && stop.rule == "decided") {
      problems_.add("'halving' belongs to the rule 'certified'; the rule 'decided' judges every cell by itself",
                    "/stop_when/halving", "delete it, or write 'rule: certified'");
    }
    if (given.contains("tolerance")) read_tolerance(given.at("tolerance"), stop);
    return stop;
  }

 private:
  void read_tolerance(const Json& given, StopWhen& stop) {
    const std::vector<std::string> losses = {"accuracy", "agreement", "kl"};
    if (!given.is_object() || given.empty()) {
      problems_.add(fmt::format("'tolerance' must say what is tolerated of which loss; got {}", given.dump()),
                    "/stop_when/tolerance", "write 'tolerance: {accuracy: 1 %, kl: 0.1}'");
      return;
    }
    stop.tolerance.clear();
    for (const auto& [loss, value] : given.items()) {
      const std::string pointer = "/stop_when/tolerance/" + loss;
      if (std::find(losses.begin(), losses.end(), loss) == losses.end()) {
        problems_.add(fmt::format("unknown loss '{}'", loss), pointer, suggest_name(loss, losses));
        continue;
      }
      const double most = loss == "kl" ? stop.kl_bound : 1;
      const auto share = share_of(value);
      if (!share || *share <= 0 || *share >= most)
        problems_.add(fmt::format("the tolerance of {} must be above 0 and below {}; got {}", loss, most, value.dump()),
                      pointer, loss == "kl" ? "write nats, e.g. 0.1" : "write a share, e.g. 0.01 or 1 %");
      stop.tolerance[loss] = share.value_or(most / 2);
    }
  }

  // 0.01 or "1 %".
  static std::optional<double> share_of(const Json& value) {
    if (value.is_number()) return value.get<double>();
    if (!value.is_string()) return std::nullopt;
    return parse_share(value.get<std::string>());
  }

  Problems& problems_;
};

}  // namespace

StopWhen read_stop_when(const Json& value, Problems& problems) {
  return StopWhenReader(problems).read(value);
}

Json StopWhen::to_json() const {
  return {{"rule", rule},         {"tolerance", tolerance}, {"confidence", confidence},
          {"kl_bound", kl_bound}, {"give_up", give_up},     {"halving", halving}};
}

std::optional<double> parse_share(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  std::string unit = end;
  std::erase(unit, ' ');
  if (end == text.c_str() || !(unit.empty() || unit == "%") || !std::isfinite(value)) return std::nullopt;
  return unit == "%" ? value / 100 : value;
}

}  // namespace kvc
