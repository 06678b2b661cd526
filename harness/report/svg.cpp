#include "harness/report/svg.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvc {
namespace {

constexpr double kGlyph = 0.6;  // width of a letter over the font size, on the safe side for any sans-serif face

}  // namespace

std::string svg_escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return result;
}

double svg_text_width(const std::string& text, double size) {
  const auto letters = std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
  return kGlyph * size * static_cast<double>(letters);
}

std::string svg_text(double x, double y, const std::string& text, const SvgStyle& style) {
  return fmt::format(
      "<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"{}\" text-anchor=\"{}\" fill=\"{}\" font-weight=\"{}\">{}</text>\n",
      x, y, style.size, style.anchor, style.colour, style.weight, svg_escaped(text));
}

std::string svg_line(double x1, double y1, double x2, double y2, const std::string& colour, double width,
                     const std::string& more) {
  return fmt::format(
      "<line x1=\"{:.2f}\" y1=\"{:.2f}\" x2=\"{:.2f}\" y2=\"{:.2f}\" stroke=\"{}\" stroke-width=\"{}\"{}/>\n", x1, y1,
      x2, y2, colour, width, more);
}

std::string svg_box(double x, double y, double width, double height, const std::string& fill, const std::string& more) {
  return fmt::format("<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"{}\"{}/>\n", x, y,
                     width, height, fill, more);
}

std::string svg_colour_bar(double x, double y, double width, double height,
                           const std::function<std::string(double)>& colour) {
  constexpr int kSteps = 50;
  std::string svg;
  for (int i = 0; i < kSteps; ++i) {
    svg += svg_box(x, y + height * (kSteps - 1 - i) / kSteps, width, height / kSteps + 0.6, colour((i + 0.5) / kSteps));
  }
  return svg;
}

std::string svg_document(double width, double height, const std::string& definitions, const std::string& body) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "font-family=\"Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#FFFFFF\"/>\n<defs>\n{2}</defs>\n{3}</svg>\n",
      width, height, definitions, body);
}

}  // namespace kvc
