#include "harness/report/heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <sstream>

#include "harness/report/svg.h"
#include "harness/report/text_table.h"

namespace kvc {
namespace {

using Rgb = std::array<double, 3>;

constexpr std::array<Rgb, 9> kViridis = {{{68, 1, 84},
                                          {71, 45, 123},
                                          {59, 82, 139},
                                          {44, 114, 142},
                                          {33, 145, 140},
                                          {40, 174, 128},
                                          {94, 201, 98},
                                          {173, 220, 48},
                                          {253, 231, 37}}};
constexpr double kCellWidth = 31, kApart = 5, kPanelGap = 18, kHeatSide = 14, kAxis = 52, kBarWidth = 12, kBar = 62;
constexpr double kBandTitle = 28, kLine = 13.5, kBelow = 42;
constexpr double kPageWidth = 990;  // what a page can show; a wider band is broken

Rgb colour_at(double share) {
  const double place = std::clamp(share, 0.0, 1.0) * (kViridis.size() - 1);
  const size_t below = std::min(static_cast<size_t>(place), kViridis.size() - 2);
  const double part = place - static_cast<double>(below);
  Rgb colour{};
  for (size_t i = 0; i < 3; ++i) colour[i] = kViridis[below][i] + part * (kViridis[below + 1][i] - kViridis[below][i]);
  return colour;
}

std::string hex(const Rgb& colour) {
  return fmt::format("#{:02X}{:02X}{:02X}", std::lround(colour[0]), std::lround(colour[1]), std::lround(colour[2]));
}

bool is_light(const Rgb& colour) {
  return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 125;
}

std::string turned(double x, double y, const std::string& text, double size) {
  return fmt::format(
      "<text x=\"{0:.1f}\" y=\"{1:.1f}\" font-size=\"{2}\" text-anchor=\"middle\" fill=\"{3}\" transform=\"rotate(-90 "
      "{0:.1f} {1:.1f})\">{4}</text>\n",
      x, y, size, kInk, svg_escaped(text));
}

double width_of(const HeatPanel& panel) {
  double width = 0;
  for (const HeatColumn& column : panel.columns) width += kCellWidth + (column.reference ? kApart : 0);
  return width;
}

std::vector<std::string> title_lines(const HeatPanel& panel) {
  const auto letters = static_cast<size_t>(std::max(12.0, (width_of(panel) + kPanelGap / 2) / 7.3));
  std::istringstream text(wrapped_text(panel.title, letters));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

struct Scale {
  double cell_height = 20;
  bool counts = true;  // "2/3" instead of per cent
};

std::string cell_at(const HeatCell& cell, double x, double y, const Scale& scale) {
  if (cell.n == 0) {
    return svg_box(x, y, kCellWidth, scale.cell_height, "#F1F1F1", " stroke=\"#FFFFFF\" stroke-width=\"1\"") +
           svg_text(x + kCellWidth / 2, y + scale.cell_height / 2 + 3.5, kNoValue, {10, "middle", "#999999"});
  }
  const double share = cell.right / static_cast<double>(cell.n);
  const Rgb colour = colour_at(share);
  const std::string text =
      scale.counts ? fmt::format("{:.3g}/{}", cell.right, cell.n) : fmt::format("{:.0f}", 100 * share);
  return svg_box(x, y, kCellWidth, scale.cell_height, hex(colour), " stroke=\"#FFFFFF\" stroke-width=\"1\"") +
         svg_text(x + kCellWidth / 2, y + scale.cell_height / 2 + 3.6, text,
                  {10, "middle", is_light(colour) ? "#111111" : "#FFFFFF"});
}

std::string panel_at(const HeatPanel& panel, double x, double y, const Scale& scale) {
  std::string svg;
  const std::vector<std::string> title = title_lines(panel);
  for (size_t i = 0; i < title.size(); ++i) {
    svg +=
        svg_text(x, y - 6 - kLine * static_cast<double>(title.size() - 1 - i), title[i], {11.5, "start", kInk, "bold"});
  }
  for (const HeatColumn& column : panel.columns) {
    double at = y;
    for (const HeatCell& cell : column.cells) {
      svg += cell_at(cell, x, at, scale);
      at += scale.cell_height;
    }
    svg += svg_text(x + kCellWidth / 2, at + 13, column.label, {10.5, "middle", column.reference ? kPale : kInk});
    x += kCellWidth + (column.reference ? kApart : 0);
  }
  return svg;
}

std::string depth_axis(double x, double y, double height) {
  std::string svg;
  for (const int percent : {0, 50, 100}) {
    const double at = y + height * percent / 100;
    svg += svg_line(x - 4, at, x - 1, at, kInk, 1);
    svg += svg_text(x - 7, at + 4, fmt::format("{}", percent), {10.5, "end"});
  }
  return svg + turned(x - 36, y + height / 2, "depth (%)", 11);
}

std::string accuracy_bar(double x, double y, double height) {
  std::string svg = svg_colour_bar(x, y, kBarWidth, height, [](double part) { return hex(colour_at(part)); });
  for (const int percent : {0, 50, 100}) {
    svg += svg_text(x + kBarWidth + 5, y + height * (100 - percent) / 100 + 4, fmt::format("{}", percent), {10.5});
  }
  return svg + turned(x + kBarWidth + 36, y + height / 2, "accuracy (%)", 11);
}

// Lines of panels of a band, each as full as the page allows.
std::vector<std::vector<const HeatPanel*>> lines_of(const HeatBand& band) {
  std::vector<std::vector<const HeatPanel*>> lines;
  double used = 0;
  for (const HeatPanel& panel : band.panels) {
    const double width = width_of(panel) + kPanelGap;
    if (lines.empty() || used + width > kPageWidth - kHeatSide - kAxis - kBar) {
      lines.emplace_back();
      used = 0;
    }
    lines.back().push_back(&panel);
    used += width;
  }
  return lines;
}

double line_width(const std::vector<const HeatPanel*>& line) {
  double width = kHeatSide + kAxis + kBar;
  for (const HeatPanel* panel : line) width += width_of(*panel) + kPanelGap;
  return width;
}

Scale scale_of(const HeatBand& band) {
  size_t bins = 1;
  int64_t most = 0;
  for (const HeatPanel& panel : band.panels) {
    for (const HeatColumn& column : panel.columns) {
      bins = std::max(bins, column.cells.size());
      for (const HeatCell& cell : column.cells) most = std::max(most, cell.n);
    }
  }
  return {std::clamp(150 / static_cast<double>(bins), 17.0, 34.0), most < 10};
}

std::string draw_line(const std::vector<const HeatPanel*>& line, const Scale& scale, double& y) {
  size_t titles = 1;
  for (const HeatPanel* panel : line) titles = std::max(titles, title_lines(*panel).size());
  y += kLine * static_cast<double>(titles) + 6;
  const double height = scale.cell_height * static_cast<double>(line.front()->columns.front().cells.size());
  double x = kHeatSide + kAxis;
  std::string svg = depth_axis(x, y, height);
  for (const HeatPanel* panel : line) {
    svg += panel_at(*panel, x, y, scale);
    x += width_of(*panel) + kPanelGap;
  }
  svg += accuracy_bar(x, y, height);
  svg += svg_text(kHeatSide + kAxis, y + height + 30, "compaction ratio", {11, "start"});
  y += height + kBelow;
  return svg;
}

}  // namespace

std::string heat_colour(double share) {
  return hex(colour_at(share));
}

std::string render_heat_map(const HeatMap& map) {
  double width = 2 * kHeatSide + svg_text_width(map.title, 14) * 1.05;
  for (const std::string& note : map.notes) width = std::max(width, 2 * kHeatSide + svg_text_width(note, 11) * 0.92);
  double y = 26;
  std::string body = svg_text(kHeatSide, y, map.title, {14, "start", kInk, "bold"});
  y += 8;
  for (const HeatBand& band : map.bands) {
    body += svg_text(kHeatSide, y + 16, band.title, {12.5, "start", kPale});
    width = std::max(width, 2 * kHeatSide + svg_text_width(band.title, 12.5));
    y += kBandTitle;
    const Scale scale = scale_of(band);
    for (const auto& line : lines_of(band)) {
      body += draw_line(line, scale, y);
      width = std::max(width, line_width(line));
    }
  }
  y += 14;
  for (const std::string& note : map.notes) {
    body += svg_text(kHeatSide, y, note, {11, "start", kPale});
    y += 15;
  }
  return svg_document(width, y, "", body);
}

}  // namespace kvc
