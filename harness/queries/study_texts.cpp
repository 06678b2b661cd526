#include "harness/queries/study_texts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>

#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/core/text_file.h"
#include "harness/queries/read_queries.h"

namespace kvc {
namespace {

constexpr size_t kMostBytes = size_t{256} << 20U;
constexpr int kMostDepth = 12;

// The objects that stand under the key "self_study".
void collect(const Json& value, int depth, std::vector<Json>& found) {
  if (depth > kMostDepth || !value.is_structured()) return;
  for (const auto& [key, inner] : value.items()) {
    if (value.is_object() && key == "self_study" && inner.is_object() && inner.contains("texts")) {
      found.push_back(inner);
    } else {
      collect(inner, depth + 1, found);
    }
  }
}

std::vector<Json> studies_in(const std::string& path) {
  const std::string text = read_text_file(path, kMostBytes);
  std::vector<Json> found;
  const Json whole = Json::parse(text, nullptr, false);
  if (!whole.is_discarded()) {
    collect(whole, 0, found);
    return found;
  }
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const Json value = Json::parse(line, nullptr, false);  // a torn line holds nothing
    if (!value.is_discarded()) collect(value, 0, found);
  }
  return found;
}

std::string text_of(const Json& object, const char* key) {
  return object.contains(key) && object.at(key).is_string() ? object.at(key).get<std::string>() : "";
}

std::vector<std::string> kinds_of(const Json& study) {
  std::vector<std::string> kinds;
  if (!study.contains("conversations") || !study.at("conversations").is_array()) return kinds;
  for (const Json& kind : study.at("conversations")) kinds.push_back(kind.is_string() ? kind.get<std::string>() : "");
  return kinds;
}

// Leaves the studies of which `matches` is true; none left is an error that says what they have instead.
void keep(std::vector<Json>& studies, const std::string& path, const std::string& fact, const std::string& mend,
          const std::function<bool(const Json&)>& matches) {
  const size_t before = studies.size();
  std::erase_if(studies, [&](const Json& study) { return !matches(study); });
  if (studies.empty() && before > 0) throw Error(ErrorKind::kData, fact, path, mend);
}

Json choose(std::vector<Json> studies, const std::string& path, const StudyKey& key) {
  const std::string again = "replay a file of this sweep's own, or leave out 'replay' to write new texts";
  if (studies.empty()) throw Error(ErrorKind::kData, "the file has no self-study texts", path, again);
  keep(studies, path,
       fmt::format("the file has self-study texts of {} other documents but none of this one ({})", studies.size(),
                   key.document),
       again, [&](const Json& study) { return text_of(study, "document") == key.document; });
  keep(studies, path,
       fmt::format("the self-study texts of this document were written by another model ({}, this is {})",
                   text_of(studies.front(), "model"), key.model),
       again, [&](const Json& study) { return text_of(study, "model") == key.model; });
  keep(studies, path,
       fmt::format("the self-study texts of this document are of other conversations ({})",
                   fmt::join(kinds_of(studies.front()), ", ")),
       "ask for those conversations, or leave 'replay' out",
       [&](const Json& study) { return kinds_of(study) == key.kinds; });
  const auto of_seed = std::find_if(studies.begin(), studies.end(), [&](const Json& study) {
    return study.contains("seed") && study.at("seed") == key.seed;
  });
  if (of_seed != studies.end()) return *of_seed;
  if (std::any_of(studies.begin(), studies.end(), [&](const Json& study) { return study != studies.front(); })) {
    throw Error(
        ErrorKind::kData,
        fmt::format("the file has {} self-studies of this document but none with seed {}", studies.size(), key.seed),
        path, "keep the one to replay, or run with the seed of one of them");
  }
  return studies.front();
}

std::vector<int64_t> tokens_of(const Json& text, const char* key, int64_t vocab_size, const std::string& path) {
  const auto broken = [&](const std::string& fact) {
    throw Error(ErrorKind::kData, fmt::format("self-study texts: '{}' {}", key, fact), path,
                "the file is damaged; leave out 'replay' to write new texts");
  };
  std::vector<int64_t> tokens;
  if (!text.is_object() || !text.contains(key) || !text.at(key).is_array()) broken("must be a list of tokens");
  for (const Json& token : text.at(key)) {
    if (!token.is_number_integer()) broken(fmt::format("holds {}", token.dump().substr(0, 40)));
    const auto id = token.get<int64_t>();
    if (id < 0 || id >= vocab_size) broken(fmt::format("holds token {} of a vocabulary of {}", id, vocab_size));
    tokens.push_back(id);
  }
  return tokens;
}

}  // namespace

std::vector<std::vector<int64_t>> StudyTexts::sequences() const {
  std::vector<std::vector<int64_t>> sequences;
  for (const StudyConversation& conversation : conversations) {
    sequences.push_back(conversation.prompt);
    sequences.back().insert(sequences.back().end(), conversation.said.begin(), conversation.said.end());
  }
  return sequences;
}

StudyKey StudyKey::of(const QueryRequest& request, const std::vector<std::string>& kinds) {
  const Json& identity = request.model.identity();
  return {text_of(identity, "content_hash"), stable_hash(fmt::format("{}", fmt::join(request.context.tokens, ","))),
          request.seed, kinds};
}

Json study_to_json(const StudyTexts& texts, const StudyKey& key) {
  Json list = Json::array();
  for (const StudyConversation& conversation : texts.conversations) {
    list.push_back({{"kind", conversation.kind},
                    {"starter", conversation.starter},
                    {"answer", conversation.answer},
                    {"stop_reason", conversation.stop_reason},
                    {"prompt_tokens", conversation.prompt},
                    {"answer_tokens", conversation.said}});
  }
  const Json study = {
      {"model", key.model}, {"document", key.document}, {"seed", texts.seed},      {"conversations", key.kinds},
      {"texts", list},      {"seeds", texts.seeds},     {"dropped", texts.dropped}};
  // A text that ends inside a character, as tokens can, is no JSON: the half becomes U+FFFD. The tokens are exact.
  return {{"self_study", Json::parse(study.dump(-1, ' ', false, Json::error_handler_t::replace))}};
}

StudyTexts read_study(const std::string& path, const StudyKey& key, const QueryRequest& request) {
  const Json study = choose(studies_in(path), path, key);
  const DecoderSpec& spec = request.model.spec();
  StudyTexts texts;
  if (study.contains("seed") && study.at("seed").is_number_integer()) {
    texts.seed = study.at("seed").get<std::uint64_t>();
  }
  const Json list = study.at("texts").is_array() ? study.at("texts") : Json::array();
  for (const Json& text : list) {
    StudyConversation conversation;
    conversation.prompt = tokens_of(text, "prompt_tokens", spec.vocab_size, path);
    conversation.said = tokens_of(text, "answer_tokens", spec.vocab_size, path);
    conversation.kind = text_of(text, "kind");
    conversation.starter = text_of(text, "starter");
    conversation.answer = text_of(text, "answer");
    conversation.stop_reason = text_of(text, "stop_reason");
    const auto n_tokens = static_cast<int64_t>(conversation.prompt.size() + conversation.said.size());
    if (n_tokens == 0) continue;
    check_positions("self_study, replayed,", request.cache.next_position() + n_tokens, spec.max_positions, "take ");
    texts.conversations.push_back(std::move(conversation));
  }
  if (texts.conversations.empty()) {
    throw Error(ErrorKind::kData, "the self-study texts of this document are empty", path, "leave 'replay' out");
  }
  if (study.contains("seeds")) texts.seeds = study.at("seeds");
  if (study.contains("dropped")) texts.dropped = study.at("dropped");
  return texts;
}

}  // namespace kvc
