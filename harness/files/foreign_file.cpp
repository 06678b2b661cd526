#include "harness/files/foreign_file.h"

#include <fmt/format.h>

#include "harness/core/error.h"

namespace kvc {
namespace {

struct Signature {
  std::string_view start;
  const char* kind;
  const char* mend;
};

constexpr const char* kSafetensorsOrGguf = "take the model's safetensors folder, or a GGUF file of it";

constexpr Signature kOthers[] = {
    {"version https://git-lfs", "a Git LFS pointer", "fetch the file itself: git lfs pull"},
    {"<!DOCTYPE", "a web page", "download the file itself, not the page about it"},
    {"<!doctype", "a web page", "download the file itself, not the page about it"},
    {"<html", "a web page", "download the file itself, not the page about it"},
    {"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint", kSafetensorsOrGguf},
    {"\x80\x02", "a Python pickle, perhaps a PyTorch checkpoint", kSafetensorsOrGguf},
    {"tjgg", "an old GGML file", "convert the model to GGUF with a current llama.cpp"},
    {"lmgg", "an old GGML file", "convert the model to GGUF with a current llama.cpp"},
    {"fmgg", "an old GGML file", "convert the model to GGUF with a current llama.cpp"},
};

}  // namespace

void refuse_foreign_file(std::string_view text, const std::string& path, const std::string& wanted) {
  for (const Signature& other : kOthers) {
    if (text.starts_with(other.start)) {
      throw Error(ErrorKind::kData, fmt::format("this is not a {} but {}", wanted, other.kind), path, other.mend);
    }
  }
}

}  // namespace kvc
