#include "harness/text/tokenizer/json_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/core/utf8.h"
#include "harness/text/tokenizer/nfc.h"

namespace kvc {
namespace {

using nlohmann::json;

constexpr int64_t kMaxIds = int64_t{1} << 22U;
constexpr const char* kDamaged = "the file is damaged or of another kind; fetch it again";
constexpr const char* kTakeGguf =
    "this tokenizer is of a kind that is not supported; take a Llama, Qwen, SmolLM or Mistral model";

const json kNull;

// A part of the file with its name for messages.
class Node {
 public:
  Node(const json& value, std::string name, const std::string& where)
      : value_(value), name_(std::move(name)), where_(where) {}

  const std::string& name() const { return name_; }
  bool is_null() const { return value_.is_null(); }
  std::string type() const { return text("type"); }

  [[noreturn]] void bad(const std::string& fact, const char* mend = kDamaged) const {
    throw Error(ErrorKind::kData, printable(name_) + " " + fact, where_, mend);
  }
  [[noreturn]] void unsupported(const std::string& fact) const { bad(fact, kTakeGguf); }

  Node at(const std::string& key) const {
    if (!value_.is_object()) bad("is not an object");
    const auto found = value_.find(key);
    return {found == value_.end() ? kNull : *found, name_.empty() ? key : name_ + "." + key, where_};
  }
  std::vector<Node> list(const std::string& key) const {
    const Node node = at(key);
    if (!node.value_.is_array()) node.bad("is not a list");
    std::vector<Node> nodes;
    for (size_t i = 0; i < node.value_.size(); ++i) {
      nodes.emplace_back(node.value_[i], fmt::format("{}[{}]", node.name_, i), where_);
    }
    return nodes;
  }
  std::string text(const std::string& key) const {
    const Node node = at(key);
    if (!node.value_.is_string()) node.bad("is not text");
    return node.value_.get<std::string>();
  }
  std::optional<std::string> find_text(const std::string& key) const {
    return at(key).is_null() ? std::nullopt : std::optional<std::string>(text(key));
  }
  bool flag(const std::string& key, bool otherwise) const {
    const Node node = at(key);
    if (node.is_null()) return otherwise;
    if (!node.value_.is_boolean()) node.bad("is neither true nor false");
    return node.value_.get<bool>();
  }
  int64_t id() const {
    if (!value_.is_number_unsigned() || value_.get<std::uint64_t>() >= static_cast<std::uint64_t>(kMaxIds)) {
      bad(fmt::format("is not a token id (0 to {})", kMaxIds - 1));
    }
    return value_.get<int64_t>();
  }
  const json& value() const { return value_; }

 private:
  const json& value_;
  std::string name_;
  const std::string& where_;
};

// What normalizer and pre_tokenizer say together.
struct Preparation {
  std::vector<std::string> expressions;
  bool nfc = false, byte_level = false, metaspace = false, prepends = false, replaces = false;
  SpaceRule spaces;
};

void read_preparation(const Node& node, Preparation& result) {
  if (node.is_null()) return;
  const std::string type = node.type();
  if (type == "Sequence") {
    for (const Node& part : node.list("normalizers")) read_preparation(part, result);
  } else if (type == "NFC") {
    result.nfc = true;
  } else if (type == "Prepend") {
    if (node.text("prepend") != kSpaceMark) node.unsupported("puts something else than U+2581 in front");
    result.prepends = true;
  } else if (type == "Replace") {
    if (node.at("pattern").find_text("String") != " " || node.text("content") != kSpaceMark) {
      node.unsupported("replaces something else than spaces by U+2581");
    }
    result.replaces = true;
  } else {
    node.unsupported(fmt::format("is '{}'; NFC, Prepend and Replace are supported", printable(type)));
  }
}

// A text to be found as it is, as an expression.
std::string quoted(const std::string& text) {
  std::string expression;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    expression += plain ? std::string(1, c) : fmt::format("\\x{{{:x}}}", byte);
  }
  return expression;
}

void read_split(const Node& node, Preparation& result) {
  const Node pattern = node.at("pattern");
  const auto expression = pattern.find_text("Regex");
  if (node.text("behavior") != "Isolated") {
    node.unsupported(fmt::format("has the behavior '{}'; Isolated is supported", printable(node.text("behavior"))));
  }
  // Matches and what lies between are words alike: invert changes nothing.
  result.expressions.push_back(expression ? *expression : quoted(pattern.text("String")));
}

void read_metaspace(const Node& node, Preparation& result) {
  if (node.text("replacement") != kSpaceMark) node.unsupported("writes spaces otherwise than U+2581");
  const bool adds = node.flag("add_prefix_space", true);
  const std::string scheme = node.find_text("prepend_scheme").value_or(adds ? "always" : "never");
  if (scheme != "always" && scheme != "first" && scheme != "never")
    node.bad(fmt::format("prepends '{}'", printable(scheme)));
  result.metaspace = true;
  result.spaces.first = scheme == "always"  ? SpaceRule::First::kEveryRun
                        : scheme == "first" ? SpaceRule::First::kTextStart
                                            : SpaceRule::First::kNever;
  result.spaces.unless_there = true;
  result.spaces.cut_at_every = node.flag("split", true);
}

void read_pre_tokenizer(const Node& node, Preparation& result) {
  if (node.is_null()) return;
  if (result.byte_level || result.metaspace) node.unsupported("comes after the text has been respelled");
  const std::string type = node.type();
  if (type == "Sequence") {
    for (const Node& part : node.list("pretokenizers")) read_pre_tokenizer(part, result);
  } else if (type == "Split") {
    read_split(node, result);
  } else if (type == "Digits") {
    result.expressions.emplace_back(node.flag("individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)");
  } else if (type == "ByteLevel") {
    if (node.flag("add_prefix_space", true)) node.unsupported("adds a space in front of each word (add_prefix_space)");
    if (node.flag("use_regex", true)) result.expressions.emplace_back(kGpt2Expression);
    result.byte_level = true;
  } else if (type == "Metaspace") {
    read_metaspace(node, result);
  } else {
    node.unsupported(
        fmt::format("is '{}'; Sequence, Split, Digits, ByteLevel and Metaspace are supported", printable(type)));
  }
}

void check_model(const Node& model) {
  const std::string type = model.find_text("type").value_or("BPE");
  if (type != "BPE") model.unsupported(fmt::format("is of type '{}'; BPE is supported", printable(type)));
  const json& dropout = model.at("dropout").value();
  if (!dropout.is_null() && !(dropout.is_number() && dropout.get<double>() == 0)) {
    model.unsupported("drops merges at random (dropout)");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.find_text(key).value_or("").empty()) model.unsupported(fmt::format("has a {}", key));
  }
}

void prepare(const Node& root, const Node& model, BpeVocabulary& vocabulary) {
  Preparation parts;
  read_preparation(root.at("normalizer"), parts);
  read_pre_tokenizer(root.at("pre_tokenizer"), parts);
  if (parts.byte_level) {
    if (parts.prepends || parts.replaces) root.at("normalizer").unsupported("respells spaces before bytes are");
    vocabulary.split = {std::move(parts.expressions), model.flag("ignore_merges", false), parts.nfc};
    const Node decoder = root.at("decoder");
    if (!decoder.is_null() && decoder.type() != "ByteLevel") decoder.unsupported("does not undo ByteLevel");
    return;
  }
  vocabulary.alphabet = BpeAlphabet::kCharacters;
  const bool fallback = model.flag("byte_fallback", false);
  if (!fallback || parts.nfc || !parts.expressions.empty() || model.flag("ignore_merges", false) ||
      parts.metaspace == parts.replaces || (parts.prepends && !parts.replaces)) {
    root.at("pre_tokenizer")
        .unsupported("and normalizer are neither byte-level nor SentencePiece's (spaces as U+2581, byte_fallback)");
  }
  vocabulary.spaces = parts.spaces;
  if (!parts.metaspace && !parts.prepends) vocabulary.spaces.first = SpaceRule::First::kNever;
}

void place(BpeVocabulary& vocabulary, int64_t id, std::string spelling, const std::string& where) {
  const auto index = static_cast<size_t>(id);
  if (spelling.empty()) throw Error(ErrorKind::kData, fmt::format("token {} is empty", id), where, kDamaged);
  if (index >= vocabulary.tokens.size()) {
    vocabulary.tokens.resize(index + 1);
    vocabulary.kinds.resize(index + 1, TokenKind::kNormal);
  }
  std::string& token = vocabulary.tokens[index];
  if (!token.empty() && token != spelling) {
    throw Error(ErrorKind::kData, fmt::format("token {} is '{}' and '{}'", id, printable(token), printable(spelling)),
                where, kDamaged);
  }
  token = std::move(spelling);
}

void place_added(const Node& added, BpeVocabulary& vocabulary, const std::string& where) {
  const int64_t id = added.at("id").id();
  std::string content = added.text("content");
  if (added.flag("single_word", false))
    added.unsupported(fmt::format("'{}' counts as single word only", printable(content)));
  std::string normal;
  std::vector<NfcChange> changes;
  if (added.flag("normalized", false) && vocabulary.split.nfc && normalize_nfc(content, {}, normal, changes)) {
    added.unsupported(fmt::format("'{}' is not in normal form", printable(content)));
  }
  place(vocabulary, id, std::move(content), where);
  vocabulary.kinds[static_cast<size_t>(id)] =
      added.flag("special", false) ? TokenKind::kControl : TokenKind::kUserDefined;
  if (added.flag("lstrip", false)) vocabulary.strip_left.insert(id);
  if (added.flag("rstrip", false)) vocabulary.strip_right.insert(id);
}

// The id in front of a text, if there is one.
std::optional<int64_t> first_id(const Node& processor) {
  if (processor.is_null()) return std::nullopt;
  const std::string type = processor.type();
  if (type == "Sequence") {
    for (const Node& part : processor.list("processors")) {
      if (const auto id = first_id(part)) return id;
    }
  }
  if (type != "TemplateProcessing") return std::nullopt;
  const std::vector<Node> single = processor.list("single");
  if (single.empty() || single[0].at("SpecialToken").is_null()) return std::nullopt;
  const std::string name = single[0].at("SpecialToken").text("id");
  const std::vector<Node> ids = processor.at("special_tokens").at(name).list("ids");
  if (ids.size() != 1)
    processor.unsupported(fmt::format("puts {} tokens for '{}' in front", ids.size(), printable(name)));
  return ids[0].id();
}

void read_unknown(const Node& model, BpeVocabulary& vocabulary) {
  if (model.flag("byte_fallback", false)) model.unsupported("spells bytes in two ways (ByteLevel and byte_fallback)");
  const auto unknown = model.find_text("unk_token");
  if (!unknown || unknown->empty()) return;
  const auto found = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), *unknown);
  if (found == vocabulary.tokens.end())
    model.bad(fmt::format("has the unk_token '{}', which is not a token", printable(*unknown)));
  vocabulary.unknown = found - vocabulary.tokens.begin();
  vocabulary.fuse_unknown = model.flag("fuse_unk", false);
}

bool is_byte_spelling(const std::string& token) {
  return token.size() == 6 && token.starts_with("<0x") && token[5] == '>';
}

}  // namespace

JsonVocabulary interpret_tokenizer_json(TokenizerJson file, const std::string& where) {
  const Node root(file.rest, "", where);
  const Node model = root.at("model");
  if (model.is_null()) model.bad("is missing");
  check_model(model);
  JsonVocabulary result;
  BpeVocabulary& vocabulary = result.vocabulary;
  vocabulary.where = where;
  vocabulary.tokens_key = "model.vocab";
  vocabulary.merges_key = "model.merges";
  prepare(root, model, vocabulary);
  for (auto& [spelling, id] : file.tokens) {
    if (id >= kMaxIds) model.bad(fmt::format("gives a token the id {}; at most {} are expected", id, kMaxIds - 1));
    if (static_cast<size_t>(id) < vocabulary.tokens.size() && !vocabulary.tokens[static_cast<size_t>(id)].empty()) {
      model.bad(fmt::format("gives the id {} to '{}' and to '{}'", id,
                            printable(vocabulary.tokens[static_cast<size_t>(id)]), printable(spelling)));
    }
    place(vocabulary, id, std::move(spelling), where);
  }
  if (vocabulary.alphabet == BpeAlphabet::kCharacters) {
    for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      if (is_byte_spelling(vocabulary.tokens[id])) vocabulary.kinds[id] = TokenKind::kByte;
    }
  }
  if (!root.at("added_tokens").is_null()) {
    for (const Node& added : root.list("added_tokens")) place_added(added, vocabulary, where);
  }
  vocabulary.merges = std::move(file.merges);
  result.first_id = first_id(root.at("post_processor"));
  if (vocabulary.alphabet == BpeAlphabet::kBytes) read_unknown(model, vocabulary);
  return result;
}

}  // namespace kvc
