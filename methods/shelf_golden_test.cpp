// Methods that follow kvpress or their authors' code keep what that keeps of heads of the demo model.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>

#include "harness/model/formats/tensor_file.h"
#include "harness/testing/method_heads.h"

namespace kvc {
namespace {

// How many cases each method has in the file, all of them checked.
std::map<std::string, int> check_picks(const std::string& name) {
  std::map<std::string, int> n_cases;
  const std::string path = KVC_SOURCE_DIR "/harness/testing/golden/" + name;
  std::ifstream file(path);
  EXPECT_TRUE(file) << path << " is missing";
  const Json golden = Json::parse(file);
  const TensorFile heads = read_tensor_file(KVC_SOURCE_DIR "/harness/testing/golden/captured_heads.safetensors");
  for (const Json& c : golden.at("cases")) {
    const auto method = c.at("method").get<std::string>(), captured = c.at("captured").get<std::string>();
    SCOPED_TRACE(method + c.at("options").dump() + ", " + captured + ", t " + c.at("t").dump());
    HeadProblem head;
    head.keys = heads.tensors.at(captured + ".K").to(at::kFloat);
    head.values = heads.tensors.at(captured + ".V").to(at::kFloat);
    if (c.contains("queries")) {
      head.queries = heads.tensors.at(captured + ".Q").to(at::kFloat).narrow(0, 0, c.at("queries").get<int64_t>());
      head.window_queries = [&head](int64_t n) { return head.queries.narrow(0, head.queries.size(0) - n, n); };
    }
    std::vector<int64_t> found = NamedMethod(method, c.at("options")).indices(head, c.at("t").get<int64_t>());
    std::sort(found.begin(), found.end());
    EXPECT_EQ(found, c.at("indices").get<std::vector<int64_t>>());
    ++n_cases[method];
  }
  return n_cases;
}

TEST(ShelfGolden, PicksAreThoseOfKvpress) {
  EXPECT_EQ(check_picks("kvpress_picks.json"), (std::map<std::string, int>{{"chunk_kv", 9},
                                                                           {"compactor", 18},
                                                                           {"curdkv", 45},
                                                                           {"keydiff", 27},
                                                                           {"kvcompose", 9},
                                                                           {"lagkv", 21},
                                                                           {"leverage", 9}}));
}

TEST(ShelfGolden, PicksAreThoseOfAuthorsCode) {
  EXPECT_EQ(check_picks("authors_picks.json"), (std::map<std::string, int>{{"r_kv", 18}}));
}

}  // namespace
}  // namespace kvc
