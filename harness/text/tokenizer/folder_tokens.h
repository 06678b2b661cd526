// What the small files of a model folder say about its special tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kvc {

struct FolderToken {
  int64_t id = 0;
  std::string spelling;
  bool special = false;
  bool strip_left = false, strip_right = false;
};

struct FolderTokens {
  std::vector<int64_t> end_ids;                     // eos_token_id of generation_config.json, else of config.json
  std::optional<int64_t> bos_id;                    // bos_token_id of config.json
  std::optional<bool> add_bos;                      // tokenizer_config.json, add_bos_token
  std::optional<std::string> bos_token, eos_token;  // tokenizer_config.json
  std::vector<FolderToken> added;                   // tokenizer_config.json, added_tokens_decoder; added_tokens.json
};

// Files that are not there say nothing. Throws Error(kData) naming file and key: no JSON, a value of the wrong type, an
// id outside 0 to 4194303, an added token that counts as single word only.
FolderTokens read_folder_tokens(const std::string& folder);

// Control tokens that end a text or a turn, whatever the other files say.
const std::vector<std::string>& end_token_names();

}  // namespace kvc
