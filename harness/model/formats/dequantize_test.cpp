// Against values made with the public gguf package by scripts/golden/gguf_blocks.py.
#include "harness/model/formats/dequantize.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <limits>

#include "harness/core/config_text.h"
#include "harness/core/error.h"
#include "harness/files/ggml_types.h"
#include "harness/files/gguf.h"

namespace kvc {
namespace {

using testing::HasSubstr;

TEST(Dequantize, ReadsTheFloatTypes) {
  const std::vector<float> full = {1, 2, 3, 4, 5, 6};
  const std::vector<std::uint16_t> brain = {0x3f80, 0xc000};
  const std::vector<std::uint16_t> half = {0x3c00, 0x3800};
  const StoredTensor a{"a", find_ggml_type(0), {3, 2}, std::as_bytes(std::span(full))};
  const StoredTensor b{"b", find_ggml_type(30), {2}, std::as_bytes(std::span(brain))};
  const StoredTensor c{"c", find_ggml_type(1), {1, 2}, std::as_bytes(std::span(half))};
  EXPECT_TRUE(at::equal(dequantize(a, at::kFloat, ""), at::tensor({1.F, 2.F, 3.F, 4.F, 5.F, 6.F}).view({3, 2})));
  EXPECT_TRUE(at::equal(dequantize(b, at::kFloat, ""), at::tensor({1.F, -2.F})));
  EXPECT_TRUE(at::equal(dequantize(c, at::kBFloat16, ""), at::tensor({1.F, 0.5F}).to(at::kBFloat16).view({1, 2})));
}

TEST(Dequantize, RefusesValuesThatAreNotFinite) {
  const std::vector<float> values = {1, 2, 3, std::numeric_limits<float>::quiet_NaN()};
  const StoredTensor tensor{"t", find_ggml_type(0), {2, 2}, std::as_bytes(std::span(values))};
  try {
    dequantize(tensor, at::kFloat, "a.gguf");
    FAIL() << "not a number, and no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    EXPECT_THAT(error.what(), HasSubstr("tensor 't' has a value in row 1 that is not finite"));
    EXPECT_EQ(error.where(), "a.gguf");
  }
}

std::string golden_path() {
  return std::string(KVC_SOURCE_DIR) + "/harness/testing/golden/gguf_blocks.json";
}
std::string model_path() {
  return std::string(KVC_SOURCE_DIR) + "/models/smollm2-135m-instruct.gguf";
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

at::Tensor from_bits(const std::string& hex) {
  const std::string bytes = from_hex(hex);
  at::Tensor values = at::empty({static_cast<int64_t>(bytes.size() / 4)}, at::kFloat);
  std::memcpy(values.mutable_data_ptr<float>(), bytes.data(), bytes.size());
  return values;
}

// A fused multiply-add may spare one rounding of a product: two units in the last place of the largest value.
void expect_same(const at::Tensor& values, const at::Tensor& golden, const std::string& what) {
  ASSERT_EQ(values.numel(), golden.numel()) << what;
  const double scale = golden.abs().max().item<double>();
  EXPECT_LE((values.view({-1}) - golden).abs().max().item<double>(), scale * 2.4e-7) << what;
}

TEST(Dequantize, GivesTheValuesOfThePublicPackage) {
  std::ifstream in(golden_path());
  ASSERT_TRUE(in) << golden_path();
  const Json golden = Json::parse(in);
  ASSERT_EQ(golden.at("blocks").size(), 15U);
  for (const Json& item : golden.at("blocks")) {
    const GgmlType* type = find_ggml_type(item.at("type").get<uint32_t>());
    const std::string name = item.at("name");
    ASSERT_NE(type, nullptr) << name;
    EXPECT_EQ(type->name, name);
    const std::string bytes = from_hex(item.at("bytes"));
    const at::Tensor expected = from_bits(item.at("float32_bits"));
    ASSERT_EQ(static_cast<int64_t>(bytes.size()) / type->block_bytes * type->block_values, expected.numel()) << name;
    const StoredTensor tensor{name, type, {expected.numel()}, std::as_bytes(std::span(bytes))};
    expect_same(dequantize(tensor, at::kFloat, ""), expected, name);
    EXPECT_TRUE(at::equal(dequantize(tensor, at::kBFloat16, ""), dequantize(tensor, at::kFloat, "").to(at::kBFloat16)))
        << name;
    EXPECT_TRUE(at::equal(dequantize(tensor, at::kHalf, ""), dequantize(tensor, at::kFloat, "").to(at::kHalf))) << name;
  }
}

TEST(Dequantize, ReadsTheDemoModel) {
  const GgufFile file(model_path());
  std::ifstream in(golden_path());
  ASSERT_TRUE(in);
  const Json golden = Json::parse(in);
  for (const Json& item : golden.at("rows")) {
    const GgufTensor* tensor = file.find_tensor(item.at("tensor"));
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->type->name, item.at("type"));
    EXPECT_EQ(tensor->shape, item.at("shape").get<std::vector<int64_t>>());
    const at::Tensor values = dequantize(*tensor, at::kFloat, file.path()).view({-1, tensor->shape.back()});
    expect_same(values[item.at("row").get<int64_t>()], from_bits(item.at("float32_bits")), tensor->name);
  }
}

}  // namespace
}  // namespace kvc
