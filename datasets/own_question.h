// A question of the user's own data: the fields of the `jsonl` schema (datasets/README.md), checked.
#pragma once

#include <string>

#include "datasets/data_file.h"

namespace kvc {

// `parent` stands before a field's name in messages ("questions[3]."); `default_id` is the id where there is none.
// Problems go to `in`.
Question read_own_question(DataReader& in, const Json& json, const std::string& parent, const std::string& default_id);

}  // namespace kvc
