#include "harness/cli/cli.h"

int main(int argc, char** argv) {
  return kvc::run_cli(argc, argv);
}
