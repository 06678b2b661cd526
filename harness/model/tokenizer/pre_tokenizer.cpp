#include "harness/model/tokenizer/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <utility>

#include "harness/core/error.h"
#include "harness/model/tokenizer/utf8.h"

namespace kvc {
namespace {

// Unicode's White_Space written out: PCRE2's \s also takes U+180E, which the engines that the vocabularies were made
// with do not.
#define KVC_SPACE R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})"
#define KVC_S "[" KVC_SPACE "]"
#define KVC_NOT_S "[^" KVC_SPACE "]"

constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{L}\p{N})" KVC_SPACE R"(]+|)" KVC_S
                              "+(?!" KVC_NOT_S ")|" KVC_S "+";

// Every digit alone first, then GPT-2's expression on what lies between, in one pass: blanks before a digit are blanks
// at the end of their piece, so they stay together.
constexpr const char* kSmollm = R"(\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\p{L}\p{N})" KVC_SPACE R"(]+|)" KVC_S
                                R"(+(?![^\p{N})" KVC_SPACE "])|" KVC_S "+";

constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\p{L}\p{N})" KVC_SPACE R"(]+[\r\n]*|)" KVC_S
    R"(*[\r\n]+|)" KVC_S "+(?!" KVC_NOT_S ")|" KVC_S "+";

constexpr const char* kQwen2 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\p{L}\p{N})" KVC_SPACE
                               R"(]+[\r\n]*|)" KVC_S R"(*[\r\n]+|)" KVC_S "+(?!" KVC_NOT_S ")|" KVC_S "+";

struct Known {
  const char* name;
  const char* pattern;
  bool whole_words_first;
};
constexpr Known kKnown[] = {
    {"default", kGpt2, false},    {"gpt2", kGpt2, false},   {"gpt-2", kGpt2, false},
    {"llama-bpe", kLlama3, true}, {"qwen2", kQwen2, false}, {"smollm", kSmollm, false},
};

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

std::string pcre_message(int code) {
  unsigned char text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

class PreTokenizer::Scratch {
 public:
  std::unique_ptr<pcre2_match_data, FreeMatch> match;
  std::string mended;            // the text with U+FFFD for every byte that is no UTF-8
  std::vector<size_t> replaced;  // offsets in `mended` of those U+FFFD
};

void PreTokenizer::ScratchDeleter::operator()(Scratch* scratch) const {
  delete scratch;
}

struct PreTokenizer::Impl {
  Known known;
  std::unique_ptr<pcre2_code, FreeCode> code;
};

PreTokenizer::PreTokenizer(const std::string& name, const std::string& where) : impl_(std::make_unique<Impl>()) {
  const Known* found = nullptr;
  for (const Known& known : kKnown) {
    if (name == known.name) found = &known;
  }
  if (found == nullptr) {
    throw Error(ErrorKind::kData, fmt::format("unknown pre-tokenizer '{}'", name), where, suggest_name(name, names()));
  }
  impl_->known = *found;
  int error = 0;
  PCRE2_SIZE offset = 0;
  impl_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(found->pattern), PCRE2_ZERO_TERMINATED,
                                  PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
  if (!impl_->code) {
    throw Error(ErrorKind::kInternal, fmt::format("expression of '{}': {} at {}", name, pcre_message(error), offset),
                where, "");
  }
  // Where the system allows no generated code, PCRE2's interpreter gives the same words, only slower.
  pcre2_jit_compile(impl_->code.get(), PCRE2_JIT_COMPLETE);
}

PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

std::vector<std::string> PreTokenizer::names() {
  std::vector<std::string> list;
  for (const Known& known : kKnown) list.emplace_back(known.name);
  return list;
}

bool PreTokenizer::whole_words_first() const {
  return impl_->known.whole_words_first;
}

PreTokenizer::ScratchPtr PreTokenizer::make_scratch() const {
  ScratchPtr scratch(new Scratch);
  scratch->match.reset(pcre2_match_data_create(1, nullptr));
  if (!scratch->match) throw Error(ErrorKind::kInternal, "no memory for a pattern match", "", "");
  return scratch;
}

namespace {

size_t first_invalid(std::string_view text, size_t offset) {
  while (offset < text.size()) {
    const size_t length = utf8_length(text, offset);
    if (length == 0) break;
    offset += length;
  }
  return offset;
}

// True when something had to be replaced.
bool mend(std::string_view text, std::string& mended, std::vector<size_t>& replaced) {
  size_t valid = first_invalid(text, 0);
  if (valid == text.size()) return false;
  mended.clear();
  replaced.clear();
  for (size_t start = 0;; valid = first_invalid(text, start)) {
    mended.append(text.substr(start, valid - start));
    if (valid == text.size()) return true;
    replaced.push_back(mended.size());
    mended += "\xEF\xBF\xBD";
    start = valid + 1;
  }
}

void match_all(const pcre2_code* code, pcre2_match_data* data, std::string_view text, std::vector<size_t>& ends) {
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* span = pcre2_get_ovector_pointer(data);
  for (size_t at = 0; at < text.size(); at = ends.back()) {
    // Checking the whole text at every word would be quadratic; mend() has checked it once.
    const int rc = pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, data, nullptr);
    if (rc == PCRE2_ERROR_NOMATCH) {
      ends.push_back(text.size());
      return;
    }
    if (rc < 0 || span[1] <= at) {
      throw Error(ErrorKind::kInternal, fmt::format("pre-tokenizer: {} at byte {}", pcre_message(rc), at), "", "");
    }
    if (span[0] > at) ends.push_back(span[0]);
    ends.push_back(span[1]);
  }
}

}  // namespace

void PreTokenizer::split(std::string_view text, Scratch& scratch, std::vector<size_t>& ends) const {
  ends.clear();
  const bool was_mended = mend(text, scratch.mended, scratch.replaced);
  match_all(impl_->code.get(), scratch.match.get(), was_mended ? std::string_view(scratch.mended) : text, ends);
  if (!was_mended) return;
  size_t before = 0;  // replaced characters before an end; each is two bytes longer than what it stands for
  for (size_t& end : ends) {
    while (before < scratch.replaced.size() && scratch.replaced[before] < end) ++before;
    end -= 2 * before;
  }
}

}  // namespace kvc
