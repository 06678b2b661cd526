#include "harness/sweep/reference_store.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "harness/core/json_lines.h"
#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

std::string check_of(const Json& key, const Json& answer) {
  return stable_hash(canonical_json(Json{{"version", ReferenceStore::kVersion}, {"key", key}, {"answer", answer}}));
}

// Where the weights lie and what their file is called makes no difference.
Json without_place(Json identity) {
  for (const char* name : {"file", "name", "path"}) identity.erase(name);
  return identity;
}

bool is_whole(const Json& line, const Json& model) {
  if (!line.is_object() || !line.contains("key") || !line.contains("answer") || !line.contains("check")) return false;
  const Json& key = line.at("key");
  return line.value("version", Json()) == ReferenceStore::kVersion && key.is_object() &&
         key.value("model", Json()) == model && line.at("check") == check_of(key, line.at("answer"));
}

}  // namespace

ReferenceStore::ReferenceStore(std::string folder, const Json& model_identity) : model_(without_place(model_identity)) {
  file_ = fmt::format("{}/{}.jsonl", folder, stable_hash(canonical_json(model_)));
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error || !std::filesystem::is_directory(folder)) {
    throw Error(ErrorKind::kData, fmt::format("the folder of reference answers cannot be made: {}", error.message()),
                folder, "name another folder: references: FOLDER");
  }
  const JsonLines lines = read_json_lines(file_);
  if (!lines.broken_lines.empty()) {
    warnings_.push_back(fmt::format("{}: line {} is not valid JSON and was ignored (cut off by a kill, or edited)",
                                    file_, fmt::join(lines.broken_lines, ", ")));
  }
  int64_t foreign = 0;
  for (const Json& line : lines.values) {
    if (is_whole(line, model_)) {
      answers_.insert_or_assign(canonical_json(line.at("key")), line.at("answer"));
    } else {
      ++foreign;
    }
  }
  if (foreign > 0) {
    warnings_.push_back(
        fmt::format("{}: {} reference answers were ignored: edited, of another model, or of another "
                    "version of the program",
                    file_, foreign));
  }
}

const Json* ReferenceStore::find(const Json& key) const {
  const auto place = answers_.find(canonical_json(key));
  return place == answers_.end() ? nullptr : &place->second;
}

void ReferenceStore::keep(const Json& key, const Json& answer) {
  append_json_line(file_, {{"version", kVersion}, {"key", key}, {"answer", answer}, {"check", check_of(key, answer)}});
  answers_.insert_or_assign(canonical_json(key), answer);
}

DocumentReferences::DocumentReferences(ReferenceStore& store, const std::vector<int64_t>& context_tokens)
    : store_(store),
      context_({{"tokens", context_tokens.size()}, {"hash", stable_hash(canonical_json(context_tokens))}}) {}

Json DocumentReferences::key(const Json& asked) const {
  return {{"model", store_.model()}, {"context", context_}, {"asked", asked}};
}

std::optional<Json> DocumentReferences::find(const Json& asked) {
  const Json* answer = store_.find(key(asked));
  if (answer == nullptr) return std::nullopt;
  ++n_found_;
  return *answer;
}

void DocumentReferences::keep(const Json& asked, const Json& answer) {
  store_.keep(key(asked), answer);
  ++n_made_;
}

}  // namespace kvc
