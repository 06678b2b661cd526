#include "harness/report/text_table.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvc {
namespace {

size_t width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string padded(const std::string& text, size_t to, bool left) {
  const std::string space(to > width(text) ? to - width(text) : 0, ' ');
  return left ? text + space : space + text;
}

std::vector<size_t> widths_of(const TextTable& table) {
  std::vector<size_t> widths;
  for (const std::string& text : table.header) widths.push_back(width(text));
  for (const auto& row : table.rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  return widths;
}

// Lines of at most `to` code points, broken at spaces where there are some.
std::vector<std::string> wrapped(const std::string& text, size_t to) {
  std::vector<std::string> lines;
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = begin, points = 0, space = std::string::npos;
    while (end < text.size() && points < to) {
      if (text[end] == ' ' && end > begin) space = end;
      do ++end;
      while (end < text.size() && (text[end] & 0xC0) == 0x80);
      ++points;
    }
    if (end < text.size() && text[end] == ' ') space = end;
    if (end < text.size() && space != std::string::npos) end = space;
    lines.push_back(text.substr(begin, end - begin));
    lines.back().erase(lines.back().find_last_not_of(' ') + 1);
    begin = end;
    while (begin < text.size() && text[begin] == ' ') ++begin;
  }
  if (lines.empty()) lines.emplace_back();
  return lines;
}

constexpr size_t kGap = 2;         // between two columns
constexpr size_t kLeastLabel = 8;  // a wrapped column is no narrower

size_t total_width(const std::vector<size_t>& widths, size_t first, size_t last) {
  size_t total = 0;
  for (size_t i = first; i < last; ++i) total += widths[i] + (i == first ? 0 : kGap);
  return total;
}

// Takes from the widest label until the labels leave room for what stands beside them.
void narrow(std::vector<size_t>& widths, size_t n_left, size_t limit) {
  size_t widest = 0;
  for (size_t i = n_left; i < widths.size(); ++i) widest = std::max(widest, widths[i] + kGap);
  const size_t room = std::max(limit > widest ? limit - widest : 0, n_left == widths.size() ? limit : limit * 45 / 100);
  const size_t allowed = n_left == widths.size() ? limit : std::min(room, limit * 55 / 100);
  while (n_left > 0 && total_width(widths, 0, n_left) > allowed) {
    size_t& label = *std::max_element(widths.begin(), widths.begin() + static_cast<std::ptrdiff_t>(n_left));
    if (label <= kLeastLabel) return;
    --label;
  }
}

// The labels and columns [first, last) of all rows.
std::string block(const TextTable& table, const std::vector<size_t>& widths, size_t n_left, size_t first, size_t last) {
  std::vector<size_t> columns;
  for (size_t i = 0; i < n_left; ++i) columns.push_back(i);
  for (size_t i = first; i < last; ++i) columns.push_back(i);
  const auto row_text = [&](const std::vector<std::string>& cells) {
    std::vector<std::vector<std::string>> lines;
    size_t height = 1;
    for (const size_t i : columns) {
      lines.push_back(i < n_left ? wrapped(cells[i], widths[i]) : std::vector<std::string>{cells[i]});
      height = std::max(height, lines.back().size());
    }
    std::string text;
    for (size_t y = 0; y < height; ++y) {
      std::string line;
      for (size_t c = 0; c < columns.size(); ++c) {
        const std::string& part = y < lines[c].size() ? lines[c][y] : std::string();
        line += (c == 0 ? "" : std::string(kGap, ' ')) + padded(part, widths[columns[c]], columns[c] < n_left);
      }
      line.erase(line.find_last_not_of(' ') + 1);
      text += line + "\n";
    }
    return text;
  };
  std::string text = row_text(table.header);
  size_t total = 0;
  for (const size_t i : columns) total += widths[i] + kGap;
  for (size_t i = kGap; i < total; ++i) text += "─";
  text += "\n";
  for (const auto& row : table.rows) text += row_text(row);
  return text;
}

std::string escaped(std::string text) {
  for (size_t at = 0; (at = text.find_first_of("|\n", at)) != std::string::npos; at += 2) {
    text.replace(at, 1, text[at] == '|' ? "\\|" : "; ");
  }
  return text;
}

}  // namespace

std::string markdown_table(const TextTable& table, size_t n_left) {
  std::string text = "|";
  for (const std::string& cell : table.header) text += " " + escaped(cell) + " |";
  text += "\n|";
  for (size_t i = 0; i < table.header.size(); ++i) text += i < n_left ? ":--|" : "--:|";
  for (const auto& row : table.rows) {
    text += "\n|";
    for (const std::string& cell : row) text += " " + escaped(cell) + " |";
  }
  return text + "\n";
}

std::string terminal_table(const TextTable& table, size_t n_left, size_t width_limit) {
  std::vector<size_t> widths = widths_of(table);
  n_left = std::min(n_left, widths.size());
  if (total_width(widths, 0, widths.size()) > width_limit) narrow(widths, n_left, width_limit);
  const size_t labels = n_left == 0 ? 0 : total_width(widths, 0, n_left) + kGap;
  std::string text;
  for (size_t first = n_left;;) {
    size_t last = first;  // at least one column, then as many as fit
    while (last < widths.size() && (last == first || labels + total_width(widths, first, last + 1) <= width_limit)) {
      ++last;
    }
    if (!text.empty()) text += "\n";
    text += block(table, widths, n_left, first, last);
    first = last;
    if (first >= widths.size()) return text;
  }
}

std::string wrapped_text(const std::string& text, size_t width) {
  std::string result;
  for (const std::string& line : wrapped(text, std::max<size_t>(1, width)))
    result += (result.empty() ? "" : "\n") + line;
  return result;
}

size_t text_width(const std::string& text) {
  return width(text);
}

std::string bytes_text(double bytes) {
  const char* unit = "B";
  for (const char* larger : {"KiB", "MiB", "GiB", "TiB"}) {
    if (bytes < 1024) break;
    bytes /= 1024;
    unit = larger;
  }
  return *unit == 'B' ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, unit);
}

std::string seconds_text(std::optional<double> value) {
  if (!value) return kNoValue;
  return fmt::format("{:.{}f}", *value, *value < 1 ? 3 : *value < 10 ? 2 : 1);
}

std::string ratio_text(std::optional<double> ratio) {
  return ratio ? fmt::format("{:.1f}x", *ratio) : kNoValue;
}

}  // namespace kvc
