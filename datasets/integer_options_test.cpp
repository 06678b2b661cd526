// Data sets with integer options at their limits: a refusal or documents, never an overflow.
#include "harness/testing/integer_options.h"

#include <gtest/gtest.h>

#include "harness/api/dataset.h"

namespace kvc {
namespace {

TEST(IntegerOptions, OfDataSetsEndInARefusalOrDocuments) {
  expect_limits_of_integer_options<Dataset>(
      [](const std::string& name, const Dataset& dataset) {
        const auto count_tokens = [](std::string_view text) { return static_cast<int64_t>(text.size() / 4); };
        EXPECT_FALSE(dataset.load({3, count_tokens}).empty()) << name;
      },
      [](const std::string& name) {
        Json given = Json::object();
        for (const OptionInfo& option : Registry<Dataset>::instance().entries().at(name).options)
          if (option.name == "documents") given["documents"] = 1;
        return given;
      });
}

}  // namespace
}  // namespace kvc
