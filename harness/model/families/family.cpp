#include "harness/model/families/family.h"

#include <fmt/format.h>

#include "harness/core/error.h"

namespace kvc {

const std::vector<ModelFamily>& model_families() {
  static const std::vector<ModelFamily> families = {llama_family()};
  return families;
}

const ModelFamily& find_family(const GgufFile& file) {
  const std::string architecture = file.string("general.architecture");
  std::string known;
  for (const ModelFamily& family : model_families()) {
    if (family.name == architecture) return family;
    known += (known.empty() ? "" : ", ") + family.name;
  }
  throw Error(ErrorKind::kData, fmt::format("architecture '{}' is not supported", architecture.substr(0, 80)),
              file.path(), "take a model of a supported architecture: " + known);
}

}  // namespace kvc
