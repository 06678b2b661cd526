// Small plug-ins for the tests of the sweep: what they do is plain to see, and they count how often they are called.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "harness/core/error.h"

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

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kvc_sweep_XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

template <class Function>
std::string error_of(Function&& function) {
  try {
    function();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace kvc
