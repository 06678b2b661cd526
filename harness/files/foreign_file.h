// Detects files that are not models: a Git LFS pointer, a web page, a file of
// another format.
#pragma once

#include <string>
#include <string_view>

namespace kvc {

// Throws Error(kData) that names the kind of file and the way out when the
// first bytes of `text` are those of a known other kind; else returns.
void refuse_foreign_file(std::string_view text, const std::string& path, const std::string& wanted);

}  // namespace kvc
