// Options that all commands with a model share.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "harness/model/model.h"

namespace kvc {

void add_model_options(CLI::App& command, ModelConfig& config);

// --seed, a whole number from 0 to 2^63 - 1 as in sweep files; `help` without the default.
void add_seed(CLI::App& command, std::uint64_t& seed, const std::string& help = "random seed");
// --force, for commands that write a file (see core/output_file.h).
void add_force(CLI::App& command, bool& force);
// --encoding of a text that is read with read_document().
void add_encoding(CLI::App& command, std::string& encoding);

// One line of JSON or text on stdout; throws Error(kData) when it cannot be written (full disk, closed pipe).
void print_out(const std::string& text);

}  // namespace kvc
