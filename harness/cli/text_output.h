// Where a command's text goes: a file, or standard output.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace kvc {

// Throws Error(kUsage) for a .jsonl file in a results folder: it would be read as records.
void check_text_output(const std::string& output, const std::string& results_folder,
                       const std::string& option = "--output");
// For texts and pictures, which nothing in them marks as ours: --force replaces any file, but none in a results folder.
void add_replace(CLI::App& command, bool& force);
// Throws Error(kUsage) where the file exists and `force` is false, or it stands in one of the folders.
void check_new_output(const std::string& option, const std::string& output, bool force,
                      const std::vector<std::string>& results_folders);
// To standard output where `output` is empty.
void write_text_output(const std::string& output, std::string_view text);

}  // namespace kvc
