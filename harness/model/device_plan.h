// Which device holds which part of a model: weights that do not fit on one GPU are spread over several by layers. A
// text goes through the layers one after the other, so that one GPU works at a time; each layer's part of every cache
// lies beside its weights.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

#include "harness/model/decoder_spec.h"

namespace kvc {

struct DevicePlan {
  c10::Device home;                 // embedding, final norm and head; what the decoder is given and gives back
  std::vector<c10::Device> layers;  // of each layer; empty = all at home

  DevicePlan(c10::Device all) : home(all) {}      // NOLINT: a device is a plan
  DevicePlan(c10::DeviceType all) : home(all) {}  // NOLINT

  c10::Device of(int64_t layer) const { return layers.empty() ? home : layers.at(static_cast<size_t>(layer)); }
};

// Neighbouring layers on each of `devices` (at least one, the first is home), about as many numbers on each, embedding
// and head counted; every device gets a layer as long as there are any.
DevicePlan spread_layers(const DecoderSpec& spec, const std::vector<c10::Device>& devices);

// The GPUs of ModelConfig::devices ("auto" = all, or a number), beginning with `first`, on a machine with that many.
// Throws Error(kUsage) for more than there are, or where `first` is no GPU.
std::vector<c10::Device> choose_devices(const std::string& devices, const c10::Device& first, int64_t n_gpus);

}  // namespace kvc
