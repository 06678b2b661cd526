#include "harness/core/text_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/utf8.h"

namespace kvc {
namespace {

constexpr const char* kMend = "check the path and its permissions";

struct Close {
  void operator()(std::FILE* file) const {
    if (file != stdin) std::fclose(file);
  }
};

// What files begin with that people take for texts.
struct Signature {
  std::string_view start;
  const char* kind;
};
constexpr Signature kNoTexts[] = {{"%PDF-", "a PDF file"},
                                  {"PK\x03\x04", "a zip archive (docx, odt and epub are such)"},
                                  {"\x1f\x8b", "a gzip archive"},
                                  {"{\\rtf", "an RTF file"},
                                  {"\xD0\xCF\x11\xE0", "an old Office file"},
                                  {"\x89PNG", "a PNG image"},
                                  {"\xFF\xD8\xFF", "a JPEG image"},
                                  {"\x7F"
                                   "ELF",
                                   "a program"},
                                  {"GGUF", "a GGUF model"}};

constexpr const char* kExtract = "extract its text first and save it as UTF-8";

bool is_utf16(std::string_view bytes) {
  return bytes.starts_with("\xFF\xFE") || bytes.starts_with("\xFE\xFF");
}

// Zero bytes at even and at odd offsets among the first thousand.
std::pair<size_t, size_t> count_zeros(std::string_view bytes) {
  std::pair<size_t, size_t> zeros;
  for (size_t i = 0; i < std::min<size_t>(bytes.size(), 1000); ++i) {
    if (bytes[i] == '\0') ++(i % 2 == 0 ? zeros.first : zeros.second);
  }
  return zeros;
}

// What bytes that are no UTF-8 text seem to be, and the encoding to read them with; "" where there is none.
std::pair<std::string, std::string> guess(std::string_view bytes) {
  const auto [even, odd] = count_zeros(bytes);
  const size_t seen = std::min<size_t>(bytes.size(), 1000);
  if (is_utf16(bytes) || (even + odd > seen / 4 && (even == 0 || odd == 0))) return {"UTF-16", "utf-16"};
  size_t controls = 0, high = 0;
  for (const char c : bytes.substr(0, seen)) {
    const auto byte = static_cast<unsigned char>(c);
    controls += byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r' && byte != '\f' ? 1 : 0;
    controls += byte == 0x7F || (byte >= 0x80 && byte < 0xA0) ? 1 : 0;
    high += byte >= 0xA0 ? 1 : 0;
  }
  // In running text of a Latin alphabet letters with accents are few.
  if (controls == 0 && high * 3 <= seen) return {"Latin-1", "latin-1"};
  return {"no text", ""};
}

// `option`: the user can name an encoding (--encoding).
std::string way_out(const std::string& seems, bool option) {
  if (!option && seems.empty()) return "name a text file in UTF-8";
  if (seems.empty()) return "name a text file in UTF-8, UTF-16 or Latin-1";
  const std::string convert = fmt::format("convert the file to UTF-8: iconv -f {} -t utf-8 FILE > NEW", seems);
  return option ? fmt::format("add --encoding {}, or {}", seems, convert) : convert;
}

[[noreturn]] void refuse(std::string_view bytes, size_t offset, const char* encoding, const std::string& where,
                         bool option) {
  const auto byte = static_cast<unsigned char>(bytes[offset]);
  const auto [kind, seems] = guess(bytes);
  throw Error(
      ErrorKind::kData,
      fmt::format("the file is not {}: byte 0x{:02x} at offset {}; it seems to be {}", encoding, byte, offset, kind),
      where, way_out(seems, option));
}

std::string checked_utf8(std::string bytes, const std::string& where, bool option) {
  if (is_utf16(bytes)) refuse(bytes, 0, "UTF-8", where, option);
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = bytes[i] == '\0' ? 0 : utf8_length(bytes, i);
    if (length == 0) refuse(bytes, i, "UTF-8", where, option);
    i += length;
  }
  if (bytes.starts_with("\xEF\xBB\xBF")) bytes.erase(0, 3);
  return bytes;
}

void append_utf8(char32_t c, std::string& text) {
  if (c < 0x80) {
    text += static_cast<char>(c);
    return;
  }
  const int n_more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  constexpr unsigned kLeads[] = {0, 0xC0, 0xE0, 0xF0};
  text += static_cast<char>(kLeads[n_more] | (c >> (6U * static_cast<unsigned>(n_more))));
  for (int i = n_more - 1; i >= 0; --i) {
    text += static_cast<char>(0x80U | ((c >> (6U * static_cast<unsigned>(i))) & 0x3FU));
  }
}

std::string from_utf16(std::string_view bytes, const std::string& where) {
  const auto [even, odd] = count_zeros(bytes);
  const bool marked = is_utf16(bytes);
  const bool big = marked ? bytes[0] == '\xFE' : even > odd;
  const auto bad = [&](size_t offset, const char* fact) {
    throw Error(ErrorKind::kData, fmt::format("the file is not UTF-16: {} at offset {}", fact, offset), where,
                "is it UTF-8? Then leave --encoding out");
  };
  const auto unit = [&](size_t offset) {
    if (offset + 2 > bytes.size()) bad(offset, "half a unit");
    const auto first = static_cast<unsigned char>(bytes[offset]),
               second = static_cast<unsigned char>(bytes[offset + 1]);
    return static_cast<char32_t>(big ? first * 256 + second : second * 256 + first);
  };
  std::string text;
  for (size_t i = marked ? 2 : 0; i < bytes.size(); i += 2) {
    char32_t c = unit(i);
    if (c == 0) bad(i, "a zero unit");
    if (c >= 0xDC00 && c < 0xE000) bad(i, "the second half of a surrogate pair without the first");
    if (c >= 0xD800 && c < 0xDC00) {
      const char32_t second = i + 2 < bytes.size() ? unit(i + 2) : 0;
      if (second < 0xDC00 || second >= 0xE000) bad(i, "the first half of a surrogate pair without the second");
      c = 0x10000 + ((c - 0xD800) << 10U) + (second - 0xDC00);
      i += 2;
    }
    append_utf8(c, text);
  }
  return text;
}

std::string from_latin1(std::string_view bytes, const std::string& where) {
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] == '\0') refuse(bytes, i, "Latin-1", where, /*option=*/true);
    append_utf8(static_cast<unsigned char>(bytes[i]), text);
  }
  return text;
}

}  // namespace

const std::vector<std::string>& text_encodings() {
  static const std::vector<std::string> names = {"utf-8", "utf-16", "latin-1", "bytes"};
  return names;
}

namespace {

void refuse_signatures(const std::string& bytes, const std::string& where) {
  for (const Signature& other : kNoTexts) {
    if (bytes.starts_with(other.start)) {
      throw Error(ErrorKind::kData,
                  fmt::format("the file is not a text but {} (by its first bytes, at offset 0)", other.kind), where,
                  kExtract);
    }
  }
}

}  // namespace

std::string decode_text(std::string bytes, const std::string& encoding, const std::string& where) {
  if (encoding == "bytes") return bytes;
  refuse_signatures(bytes, where);
  if (encoding == "utf-8") return checked_utf8(std::move(bytes), where, /*option=*/true);
  if (encoding == "utf-16") return from_utf16(bytes, where);
  if (encoding == "latin-1") return from_latin1(bytes, where);
  throw Error(ErrorKind::kUsage, fmt::format("unknown encoding '{}'", encoding), "--encoding",
              suggest_name(encoding, text_encodings()));
}

std::string read_document(const std::string& path, const std::string& encoding, std::size_t max_bytes) {
  return decode_text(read_text_file(path, max_bytes), encoding, path == "-" ? "standard input" : path);
}

std::string read_utf8_file(const std::string& path, std::size_t max_bytes) {
  std::string bytes = read_text_file(path, max_bytes);
  refuse_signatures(bytes, path);
  return checked_utf8(std::move(bytes), path, /*option=*/false);
}

std::string read_text_file(const std::string& path, std::size_t max_bytes) {
  const std::unique_ptr<std::FILE, Close> file(path == "-" ? stdin : std::fopen(path.c_str(), "rb"));
  if (!file) throw Error(ErrorKind::kData, fmt::format("cannot read the file: {}", std::strerror(errno)), path, kMend);
  std::string text;
  char block[1 << 16];
  for (std::size_t n; (n = std::fread(block, 1, sizeof block, file.get())) > 0;) {
    text.append(block, n);
    if (text.size() > max_bytes) {
      throw Error(ErrorKind::kData, fmt::format("the file is larger than {} bytes", max_bytes), path,
                  "is this the right file?");
    }
  }
  if (std::ferror(file.get()) != 0) {
    throw Error(ErrorKind::kData, fmt::format("cannot read the file: {}", std::strerror(errno)), path, kMend);
  }
  return text;
}

std::string short_path(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const auto under = [](const fs::path& file, const fs::path& folder) {
    const fs::path relative = file.lexically_relative(folder);
    return relative.empty() || *relative.begin() == ".." ? std::string() : relative.string();
  };
  const fs::path here = fs::current_path(error);
  fs::path full = fs::absolute(path, error).lexically_normal();
  if (!full.has_filename() && full.has_relative_path()) full = full.parent_path();  // "folder/"
  if (path.empty() || error) return path;
  if (const std::string name = under(full, here); !name.empty()) return name;
  // The folder may be named through a link.
  const fs::path real_here = fs::canonical(here, error), real = fs::weakly_canonical(full, error);
  const std::string name = error ? "" : under(real, real_here);
  return name.empty() ? path : name;
}

std::string last_name(const std::string& path) {
  const std::filesystem::path normal = std::filesystem::path(path).lexically_normal();
  return (normal.has_filename() ? normal.filename() : normal.parent_path().filename()).string();
}

}  // namespace kvc
