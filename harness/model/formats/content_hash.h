// What names the bytes of a model file in a result.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace kvc {

// 16 hexadecimal digits over all bytes and their number; the same on every machine and for every number of threads.
// About the speed of memory. Tells files apart, no protection against forgery.
std::string content_hash(std::span<const std::byte> bytes);

}  // namespace kvc
