// The built-in chat templates.
#pragma once

#include <vector>

namespace kvc {

struct NamedTemplate {
  const char* name;
  const char* text;
  const char* bos_token;  // "" for none
  const char* eos_token;
};

// In alphabetical order.
const std::vector<NamedTemplate>& named_templates();

}  // namespace kvc
