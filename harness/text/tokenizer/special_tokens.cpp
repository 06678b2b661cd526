#include "harness/text/tokenizer/special_tokens.h"

#include <algorithm>
#include <utility>

#include "harness/core/utf8.h"
#include "harness/text/tokenizer/unicode.h"

namespace kvc {
namespace {

// Bytes of white space that `text` begins with, ends with.
size_t leading_space(std::string_view text) {
  size_t offset = 0;
  while (offset < text.size()) {
    const size_t length = utf8_length(text, offset);
    if (length == 0 || !is_white_space(code_point_at(text, offset, length))) break;
    offset += length;
  }
  return offset;
}

size_t trailing_space(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t start = end - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0U) == 0x80 && end - start < 4) --start;
    if (utf8_length(text.substr(0, end), start) != end - start ||
        !is_white_space(code_point_at(text, start, end - start))) {
      break;
    }
    end = start;
  }
  return text.size() - end;
}

// What has been read and not yet handed out.
struct Reader {
  const std::function<void(const TextRun&)>& on_text;
  const std::function<void(int64_t, int64_t)>& on_special;
  std::string text;  // since the last special token
  TextRun run;
  bool control = false;                // of the last text appended
  const SpecialToken* last = nullptr;  // a special token that may still grow to the right
  int64_t last_end = 0;

  void append(std::string_view more, bool is_control) {
    if (last != nullptr && last->strip_right && text.empty()) {
      const size_t space = leading_space(more);
      more.remove_prefix(space);
      last_end += static_cast<int64_t>(space);
      run.base += static_cast<int64_t>(space);
    }
    if (more.empty()) return;
    if (!text.empty() && is_control != control) run.borders.push_back(text.size());
    control = is_control;
    text += more;
  }

  void special(const SpecialToken& token) {
    const size_t taken = token.strip_left ? trailing_space(text) : 0;
    const int64_t end = run.base + static_cast<int64_t>(text.size() + token.spelling.size());
    text.resize(text.size() - taken);
    flush();
    run.base = end;
    last = &token;
    last_end = end;
  }

  void flush() {
    if (last != nullptr) on_special(std::exchange(last, nullptr)->id, last_end);
    if (!text.empty()) {
      run.text = text;
      while (!run.borders.empty() && run.borders.back() >= text.size()) run.borders.pop_back();
      on_text(run);
    }
    run.base += static_cast<int64_t>(text.size());
    run.borders.clear();
    text.clear();
  }
};

}  // namespace

bool is_plain_token(std::string_view spelling) {
  const bool angled = spelling.starts_with('<') && spelling.ends_with('>');
  const bool square = spelling.starts_with('[') && spelling.ends_with(']');
  return spelling.size() < 3 || (!angled && !square);
}

SpecialTokens::SpecialTokens(std::vector<SpecialToken> tokens) {
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const SpecialToken& a, const SpecialToken& b) { return a.spelling.size() > b.spelling.size(); });
  for (SpecialToken& token : tokens) {
    any_in_data_ = any_in_data_ || token.in_data;
    by_first_byte_[static_cast<unsigned char>(token.spelling.at(0))].push_back(std::move(token));
  }
}

const SpecialToken* SpecialTokens::at(std::string_view text, size_t offset, bool control) const {
  for (const SpecialToken& token : by_first_byte_[static_cast<unsigned char>(text[offset])]) {
    if ((control || token.in_data) && text.substr(offset).starts_with(token.spelling)) return &token;
  }
  return nullptr;
}

void SpecialTokens::read(const std::vector<Segment>& segments, const std::function<void(const TextRun&)>& on_text,
                         const std::function<void(int64_t, int64_t)>& on_special) const {
  Reader reader{on_text, on_special};
  for (const Segment& segment : segments) {
    const std::string_view text = segment.text;
    if (!segment.control && !any_in_data_) {
      reader.append(text, false);
      continue;
    }
    size_t start = 0;  // of the text that is not appended yet
    for (size_t i = 0; i < text.size();) {
      const SpecialToken* token = at(text, i, segment.control);
      if (token == nullptr) {
        ++i;
        continue;
      }
      reader.append(text.substr(start, i - start), segment.control);
      reader.special(*token);
      i += token->spelling.size();
      start = i;
    }
    reader.append(text.substr(start), segment.control);
  }
  reader.flush();
}

}  // namespace kvc
