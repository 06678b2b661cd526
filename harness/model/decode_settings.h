// How a text is written: options, ranges and help texts, once for tasks, methods and commands.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/core/options.h"

namespace kvc {

// How the next token is drawn; fields of every struct of options that has these members.
void sampling_fields(auto& options, auto&& visit) {
  visit("temperature", options.temperature, "sampling temperature; 0: greedy", between(0, 100));
  visit("top_k", options.top_k, "sample from the k likeliest tokens; 0: from all", at_least(0));
  visit("top_p", options.top_p, "nucleus: smallest set with this total probability", more_than(0, 1));
  if constexpr (requires { options.min_p; }) {
    visit("min_p", options.min_p, "drop tokens below this fraction of the top token's probability", between(0, 1));
  }
}

struct DecodeSettings {
  int64_t max_new_tokens = 64;
  double temperature = 0;
  int64_t top_k = 0;
  double top_p = 1.0;
  double min_p = 0;
  std::vector<std::string> stop;
  int64_t thinking_budget = -1;

  void fields(auto&& visit) {
    visit("max_new_tokens", max_new_tokens, "longest answer, in tokens", at_least(1));
    sampling_fields(*this, visit);
    visit("stop", stop, "a text that ends the answer",
          OptionRule{"not be empty", [](const Json& text) { return text != ""; }});
    visit("thinking_budget", thinking_budget, "longest thought in tokens, then </think> is inserted; -1: no limit",
          at_least(-1));
  }
  Json to_json() const { return options_to_json(*this); }
};

}  // namespace kvc
