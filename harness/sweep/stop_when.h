// A sweep file's stop_when: when a cell stops early.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "harness/core/config_text.h"

namespace kvc {

// What of it holds for which task is decided by whoever judges answers (report/certification.h).
struct StopWhen {
  std::string rule;  // "decided" or "certified"
  // What is tolerated, by loss: accuracy and agreement in shares of what the full cache has, kl in nats per token.
  std::map<std::string, double> tolerance = {{"accuracy", 0.05}, {"kl", 0.1}};
  double confidence = 0.95;
  double kl_bound = 2;   // nats; a KL above counts as this much
  bool give_up = true;   // "certified": leave what the documents left cannot certify
  bool halving = false;  // "certified": the methods race, the better half goes on, again and again

  Json to_json() const;
};

// 'decided', or {rule: decided, tolerance: {accuracy: 1 %, kl: 0.1}, confidence: 95 %, kl_bound: 2}. What is wrong goes
// to `problems`, under /stop_when.
StopWhen read_stop_when(const Json& value, Problems& problems);

// "0.01" or "1 %"; nothing for another text.
std::optional<double> parse_share(const std::string& text);

}  // namespace kvc
