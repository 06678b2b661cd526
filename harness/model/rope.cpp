// Letters: d rotated dimensions of a head; i = 0 .. d / 2 - 1 counts their pairs.
#include "harness/model/rope.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <mutex>
#include <numbers>
#include <string>

#include "harness/core/error.h"

namespace kvc {

namespace {

constexpr double kTurn = 2 * std::numbers::pi;

[[noreturn]] void refuse_rotation(const std::string& fact) {
  throw Error(ErrorKind::kData, fact, "rotary embedding of the model",
              "its rope numbers contradict each other: take them from the model's publisher");
}

void check_numbers(const DecoderSpec& spec) {
  const auto positive = [](double x) { return std::isfinite(x) && x > 0; };
  if (!positive(spec.rope_base) || !positive(spec.rope_scaling_factor)) {
    refuse_rotation(
        fmt::format("rotary base {} and scaling factor {} must be positive", spec.rope_base, spec.rope_scaling_factor));
  }
  const std::vector<double>& divisors = spec.rope_frequency_divisors;
  if (!divisors.empty() && static_cast<int64_t>(divisors.size()) != spec.head_dim / 2) {
    refuse_rotation(fmt::format("{} rotary frequency divisors for {} frequencies", divisors.size(), spec.head_dim / 2));
  }
  if (!std::all_of(divisors.begin(), divisors.end(), positive))
    refuse_rotation("a rotary frequency divisor is not positive");
  const bool stretched = spec.rope_scaling != RopeScaling::kNone && spec.rope_scaling != RopeScaling::kLinear;
  const bool listed = spec.rope_scaling == RopeScaling::kLlama3 && !divisors.empty();
  if (stretched && !listed && spec.rope_original_max_positions < 1) {
    refuse_rotation("rotary scaling comes without the context length before the stretch");
  }
}

// base^(2 i / d)
std::vector<float> wave_lengths(double base, int64_t head_dim) {
  const auto narrow_base = static_cast<double>(static_cast<float>(base));
  std::vector<float> lengths;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    lengths.push_back(static_cast<float>(std::pow(narrow_base, static_cast<double>(exponent))));
  }
  return lengths;
}

std::vector<float> plain_frequencies(const DecoderSpec& spec, double base) {
  std::vector<float> frequencies = wave_lengths(base, spec.head_dim);
  for (float& value : frequencies) value = 1.0F / value;
  for (size_t i = 0; i < spec.rope_frequency_divisors.size(); ++i) {
    frequencies[i] /= static_cast<float>(spec.rope_frequency_divisors[i]);
  }
  return frequencies;
}

// Neural-tangent-kernel stretching: a larger base, so that the slowest frequency fits the longer text and the fastest
// stays.
double dynamic_base(const DecoderSpec& spec) {
  const int64_t asked = spec.rope_dynamic_positions > 0 ? spec.rope_dynamic_positions : spec.max_positions;
  const double original = static_cast<double>(spec.rope_original_max_positions);
  const double length = std::max(static_cast<double>(asked), original);
  if (spec.head_dim < 4) refuse_rotation(fmt::format("dynamic rotary scaling of head dimension {}", spec.head_dim));
  const auto d = static_cast<double>(spec.head_dim);
  const double factor = spec.rope_scaling_factor;
  return spec.rope_base * std::pow(factor * length / original - (factor - 1), d / (d - 2));
}

// Llama 3.1: waves longer than original / low_freq_factor are stretched by the factor, those shorter than original /
// high_freq_factor stay, between the two lies a ramp.
void stretch_llama3(const DecoderSpec& spec, std::vector<float>& frequencies) {
  const double low = spec.rope_low_freq_factor, high = spec.rope_high_freq_factor;
  if (!(low > 0) || !(high > low)) {
    refuse_rotation(fmt::format("llama3 rotary scaling with low and high frequency factors {} and {}", low, high));
  }
  const auto original = static_cast<double>(spec.rope_original_max_positions);
  const auto longest = static_cast<float>(original / low), shortest = static_cast<float>(original / high);
  const auto factor = static_cast<float>(spec.rope_scaling_factor);
  for (float& frequency : frequencies) {
    const float wave = static_cast<float>(kTurn) / frequency;
    if (wave < shortest) continue;
    if (wave > longest) {
      frequency /= factor;
      continue;
    }
    const float part = (static_cast<float>(original) / wave - static_cast<float>(low)) / static_cast<float>(high - low);
    frequency = (1.0F - part) * frequency / factor + part * frequency;
  }
}

// Where a pair turns `turns` times within the original length, as a real number of pairs.
double pair_that_turns(const DecoderSpec& spec, double turns) {
  return static_cast<double>(spec.head_dim) *
         std::log(static_cast<double>(spec.rope_original_max_positions) / (turns * kTurn)) /
         (2 * std::log(spec.rope_base));
}

// YaRN, Peng et al., arXiv:2309.00071: pairs below the ramp stay, those above are stretched by the factor.
void stretch_yarn(const DecoderSpec& spec, std::vector<float>& frequencies) {
  if (!(spec.rope_beta_fast > 0) || !(spec.rope_beta_slow > 0) || spec.rope_base == 1.0) {
    refuse_rotation(fmt::format("yarn rotary scaling with beta_fast {}, beta_slow {} and base {}", spec.rope_beta_fast,
                                spec.rope_beta_slow, spec.rope_base));
  }
  double low = pair_that_turns(spec, spec.rope_beta_fast), high = pair_that_turns(spec, spec.rope_beta_slow);
  if (spec.rope_yarn_truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, static_cast<double>(spec.head_dim - 1));
  if (low == high) high += 0.001;  // a step
  const auto factor = static_cast<float>(spec.rope_scaling_factor);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float ramp = (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float kept = 1.0F - std::clamp(ramp, 0.0F, 1.0F);
    const float wave = 1.0F / frequencies[i];
    frequencies[i] = 1.0F / (factor * wave) * (1.0F - kept) + 1.0F / wave * kept;
  }
}

double yarn_factor(const DecoderSpec& spec) {
  if (spec.rope_attention_factor > 0) return spec.rope_attention_factor;
  const auto scale = [&](double weight) {
    return spec.rope_scaling_factor <= 1 ? 1.0 : 0.1 * weight * std::log(spec.rope_scaling_factor) + 1.0;
  };
  if (spec.rope_mscale != 0 && spec.rope_mscale_all_dim != 0) {
    return scale(spec.rope_mscale) / scale(spec.rope_mscale_all_dim);
  }
  return scale(1.0);
}

// Only cosine and sine of the angle are exact; at position 8,000 an unrounded angle would differ by some 1e-4.
RotaryTables rotary_tables(const RopeFrequencies& rope, int64_t n_positions, const c10::Device& device) {
  const auto half = static_cast<int64_t>(rope.frequencies.size());
  const auto factor = static_cast<float>(rope.factor);
  at::Tensor cos = at::empty({n_positions, half}, at::kFloat);
  at::Tensor sin = at::empty_like(cos);
  auto* c = cos.mutable_data_ptr<float>();
  auto* s = sin.mutable_data_ptr<float>();
  at::parallel_for(0, n_positions, 256, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(p) * rope.frequencies[static_cast<size_t>(i)];
        c[p * half + i] = static_cast<float>(std::cos(static_cast<double>(angle))) * factor;
        s[p * half + i] = static_cast<float>(std::sin(static_cast<double>(angle))) * factor;
      }
    }
  });
  return {cos.to(device), sin.to(device)};
}

}  // namespace

RopeFrequencies rope_frequencies(const DecoderSpec& spec) {
  check_numbers(spec);
  const bool dynamic = spec.rope_scaling == RopeScaling::kDynamic;
  RopeFrequencies result{plain_frequencies(spec, dynamic ? dynamic_base(spec) : spec.rope_base), 1.0};
  switch (spec.rope_scaling) {
    case RopeScaling::kNone:
    case RopeScaling::kDynamic:
      break;
    case RopeScaling::kLinear:
      for (float& value : result.frequencies) value /= static_cast<float>(spec.rope_scaling_factor);
      break;
    case RopeScaling::kLlama3:
      if (spec.rope_frequency_divisors.empty()) stretch_llama3(spec, result.frequencies);
      break;
    case RopeScaling::kYarn:
      stretch_yarn(spec, result.frequencies);
      result.factor = yarn_factor(spec);
      break;
  }
  const auto wrong = [](float x) { return !std::isfinite(x) || x < 0; };
  if (std::any_of(result.frequencies.begin(), result.frequencies.end(), wrong) || !std::isfinite(result.factor)) {
    refuse_rotation("a rotary frequency is not a finite number");
  }
  return result;
}

struct RopeTables::Grown {
  RopeFrequencies rope;
  int64_t max_positions;
  c10::Device device;
  std::mutex mutex;
  RotaryTables tables;  // under the mutex
};

RopeTables::RopeTables(const DecoderSpec& spec, const c10::Device& device)
    : grown_(std::make_shared<Grown>(rope_frequencies(spec), spec.max_positions, device)) {
  if (spec.max_positions < 1 || spec.max_positions > kMostPositions) {
    refuse_rotation(fmt::format("the context length must be 1 to {}; got {}", kMostPositions, spec.max_positions));
  }
}

RotaryTables RopeTables::covering(int64_t n_positions) const {
  constexpr int64_t kFirst = 4096;  // positions; doubled when they do not suffice
  Grown& grown = *grown_;
  const std::lock_guard<std::mutex> lock(grown.mutex);
  const int64_t held = grown.tables.cos.defined() ? grown.tables.cos.size(0) : 0;
  if (held > 0 && held >= std::min(n_positions, grown.max_positions)) return grown.tables;
  int64_t wanted = grown.max_positions;
  if (grown.device.is_cpu()) wanted = std::min(wanted, std::max({kFirst, n_positions, 2 * held}));
  grown.tables = rotary_tables(grown.rope, wanted, grown.device);
  return grown.tables;
}

}  // namespace kvc
