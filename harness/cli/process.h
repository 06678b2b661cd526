// Another program run to its end, its output caught.
#pragma once

#include <string>
#include <vector>

namespace kvc {

struct ProcessResult {
  int code = -1;         // exit code; 128 + signal when a signal ended it
  bool started = false;  // false: there is no such program on the PATH
  std::string out;       // stdout and stderr
};

ProcessResult run_process(const std::vector<std::string>& arguments);

}  // namespace kvc
