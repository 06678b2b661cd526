// Drives the integer options of every plug-in of a registry to their limits.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>

#include "harness/core/registry.h"

namespace kvc {

// For every integer option of every plug-in, and lists of integers: 2^63 - 1 is refused in one sentence; with the
// largest integer that any option may have, and with its negative, the plug-in is refused as well, or `use` gives a
// result or an Error for the user. `given` adds options that a plug-in needs.
template <class Interface>
void expect_limits_of_integer_options(const std::function<void(const std::string& name, const Interface&)>& use,
                                      const std::function<Json(const std::string& name)>& given) {
  const auto& registry = Registry<Interface>::instance();
  for (const auto& [name, entry] : registry.entries()) {
    for (const OptionInfo& option : entry.options) {
      const bool list = option.type == "list" && !option.default_value.empty() && option.default_value[0].is_number();
      if (option.type != "integer" && !list) continue;
      for (const int64_t value : {std::numeric_limits<int64_t>::max(), kMostInteger, -kMostInteger}) {
        SCOPED_TRACE(name + ", " + option.name + ": " + std::to_string(value));
        Json options = given(name);
        options[option.name] = value;
        try {
          const auto plugin = registry.create(name, options);
          EXPECT_LE(value, kMostInteger) << "accepted";
          use(name, *plugin);
        } catch (const Error& error) {
          EXPECT_NE(error.kind(), ErrorKind::kInternal) << error.what();
        } catch (const std::exception& error) {
          ADD_FAILURE() << error.what();
        }
      }
    }
  }
}

}  // namespace kvc
