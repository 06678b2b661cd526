// For tests: model files of a few numbers, written value by value.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

namespace kvc {

// Numbers as float32, named and shaped.
struct TinyTensor {
  std::vector<std::int64_t> shape;
  std::vector<float> values;

  static TinyTensor numbered(std::vector<std::int64_t> shape, float first) {
    TinyTensor tensor{std::move(shape), {}};
    std::int64_t count = 1;
    for (const std::int64_t n : tensor.shape) count *= n;
    for (std::int64_t i = 0; i < count; ++i) tensor.values.push_back(first + static_cast<float>(i) / 1024.F);
    return tensor;
  }
};
using TinyTensors = std::map<std::string, TinyTensor>;

inline std::string raw_floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

inline std::string safetensors_text(const TinyTensors& tensors) {
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const size_t begin = data.size();
    data += raw_floats(tensor.values);
    header[name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  const std::uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + text + data;
}

using TinyValue = std::variant<std::uint32_t, float, bool, std::string>;

class TinyGguf {
 public:
  std::map<std::string, TinyValue> metadata;
  TinyTensors tensors;

  std::string text() const {
    std::string out = "GGUF";
    add<std::uint32_t>(out, 3);
    add<std::uint64_t>(out, tensors.size());
    add<std::uint64_t>(out, metadata.size());
    for (const auto& [key, value] : metadata) {
      add_text(out, key);
      constexpr std::uint32_t kTypes[] = {4, 6, 7, 8};
      add(out, kTypes[value.index()]);
      if (const auto* text = std::get_if<std::string>(&value)) {
        add_text(out, *text);
      } else if (const auto* flag = std::get_if<bool>(&value)) {
        add<std::uint8_t>(out, *flag ? 1 : 0);
      } else if (const auto* number = std::get_if<float>(&value)) {
        add(out, *number);
      } else {
        add(out, std::get<std::uint32_t>(value));
      }
    }
    std::string data;
    for (const auto& [name, tensor] : tensors) {
      add_text(out, name);
      add<std::uint32_t>(out, static_cast<std::uint32_t>(tensor.shape.size()));
      for (size_t i = tensor.shape.size(); i-- > 0;)
        add<std::uint64_t>(out, static_cast<std::uint64_t>(tensor.shape[i]));
      add<std::uint32_t>(out, 0);
      add<std::uint64_t>(out, data.size());
      data += raw_floats(tensor.values);
      data.resize((data.size() + 31) / 32 * 32);
    }
    out.resize((out.size() + 31) / 32 * 32);
    return out + data;
  }

 private:
  template <class T>
  static void add(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static void add_text(std::string& out, const std::string& text) {
    add<std::uint64_t>(out, text.size());
    out += text;
  }
};

}  // namespace kvc
