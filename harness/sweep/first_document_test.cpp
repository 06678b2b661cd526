// What a sweep takes from reading a document, and what it shows of the first one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <utility>

#include "harness/api/query_source.h"
#include "harness/sweep/runner.h"
#include "harness/sweep/sweep_plugins_test.h"
#include "harness/testing/tiny_model.h"

namespace kvc {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Heard {
  int64_t made = 0, listeners = 0, finished = 0, calls = 0;
};
Heard& heard() {
  static Heard counts;
  return counts;
}

// context_prefill, counting how its queries come about.
class TestListening final : public QuerySource {
 public:
  struct Options {
    void fields(auto&&) {}
    void check(const OptionCheck&) const {}
  };
  explicit TestListening(const Options&)
      : inner_(Registry<QuerySource>::instance().create("context_prefill", Json::object())) {}
  std::unique_ptr<LayerQueries> make(const QueryRequest& request) const override {
    ++heard().made;
    return inner_->make(request);
  }
  std::unique_ptr<QueryListener> listen(const Model& model, const Context& context, std::uint64_t seed) const override {
    ++heard().listeners;
    return std::make_unique<Counting>(inner_->listen(model, context, seed));
  }

 private:
  class Counting final : public QueryListener {
   public:
    explicit Counting(std::unique_ptr<QueryListener> inner) : inner_(std::move(inner)) {}
    void take(int64_t layer, int64_t first_token, const at::Tensor& queries) override {
      ++heard().calls;
      inner_->take(layer, first_token, queries);
    }
    std::unique_ptr<LayerQueries> finish() override {
      ++heard().finished;
      return inner_->finish();
    }

   private:
    std::unique_ptr<QueryListener> inner_;
  };
  std::unique_ptr<QuerySource> inner_;
};
KVC_REGISTER_QUERIES(TestListening, "test_listening", "test");

class FirstDocument : public ::testing::Test {
 protected:
  RunSummary run(const std::string& queries) {
    std::ofstream(folder_.file("tiny.gguf")) << "weights 1";
    SweepConfig config = parse_sweep(ConfigText::from_string(
        "sweep: t\nseed: 7\nmodel: tiny.gguf\ndataset: [test_notes]\ntask: [test_probe]\nqueries: " + queries +
            "\ntarget: [0.5, 0.25]\nmethod: [test_full, test_queried]\n",
        "s.yaml"));
    config.results = folder_.file("results");
    for (SweepModel& model : config.models) model.config.path = folder_.file(model.config.path);
    options_.skip_proof = true;
    options_.load_model = [](const ModelConfig&) { return tiny_model(1); };
    return run_sweep(config, options_);
  }

  TemporaryFolder folder_;
  RunOptions options_;
};

TEST_F(FirstDocument, QueriesOfTheContextAreTakenWhileItIsReadAndNotReadAgain) {
  heard() = {};
  options_.quiet = true;
  EXPECT_EQ(run("test_listening").failed, 0);
  EXPECT_EQ(heard().listeners, 2);  // once per document, for both targets
  EXPECT_EQ(heard().finished, 2);
  EXPECT_GT(heard().calls, 0);
  EXPECT_EQ(heard().made, 0);
}

TEST_F(FirstDocument, IsShownOnceAndNotWhereASweepGoesOn) {
  int looks = 0;
  options_.first_look = [&] {
    ++looks;
    return std::string("what was found");
  };
  ::testing::internal::CaptureStderr();
  const RunSummary summary = run("test_queries");
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              ::testing::AllOf(HasSubstr("after the first document"), HasSubstr("what was found")));
  EXPECT_GT(summary.measured, 0);
  EXPECT_EQ(looks, 1);
  ::testing::internal::CaptureStderr();
  run("test_queries");
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), Not(HasSubstr("what was found")));
  EXPECT_EQ(looks, 1);
}

}  // namespace
}  // namespace kvc
