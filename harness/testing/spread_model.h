// The model of tiny_model.h with its second layer on another device.
#pragma once

#include "harness/testing/tiny_model.h"

namespace kvc {

Model spread_model(std::uint64_t seed, at::ScalarType dtype, const c10::Device& first, const c10::Device& second);

}  // namespace kvc
