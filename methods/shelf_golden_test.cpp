// Methods that follow kvpress keep what kvpress keeps of heads of the demo model.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>

#include "harness/model/formats/tensor_file.h"
#include "harness/testing/method_heads.h"

namespace kvc {
namespace {

TEST(ShelfGolden, PicksAreThoseOfKvpress) {
  std::ifstream file(KVC_SOURCE_DIR "/harness/testing/golden/kvpress_picks.json");
  ASSERT_TRUE(file) << "harness/testing/golden/kvpress_picks.json is missing";
  const Json golden = Json::parse(file);
  const TensorFile heads = read_tensor_file(KVC_SOURCE_DIR "/harness/testing/golden/captured_heads.safetensors");
  std::map<std::string, int> n_cases;
  for (const Json& c : golden.at("cases")) {
    const auto name = c.at("method").get<std::string>(), captured = c.at("captured").get<std::string>();
    SCOPED_TRACE(name + c.at("options").dump() + ", " + captured + ", t " + c.at("t").dump());
    HeadProblem head;
    head.keys = heads.tensors.at(captured + ".K").to(at::kFloat);
    head.values = heads.tensors.at(captured + ".V").to(at::kFloat);
    std::vector<int64_t> found = NamedMethod(name, c.at("options")).indices(head, c.at("t").get<int64_t>());
    std::sort(found.begin(), found.end());
    EXPECT_EQ(found, c.at("indices").get<std::vector<int64_t>>());
    ++n_cases[name];
  }
  EXPECT_EQ(n_cases, (std::map<std::string, int>{
                         {"chunk_kv", 9}, {"curdkv", 45}, {"keydiff", 27}, {"lagkv", 21}, {"leverage", 9}}));
}

}  // namespace
}  // namespace kvc
