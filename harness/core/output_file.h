// Files that commands write: checked before the work, so that no command replaces a file it did not write or one of its
// inputs, and none finds out at the end that it cannot write.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "harness/core/config_text.h"

namespace kvc {

struct OutputFile {
  std::string option;  // named in errors, e.g. "--out"
  std::string path;    // "": not asked for, nothing to check
  // Whether an existing file is of the kind that this output writes; only such a file may be replaced, and only when
  // the user says so. For example has_format("kvcompact.cache").
  std::function<bool(const std::string& path)> is_own;
};

// Throws Error(kUsage) when an output
//   - is one of `inputs` (files; "" and "-" count for nothing) by whatever name, symbolic or hard link, or would stand
//     in an input folder;
//   - exists and is not a regular file, is not its own kind, or is its own kind and `replace` is false;
//   - is the same file as another output, or differs from it in upper and lower case only;
// and Error(kData) when it cannot be written: its folder is missing and cannot be made, is read-only or is no folder.
// Writes nothing that stays.
void check_outputs(const std::vector<OutputFile>& outputs, const std::vector<std::string>& inputs, bool replace);

// What a file says it is: "format" or "schema" of a JSON file or of the first line of JSON lines, or the metadata entry
// "format" of a safetensors file; "" for all else. For example "kvcompact.cache.v1".
std::string file_format(const std::string& path);

// Whether file_format() is `format`, whatever its version.
std::function<bool(const std::string& path)> has_format(const std::string& format);

// Every text in `options` that names an existing file: what a plug-in with these options reads.
std::vector<std::string> files_named_in(const Json& options);

}  // namespace kvc
