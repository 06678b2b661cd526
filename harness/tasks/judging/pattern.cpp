#define PCRE2_CODE_UNIT_WIDTH 8
#include "harness/tasks/judging/pattern.h"

#include <pcre2.h>

#include "harness/core/error.h"

namespace kvc {

Pattern::Pattern(const std::string& regex) {
  int problem = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex.data()), regex.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_MATCH_INVALID_UTF, &problem, &offset, nullptr);
  if (code == nullptr) {
    throw Error(ErrorKind::kInternal,
                "a pattern does not compile: PCRE2 error " + std::to_string(problem) + " at " + std::to_string(offset),
                regex, "");
  }
  // Compiled to machine code, a match does not check the whole text's UTF-8 again; without it matching is slower and as
  // right.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  code_ = std::shared_ptr<const void>(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
}

std::vector<PatternMatch> Pattern::all(std::string_view text) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code, nullptr), &pcre2_match_data_free);
  std::vector<PatternMatch> list;
  for (size_t from = 0; from <= text.size();) {
    const int groups = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from, PCRE2_NOTEMPTY,
                                   data.get(), nullptr);
    if (groups < 1) break;
    const PCRE2_SIZE* at = pcre2_get_ovector_pointer(data.get());
    PatternMatch match{at[0], at[1], at[1], at[1]};
    for (int group = groups - 1; group > 0; --group) {
      if (at[2 * group] == PCRE2_UNSET) continue;
      match.group_begin = at[2 * group];
      match.group_end = at[2 * group + 1];
      break;
    }
    list.push_back(match);
    from = match.end;
  }
  return list;
}

}  // namespace kvc
