#include "harness/cli/text_output.h"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "harness/core/error.h"
#include "harness/core/json_lines.h"
#include "harness/core/output_file.h"

namespace kvc {

void check_text_output(const std::string& output, const std::string& results_folder, const std::string& option) {
  namespace fs = std::filesystem;
  if (output.empty()) return;
  const fs::path path = fs::weakly_canonical(fs::path(output));
  if (path.extension() != ".jsonl" || path.parent_path() != fs::weakly_canonical(fs::path(results_folder) / "."))
    return;
  throw Error(ErrorKind::kUsage, "a .jsonl file among the records would be read as records", option + " " + output,
              "write it elsewhere, or end the name with .txt");
}

void add_replace(CLI::App& command, bool& force) {
  command.add_flag("--force", force, "replace the output file if it exists, whatever it is");
}

void check_new_output(const std::string& option, const std::string& output, bool force,
                      const std::vector<std::string>& results_folders) {
  namespace fs = std::filesystem;
  std::error_code none;
  for (const std::string& folder : results_folders) {
    if (output.empty() || !fs::exists(output, none)) continue;
    if (!fs::equivalent(fs::weakly_canonical(output).parent_path(), folder, none)) continue;
    throw Error(ErrorKind::kUsage, "the output would replace a file of the results folder", option + " " + output,
                "choose another name");
  }
  check_outputs({{option, output, [](const std::string&) { return true; }}}, {}, force);
}

void write_text_output(const std::string& output, std::string_view text) {
  if (output.empty()) {
    fmt::print("{}", text);
    std::fflush(stdout);
  } else {
    write_file_atomically(output, text);
  }
}

}  // namespace kvc
