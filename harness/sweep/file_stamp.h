// Whether weights were replaced since they were last looked at, without reading them.
#pragma once

#include <string>

#include "harness/core/config_text.h"

namespace kvc {

// {path, bytes, files}: the real path, the bytes in all, and a hash of name, size, times and inode of the file, or of
// every file in the folder. It changes when a file is replaced, also by one of the same size and time of writing; it
// may change without need, e.g. in a copy. Null where nothing can be read: a null stamp proves nothing and must not be
// compared.
Json file_stamp(const std::string& path);

}  // namespace kvc
