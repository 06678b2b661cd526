#include "harness/cli/sweep_rule.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "harness/report/certification.h"

namespace kvc {

MakeStopRule sweep_rule(const SweepConfig& config) {
  if (!config.stop_when) return {};
  const StopWhen& stop = *config.stop_when;
  std::vector<std::string> tasks, losses;
  bool measured = false, beside_full = false;
  for (const Json& task : config.tasks) {
    tasks.push_back(task.value("name", ""));
    for (const auto& [loss, tolerance] : stop.tolerance) {
      if (!has_loss(loss, tasks.back())) continue;
      measured = true;
      beside_full = beside_full || loss == "accuracy";
    }
  }
  for (const auto& [loss, tolerance] : stop.tolerance) losses.push_back(loss);
  if (!measured) {
    throw Error(ErrorKind::kUsage,
                fmt::format("no task of the sweep measures what stop_when is about ({}); the tasks are {}",
                            fmt::join(losses, ", "), fmt::join(tasks, ", ")),
                config.path, "accuracy: tasks with a metric of this name; agreement and kl: task fidelity");
  }
  const bool full = std::any_of(config.methods.begin(), config.methods.end(),
                                [](const SweepMethod& method) { return method.method.at("name") == "full_cache"; });
  if (beside_full && !full) {
    throw Error(ErrorKind::kUsage, "stop_when compares accuracies with the full cache, which is not measured",
                config.path, "add full_cache to the methods");
  }
  StopSettings settings;
  settings.kind = stop.rule == "certified" ? RuleKind::kCertify : RuleKind::kDecided;
  settings.tolerance = stop.tolerance;
  settings.kl_bound = stop.kl_bound;
  settings.confidence = stop.confidence;
  settings.give_up = stop.give_up;
  settings.halving = stop.halving;
  return [settings](const RuledBlock& block) { return make_stop_rule(settings, block); };
}

}  // namespace kvc
