#include "harness/model/tokenizer/load_tokenizer.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "harness/core/error.h"
#include "harness/model/formats/gguf.h"
#include "harness/model/tokenizer/gguf_tokenizer.h"

namespace kvc {

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) return make_gguf_tokenizer(GgufFile(path));
  throw Error(ErrorKind::kData, "the folder has neither tokenizer.json nor tokenizer.model", path,
              "fetch the model's tokenizer files into it");
}

}  // namespace kvc
