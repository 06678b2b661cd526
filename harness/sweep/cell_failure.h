// What a plug-in, LibTorch or a full memory throws while a cell is measured, as the message of its failed record.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "harness/model/device_care.h"

namespace kvc {

// Runs `work`; the message of what it threw (kvc::Error, c10::Error, out of memory), or nothing. Throws DeviceLost
// where `device` is lost after that.
std::optional<std::string> failure_of(const std::function<void()>& work, const DeviceCare& device = {});

}  // namespace kvc
