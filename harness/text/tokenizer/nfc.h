// Unicode's normal form C, with the way back to the original bytes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace kvc {

// Where a normalised text differs from the original: bytes [begin, end) stand for the original's [original_begin,
// original_end). Ascending; between them the texts are equal.
struct NfcChange {
  size_t begin, end;
  size_t original_begin, original_end;
};

// False: the text is in normal form C already, and `out` is untouched. Otherwise `out` and `changes` are replaced.
// `borders` (ascending offsets in `text`) are never crossed: what stands on their two sides is normalised apart. Bytes
// that are no UTF-8 stay as they are. n log n in the longest run of combining marks, linear in everything else.
// Source: Unicode Standard Annex 15; the result is that of the `tokenizers` package, see is_inert_in_nfc().
bool normalize_nfc(std::string_view text, const std::vector<size_t>& borders, std::string& out,
                   std::vector<NfcChange>& changes);

// Offsets in a normalised text -> offsets in the original, for ascending offsets; inside a change, the end of what it
// stands for.
class NfcOffsets {
 public:
  explicit NfcOffsets(const std::vector<NfcChange>& changes) : changes_(changes) {}
  size_t original(size_t offset);

 private:
  const std::vector<NfcChange>& changes_;
  size_t next_ = 0;  // the first change that ends behind the last offset asked for
};

}  // namespace kvc
