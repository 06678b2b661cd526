// JSON lines and whole files on disk. A line is appended with one write and synced, so that a kill
// leaves at most one torn last line; readers tolerate exactly that, and the next append starts on a line of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/core/config_text.h"

namespace kvc {

// Appends `value` as one line and syncs it to disk. Creates file and folders. If the file ends in a torn line, a
// newline is written first. Throws Error(kData) naming the path and the system's reason (full disk, no permission); a
// short write is cut off again where the system allows it.
void append_json_line(const std::string& path, const Json& value);

struct JsonLines {
  std::vector<Json> values;
  std::vector<int64_t> broken_lines;  // line numbers, from 1, that are not valid JSON
};

// A missing file is an empty list. Empty lines are skipped.
JsonLines read_json_lines(const std::string& path);

// Gives the values one after the other, in their order, and returns the broken lines. Long files are parsed on all
// cores, some megabytes at a time, so that the file's text is never in memory as a whole.
std::vector<int64_t> for_each_json_line(const std::string& path, const std::function<void(Json&&)>& take);

// Writes the whole text beside `path`, syncs, renames over it: readers see the old or the new file, never half of one.
void write_file_atomically(const std::string& path, std::string_view text);

}  // namespace kvc
