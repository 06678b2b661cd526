#include "harness/report/picture_file.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <vector>

#include "harness/core/error.h"
#include "harness/core/json_lines.h"

extern char** environ;

namespace kvc {
namespace {

namespace fs = std::filesystem;

fs::path converter() {
  const char* const path = std::getenv("PATH");
  std::stringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const fs::path candidate = fs::path(folder.empty() ? "." : folder) / "rsvg-convert";
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return {};
}

// Runs the program with these arguments, no shell in between; true where it ends with 0.
bool run(const fs::path& program, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), program.string());
  std::vector<char*> list;
  list.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) list.push_back(argument.data());
  list.push_back(nullptr);
  ::setenv("SOURCE_DATE_EPOCH", "0", 0);  // no time of day in a PDF: the same records give the same bytes
  pid_t child = 0;
  if (::posix_spawn(&child, program.c_str(), nullptr, nullptr, list.data(), environ) != 0) return false;
  int status = 0;
  return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void convert(const std::string& path, const std::string& format, const std::string& svg) {
  const fs::path program = converter();
  if (program.empty()) {
    throw Error(ErrorKind::kUsage, fmt::format("a {} file needs rsvg-convert, which is not installed", format), path,
                "apt-get install librsvg2-bin, or write .svg");
  }
  const std::string source = path + ".tmp.svg", made = path + ".tmp";
  write_file_atomically(source, svg);
  std::vector<std::string> arguments = {"--format", format, "--output", made};
  if (format == "png") arguments.insert(arguments.end(), {"--zoom", "3"});
  arguments.push_back(source);
  const bool done = run(program, arguments);
  std::error_code ignored;
  fs::remove(source, ignored);
  if (!done) {
    fs::remove(made, ignored);
    throw Error(ErrorKind::kData, "rsvg-convert failed", path, "see its message above, or write .svg");
  }
  fs::rename(made, path);
}

}  // namespace

bool can_convert_pictures() {
  return !converter().empty();
}

void write_picture(const std::string& path, const std::string& svg) {
  const std::string ending = fs::path(path).extension().string();
  if (path.empty()) {
    fmt::print("{}", svg);
    std::fflush(stdout);
  } else if (ending == ".svg") {
    write_file_atomically(path, svg);
  } else if (ending == ".pdf" || ending == ".png") {
    convert(path, ending.substr(1), svg);
  } else {
    throw Error(ErrorKind::kUsage, fmt::format("the name must end with .svg, .pdf or .png; got '{}'", ending), path,
                "name the file so");
  }
}

}  // namespace kvc
