// Small plug-ins for the tests of the sweep: what they do is plain to see, and they count how often they are called.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "harness/core/error.h"
#include "harness/testing/checks.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {

struct Calls {
  int64_t loads = 0;     // of models
  int64_t queries = 0;   // QuerySource::make
  int64_t compacts = 0;  // compact() of any test method
  int64_t budgets = 0;   // budgets in those calls
  int64_t references = 0;
  int64_t asks = 0;
};
Calls& calls();

// The test method `test_flaky` fails while this is true.
bool& flaky_fails();

}  // namespace kvc
