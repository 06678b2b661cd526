#include "harness/text/tokenizer/tokenizer_json.h"

#include <fmt/format.h>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/core/text_file.h"
#include "harness/files/foreign_file.h"

namespace kvc {
namespace {

using nlohmann::json;

constexpr size_t kMaxFileBytes = size_t{64} << 20U;
constexpr size_t kMaxDepth = 64;
constexpr const char* kBadJson = "the file is damaged or of another kind; fetch it again";

// Builds `rest` as nlohmann's own parser would, and puts the two big lists aside on the way: as a tree they would cost
// ten times their size.
class Builder final : public nlohmann::json_sax<json> {
 public:
  Builder(TokenizerJson& result, const std::string& where) : result_(result), where_(where) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override {
    return list_ == List::kTokens ? bad(fmt::format("model.vocab['{}'] is {}", printable(key_), value)) : put(value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (list_ != List::kTokens) return put(value);
    if (value >= static_cast<number_unsigned_t>(INT64_MAX))
      bad(fmt::format("model.vocab['{}'] is {}", printable(key_), value));
    result_.tokens.emplace_back(std::move(key_), static_cast<int64_t>(value));
    return true;
  }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override {
    if (list_ == List::kMerges) {
      const size_t rank = result_.merges.size();
      result_.merges.push_back(parse_merge(value, rank, "model.merges", where_));
      return true;
    }
    if (list_ == List::kPair) {
      pair_.push_back(std::move(value));
      return true;
    }
    return put(std::move(value));
  }
  bool binary(binary_t&) override { return bad("binary data"); }
  bool start_object(size_t) override {
    if (list_ == List::kNone && in_model() && key_ == "vocab") {
      place(nullptr);  // a second one is found by key()
      list_ = List::kTokens;
      return true;
    }
    return open(json::object());
  }
  bool start_array(size_t) override {
    if (list_ == List::kMerges) {
      list_ = List::kPair;
      pair_.clear();
      return true;
    }
    if (list_ == List::kNone && in_model() && key_ == "merges") {
      place(nullptr);
      list_ = List::kMerges;
      return true;
    }
    return open(json::array());
  }
  bool key(string_t& value) override {
    key_ = std::move(value);
    if (list_ == List::kNone && open_.back()->contains(key_))
      bad(fmt::format("the key '{}' is there twice", printable(key_)));
    return true;
  }
  bool end_object() override {
    if (list_ == List::kTokens) {
      list_ = List::kNone;
      return true;
    }
    open_.pop_back();
    return true;
  }
  bool end_array() override {
    if (list_ == List::kPair) {
      const size_t rank = result_.merges.size();
      if (pair_.size() != 2 || pair_[0].empty() || pair_[1].empty())
        bad(fmt::format("model.merges[{}] is not a pair", rank));
      result_.merges.push_back({std::move(pair_[0]), std::move(pair_[1]), static_cast<std::uint32_t>(rank)});
      list_ = List::kMerges;
    } else if (list_ == List::kMerges) {
      list_ = List::kNone;
    } else {
      open_.pop_back();
    }
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    return bad(fmt::format("no JSON at byte {}, {}", position, json_fault(e.what())));
  }

 private:
  enum class List : std::uint8_t { kNone, kTokens, kMerges, kPair };

  bool bad(const std::string& fact) const { throw Error(ErrorKind::kData, fact, where_, kBadJson); }
  bool in_model() const { return model_ != nullptr && open_.back() == model_; }

  bool put(json value) {
    if (list_ == List::kTokens) bad(fmt::format("model.vocab['{}'] is not a number", printable(key_)));
    if (list_ != List::kNone) bad(fmt::format("model.merges[{}] is not a pair", result_.merges.size()));
    place(std::move(value));
    return true;
  }
  json* place(json value) {
    if (open_.empty()) {
      result_.rest = std::move(value);
      return &result_.rest;
    }
    json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }
  bool open(json value) {
    if (list_ != List::kNone) put(nullptr);  // throws
    if (open_.size() >= kMaxDepth) bad(fmt::format("nested more than {} levels deep", kMaxDepth));
    const bool is_model = open_.size() == 1 && open_[0]->is_object() && key_ == "model";
    open_.push_back(place(std::move(value)));
    if (is_model) model_ = open_.back();
    return true;
  }

  TokenizerJson& result_;
  const std::string& where_;
  std::vector<json*> open_;  // containers not yet closed; an open one is the last of its parent, so nothing moves it
  const json* model_ = nullptr;
  std::string key_;
  std::vector<std::string> pair_;
  List list_ = List::kNone;
};

}  // namespace

TokenizerJson parse_tokenizer_json(const std::string& text, const std::string& where) {
  TokenizerJson result;
  Builder builder(result, where);
  json::sax_parse(text, &builder);
  if (!result.rest.is_object()) throw Error(ErrorKind::kData, "the file is not a JSON object", where, kBadJson);
  return result;
}

TokenizerJson read_tokenizer_json(const std::string& path) {
  const std::string text = read_text_file(path, kMaxFileBytes);
  refuse_foreign_file(text, path, "tokenizer.json");
  return parse_tokenizer_json(text, path);
}

}  // namespace kvc
