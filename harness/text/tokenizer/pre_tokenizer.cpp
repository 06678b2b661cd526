#include "harness/text/tokenizer/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/printable.h"
#include "harness/core/utf8.h"
#include "harness/text/tokenizer/expression.h"
#include "harness/text/tokenizer/unicode.h"

namespace kvc {
namespace {

// Of one match; a word of n bytes needs a small multiple of n.
constexpr size_t kLeastSteps = 10'000'000, kStepsPerByte = 16;
constexpr std::uint32_t kHeapKib = 256 * 1024;

template <auto free_function>
struct Free {
  void operator()(auto* pointer) const { free_function(pointer); }
};

std::string pcre_message(int code) {
  unsigned char text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

struct Expression {
  std::unique_ptr<pcre2_code, Free<pcre2_code_free>> code;
  std::string text;  // as in the file, for messages
};

Expression compile(const std::string& text, const std::string& where) {
  const std::string translated = translate_expression(text, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Expression expression{.text = text};
  expression.code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                      PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &offset, nullptr));
  if (!expression.code) {
    throw Error(ErrorKind::kData,
                fmt::format("the pre-tokenizer's expression '{}': {}", printable(text), pcre_message(error)), where,
                "the file is damaged, or its expression is not supported");
  }
  // Where the system allows no generated code, PCRE2's interpreter gives the same words, only slower.
  pcre2_jit_compile(expression.code.get(), PCRE2_JIT_COMPLETE);
  return expression;
}

}  // namespace

class PreTokenizer::Scratch {
 public:
  std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>> match;
  std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>> limits;
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
  scratch->match.reset(pcre2_match_data_create(1, nullptr));
  scratch->limits.reset(pcre2_match_context_create(nullptr));
  if (!scratch->match || !scratch->limits) throw Error(ErrorKind::kInternal, "no memory for a pattern match", "", "");
  pcre2_set_heap_limit(scratch->limits.get(), kHeapKib);
  return scratch;
}

namespace {

// Where the expressions must see something else than the text: a byte that is no UTF-8, or a character that PCRE2's
// Unicode may not know. `stand` is what they see, `length` what it stands for; text.size() and empty at the end.
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
bool match_once(const Expression& expression, std::string_view text, size_t from, pcre2_match_data* data,
                pcre2_match_context* limits, const std::string& where) {
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  // Checking the whole text at every word would be quadratic; mend() has checked it once.
  int rc = pcre2_match(expression.code.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK, data, limits);
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
    rc =
        pcre2_match(expression.code.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, limits);
  }
  if (rc == PCRE2_ERROR_NOMATCH) return false;
  if (rc < 0) {
    throw Error(ErrorKind::kData,
                fmt::format("the pre-tokenizer's expression '{}' gives up on a text: {}", printable(expression.text),
                            pcre_message(rc)),
                where, "the expression takes too many steps; take the model's file from its own source");
  }
  return true;
}

// Appends the ends of the words of text[start, end), offsets in the whole. An expression sees nothing outside.
void cut(const Expression& expression, std::string_view text, size_t start, size_t end, PreTokenizer::Scratch& scratch,
         const std::string& where, std::vector<size_t>& ends) {
  const std::string_view piece = text.substr(start, end - start);
  const size_t steps =
      std::min<size_t>(kLeastSteps + kStepsPerByte * piece.size(), std::numeric_limits<std::uint32_t>::max());
  pcre2_set_match_limit(scratch.limits.get(), static_cast<std::uint32_t>(steps));
  const PCRE2_SIZE* span = pcre2_get_ovector_pointer(scratch.match.get());
  size_t last = 0;
  const auto add = [&](size_t offset) {
    if (offset <= last) return;
    ends.push_back(start + offset);
    last = offset;
  };
  for (size_t from = 0; from < piece.size();) {
    if (!match_once(expression, piece, from, scratch.match.get(), scratch.limits.get(), where)) break;
    add(span[0]);
    add(span[1]);
    from = span[1];
    // An empty match cuts where it stands; the search goes on behind the next character.
    if (span[1] == span[0] && from < piece.size()) from += utf8_length(piece, from);
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
