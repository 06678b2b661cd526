// The small JSON files of a model folder.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace kvc {

// An object, depth at most 32, no key twice, at most 64 MiB. Throws
// Error(kData) naming the file and what is wrong.
nlohmann::json read_json_file(const std::string& path);
nlohmann::json parse_json_file(std::string_view text, const std::string& path);

}  // namespace kvc
