#include "harness/text/tokenizer/load_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/core/text_file.h"
#include "harness/files/foreign_file.h"
#include "harness/files/gguf.h"
#include "harness/text/tokenizer/folder_tokens.h"
#include "harness/text/tokenizer/gguf_tokenizer.h"
#include "harness/text/tokenizer/json_tokenizer.h"
#include "harness/text/tokenizer/sentencepiece_tokenizer.h"

namespace kvc {
namespace {

constexpr size_t kMostModelBytes = size_t{64} << 20U;
constexpr const char* kFetchFolder = "the files of the folder do not fit together; fetch them again";

[[noreturn]] void bad_folder(const std::string& fact, const std::string& where) {
  throw Error(ErrorKind::kData, fact, where, kFetchFolder);
}

// Tokens that tokenizer_config.json knows and tokenizer.json does not.
void add_folder_tokens(BpeVocabulary& vocabulary, const std::vector<FolderToken>& added) {
  for (const FolderToken& token : added) {
    const auto index = static_cast<size_t>(token.id);
    if (token.spelling.empty()) bad_folder(fmt::format("added token {} is empty", token.id), vocabulary.where);
    if (index >= vocabulary.tokens.size()) {
      vocabulary.tokens.resize(index + 1);
      vocabulary.kinds.resize(index + 1, TokenKind::kNormal);
    }
    std::string& known = vocabulary.tokens[index];
    if (!known.empty() && known != token.spelling) {
      bad_folder(fmt::format("token {} is '{}' in tokenizer.json, but '{}' in the folder's other files", token.id,
                             printable(known), printable(token.spelling)),
                 vocabulary.where);
    }
    if (!known.empty() && vocabulary.kinds[index] != TokenKind::kNormal) continue;
    known = token.spelling;
    vocabulary.kinds[index] = token.special ? TokenKind::kControl : TokenKind::kUserDefined;
    if (token.strip_left) vocabulary.strip_left.insert(token.id);
    if (token.strip_right) vocabulary.strip_right.insert(token.id);
  }
}

std::optional<int64_t> find_token(const BpeVocabulary& vocabulary, const std::optional<std::string>& spelling) {
  if (!spelling) return std::nullopt;
  const auto found = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), *spelling);
  if (found == vocabulary.tokens.end() || spelling->empty()) {
    bad_folder(fmt::format("'{}' of tokenizer_config.json is not a token", printable(*spelling)), vocabulary.where);
  }
  return found - vocabulary.tokens.begin();
}

void add_roles(JsonVocabulary& file, const FolderTokens& folder) {
  BpeVocabulary& vocabulary = file.vocabulary;
  const auto add_end = [&](int64_t id) {
    auto& ids = vocabulary.end_ids;
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  };
  for (const int64_t id : folder.end_ids) add_end(id);
  const bool listed = !vocabulary.end_ids.empty();
  const auto eos = find_token(vocabulary, folder.eos_token);  // looked up, and so checked, either way
  if (eos && !listed) add_end(*eos);
  for (const std::string& name : end_token_names()) {
    if (listed) break;
    const auto found = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), name);
    const auto index = static_cast<size_t>(found - vocabulary.tokens.begin());
    if (found != vocabulary.tokens.end() && vocabulary.kinds[index] == TokenKind::kControl) {
      add_end(static_cast<int64_t>(index));
    }
  }
  if (vocabulary.end_ids.empty()) {
    bad_folder("no token ends a text: generation_config.json, config.json and tokenizer_config.json name none",
               vocabulary.where);
  }
  if (!folder.add_bos.value_or(file.first_id.has_value())) return;
  vocabulary.bos = file.first_id;
  if (!vocabulary.bos) vocabulary.bos = find_token(vocabulary, folder.bos_token);
  if (!vocabulary.bos) vocabulary.bos = folder.bos_id;
  if (!vocabulary.bos) bad_folder("add_bos_token is true, but no file names the token", vocabulary.where);
}

std::unique_ptr<Tokenizer> load_json(const std::string& folder, const std::string& path) {
  JsonVocabulary file = interpret_tokenizer_json(read_tokenizer_json(path), path);
  const FolderTokens tokens = read_folder_tokens(folder);
  add_folder_tokens(file.vocabulary, tokens.added);
  add_roles(file, tokens);
  const bool byte_level = file.vocabulary.alphabet == BpeAlphabet::kBytes;
  auto tokenizer = std::make_unique<BpeTokenizer>(std::move(file.vocabulary));
  if (byte_level) tokenizer->check_ordinary_bytes("model.vocab", path);
  return tokenizer;
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) return make_gguf_tokenizer(GgufFile(path));
  const std::string file = path + "/tokenizer.json", model = path + "/tokenizer.model";
  if (std::filesystem::exists(file, ignored)) return load_json(path, file);
  if (std::filesystem::exists(model, ignored)) {
    const std::string bytes = read_text_file(model, kMostModelBytes);
    refuse_foreign_file(bytes, model, "SentencePiece model");
    if (bytes.starts_with("IQ== 0")) {
      throw Error(ErrorKind::kData, "this tokenizer.model is a list of ranks (Llama 3's first form)", model,
                  "fetch tokenizer.json of the same model");
    }
    return std::make_unique<SentencePieceTokenizer>(bytes, read_folder_tokens(path), model);
  }
  throw Error(ErrorKind::kData, "the folder has neither tokenizer.json nor tokenizer.model", path,
              "fetch the model's tokenizer files into it");
}

}  // namespace kvc
