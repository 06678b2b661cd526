#include "harness/model/families/checkpoint.h"

#include <fmt/format.h>

#include <filesystem>
#include <span>
#include <system_error>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/core/text_file.h"
#include "harness/files/gguf.h"
#include "harness/files/mapped_file.h"
#include "harness/files/safetensors.h"
#include "harness/model/families/rope_parameters.h"
#include "harness/model/formats/content_hash.h"

namespace kvc {
namespace {

// Files of a folder besides the weights that what a model computes or is told may depend on.
constexpr const char* kSmallFiles[] = {
    "config.json",       "generation_config.json",  "tokenizer.json",     "tokenizer.model",    "tokenizer_config.json",
    "added_tokens.json", "special_tokens_map.json", "chat_template.json", "chat_template.jinja"};

// The pages are given back on the way: they are read again one tensor at a time.
std::string hash_of(std::span<const std::byte> bytes) {
  return content_hash(bytes, release_pages);
}

// A folder that holds no model in the form of a hub: what it holds instead decides what helps.
void check_folder(const std::string& path) {
  std::error_code ignored;
  for (const char* name : kSmallFiles) {  // a pipe would be waited for, for ever
    const std::string file = path + "/" + name;
    if (std::filesystem::exists(file, ignored) && !std::filesystem::is_regular_file(file, ignored)) {
      throw Error(ErrorKind::kData, "this is not a file but a folder, a pipe or a device", file,
                  "fetch the model again");
    }
  }
  if (std::filesystem::exists(path + "/config.json", ignored)) return;
  std::string gguf;
  for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".gguf") && (gguf.empty() || name < gguf)) gguf = name;
  }
  throw Error(ErrorKind::kData, "the folder has no config.json", path,
              gguf.empty() ? "give a GGUF file, or a folder as downloaded, with config.json in it"
                           : fmt::format("name the GGUF file in it: {}", printable(gguf)));
}

// llama.cpp's gguf-split cuts a model into files; each holds a part of the tensors.
void refuse_parts(const GgufFile& file) {
  const std::int64_t parts = file.find_integer("split.count").value_or(1);
  if (parts <= 1) return;
  throw Error(
      ErrorKind::kData,
      fmt::format("this is part {} of a model cut into {} files", file.find_integer("split.no").value_or(0) + 1, parts),
      file.path(), "put the parts together: llama-gguf-split --merge FIRST_PART WHOLE (of llama.cpp)");
}

}  // namespace

Checkpoint::Checkpoint(const std::string& path, const nlohmann::json& rope_scaling) {
  std::error_code ignored;
  folder_ = std::filesystem::is_directory(path, ignored);
  folder_ ? open_folder(path) : open_file(path);
  if (!rope_scaling.empty()) override_rope(rope_scaling, spec_);
}

void Checkpoint::open_file(const std::string& path) {
  auto file = std::make_unique<GgufFile>(path);
  refuse_parts(*file);
  family_ = &find_family(*file);
  spec_ = family_->spec(*file, &oddities_);
  layout_ = gguf_layout(family_->gguf_rotates_neighbours);
  tensors_ = std::move(file);
}

void Checkpoint::open_folder(const std::string& path) {
  check_folder(path);
  const ConfigFile config(path);
  family_ = &find_family(config);
  spec_ = family_->spec(config, &oddities_);
  tensors_ = std::make_unique<SafetensorsFolder>(path);
  layout_ = transformers_layout(*tensors_);
  if (!spec_.tied_embeddings && !layout_.embedding.starts_with("model.") &&
      tensors_->find_tensor(layout_.head + ".weight") == nullptr) {
    throw Error(ErrorKind::kData,
                fmt::format("the weights are those of a model without its head: '{}.weight' is missing", layout_.head),
                path, "take the checkpoint of the causal language model (AutoModelForCausalLM)");
  }
  if (spec_.tied_embeddings && tensors_->find_tensor(layout_.head + ".weight") != nullptr) {
    oddities_.push_back(
        fmt::format("the head is tied to the embedding, and '{}.weight' is stored as well; loading "
                    "checks that they are equal",
                    layout_.head));
  }
  std::int64_t buffers = 0;
  for (const StoredTensor& tensor : tensors_->tensors())
    buffers += tensor.name.ends_with(".rotary_emb.inv_freq") ? 1 : 0;
  if (buffers > 0) {
    oddities_.push_back(
        fmt::format("{} tensors of rotary frequencies (rotary_emb.inv_freq) are stored; the config's "
                    "numbers count, not they",
                    buffers));
  }
}

std::int64_t Checkpoint::weight_bytes() const {
  if (const auto* file = dynamic_cast<const GgufFile*>(tensors_.get())) {
    return static_cast<std::int64_t>(file->bytes().size());
  }
  std::int64_t total = 0;
  for (const SafetensorsFolder::File& file : dynamic_cast<const SafetensorsFolder&>(*tensors_).files()) {
    total += static_cast<std::int64_t>(file.mapped.bytes().size());
  }
  return total;
}

std::string Checkpoint::content_hash() const {
  if (const auto* file = dynamic_cast<const GgufFile*>(tensors_.get())) return hash_of(file->bytes());
  std::string all;
  for (const SafetensorsFolder::File& file : dynamic_cast<const SafetensorsFolder&>(*tensors_).files()) {
    all += fmt::format("{} {} {}\n", file.name, file.mapped.bytes().size(), hash_of(file.mapped.bytes()));
  }
  for (const char* name : kSmallFiles) {
    const std::string path = tensors_->path() + "/" + name;
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) continue;
    const std::string text = read_text_file(path);
    all += fmt::format("{} {} {}\n", name, text.size(), kvc::content_hash(std::as_bytes(std::span(text))));
  }
  return kvc::content_hash(std::as_bytes(std::span(all)));
}

}  // namespace kvc
