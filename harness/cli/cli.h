// The command line.
#pragma once

namespace kvc {

// Runs one command; returns the exit code: 0 done, 1 some cells failed, 2 usage or config, 3 data or weights, 4 a
// mistake of this program. Ctrl-C, kill and a closed terminal end the process with 130, 143 and 129. Results go to
// stdout, progress and errors to stderr.
int run_cli(int argc, const char* const* argv);

}  // namespace kvc
