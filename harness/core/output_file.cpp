#include "harness/core/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace kvc {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxHeaderBytes = size_t{100} << 20;

[[noreturn]] void refuse_output(const OutputFile& output, const std::string& fact, const std::string& mend) {
  throw Error(ErrorKind::kUsage, fact, fmt::format("{} {}", output.option, output.path), mend);
}

[[noreturn]] void cannot_write(const OutputFile& output, const std::string& reason) {
  throw Error(ErrorKind::kData, "cannot write the output file: " + reason,
              fmt::format("{} {}", output.option, output.path), "choose a folder you may write to");
}

bool same_file(const fs::path& a, const fs::path& b) {
  std::error_code error;
  return fs::equivalent(a, b, error) && !error;
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

void check_inputs(const OutputFile& output, const std::vector<std::string>& inputs) {
  std::error_code ignored;
  for (const std::string& input : inputs) {
    if (input.empty() || input == "-") continue;
    if (same_file(output.path, input)) {
      refuse_output(output, fmt::format("the output is the same file as the input '{}'", input),
                    "choose another name for the output");
    }
    if (fs::is_directory(input, ignored) && same_file(folder_of(output.path), input)) {
      refuse_output(output, fmt::format("the output would be inside the input folder '{}'", input),
                    "choose another folder for the output");
    }
  }
}

void check_existing(const OutputFile& output, bool replace) {
  std::error_code ignored;
  const fs::path path = output.path;
  if (!path.has_filename()) refuse_output(output, "the output is a folder, not a file", "add a file name");
  if (!fs::exists(path, ignored)) {
    if (fs::is_symlink(fs::symlink_status(path, ignored)))
      refuse_output(output, "the output is a link to a file that does not exist",
                    "choose another name, or delete the link");
    return;
  }
  if (fs::is_directory(path, ignored)) refuse_output(output, "the output is a folder, not a file", "add a file name");
  if (!fs::is_regular_file(path, ignored))
    refuse_output(output, "the output is not a regular file", "name a file; it is written in one piece at the end");
  if (!output.is_own || !output.is_own(output.path)) {
    refuse_output(output, "the output file exists, and this command did not write it",
                  "choose another name; kvc never replaces such a file");
  }
  if (!replace) refuse_output(output, "the output file exists", "choose another name, or replace it with --force");
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return c < 128 ? std::tolower(c) : c; });
  return text;
}

void check_each_other(const std::vector<OutputFile>& outputs) {
  std::error_code ignored;
  const auto place = [&](const OutputFile& output) { return lower(fs::weakly_canonical(output.path, ignored)); };
  for (size_t i = 0; i < outputs.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (outputs[i].path.empty() || outputs[j].path.empty() || place(outputs[i]) != place(outputs[j])) continue;
      refuse_output(outputs[i], fmt::format("the same file as {} {}", outputs[j].option, outputs[j].path),
                    "give each output a name of its own");
    }
  }
}

// The name that the finished file is renamed from, in its folder or in the first folder above that exists.
void check_writable(const OutputFile& output) {
  std::error_code ignored;
  const fs::path path = output.path;
  fs::path folder = folder_of(path);
  while (!fs::exists(folder, ignored) && folder.has_parent_path() && folder != folder.parent_path())
    folder = folder.parent_path();
  if (!fs::exists(folder, ignored)) folder = ".";
  const fs::path probe = folder / fmt::format("{}.{}.part", path.filename().string(), ::getpid());
  const int file = ::open(probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) cannot_write(output, std::strerror(errno));
  ::close(file);
  ::unlink(probe.c_str());
}

std::string format_of(const Json& value) {
  if (!value.is_object()) return "";
  for (const char* key : {"format", "schema"}) {
    const auto found = value.find(key);
    if (found != value.end() && found->is_string()) return found->get<std::string>();
  }
  return "";
}

// The JSON header behind 8 bytes of its length.
std::string safetensors_format(std::ifstream& file) {
  file.clear();
  file.seekg(0);
  std::array<unsigned char, 8> bytes{};
  if (!file.read(reinterpret_cast<char*>(bytes.data()), 8)) return "";
  std::uint64_t size = 0;
  for (size_t i = 0; i < 8; ++i) size |= std::uint64_t{bytes[i]} << (8 * i);
  if (size > kMaxHeaderBytes) return "";
  std::string text(size, '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(size))) return "";
  const Json header = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return header.is_object() && header.contains("__metadata__") ? format_of(header.at("__metadata__")) : "";
}

}  // namespace

void check_outputs(const std::vector<OutputFile>& outputs, const std::vector<std::string>& inputs, bool replace) {
  for (const OutputFile& output : outputs) {
    if (output.path.empty()) continue;
    check_inputs(output, inputs);
    check_existing(output, replace);
    check_writable(output);
  }
  check_each_other(outputs);
}

std::string file_format(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || file.peek() != '{') return safetensors_format(file);
  std::string text;
  std::getline(file, text);
  const Json line = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (line.is_object()) return format_of(line);
  std::error_code ignored;
  if (fs::file_size(path, ignored) > kMaxHeaderBytes) return "";
  file.seekg(0);
  text.assign(std::istreambuf_iterator<char>(file), {});
  return format_of(Json::parse(text, nullptr, /*allow_exceptions=*/false));
}

std::function<bool(const std::string& path)> has_format(const std::string& format) {
  return [format](const std::string& path) {
    const std::string found = file_format(path);
    return found == format || found.rfind(format + ".v", 0) == 0;
  };
}

std::vector<std::string> files_named_in(const Json& options) {
  std::vector<std::string> files;
  std::error_code error;
  if (options.is_string() && fs::is_regular_file(options.get_ref<const std::string&>(), error))
    files.push_back(options.get<std::string>());
  if (!options.is_structured()) return files;
  for (const Json& part : options) {
    for (std::string& file : files_named_in(part)) files.push_back(std::move(file));
  }
  return files;
}

}  // namespace kvc
