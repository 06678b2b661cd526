// Maps of layers and heads (heat_map.h).
#include <fmt/format.h>

#include <algorithm>

#include "harness/report/heat_map.h"
#include "harness/report/svg.h"

namespace kvc {
namespace {

constexpr double kMapSide = 14, kMapGap = 16, kMapTop = 62, kMapRowGap = 30, kMapBar = 70;
constexpr double kMapWidth = 64;   // at least; a map of many heads is wider
constexpr double kMapHeight = 96;  // at least

struct Shape {
  size_t layers = 0, heads = 0;
};

// Nothing where the lists are no rectangle of numbers.
Shape shape_of(const Json& map) {
  if (!map.is_array() || map.empty() || !map[0].is_array() || map[0].empty()) return {};
  for (const Json& layer : map) {
    if (!layer.is_array() || layer.size() != map[0].size()) return {};
    if (!std::all_of(layer.begin(), layer.end(), [](const Json& value) { return value.is_number(); })) return {};
  }
  return {map.size(), map[0].size()};
}

const Json* map_of(const std::optional<CellSummary>& cell) {
  if (!cell || !cell->heads.is_object() || !cell->heads.contains("output_relative")) return nullptr;
  const Json& map = cell->heads.at("output_relative");
  return shape_of(map).layers > 0 ? &map : nullptr;
}

// An error of 1 is that of a head that says nothing; what is beyond has the last colour.
std::string drawn(const Json& map, double x, double y, double width, double height) {
  const Shape shape = shape_of(map);
  const double cell_width = width / static_cast<double>(shape.heads);
  const double cell_height = height / static_cast<double>(shape.layers);
  std::string svg;
  double sum = 0;
  for (size_t layer = 0; layer < shape.layers; ++layer) {
    for (size_t head = 0; head < shape.heads; ++head) {
      const double error = map[layer][head].get<double>();
      sum += error;
      svg += svg_box(x + cell_width * static_cast<double>(head), y + cell_height * static_cast<double>(layer),
                     cell_width, cell_height, heat_colour(error));
    }
  }
  const double mean = sum / static_cast<double>(shape.layers * shape.heads);
  return svg + svg_text(x + width / 2, y + height + 13, fmt::format("{:.3f}", mean), {10.5, "middle"});
}

std::string error_bar(double x, double y, double height) {
  std::string svg = svg_colour_bar(x, y, 12, height, heat_colour);
  for (const char* label : {"0", "1 +"}) svg += svg_text(x + 17, y + (label[0] == '0' ? height : 8), label, {10.5});
  return svg;
}

std::string head_map(const Table& table) {
  std::vector<const Row*> rows;
  Shape most;
  for (const Row& row : table.rows) {
    bool any = false;
    for (const auto& cell : row.cells) {
      const Json* map = map_of(cell);
      if (map == nullptr) continue;
      any = true;
      most.layers = std::max(most.layers, shape_of(*map).layers);
      most.heads = std::max(most.heads, shape_of(*map).heads);
    }
    if (any) rows.push_back(&row);
  }
  if (rows.empty()) return "";
  double label = 120;
  for (const Row* row : rows) {
    label =
        std::max({label, svg_text_width(row->method_label, 11.5) + 20, svg_text_width(row->queries_label, 10.5) + 20});
  }
  const double width = std::max(kMapWidth, 5 * static_cast<double>(most.heads));
  const double height = std::max(kMapHeight, 3.5 * static_cast<double>(most.layers));
  const std::string title = fmt::format("{}, {}: error of every head's output", table.model_label, table.dataset_label);
  std::string body =
      svg_text(kMapSide, 24, title, {14, "start", kInk, "bold"}) +
      svg_text(kMapSide, 42,
               fmt::format("{} layers from top to bottom, {} KV heads from left to right; below: the mean", most.layers,
                           most.heads),
               {11.5, "start", kPale});
  double x = kMapSide + label;
  for (const Json& target : table.targets) {
    body += svg_text(x + width / 2, kMapTop, target_text(target), {11, "middle"});
    x += width + kMapGap;
  }
  double y = kMapTop + 10;
  body += error_bar(x, y, std::min(height, 120.0));
  for (const Row* row : rows) {
    body += svg_text(kMapSide, y + 12, row->method_label, {11.5, "start", kInk, "bold"}) +
            svg_text(kMapSide, y + 27, row->queries_label, {10.5, "start", kPale});
    for (size_t i = 0; i < row->cells.size(); ++i) {
      const Json* map = map_of(row->cells[i]);
      if (map != nullptr)
        body += drawn(*map, kMapSide + label + (width + kMapGap) * static_cast<double>(i), y, width, height);
    }
    y += height + kMapRowGap;
  }
  const double least = 2 * kMapSide + svg_text_width(title, 14) * 1.05;
  return svg_document(std::max(x + kMapBar, least), y, "", body);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> head_maps_of(const Tabulated& tabulated) {
  std::vector<std::pair<std::string, std::string>> maps;
  for (const Table& table : tabulated.tables) {
    std::string svg = head_map(table);
    if (!svg.empty()) maps.emplace_back(table.model_label + " " + table.dataset_label, std::move(svg));
  }
  return maps;
}

}  // namespace kvc
