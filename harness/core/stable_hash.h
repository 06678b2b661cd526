// Names and seeds that are equal on every machine: the text of a JSON value, the hash that names a cell, the seed of
// one purpose.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "harness/core/config_text.h"

namespace kvc {

// Keys sorted at every level, no spaces, numbers in shortest round-trip form: equal values give equal text.
std::string canonical_json(const Json& value);

// 16 hexadecimal digits of FNV-1a (64 bit) over `text`. A name, no protection against forgery.
std::string stable_hash(std::string_view text);

// A 64-bit seed for one purpose, e.g. derive_seed(7, "needle/doc-2").
std::uint64_t derive_seed(std::uint64_t seed, std::string_view purpose);

}  // namespace kvc
