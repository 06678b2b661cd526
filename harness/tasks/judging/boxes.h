// \boxed{...} in a worked solution.
#pragma once

#include <string_view>
#include <vector>

namespace kvc {

// What stands between the braces of each closed \boxed{...} or \fbox{...}, inner pairs included, from left to right.
std::vector<std::string_view> boxes_of(std::string_view text);

}  // namespace kvc
