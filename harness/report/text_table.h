// A table of texts, written as Markdown or for a terminal; and the project's way of writing numbers.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace kvc {

struct TextTable {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // as long as the header
};

constexpr const char* kNoValue = "–";

// First column (and every column of `n_left`) left-aligned, the others right-aligned. Widths are counted in code
// points.
std::string markdown_table(const TextTable& table, size_t n_left = 1);
// A table wider than `width_limit` has its left columns wrapped; if that does not do, it becomes several tables below
// each other, each with the left columns and as many others as fit, at least one.
std::string terminal_table(const TextTable& table, size_t n_left = 1, size_t width_limit = 100);

size_t text_width(const std::string& text);  // in code points

// Lines of at most `width` code points, broken at spaces where there are some, joined by line feeds.
std::string wrapped_text(const std::string& text, size_t width);

std::string bytes_text(double bytes);                   // "1.5 MiB"
std::string seconds_text(std::optional<double> value);  // "0.123", "12.3"; "–" when there is none
std::string ratio_text(std::optional<double> ratio);    // "20.0x"

}  // namespace kvc
