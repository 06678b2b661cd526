#include "harness/text/tokenizer/folder_tokens.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/files/json_file.h"

namespace kvc {
namespace {

using nlohmann::json;

constexpr int64_t kMostIds = int64_t{1} << 22U;

// One of the files; an empty object where there is none.
struct SmallFile {
  std::string path;
  json value = json::object();

  SmallFile(const std::string& folder, const char* name) : path(folder + "/" + name) {
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) return;
    value = read_json_file(path);
  }

  [[noreturn]] void bad(const std::string& fact) const {
    throw Error(ErrorKind::kData, fact, path, "the file is damaged; fetch it again");
  }
  const json* find(const std::string& key) const {
    const auto found = value.find(key);
    return found == value.end() || found->is_null() ? nullptr : &*found;
  }
  int64_t id(const json& number, const std::string& key) const {
    if (!number.is_number_unsigned() || number.get<std::uint64_t>() >= static_cast<std::uint64_t>(kMostIds)) {
      bad(fmt::format("{} is not a token id (0 to {})", key, kMostIds - 1));
    }
    return number.get<int64_t>();
  }
  // A token as "text" or as {"content": "text", ...}.
  std::optional<std::string> token(const std::string& key) const {
    const json* found = find(key);
    if (found == nullptr) return std::nullopt;
    const json& content = found->is_object() ? found->value("content", json()) : *found;
    if (!content.is_string()) bad(fmt::format("{} is not a token", key));
    return content.get<std::string>();
  }
};

std::vector<int64_t> read_ids(const SmallFile& file, const std::string& key) {
  const json* found = file.find(key);
  if (found == nullptr) return {};
  if (!found->is_array()) return {file.id(*found, key)};
  std::vector<int64_t> ids;
  for (const json& entry : *found) ids.push_back(file.id(entry, key));
  return ids;
}

bool read_flag(const SmallFile& file, const json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return false;
  if (!found->is_boolean()) file.bad(fmt::format("{} is neither true nor false", key));
  return found->get<bool>();
}

void read_added(const SmallFile& file, std::vector<FolderToken>& added) {
  const json* decoder = file.find("added_tokens_decoder");
  if (decoder == nullptr) return;
  if (!decoder->is_object()) file.bad("added_tokens_decoder is not an object");
  for (const auto& [key, entry] : decoder->items()) {
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= kMostIds) {
      file.bad(fmt::format("added_tokens_decoder has the key '{}', which is not a token id", printable(key)));
    }
    if (!entry.is_object() || !entry.contains("content") || !entry["content"].is_string()) {
      file.bad(fmt::format("added_tokens_decoder.{} has no content", id));
    }
    if (read_flag(file, entry, "single_word")) {
      file.bad(fmt::format("added_tokens_decoder.{} counts as single word only, which is not supported", id));
    }
    added.push_back({id, entry["content"].get<std::string>(), read_flag(file, entry, "special"),
                     read_flag(file, entry, "lstrip"), read_flag(file, entry, "rstrip")});
  }
}

}  // namespace

FolderTokens read_folder_tokens(const std::string& folder) {
  FolderTokens tokens;
  const SmallFile generation(folder, "generation_config.json"), config(folder, "config.json");
  tokens.end_ids = read_ids(generation, "eos_token_id");
  if (tokens.end_ids.empty()) tokens.end_ids = read_ids(config, "eos_token_id");
  if (const json* bos = config.find("bos_token_id")) tokens.bos_id = config.id(*bos, "bos_token_id");
  const SmallFile tokenizer(folder, "tokenizer_config.json");
  tokens.bos_token = tokenizer.token("bos_token");
  tokens.eos_token = tokenizer.token("eos_token");
  if (tokenizer.find("add_bos_token") != nullptr) {
    tokens.add_bos = read_flag(tokenizer, tokenizer.value, "add_bos_token");
  }
  read_added(tokenizer, tokens.added);
  const SmallFile extra(folder, "added_tokens.json");
  for (const auto& [spelling, id] : extra.value.items()) {
    const int64_t number = extra.id(id, printable(spelling));
    bool known = false;
    for (const FolderToken& other : tokens.added) known = known || other.id == number;
    if (!known) tokens.added.push_back({number, spelling, false, false, false});
  }
  return tokens;
}

const std::vector<std::string>& end_token_names() {
  static const std::vector<std::string> names = {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>"};
  return names;
}

}  // namespace kvc
