#include "harness/report/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "harness/report/plot_axis.h"
#include "harness/report/svg.h"
#include "harness/report/text_table.h"

namespace kvc {
namespace {

constexpr double kCell = 340, kLeft = 46, kRight = 104,
                 kBottom = 46;  // of a panel, around its axes; wider for long names
constexpr double kLeastHeight = 176, kSide = 8;
constexpr double kTitleSize = 9.5, kTextSize = 8.5, kNameSize = 7.4, kNameGap = 8.6;
constexpr double kTitleLine = 12, kNoteLine = 10.5;
constexpr double kValueWidth = 32;  // before the names of a ranked list
constexpr double kNameSpace = 12;   // between the axes and the names, or what stands before them

std::string colour_of(const PlotSeries& series) {
  return series.style.colour < 0 ? kSeriesGrey : kSeriesColours[series.style.colour];
}

bool is_grey(const PlotSeries& series) {
  return series.style.colour < 0;
}

bool has_grey(const Plot& plot) {
  return std::any_of(plot.series.begin(), plot.series.end(), is_grey);
}

// Lines that fit `width` at `size`.
std::vector<std::string> lines_of(const std::string& text, double width, double size) {
  const auto letters = static_cast<size_t>(std::max(8.0, width / svg_text_width("x", size) / 0.9));
  const std::string wrapped = wrapped_text(text, letters);
  std::vector<std::string> lines;
  for (size_t at = 0; at <= wrapped.size();) {
    const size_t end = std::min(wrapped.find('\n', at), wrapped.size());
    lines.push_back(wrapped.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

// Shapes of about equal area around (x, y).
std::string marker(const PlotSeries& series, double x, double y, bool hollow) {
  const std::string paint = fmt::format("fill=\"{}\" stroke=\"{}\" stroke-width=\"0.8\" stroke-linejoin=\"round\"",
                                        hollow ? "#FFFFFF" : colour_of(series), colour_of(series));
  const double scale = is_grey(series) ? 0.5 : 0.68;
  const auto polygon = [&](const std::vector<std::pair<double, double>>& corners) {
    std::string points;
    for (const auto& [dx, dy] : corners)
      points += fmt::format("{}{:.2f},{:.2f}", points.empty() ? "" : " ", x + scale * dx, y + scale * dy);
    return fmt::format("<polygon points=\"{}\" {}/>\n", points, paint);
  };
  switch (series.style.marker % 8) {
    case 0:
      return fmt::format("<circle cx=\"{:.2f}\" cy=\"{:.2f}\" r=\"{:.2f}\" {}/>\n", x, y, scale * 3.7, paint);
    case 1:
      return polygon({{-3.4, -3.4}, {3.4, -3.4}, {3.4, 3.4}, {-3.4, 3.4}});
    case 2:
      return polygon({{0, -4.7}, {4.4, 3.1}, {-4.4, 3.1}});
    case 3:
      return polygon({{0, -4.9}, {4.9, 0}, {0, 4.9}, {-4.9, 0}});
    case 4:
      return polygon({{0, 4.7}, {4.4, -3.1}, {-4.4, -3.1}});
    case 5:
      return polygon({{-1.5, -4.4},
                      {1.5, -4.4},
                      {1.5, -1.5},
                      {4.4, -1.5},
                      {4.4, 1.5},
                      {1.5, 1.5},
                      {1.5, 4.4},
                      {-1.5, 4.4},
                      {-1.5, 1.5},
                      {-4.4, 1.5},
                      {-4.4, -1.5},
                      {-1.5, -1.5}});
    case 6:
      return polygon({{0, -4.6}, {4.4, -1.4}, {2.7, 3.7}, {-2.7, 3.7}, {-4.4, -1.4}});
    default:
      return polygon({{-4.7, 0}, {3.1, -4.4}, {3.1, 4.4}});
  }
}

// A name beside the axes, at its line's end.
struct EndName {
  double y = 0;     // where the line ends
  double at = 0;    // where the name stands
  double from = 0;  // x of the line's end
  std::string text, colour;
  bool bold = false;
};

// Moves names apart, keeping their order, inside [top, bottom].
void push_apart(std::vector<EndName>& names, double top, double bottom) {
  std::stable_sort(names.begin(), names.end(), [](const EndName& a, const EndName& b) { return a.y < b.y; });
  double least = top;
  for (EndName& name : names) {
    name.at = std::max(name.y, least);
    least = name.at + kNameGap;
  }
  double most = bottom;
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    name->at = std::min(name->at, most);
    most = name->at - kNameGap;
  }
}

std::string x_title(PlotAxis x) {
  switch (x) {
    case PlotAxis::kKept:
      return "KV cache kept (%) / compaction ratio";
    case PlotAxis::kRatio:
      return "compaction ratio";
    case PlotAxis::kBytes:
      return "bytes of the cache afterwards";
    default:
      return "seconds of compaction per document";
  }
}

class PanelDrawing {
 public:
  PanelDrawing(const Plot& plot, const PlotPanel& panel, double x, double y, double height)
      : plot_(plot),
        panel_(panel),
        x_(x),
        y_(y),
        width_(kCell - kLeft - kRight - (has_grey(plot) ? kValueWidth : 0)),
        height_(height),
        x_axis_(x_axis(panel)),
        y_axis_(y_axis(panel, plot.series)) {}

  std::string draw() const {
    std::string svg = band() + grid() + x_labels();
    svg += fmt::format("<g clip-path=\"url(#{})\">\n", clip_id());
    for (const bool grey : {true, false}) {  // the coloured lie on top
      for (size_t i = 0; i < panel_.lines.size(); ++i) {
        if (is_grey(series(i)) != grey) continue;
        svg += bars(i) + path(i);
      }
    }
    svg += "</g>\n";
    for (const bool grey : {true, false}) {
      for (size_t i = 0; i < panel_.lines.size(); ++i) {
        if (is_grey(series(i)) != grey) continue;
        for (const PlotPoint& point : panel_.lines[i].points)
          svg += marker(series(i), at_x(point.x) + shift(i), at_y(point.y), point.partial);
      }
    }
    return svg + (has_grey(plot_) ? ranked_list() : names());
  }

  // From the left edge of the panel to the end of its longest name.
  double width_with_names() const {
    double widest = 0;
    const auto reach = [&](const std::string& name) { widest = std::max(widest, svg_text_width(name, kNameSize)); };
    if (has_grey(plot_)) {
      for (const Listed& one : listed(telling_size())) reach(one.name);
    } else {
      for (const Reference& one : references()) reach(one.name);
      for (size_t i = 0; i < panel_.lines.size(); ++i) reach(series(i).name);
    }
    return kLeft + width_ + (has_grey(plot_) ? kValueWidth : 0) + kNameSpace + widest;
  }

  std::string clip() const {
    return fmt::format(
        "<clipPath id=\"{}\"><rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/></clipPath>\n",
        clip_id(), x_, y_, width_, height_);
  }

 private:
  std::string band() const {
    if (!panel_.band || !panel_.band->kept) return "";
    const double from = x_, to = std::clamp(at_x(*panel_.band->kept), x_, x_ + width_);
    return fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"#DCEFE4\"/>\n", from,
                       at_y(panel_.band->y), to - from, y_ + height_ - at_y(panel_.band->y));
  }

  const PlotSeries& series(size_t line) const { return plot_.series[panel_.lines[line].series]; }
  std::string clip_id() const { return fmt::format("axes-{:.0f}-{:.0f}", x_, y_); }
  double at_x(double value) const {  // large budgets stand on the left
    const double part = x_axis_.part(value);
    return x_ + width_ * (panel_.x == PlotAxis::kKept ? 1 - part : part);
  }
  double at_y(double value) const { return y_ + height_ * (1 - y_axis_.part(value)); }

  std::string grid() const {
    std::string svg;
    const double scale = panel_.share ? 100 : 1;
    for (const double value : y_axis_.ticks) {
      svg += svg_line(x_, at_y(value), x_ + width_, at_y(value), kGrid, 0.6);
      const double shown = std::abs(value) < 1e-12 ? 0 : value * scale;
      svg += svg_text(x_ - 4, at_y(value) + 3, fmt::format("{:.3g}", shown), {kTextSize, "end"});
    }
    svg += svg_line(x_, y_, x_, y_ + height_, kInk, 0.8) +
           svg_line(x_, y_ + height_, x_ + width_, y_ + height_, kInk, 0.8);
    return svg + fmt::format(
                     "<text x=\"{0:.1f}\" y=\"{1:.1f}\" font-size=\"{4}\" text-anchor=\"middle\" fill=\"{2}\" "
                     "transform=\"rotate(-90 {0:.1f} {1:.1f})\">{3}</text>\n",
                     x_ - 34, y_ + height_ / 2, kInk, svg_escaped(panel_.y_label), kTextSize);
  }

  std::vector<std::string> tick_lines(double tick) const {
    switch (panel_.x) {
      case PlotAxis::kKept:
        return {fmt::format("{:.3g}", 100 * tick), fmt::format("{:.3g}x", 1 / tick)};
      case PlotAxis::kRatio:
        return {fmt::format("{:.3g}x", tick)};
      case PlotAxis::kBytes:
        return {bytes_text(tick)};
      default:
        return {fmt::format("{:.3g} s", tick)};
    }
  }

  std::string x_labels() const {
    std::string svg;
    std::vector<double> ticks = x_axis_.ticks;
    std::sort(ticks.begin(), ticks.end(), [&](double a, double b) { return at_x(a) < at_x(b); });
    double last = -1e9;
    const double bottom = y_ + height_;
    for (const double tick : ticks) {
      const double x = at_x(tick);
      svg += svg_line(x, bottom, x, bottom + 3, kInk, 0.8);
      const std::vector<std::string> lines = tick_lines(tick);
      double half = 0;
      for (const std::string& line : lines) half = std::max(half, svg_text_width(line, kTextSize) / 2);
      if (x - half < last + 2) continue;
      last = x + half;
      svg += svg_text(x, bottom + 12, lines[0], {kTextSize, "middle"});
      if (lines.size() > 1) svg += svg_text(x, bottom + 22, lines[1], {kTextSize - 0.5, "middle", kPale});
    }
    return svg + svg_text(x_ + width_ / 2, bottom + 36, x_title(panel_.x), {kTextSize, "middle"});
  }

  // Lines stand a little apart, so that the bars of several methods at one target can be told.
  double shift(size_t line) const {
    if (is_grey(series(line))) return 0;
    double place = 0, n = 0;
    for (size_t i = 0; i < panel_.lines.size(); ++i) {
      if (is_grey(series(i))) continue;
      if (i < line) ++place;
      ++n;
    }
    return std::min(2.0, 14 / n) * (place - (n - 1) / 2);
  }

  std::string bars(size_t line) const {
    std::string svg;
    if (is_grey(series(line))) return svg;
    for (const PlotPoint& point : panel_.lines[line].points) {
      if (!point.low || !point.high) continue;
      const double x = at_x(point.x) + shift(line);
      const double low = std::clamp(*point.low, y_axis_.low, y_axis_.high),
                   high = std::clamp(*point.high, y_axis_.low, y_axis_.high);
      if (high > low)
        svg += svg_line(x, at_y(low), x, at_y(high), colour_of(series(line)), 0.8, " stroke-opacity=\"0.45\"");
    }
    return svg;
  }

  std::string path(size_t line) const {
    const std::vector<PlotPoint>& list = panel_.lines[line].points;
    if (list.size() < 2) return "";
    std::string points;
    for (const PlotPoint& point : list)
      points += fmt::format("{}{:.2f},{:.2f}", points.empty() ? "" : " ", at_x(point.x) + shift(line), at_y(point.y));
    return fmt::format(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"/>\n", points,
        colour_of(series(line)), is_grey(series(line)) ? 0.6 : 1.4);
  }

  // Full cache, no context and the tolerated loss: drawn over the whole width.
  struct Reference {
    double value;
    const char* name;
    std::string line;
  };
  std::vector<Reference> references() const {
    std::vector<Reference> list;
    const auto add = [&](const std::optional<double>& value, const char* name, const char* dash) {
      if (!value || (y_axis_.log && *value < y_axis_.low)) return;
      const double y = at_y(*value);
      list.push_back(
          {*value, name, svg_line(x_, y, x_ + width_, y, kPale, 0.9, fmt::format(" stroke-dasharray=\"{}\"", dash))});
    };
    add(panel_.ceiling, "full cache", "5 2.5");
    add(panel_.floor, "no context", "1.2 2");
    if (panel_.band) add(panel_.band->y, "tolerated", "5 2.5");
    return list;
  }

  // Many lines cannot be followed to names at their ends. They are listed in the order of their values at one size, the
  // one that tells most of them apart, each with its marker and that value.
  std::string ranked_list() const {
    std::string svg;
    const double size = telling_size(), x = x_ + width_ + kNameSpace - 6;
    for (const Reference& one : references()) svg += one.line;
    double y = y_ + kNameGap / 2;
    svg += svg_text(x + kValueWidth + 6, y, at_size(size) + ":", {kNameSize, "start", kPale});
    bool headed = false;
    for (const Listed& one : listed(size)) {
      y += kNameGap;
      if (one.question_aware && !headed) {
        headed = true;
        svg += svg_text(x + kValueWidth + 6, y, "knowing the question:", {kNameSize, "start", kPale});
        y += kNameGap;
      }
      if (!one.marker.empty())
        svg += fmt::format("<g transform=\"translate({:.1f} {:.1f})\">{}</g>\n", x + 3, y - 2.5, one.marker);
      const std::string value =
          panel_.share ? fmt::format("{:.0f}", 100 * one.value) : fmt::format("{:.2g}", one.value);
      svg += svg_text(x + kValueWidth + 2, y, value, {kNameSize, "end", kPale});
      svg += svg_text(x + kValueWidth + 6, y, one.name,
                      {kNameSize, "start", one.colour.c_str(), one.bold ? "bold" : "normal"});
    }
    return svg;
  }

  struct Listed {
    double value;
    std::string marker, name, colour;
    bool bold, question_aware;
  };

  std::vector<Listed> listed(double size) const {
    std::vector<Listed> list;
    for (const Reference& one : references()) list.push_back({one.value, "", one.name, kPale, false, false});
    for (size_t i = 0; i < panel_.lines.size(); ++i) {
      const bool grey = is_grey(series(i));
      const PlotPoint& point = point_at(i, size);
      const bool elsewhere = std::abs(std::log(point.x / size)) > std::log(1.3);
      list.push_back({point.y, marker(series(i), 0, 0, false),
                      series(i).name + (elsewhere ? " " + at_size(point.x) : ""), grey ? kInk : colour_of(series(i)),
                      !grey, series(i).question_aware});
    }
    std::stable_sort(list.begin(), list.end(), [](const Listed& a, const Listed& b) {
      return a.question_aware != b.question_aware ? b.question_aware : a.value > b.value;
    });
    return list;
  }

  std::string at_size(double size) const {
    return panel_.x == PlotAxis::kKept ? fmt::format("at {:.2g} %", 100 * size) : "at " + tick_lines(size)[0];
  }

  // The point of a line at the size nearest to `size`.
  const PlotPoint& point_at(size_t line, double size) const {
    const auto distance = [&](const PlotPoint& point) { return std::abs(std::log(point.x / size)); };
    const std::vector<PlotPoint>& points = panel_.lines[line].points;
    return *std::min_element(points.begin(), points.end(),
                             [&](const PlotPoint& a, const PlotPoint& b) { return distance(a) < distance(b); });
  }

  // Of the ticks of x, the one at which most lines are told apart; of equal ones the largest.
  double telling_size() const {
    double best = x_axis_.ticks.empty() ? std::sqrt(x_axis_.low * x_axis_.high) : 0;
    size_t most = 0;
    for (const double size : x_axis_.ticks) {
      std::set<int64_t> places;
      for (size_t i = 0; i < panel_.lines.size(); ++i) places.insert(std::llround(at_y(point_at(i, size).y) - y_));
      if (places.size() < most || (places.size() == most && size < best)) continue;
      most = places.size();
      best = size;
    }
    return best;
  }

  // Every line is named at its end, and so are the references.
  std::string names() const {
    std::string svg;
    std::vector<EndName> ends;
    for (const Reference& one : references()) {
      svg += one.line;
      ends.push_back({at_y(one.value), 0, x_ + width_, one.name, kPale, false});
    }
    for (size_t i = 0; i < panel_.lines.size(); ++i) {
      const PlotPoint& last =
          *std::max_element(panel_.lines[i].points.begin(), panel_.lines[i].points.end(),
                            [&](const PlotPoint& a, const PlotPoint& b) { return at_x(a.x) < at_x(b.x); });
      ends.push_back({at_y(last.y), 0, at_x(last.x) + shift(i), series(i).name, colour_of(series(i)), true});
    }
    push_apart(ends, y_ + 2, y_ + height_);
    const double x = x_ + width_ + kNameSpace;
    for (const EndName& end : ends) {
      svg += svg_line(end.from + 3, end.y, x - 1.5, end.at, end.bold ? end.colour : kSeriesGrey, 0.4);
      svg +=
          svg_text(x, end.at + 2.5, end.text, {kNameSize, "start", end.colour.c_str(), end.bold ? "bold" : "normal"});
    }
    return svg;
  }

  const Plot& plot_;
  const PlotPanel& panel_;
  double x_, y_, width_, height_;
  PlotScale x_axis_, y_axis_;
};

double height_of(const PlotPanel& panel) {
  const size_t n = panel.lines.size() + (panel.ceiling ? 1 : 0) + (panel.floor ? 1 : 0) + (panel.band ? 1 : 0) +
                   2;  // and two headings
  return std::max(kLeastHeight, kNameGap * static_cast<double>(n) + 4);
}

}  // namespace

std::string render_svg(const Plot& plot) {
  const size_t columns = std::min<size_t>(2, std::max<size_t>(1, plot.panels.size()));
  const auto height_of_row = [&](size_t panel) {  // that the panel stands in
    const size_t first = panel - panel % columns;
    double height = 0;
    for (size_t i = first; i < std::min(first + columns, plot.panels.size()); ++i)
      height = std::max(height, height_of(plot.panels[i]));
    return height;
  };
  double cell = kCell;
  for (size_t i = 0; i < plot.panels.size(); ++i)
    cell = std::max(cell, std::ceil(PanelDrawing(plot, plot.panels[i], 0, 0, height_of_row(i)).width_with_names()));
  const double width = static_cast<double>(columns) * cell;
  std::string body, clips;
  double y = 4;
  const auto write = [&](const std::string& text, double size, double step, const char* colour, const char* weight) {
    for (const std::string& line : lines_of(text, width - 2 * kSide, size)) {
      y += step;
      body += svg_text(kSide, y, line, {size, "start", colour, weight});
    }
  };
  if (!plot.title.empty()) write(plot.title, kTitleSize + 1, kTitleLine + 1, kInk, "bold");
  for (size_t first = 0; first < plot.panels.size(); first += columns) {
    const size_t last = std::min(first + columns, plot.panels.size());
    std::vector<std::vector<std::string>> titles;
    size_t most = 1;
    const double height = height_of_row(first);
    for (size_t i = first; i < last; ++i) {
      titles.push_back(lines_of(plot.panels[i].title, cell - 2 * kSide, kTitleSize));
      most = std::max(most, titles.back().size());
    }
    const double top = y + 8 + kTitleLine * static_cast<double>(most) + 6;
    for (size_t i = first; i < last; ++i) {
      const double x = static_cast<double>(i - first) * cell;
      for (size_t line = 0; line < titles[i - first].size(); ++line)
        body += svg_text(x + kSide, y + 8 + kTitleLine * static_cast<double>(line + 1), titles[i - first][line],
                         {kTitleSize, "start", kInk, "bold"});
      const PanelDrawing drawing(plot, plot.panels[i], x + kLeft, top, height);
      clips += drawing.clip();
      body += drawing.draw();
    }
    y = top + height + kBottom;
  }
  for (const std::string& note : plot.notes) write(note, kNameSize, kNoteLine, kPale, "normal");
  return svg_document(width, y + 8, clips, body);
}

}  // namespace kvc
