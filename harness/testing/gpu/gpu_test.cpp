// Models, answers and compacted caches on a GPU and on the CPU: the same computations.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "harness/api/compaction_method.h"
#include "harness/api/read_document.h"
#include "harness/api/task.h"
#include "harness/core/registry.h"
#include "harness/model/decode_step.h"
#include "harness/model/generate.h"
#include "harness/model/sampling.h"
#include "harness/model/sampling_rows.h"
#include "harness/testing/gpu/gpu_test_device.h"

namespace kvc {
namespace {

// --- the model ---

std::vector<int64_t> some_tokens(int64_t n, int64_t vocab, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < n; ++i) {
    tokens.push_back(static_cast<int64_t>(random() % static_cast<std::uint64_t>(vocab)));
  }
  return tokens;
}

// Prefill in chunks, then three sequences of different lengths read behind the cache, then one token each.
std::vector<at::Tensor> read(const Model& model) {
  const int64_t vocab = model.spec().vocab_size;
  const KvCache cache = model.decoder().prefill(some_tokens(70, vocab, 1), 32);
  Tails tails = Tails::behind(cache, 3, 16);
  std::vector<at::Tensor> found;
  for (int64_t layer = 0; layer < cache.n_layers(); ++layer) {
    found.push_back(cache.layer(layer).keys);
    found.push_back(cache.layer(layer).values);
  }
  const PackedTokens questions =
      PackedTokens::pack({some_tokens(5, vocab, 2), some_tokens(1, vocab, 3), some_tokens(9, vocab, 4)});
  found.push_back(model.decoder().logits(model.decoder().forward(questions, cache, tails)));
  Tails two = tails.select({2, 0});
  const PackedTokens next = PackedTokens::pack({some_tokens(1, vocab, 5), some_tokens(1, vocab, 6)});
  found.push_back(model.decoder().logits(model.decoder().forward(next, cache, two)));
  return found;
}

// What a step of the whole model has of them, small enough for compute-sanitizer.
TEST_F(Gpu, KernelsOnSmallShapesOfAModel) {
  const std::vector<at::Tensor> want = read(make(at::kFloat, at::kCPU)), got = read(make(at::kFloat, device()));
  for (size_t i = 0; i < want.size(); ++i) expect_near(got[i], want[i], tolerance(at::kFloat), "model");
}

TEST_F(Gpu, EveryFamilyReadsAsOnTheCpu) {
  for (const char* name : {"llama", "llama3", "llama_biases", "qwen2", "qwen2_yarn", "qwen3"}) {
    for (const std::string dtype : {"float32", "bfloat16"}) {
      const std::string path = std::string("/harness/testing/golden/tiny_models/") + name + ".gguf";
      const std::vector<at::Tensor> want = read(load(path, dtype, "cpu"));
      const std::vector<at::Tensor> got = read(load(path, dtype, device_name()));
      for (size_t i = 0; i < want.size(); ++i) {
        expect_near(got[i], want[i], tolerance(want[0].scalar_type()), name + (" " + dtype));
      }
    }
  }
}

const char* const kText =
    "The lake is deep and cold. In winter nobody swims there, but in June the whole village comes. Old Mara says a "
    "bell lies on its ground; 42 divers have looked for it, none found it. On the north shore stands a mill whose "
    "wheel "
    "has not turned since the flood of 1913, and behind it begins the wood where the charcoal burners had their huts.";

std::vector<std::vector<int64_t>> questions(const Model& model, size_t n) {
  const char* const asked[] = {"What lies on the ground of the lake?", "Who tells of the bell?", "When is it cold?",
                               "How many divers came?"};
  std::vector<std::vector<int64_t>> prompts;
  for (size_t i = 0; i < n; ++i) prompts.push_back(make_question_prompt(model, asked[i % 4]));
  return prompts;
}

std::vector<Generation> answers(const Model& model, const KvCache& cache,
                                const std::vector<std::vector<int64_t>>& prompts) {
  DecodeSettings settings;
  settings.max_new_tokens = 24;
  return generate(model, cache, prompts, settings, {});
}

std::vector<std::string> greedy(const Model& model, const KvCache& cache,
                                const std::vector<std::vector<int64_t>>& prompts) {
  std::vector<std::string> texts;
  for (const Generation& each : answers(model, cache, prompts)) texts.push_back(each.text);
  return texts;
}

// How much likelier than `token` the likeliest next token is, in logits, after `text` behind the cache.
double lag_of(const Model& model, const KvCache& cache, const std::vector<int64_t>& text, int64_t token) {
  Tails tails = Tails::behind(cache, 1, static_cast<int64_t>(text.size()));
  const at::Tensor logits =
      model.decoder().logits(model.decoder().forward(PackedTokens::single(text), cache, tails)).select(0, -1);
  return (logits.max() - logits[token]).item<double>();
}

// Two answers to a prompt are the same up to a step at which both tokens were as likely, within rounding: batches of
// other sizes are added up in another order, which may decide between them.
void expect_same_up_to_a_tie(const Model& model, const KvCache& cache, std::vector<int64_t> prompt,
                             const std::vector<int64_t>& got, const std::vector<int64_t>& want) {
  const size_t common =
      static_cast<size_t>(std::mismatch(got.begin(), got.end(), want.begin(), want.end()).first - got.begin());
  if (common == got.size() && common == want.size()) return;
  prompt.insert(prompt.end(), got.begin(), got.begin() + static_cast<int64_t>(common));
  for (const std::vector<int64_t>* each : {&got, &want}) {
    if (common == each->size()) continue;  // it ended here
    EXPECT_LE(lag_of(model, cache, prompt, (*each)[common]), 1e-3) << "token " << common;
  }
}

TEST_F(Gpu, GreedyAnswersAreTheCpusAloneAndInABatch) {
  const Model here = make(at::kFloat, at::kCPU), model = make(at::kFloat, device());
  const std::vector<int64_t> tokens = make_context(here, kText).tokens;
  const KvCache cache_here = here.decoder().prefill(tokens), cache = model.decoder().prefill(tokens);
  const auto prompts = questions(here, 16);
  const std::vector<std::string> want = greedy(here, cache_here, {prompts.begin(), prompts.begin() + 4});
  const std::vector<std::string> together = greedy(model, cache, prompts);
  for (size_t i = 0; i < prompts.size(); ++i) EXPECT_EQ(together[i], want[i % 4]) << "question " << i;
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(greedy(model, cache, {prompts[i]})[0], want[i]) << "question " << i;
}

// The test above has teeth: a token that is not the likeliest is found out.
TEST_F(Gpu, AnswersThatDifferAreFoundOut) {
  const Model model = make(at::kFloat, device());
  const KvCache cache = model.decoder().prefill(make_context(model, kText).tokens);
  const std::vector<int64_t> prompt = questions(model, 1)[0];
  const std::vector<int64_t> tokens = answers(model, cache, {prompt})[0].tokens;
  ASSERT_FALSE(tokens.empty());
  EXPECT_LE(lag_of(model, cache, prompt, tokens[0]), 1e-3);
  EXPECT_GT(lag_of(model, cache, prompt, (tokens[0] + 1) % 256), 1e-2);
}

// Replays of a recorded step and the same operations each time: equal bits, while the tails grow and sequences end.
TEST_F(Gpu, StepsOfAGraphHaveTheBitsOfTheSameStepsWithout) {
  const bool real = device_name() == "cuda";  // a graph needs one
  if (real && !gpu::has_kernels()) GTEST_SKIP() << "this build has no CUDA kernels, so no graphs";
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Model model = make(dtype, device());
    const KvCache cache = model.decoder().prefill(make_context(model, kText).tokens);
    DecodeStep graph(model.decoder(), cache, real ? DecodeStep::Way::kGraph : DecodeStep::Way::kEachTime);
    DecodeStep plain(model.decoder(), cache, DecodeStep::Way::kEachTime);
    const PackedTokens texts = PackedTokens::pack(questions(model, 4));
    Tails tails = Tails::behind(cache, 4, 64), same = Tails::behind(cache, 4, 64);
    (void)model.decoder().forward(texts, cache, tails);
    (void)model.decoder().forward(texts, cache, same);
    std::vector<int64_t> tokens = {40, 41, 42, 43};
    for (int64_t i = 0; i < 24; ++i) {
      if (i == 8) {
        tails.reserve(100);
        same.reserve(100);
      }
      if (i == 16) {
        tails = tails.select({3, 1});
        same = same.select({3, 1});
        tokens.resize(2);
      }
      for (int64_t& token : tokens) token = (token * 31 + i) % 256;
      const at::Tensor got = graph.logits(tokens, tails).to(at::kCPU);
      EXPECT_TRUE(at::equal(got, plain.logits(tokens, same).to(at::kCPU))) << dtype << ", step " << i;
    }
    EXPECT_EQ(graph.n_recorded(), real ? 3 : 0);
  }
}

TEST_F(Gpu, AnswersWrittenByGraphsAreTheSame) {
  const bool real = device_name() == "cuda";
  if (real && !gpu::has_kernels()) GTEST_SKIP() << "this build has no CUDA kernels, so no graphs";
  const Model plain = make(at::kFloat, device()), model = make(at::kFloat, device(), real);
  const KvCache cache = plain.decoder().prefill(make_context(plain, kText).tokens);
  const auto prompts = questions(plain, 16);
  const std::vector<Generation> got = answers(model, cache, prompts), want = answers(plain, cache, prompts);
  for (size_t i = 0; i < prompts.size(); ++i) {
    expect_same_up_to_a_tie(plain, cache, prompts[i], got[i].tokens, want[i].tokens);
  }
}

// Logits leave the head's product in float32: most of them are no bfloat16 numbers.
TEST_F(Gpu, LogitsAreNotRoundedToTheModelsType) {
  if (device_name() != "cuda") GTEST_SKIP() << "the CPU rounds them where it multiplies bfloat16 itself";
  const Model model = make(at::kBFloat16, device());
  const at::Tensor logits =
      model.decoder().logits(at::randn({5, model.spec().hidden_size}).to(model.decoder().options()));
  EXPECT_GT(logits.ne(logits.to(at::kBFloat16).to(at::kFloat)).to(at::kFloat).mean().item<double>(), 0.9);
}

TEST_F(Gpu, Bfloat16LogitsAreNear) {
  const Model here = make(at::kFloat, at::kCPU), model = make(at::kBFloat16, device());
  const std::vector<int64_t> tokens = make_context(here, kText).tokens;
  const auto last_logits = [&](const Model& each) {
    const KvCache cache = each.decoder().prefill(tokens);
    Tails tails = Tails::behind(cache, 1, 64);
    return each.decoder().logits(each.decoder().forward(PackedTokens::single(questions(here, 1)[0]), cache, tails));
  };
  expect_near(last_logits(model), last_logits(here), 0.1, "logits");
}

TEST_F(Gpu, TokensAreChosenAsOnTheCpu) {
  at::manual_seed(2);
  const at::Tensor logits = at::randn({40, 50'000}).mul(8).round().div(4);  // many equal ones
  EXPECT_EQ(greedy_tokens(there(logits)), greedy_tokens(logits));
  for (const int64_t top_k : {0, 7, 200}) {
    std::vector<std::mt19937_64> one, other;
    for (std::uint64_t row = 0; row < 40; ++row) {
      one.emplace_back(row);
      other.emplace_back(row);
    }
    const auto of = [](std::vector<std::mt19937_64>& all) {
      return [&all](int64_t row) -> std::mt19937_64& { return all[static_cast<size_t>(row)]; };
    };
    EXPECT_EQ(sampled_tokens(there(logits), 1.0, top_k, 0.9, 0, of(one)),
              sampled_tokens(logits, 1.0, top_k, 0.9, 0, of(other)));
  }
  at::Tensor broken = logits.clone();
  broken[3][4] = std::nanf("");
  EXPECT_THROW(greedy_tokens(there(broken)), Error);
}

// --- methods: what a question's answer would be behind each compacted cache ---

at::Tensor logits_behind(const Model& model, const KvCache& cache) {
  const std::vector<int64_t> tokens = make_question_prompt(model, "What lies on the ground of the lake?");
  Tails tails = Tails::behind(cache, 1, static_cast<int64_t>(tokens.size()));
  return model.decoder().logits(model.decoder().forward(PackedTokens::single(tokens), cache, tails));
}

std::vector<Compaction> compact_with(const CompactionMethod& method, const Model& model, const char* text = kText) {
  const Context context = make_context(model, text);
  const KvCache full = model.decoder().prefill(context.tokens);
  const auto source = Registry<QuerySource>::instance().create("repeat_prefill", Json::object());
  const auto queries = source->make({model, context, full, 5});
  std::vector<HeadBudget> budgets;
  if (method.needs_target()) {
    budgets.push_back(every_head(full, context.article_len() / 2));
  }
  return method.compact({model, context, full, {context.prefix_len, context.suffix_len}, queries.get(), budgets, 1});
}

void expect_same_compaction(const std::string& name, const Json& options, const Model& here, const Model& model,
                            double most, const char* text = kText) {
  const auto method = Registry<CompactionMethod>::instance().create(name, options);
  const std::vector<Compaction> want = compact_with(*method, here, text), got = compact_with(*method, model, text);
  ASSERT_EQ(got.size(), want.size()) << name;
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(got[i].cache.n_entries(), want[i].cache.n_entries()) << name;
    EXPECT_EQ(got[i].cache.layer(0).keys.device().type(), model.decoder().options().device().type()) << name;
    expect_near(logits_behind(model, got[i].cache), logits_behind(here, want[i].cache), most, name);
  }
}

TEST_F(Gpu, MethodsFitAsOnTheCpu) {
  const Model here = make(at::kFloat, at::kCPU), model = make(at::kFloat, device());
  // Selections could differ where two entries' scores agree to the last bits: not in this text.
  for (const char* name : {"full_cache", "attention_matching", "am_omp", "h2o", "snapkv", "tova", "keydiff", "key_norm",
                           "d2o", "cam", "kvzip", "expected_attention", "streaming_llm", "truncate", "random_keys"}) {
    expect_same_compaction(name, Json::object(), here, model, 1e-2);
  }
}

// The same request twice: the same bytes.
TEST_F(Gpu, CompactionsRepeatBitByBit) {
  const Model model = make(at::kBFloat16, device());
  // Methods that train or write text are left out: cartridge, summarize.
  for (const std::string& name : Registry<CompactionMethod>::instance().names()) {
    if (name == "cartridge" || name == "summarize" || name == "stacked" || name == "chunked") continue;
    const auto method = Registry<CompactionMethod>::instance().create(name, Json::object());
    const std::vector<Compaction> first = compact_with(*method, model), second = compact_with(*method, model);
    for (int64_t layer = 0; layer < model.spec().n_layers; ++layer) {
      const LayerKv &a = first[0].cache.layer(layer), &b = second[0].cache.layer(layer);
      EXPECT_TRUE(at::equal(a.keys, b.keys)) << name;
      EXPECT_TRUE(at::equal(a.values, b.values)) << name;
      if (a.bias.defined()) {
        EXPECT_TRUE(at::equal(a.bias, b.bias)) << name;
      }
    }
  }
}

// Long enough for scans and sums that a GPU shares out to many blocks.
TEST_F(Gpu, LongHeadsRepeatBitByBit) {
  at::manual_seed(8);
  HeadProblem problem;
  problem.keys = there(at::randn({24'000, 32}).to(at::kBFloat16));
  problem.values = there(at::randn({24'000, 32}).to(at::kBFloat16));
  problem.queries = there(at::randn({96, 32}).to(at::kBFloat16));
  problem.window_queries = [queries = problem.queries](int64_t n) { return queries.narrow(0, 96 - n, n); };
  problem.seed = 3;
  for (const std::string name : {"attention_matching", "chunk_kv", "d2o", "cam", "kv_merger", "h2o", "compactor"}) {
    const auto made = Registry<CompactionMethod>::instance().create(name, Json::object());
    const auto& method = dynamic_cast<const PerHeadMethod&>(*made);
    const HeadFit first = method.fit(problem, {2000}).front();
    for (int again = 0; again < 3; ++again) {
      const HeadFit next = method.fit(problem, {2000}).front();
      EXPECT_TRUE(at::equal(first.indices, next.indices)) << name;
      EXPECT_TRUE(at::equal(first.values, next.values)) << name;
    }
  }
}

// What reports are made of: KL(full || compacted) of the task fidelity, 1e-3 of its size.
TEST_F(Gpu, DivergenceIsTheCpus) {
  const auto divergence = [](const Model& model) {
    const auto method = Registry<CompactionMethod>::instance().create("snapkv", Json::object());
    const auto task = Registry<Task>::instance().create("fidelity", Json::object());
    std::vector<Question> asked(2);
    asked[0].id = "bell";
    asked[0].text = "Who tells of the bell?";
    asked[1].id = "divers";
    asked[1].text = "How many divers came?";
    const KvCache full = model.decoder().prefill(make_context(model, kText).tokens);
    const std::vector<Compaction> made = compact_with(*method, model);
    const auto reference = task->reference({model, full, asked});
    double kl = 0, n_tokens = 0;
    for (const Json& answer : task->ask({model, made[0].cache, asked, 0, reference.get()})) {
      kl += answer["kl_sum"].get<double>();
      n_tokens += answer["n_tokens"].get<double>();
    }
    return kl / n_tokens;
  };
  const double want = divergence(make(at::kFloat, at::kCPU)), got = divergence(make(at::kFloat, device()));
  EXPECT_GT(want, 1e-4);
  EXPECT_NEAR(got, want, 1e-3 * want);
}

// --- several GPUs ---

// Layers on two GPUs: prefill, questions and a step, answers and compacted caches as on the CPU. With
// KVC_GPU_TEST_DEVICE=cpu both are the CPU.
TEST_F(Gpu, AModelSpreadOverTwoGpusIsTheCpus) {
  const bool real = device_name() == "cuda";
  if (real && at::getNumGPUs() < 2) GTEST_SKIP() << "one GPU: nothing is spread over two";
  const std::string path = "/harness/testing/golden/tiny_models/qwen3.gguf";
  const Model here = load(path, "float32", "cpu");
  const Model model = real ? load(path, "float32", "cuda:0", "2") : load(path, "float32", "cpu");
  EXPECT_EQ(model.decoder().is_spread(), real);
  const std::vector<at::Tensor> want = read(here), got = read(model);
  for (size_t i = 0; i < want.size(); ++i) expect_near(got[i], want[i], tolerance(at::kFloat), "spread model");
  const std::vector<int64_t> context = some_tokens(60, here.spec().vocab_size, 8);
  const KvCache cache = here.decoder().prefill(context), spread = model.decoder().prefill(context);
  const std::vector<std::vector<int64_t>> prompts = {some_tokens(4, here.spec().vocab_size, 9),
                                                     some_tokens(7, here.spec().vocab_size, 10)};
  const std::vector<Generation> written = answers(model, spread, prompts), expected = answers(here, cache, prompts);
  for (size_t i = 0; i < prompts.size(); ++i) {
    expect_same_up_to_a_tie(here, cache, prompts[i], written[i].tokens, expected[i].tokens);
  }
  for (const char* name : {"attention_matching", "am_omp", "snapkv", "kvzip", "keydiff", "cam"}) {
    expect_same_compaction(name, Json::object(), here, model, 1e-2, "The lake is deep. In winter nobody swims there.");
  }
}

// The text that is read anew is the same, greedily written words included.
TEST_F(Gpu, MethodsOnTheTextKeepTheSameText) {
  const Model here = make(at::kFloat, at::kCPU), model = make(at::kFloat, device());
  for (const char* name : {"truncate_text", "summarize"}) {
    expect_same_compaction(name, Json::object(), here, model, 1e-3);
  }
}

// Adam divides each gradient by its own size, so that the smallest ones are as uncertain as their signs.
TEST_F(Gpu, TrainedCachesAreNear) {
  const Model here = make(at::kFloat, at::kCPU), model = make(at::kFloat, device());
  const Json options = {{"text", "repeat"}, {"steps", 3}, {"batch_tokens", 64}, {"text_tokens", 64}};
  expect_same_compaction("cartridge", options, here, model, 5e-2);
}

}  // namespace
}  // namespace kvc
