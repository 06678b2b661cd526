// The options of tasks that sample an answer: as the model's makers propose, or by one's own numbers.
#pragma once

#include "harness/model/decode_settings.h"
#include "harness/tasks/written_answers.h"

namespace kvc {

struct SamplingChoice {
  std::string sampling = "model";
  double temperature = 0;
  int64_t top_k = 0;
  double top_p = 1;
  double min_p = 0;

  void choice_fields(auto&& visit) {
    visit("sampling", sampling, "model: as its makers propose (generation_config.json); own: the numbers below",
          one_of({"model", "own"}));
    sampling_fields(*this, visit);
  }
  void check(const OptionCheck& fail) const {
    if (sampling == "model" && (temperature != 0 || top_k != 0 || top_p != 1 || min_p != 0)) {
      fail("sampling", "is 'model', but temperature, top_k, top_p or min_p is given too", "write sampling: own");
    }
  }
  void apply(const Model& model, DecodeSettings& settings) const {
    if (sampling == "model") return sample_as_proposed(model, settings);
    settings.temperature = temperature;
    settings.top_k = top_k;
    settings.top_p = top_p;
    settings.min_p = min_p;
  }
};

}  // namespace kvc
