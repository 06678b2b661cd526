#include "harness/text/tokenizer/nfc.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdint>

#include "harness/core/error.h"
#include "harness/core/utf8.h"
#include "harness/text/tokenizer/unicode.h"

namespace kvc {
namespace {

constexpr char32_t kFirstCombining = 0x300;  // everything below stays itself and starts a sequence
constexpr char32_t kTableEnd = 0x30000;      // everything above too

enum Trait : std::uint8_t {
  kStarts = 1,   // never joins what stands before it
  kChanges = 2,  // is not itself in normal form C
  kInert = 4,    // see is_inert_in_nfc()
};

constexpr auto kDecompose = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);

using Points = std::vector<utf8proc_int32_t>;

// Canonical decomposition of one character, appended.
void decompose(char32_t c, Points& points) {
  utf8proc_int32_t parts[32];
  const utf8proc_ssize_t n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, 32, kDecompose, nullptr);
  if (n < 1 || n > 32) {
    throw Error(ErrorKind::kInternal, fmt::format("utf8proc cannot decompose U+{:04X}", static_cast<std::uint32_t>(c)),
                "", "");
  }
  points.insert(points.end(), parts, parts + n);
}

int combining_class(utf8proc_int32_t c) {
  return utf8proc_get_property(c)->combining_class;
}

// Decomposed characters to normal form C. Sorting is done here because utf8proc's own is quadratic.
void compose(Points& points) {
  for (auto run = points.begin(); run != points.end();) {
    if (combining_class(*run) == 0) {
      ++run;
      continue;
    }
    const auto end = std::find_if(run, points.end(), [](auto c) { return combining_class(c) == 0; });
    std::stable_sort(run, end, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    run = end;
  }
  const auto n = utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                                          static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (n < 0) throw Error(ErrorKind::kInternal, fmt::format("utf8proc: {}", utf8proc_errmsg(n)), "", "");
  points.resize(static_cast<size_t>(n));
}

std::vector<std::uint8_t> make_traits() {
  std::vector<std::uint8_t> traits(kTableEnd, kStarts);
  Points points;
  for (char32_t c = kFirstCombining - 0x240; c < kTableEnd; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const auto point = static_cast<utf8proc_int32_t>(c);
    if (combining_class(point) != 0) traits[c] &= static_cast<std::uint8_t>(~kStarts);
    if (is_inert_in_nfc(c)) {
      traits[c] = kInert | kStarts;
      continue;
    }
    points.clear();
    decompose(c, points);
    if (points.size() == 1 && points[0] == point) continue;
    // Three Tibetan vowels are starters that decompose to marks.
    if (combining_class(points[0]) != 0) traits[c] &= static_cast<std::uint8_t>(~kStarts);
    for (size_t i = 1; i < points.size(); ++i) {
      std::uint8_t& second = traits[static_cast<size_t>(points[i])];
      if ((second & kInert) == 0) second &= static_cast<std::uint8_t>(~kStarts);
    }
    compose(points);
    if (points.size() != 1 || points[0] != point) traits[c] |= kChanges;
  }
  return traits;
}

std::uint8_t trait_of(char32_t c) {
  if (c < kFirstCombining || c >= kTableEnd) return kStarts;
  static const std::vector<std::uint8_t> traits = make_traits();
  return traits[c];
}

void append_utf8(utf8proc_int32_t point, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(point, bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

// One character of the text; a byte that is no UTF-8 is one that starts, and stays.
struct Character {
  char32_t point = 0;
  size_t length = 1;
  std::uint8_t trait = kStarts | kInert;
};

Character character_at(std::string_view text, size_t offset) {
  const size_t length = utf8_length(text, offset);
  if (length == 0) return {};
  const char32_t point = code_point_at(text, offset, length);
  return {point, length, trait_of(point)};
}

class Normalizer {
 public:
  Normalizer(std::string_view text, const std::vector<size_t>& borders)
      : text_(text), border_(borders.begin()), borders_end_(borders.end()) {}

  // The next sequence that normal form C may change, as [begin, end); false at the end of the text.
  bool next(size_t& begin, size_t& end) {
    size_t start = at_;  // of the sequence that `at_` is in
    while (at_ < text_.size()) {
      const Character c = character_at(text_, at_);
      if (at_ == next_border() || (c.trait & (kStarts | kInert)) != 0) start = at_;
      const bool joins = start != at_ || (c.trait & kStarts) == 0;
      at_ += c.length;
      if ((c.trait & kInert) != 0) {
        start = at_;
      } else if (joins || (c.trait & kChanges) != 0) {
        begin = start;
        extend();
        end = at_;
        return true;
      }
    }
    return false;
  }

  void normalize(size_t begin, size_t end, std::string& out) {
    points_.clear();
    for (size_t i = begin; i < end;) {
      const Character c = character_at(text_, i);
      decompose(c.point, points_);
      i += c.length;
    }
    compose(points_);
    for (const auto point : points_) append_utf8(point, out);
  }

 private:
  size_t next_border() {
    while (border_ != borders_end_ && *border_ < at_) ++border_;
    return border_ == borders_end_ ? text_.size() : *border_;
  }
  // To the end of the sequence: the next character that starts one, or the next border.
  void extend() {
    while (at_ < text_.size() && at_ != next_border()) {
      const Character c = character_at(text_, at_);
      if ((c.trait & (kStarts | kInert)) != 0) return;
      at_ += c.length;
    }
  }

  std::string_view text_;
  size_t at_ = 0;
  std::vector<size_t>::const_iterator border_, borders_end_;
  Points points_;
};

bool is_plain(std::string_view text) {  // nothing above U+02FF
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0xCC; });
}

}  // namespace

bool normalize_nfc(std::string_view text, const std::vector<size_t>& borders, std::string& out,
                   std::vector<NfcChange>& changes) {
  if (is_plain(text)) return false;
  Normalizer normalizer(text, borders);
  std::string sequence;
  bool changed = false;
  size_t copied = 0, begin = 0, end = 0;
  while (normalizer.next(begin, end)) {
    sequence.clear();
    normalizer.normalize(begin, end, sequence);
    if (sequence == text.substr(begin, end - begin)) continue;
    if (!changed) out.clear(), changes.clear();
    changed = true;
    out.append(text.substr(copied, begin - copied));
    changes.push_back({out.size(), out.size() + sequence.size(), begin, end});
    out += sequence;
    copied = end;
  }
  if (changed) out.append(text.substr(copied));
  return changed;
}

size_t NfcOffsets::original(size_t offset) {
  while (next_ < changes_.size() && changes_[next_].end <= offset) ++next_;
  if (next_ < changes_.size() && offset > changes_[next_].begin) return changes_[next_].original_end;
  if (next_ == 0) return offset;
  const NfcChange& before = changes_[next_ - 1];
  return before.original_end + (offset - before.end);
}

}  // namespace kvc
