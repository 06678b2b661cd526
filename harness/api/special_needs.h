// What a plug-in needs besides queries and a target, for kvc list.
#pragma once

#include <string>

namespace kvc {

// A second base of methods and query sources that have the model write, or read a text of the user's.
class SpecialNeeds {
 public:
  virtual ~SpecialNeeds() = default;
  virtual std::string special_needs() const = 0;  // e.g. "the model writes"; "" for nothing
};

}  // namespace kvc
