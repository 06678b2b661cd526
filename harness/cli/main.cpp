#include <cstdlib>

#include "harness/cli/cli.h"

namespace {

// OpenMP reads its environment while the libraries are loaded, before main(). Left to itself, its threads spin while
// they wait, which makes a sweep several times slower where other programs share the cores; a user's own setting wins.
void choose_wait_policy() {
  if (std::getenv("GOMP_SPINCOUNT") == nullptr) ::setenv("OMP_WAIT_POLICY", "passive", 0);
}

}  // namespace

#if defined(__linux__)
__attribute__((section(".preinit_array"), used)) void (*const kvc_before_libraries)() = choose_wait_policy;
#endif

int main(int argc, char** argv) {
  return kvc::run_cli(argc, argv);
}
