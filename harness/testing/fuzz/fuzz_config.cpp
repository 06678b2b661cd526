// Any bytes as config.json and generation_config.json of a model folder: the family's numbers, then the rotary
// frequencies that follow from them.
#include <fcntl.h>

#include <filesystem>

#include "harness/files/generation_config.h"
#include "harness/model/families/family.h"
#include "harness/model/rope.h"
#include "harness/testing/fuzz/fuzz_input.h"

namespace {

// A folder that both readers look into; one for the whole process.
class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / "kvc_fuzz_XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) std::abort();
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

const std::string& folder() {
  static const Folder one;
  return one.path();
}

void write(const char* name, const std::uint8_t* data, size_t size) {
  const int file = ::open((folder() + "/" + name).c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
  if (file < 0 || ::write(file, data, size) != static_cast<ssize_t>(size)) std::abort();
  ::close(file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, size_t size) {
  using namespace kvc;
  write("config.json", data, size);
  write("generation_config.json", data, size);
  expect_result_or_blame([] { read_generation_config(folder()).to_json().dump(); });
  expect_result_or_blame([] {
    const ConfigFile config(folder());
    const ModelFamily& family = find_family(config);
    std::vector<std::string> oddities;
    const DecoderSpec spec = family.spec(config, &oddities);
    if (spec.n_layers < 1 || spec.n_kv_heads < 1 || spec.n_query_heads % spec.n_kv_heads != 0) std::abort();
    if (spec.head_dim < 2 || spec.max_positions < 1) std::abort();
    // Long tables are only time.
    if (spec.head_dim <= 4096 && rope_frequencies(spec).frequencies.size() * 2 != static_cast<size_t>(spec.head_dim)) {
      std::abort();
    }
  });
  return 0;
}
