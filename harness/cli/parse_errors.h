// What CLI11 has to say about a command line, in words for people.
#pragma once

#include <CLI/CLI.hpp>

#include "harness/core/error.h"

namespace kvc {

// Throws Error(kUsage) with the nearest name for an unknown command or an unknown --option; CLI11 would name the words
// behind it, in reverse.
void check_names(const CLI::App& app, int argc, const char* const* argv);

// The same mistake as an Error(kUsage) whose cure names the command's own help.
Error parse_error(const CLI::App& app, const CLI::ParseError& error);

}  // namespace kvc
