// Text whose every byte knows where it came from: from the template (control) or from the conversation (data).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "harness/text/tokenizer/tokenizer.h"

namespace kvc::jinja {

class Text {
 public:
  Text() = default;
  Text(std::string bytes, bool control) : bytes_(std::move(bytes)), marks_(bytes_.size(), control ? '\1' : '\0') {}

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  // Where the byte at `i` came from; i < size().
  bool control(size_t i) const { return marks_[i] != 0; }

  void append(const Text& other) {
    bytes_ += other.bytes_;
    marks_ += other.marks_;
  }
  // Bytes [begin, end) of another text.
  void append(const Text& other, size_t begin, size_t end) {
    bytes_.append(other.bytes_, begin, end - begin);
    marks_.append(other.marks_, begin, end - begin);
  }
  void append(std::string_view bytes, bool control) {
    bytes_ += bytes;
    marks_.append(bytes.size(), control ? '\1' : '\0');
  }
  // Bytes [begin, end).
  Text part(size_t begin, size_t end) const {
    Text result;
    result.append(*this, begin, end);
    return result;
  }

  // The longest runs of one origin, in order.
  std::vector<Segment> segments() const;

 private:
  std::string bytes_;
  std::string marks_;  // one per byte: 1 control, 0 data
};

// Characters are code points; a byte that is no UTF-8 is a character of its own. Ranges are byte offsets.

// Length in bytes of the character at `offset`; offset < bytes.size().
size_t character_length(std::string_view bytes, size_t offset);
// The code point at `offset`, and U+FFFD for a byte that is no UTF-8.
char32_t character_at(std::string_view bytes, size_t offset);
int64_t count_characters(std::string_view bytes);
// The offset of every character, and the size at last.
std::vector<size_t> character_offsets(std::string_view bytes);
std::string spell_character(char32_t point);

// What Python calls white space.
bool is_space(char32_t point);
// Offset behind the white space that begins at `begin`; start of the white space that ends at `end`.
size_t skip_space(std::string_view bytes, size_t begin);
size_t skip_space_back(std::string_view bytes, size_t end);

// Without the characters of `set` at its ends; `set` null: white space.
Text strip(const Text& text, const std::string* set, bool left, bool right);
// Pieces between `separator` (not empty), at most `limit` cuts; limit < 0: all.
std::vector<Text> split(const Text& text, const std::string& separator, int64_t limit);
// Pieces between runs of white space, none empty.
std::vector<Text> split_words(const Text& text, int64_t limit);
std::vector<Text> split_lines(const Text& text);
// `old_text` may be empty: `new_text` then stands before every character and at the end. limit < 0: all.
Text replace(const Text& text, const std::string& old_text, const Text& new_text, int64_t limit);

enum class Casing : std::uint8_t { kUpper, kLower, kCapitalize, kTitle, kTitleWords };
// Simple case mapping, one character for one (and SS for the sharp s); a word of kTitle begins behind a character that
// has no case (Python's str.title), one of kTitleWords behind white space or one of -({[< (Jinja's filter title).
Text change_case(const Text& text, Casing casing);

// As Python's repr and json.dumps(ensure_ascii=False) write a string.
Text quoted_for_python(const Text& text);
Text quoted_for_json(const Text& text);

}  // namespace kvc::jinja
