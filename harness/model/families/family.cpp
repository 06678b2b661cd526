#include "harness/model/families/family.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/printable.h"

namespace kvc {
namespace {

template <class Source>
DecoderSpec read(Source& source, DecoderSpec (*function)(Source&), std::vector<std::string>* oddities) {
  DecoderSpec spec = function(source);
  source.finish();
  if (spec.rope_scaling == RopeScaling::kDynamic) {
    source.note(
        fmt::format("dynamic RoPE: transformers lets each pass over a text choose its frequencies; here one text "
                    "length serves a whole text, {} tokens unless the program knows better",
                    spec.max_positions));
  }
  if (oddities != nullptr) oddities->insert(oddities->end(), source.oddities().begin(), source.oddities().end());
  return spec;
}

}  // namespace

DecoderSpec ModelFamily::spec(const GgufFile& file, std::vector<std::string>* oddities) const {
  GgufMetadata metadata(file, name);
  return read(metadata, gguf, oddities);
}

DecoderSpec ModelFamily::spec(ConfigFile source, std::vector<std::string>* oddities) const {
  return read(source, config, oddities);
}

const std::vector<ModelFamily>& model_families() {
  static const std::vector<ModelFamily> families = {llama_family(), mistral_family(), qwen2_family(), qwen3_family()};
  return families;
}

const ModelFamily& find_family(const GgufFile& file) {
  const std::string architecture = file.string("general.architecture");
  std::vector<std::string> known;
  for (const ModelFamily& family : model_families()) {
    if (family.gguf == nullptr) continue;
    if (family.name == architecture) return family;
    known.push_back(family.name);
  }
  throw Error(ErrorKind::kData, fmt::format("architecture '{}' is not supported", printable(architecture)), file.path(),
              fmt::format("take a model of a supported architecture: {}", fmt::join(known, ", ")));
}

const ModelFamily& find_family(const ConfigFile& config) {
  const std::vector<std::string> classes = config.classes();
  std::vector<std::string> known;
  for (const ModelFamily& family : model_families()) {
    for (const std::string& name : family.classes) {
      if (std::find(classes.begin(), classes.end(), name) != classes.end()) return family;
    }
    if (classes.empty() && family.name == config.model_type()) return family;
    known.push_back(family.classes.front());
  }
  const std::string found = classes.empty() ? config.model_type() : fmt::format("{}", fmt::join(classes, ", "));
  throw Error(ErrorKind::kData, fmt::format("architecture '{}' is not supported", printable(found)), config.path(),
              fmt::format("take a model of a supported architecture: {}", fmt::join(known, ", ")));
}

}  // namespace kvc
