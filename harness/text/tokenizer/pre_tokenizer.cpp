#include "harness/text/tokenizer/pre_tokenizer.h"

#include <fmt/format.h>
#include <oniguruma.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/core/utf8.h"
#include "harness/text/tokenizer/unicode.h"

namespace kvc {
namespace {

// Of one search; a word of n bytes needs a small multiple of n, and n places to go back to.
constexpr size_t kLeastSteps = 10'000'000, kStepsPerByte = 16;
constexpr size_t kLeastPlaces = 1'000'000;
constexpr size_t kMostBytes = 1U << 14U;  // of an expression
constexpr unsigned kMostNested = 50;

template <auto free_function>
struct Free {
  void operator()(auto* pointer) const { free_function(pointer); }
};
constexpr auto free_region = [](OnigRegion* region) { onig_region_free(region, 1); };

std::string onig_message(int code, OnigErrorInfo* info = nullptr) {
  std::array<OnigUChar, ONIG_MAX_ERROR_MESSAGE_LEN> text = {};
  const int length = onig_error_code_to_str(text.data(), code, info);
  return {reinterpret_cast<const char*>(text.data()), static_cast<size_t>(std::max(length, 0))};
}

const OnigUChar* bytes(std::string_view text) {
  return reinterpret_cast<const OnigUChar*>(text.data());
}

struct Expression {
  std::unique_ptr<regex_t, Free<onig_free>> code;
  std::string text;  // as in the file, for messages
};

void start_engine() {
  static std::once_flag once;
  std::call_once(once, [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
    onig_set_parse_depth_limit(kMostNested);
  });
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_length(text, i);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

// With the syntax and options of the `tokenizers` package, which reads tokenizer.json with the same engine.
Expression compile(const std::string& text, const std::string& where) {
  const auto refuse = [&](const std::string& problem) -> Error {
    return {ErrorKind::kData,
            fmt::format("the pre-tokenizer's expression '{}': {}", printable(text.substr(0, 200)), problem), where,
            "take the model's file from its own source; this one is damaged"};
  };
  start_engine();
  if (text.size() > kMostBytes) throw refuse(fmt::format("at most {} bytes; got {}", kMostBytes, text.size()));
  if (!is_utf8(text)) throw refuse("it is not UTF-8");
  regex_t* code = nullptr;
  OnigErrorInfo info = {};
  const int status = onig_new(&code, bytes(text), bytes(text) + text.size(), ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
                              ONIG_SYNTAX_DEFAULT, &info);
  if (status != ONIG_NORMAL) throw refuse(onig_message(status, &info));
  Expression expression{.text = text};
  expression.code.reset(code);
  return expression;
}

}  // namespace

class PreTokenizer::Scratch {
 public:
  std::unique_ptr<OnigRegion, Free<free_region>> match;
  std::unique_ptr<OnigMatchParam, Free<onig_free_match_param>> limits;
  std::string mended;            // the text as the expressions see it, where that is not the text itself
  std::vector<size_t> replaced;  // offsets in `mended` of U+FFFD that stand for one byte
  std::vector<size_t> coarse;    // ends of the words of the step before
};

void PreTokenizer::ScratchDeleter::operator()(Scratch* scratch) const {
  delete scratch;
}

struct PreTokenizer::Impl {
  std::vector<Expression> expressions;
  std::string where;
};

PreTokenizer::PreTokenizer(const std::vector<std::string>& expressions, const std::string& where)
    : impl_(std::make_unique<Impl>()) {
  impl_->where = where;
  for (const std::string& text : expressions) impl_->expressions.push_back(compile(text, where));
}

PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

PreTokenizer::ScratchPtr PreTokenizer::make_scratch() const {
  ScratchPtr scratch(new Scratch);
  scratch->match.reset(onig_region_new());
  scratch->limits.reset(onig_new_match_param());
  if (!scratch->match || !scratch->limits) throw Error(ErrorKind::kInternal, "no memory for a pattern match", "", "");
  onig_initialize_match_param(scratch->limits.get());
  return scratch;
}

namespace {

// Where the expressions must see something else than the text: a byte that is no UTF-8, or a character that the
// engine's Unicode may not know. `stand` is what they see, `length` what it stands for; text.size() and empty at the
// end.
struct Odd {
  size_t offset, length;
  std::string_view stand;
};

Odd next_odd(std::string_view text, size_t offset) {
  while (offset < text.size()) {
    std::uint64_t eight = 0;
    while (offset + sizeof eight <= text.size()) {
      std::memcpy(&eight, text.data() + offset, sizeof eight);
      if ((eight & 0x8080808080808080U) != 0) break;
      offset += sizeof eight;
    }
    if (offset == text.size()) break;
    const size_t length = utf8_length(text, offset);
    if (length == 0) return {offset, 1, kReplacementCharacter};
    if (length > 2) {
      const std::string_view stand = older_equivalent(code_point_at(text, offset, length));
      if (!stand.empty()) return {offset, length, stand};
    }
    offset += length;
  }
  return {text.size(), 0, {}};
}

// True when something had to be replaced.
bool mend(std::string_view text, std::string& mended, std::vector<size_t>& replaced) {
  Odd odd = next_odd(text, 0);
  if (odd.length == 0) return false;
  mended.clear();
  replaced.clear();
  for (size_t start = 0;; odd = next_odd(text, start)) {
    mended.append(text.substr(start, odd.offset - start));
    if (odd.length == 0) return true;
    if (odd.length == 1) replaced.push_back(mended.size());
    mended += odd.stand;
    start = odd.offset + odd.length;
  }
}

// One match at or after `from`; false: none.
bool match_once(const Expression& expression, std::string_view text, size_t from, PreTokenizer::Scratch& scratch,
                const std::string& where) {
  const OnigUChar* end = bytes(text) + text.size();
  const int status = onig_search_with_param(expression.code.get(), bytes(text), end, bytes(text) + from, end,
                                            scratch.match.get(), ONIG_OPTION_NONE, scratch.limits.get());
  if (status == ONIG_MISMATCH) return false;
  if (status < 0) {
    throw Error(ErrorKind::kData,
                fmt::format("the pre-tokenizer's expression '{}' gives up on a text: {}", printable(expression.text),
                            onig_message(status)),
                where, "the expression takes too many steps; take the model's file from its own source");
  }
  return true;
}

// Appends the ends of the words of text[start, end), offsets in the whole. An expression sees nothing outside.
void cut(const Expression& expression, std::string_view text, size_t start, size_t end, PreTokenizer::Scratch& scratch,
         const std::string& where, std::vector<size_t>& ends) {
  const std::string_view piece = text.substr(start, end - start);
  const size_t steps = kLeastSteps + kStepsPerByte * piece.size();
  onig_set_retry_limit_in_match_of_match_param(scratch.limits.get(), steps);
  onig_set_retry_limit_in_search_of_match_param(scratch.limits.get(), steps);
  onig_set_match_stack_limit_size_of_match_param(scratch.limits.get(),
                                                 static_cast<unsigned>(kLeastPlaces + piece.size()));
  size_t last = 0;
  const auto add = [&](size_t offset) {
    if (offset <= last) return;
    ends.push_back(start + offset);
    last = offset;
  };
  for (size_t from = 0; from < piece.size();) {
    if (!match_once(expression, piece, from, scratch, where)) break;
    const auto first = static_cast<size_t>(scratch.match->beg[0]), behind = static_cast<size_t>(scratch.match->end[0]);
    add(first);
    add(behind);
    from = behind;
    // An empty match cuts where it stands; the search goes on behind the next character.
    if (first == behind && from < piece.size()) from += utf8_length(piece, from);
  }
  add(piece.size());
}

}  // namespace

void PreTokenizer::split(std::string_view text, Scratch& scratch, std::vector<size_t>& ends) const {
  ends.clear();
  if (text.empty()) return;
  const bool was_mended = mend(text, scratch.mended, scratch.replaced);
  const std::string_view seen = was_mended ? std::string_view(scratch.mended) : text;
  ends.push_back(seen.size());
  for (const Expression& expression : impl_->expressions) {
    std::swap(ends, scratch.coarse);
    ends.clear();
    size_t start = 0;
    for (const size_t end : scratch.coarse) {
      cut(expression, seen, start, end, scratch, impl_->where, ends);
      start = end;
    }
  }
  if (!was_mended) return;
  size_t before = 0;  // U+FFFD before an end; each is two bytes longer than the byte it stands for
  for (size_t& end : ends) {
    while (before < scratch.replaced.size() && scratch.replaced[before] < end) ++before;
    end -= 2 * before;
  }
}

}  // namespace kvc
