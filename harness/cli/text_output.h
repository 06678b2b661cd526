// Where a command's text goes: a file, or standard output.
#pragma once

#include <string>
#include <string_view>

namespace kvc {

// Writes to `output`, to standard output where it is empty. A .jsonl file in a results folder is refused
// (Error(kUsage)): it would be read as records.
void check_text_output(const std::string& output, const std::string& results_folder);
void write_text_output(const std::string& output, std::string_view text);

}  // namespace kvc
