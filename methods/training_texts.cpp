#include "methods/training_texts.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/stable_hash.h"
#include "harness/model/generate.h"

namespace kvc {
namespace {

constexpr int64_t kFewest = 64;     // tokens that a text needs
constexpr int64_t kFirstWords = 8;  // tokens of a part that its request names

// The published requests of self-study that need no second role.
const std::array<const char*, 4> kRequests = {
    "Summarize the main points of the context.",
    "Aggregate all the key facts mentioned in the context.",
    "Structure the information in JSON form and include all important details like dates, times, names, and numerical "
    "values.",
    "Write 3 questions that test understanding of different parts of the context. Answer with just the 3 questions and "
    "options (do not say the correct answer), each one separated with 2 newlines.",
};

// Longest text that the model has positions for.
int64_t room(const TextSource& source, int64_t text_tokens) {
  const int64_t left = source.model.spec().max_positions - source.cache.next_position();
  if (left >= kFewest) return std::min(left, text_tokens);
  throw Error(ErrorKind::kData,
              fmt::format("{} of the model's {} positions are left behind the context; texts to learn from need {}",
                          left, source.model.spec().max_positions, kFewest),
              "cartridge", "take a shorter document or a model with a longer context");
}

}  // namespace

std::vector<std::vector<int64_t>> repeated_texts(const TextSource& source, int64_t text_tokens) {
  const int64_t longest = room(source, text_tokens);
  const std::vector<int64_t> article = source.context.article_tokens();
  const auto total = static_cast<int64_t>(article.size());
  const auto request = [&](int64_t begin) {
    if (begin == 0) return make_question_prompt(source.model, "Repeat the previous context verbatim.");
    const std::vector<int64_t> first(article.begin() + begin, article.begin() + std::min(begin + kFirstWords, total));
    return make_question_prompt(source.model,
                                fmt::format("Repeat the previous context verbatim, from these words on: {}",
                                            source.model.tokenizer().decode(first)));
  };
  std::vector<std::vector<int64_t>> texts;
  for (int64_t begin = 0; begin < total;) {
    std::vector<int64_t> text = request(begin);
    const int64_t n = std::min(total - begin, std::max<int64_t>(1, longest - static_cast<int64_t>(text.size())));
    text.insert(text.end(), article.begin() + begin, article.begin() + begin + n);
    text.resize(static_cast<size_t>(std::min<int64_t>(static_cast<int64_t>(text.size()), longest)));
    texts.push_back(std::move(text));
    begin += n;
  }
  return texts;
}

std::vector<std::vector<int64_t>> self_study_texts(const TextSource& source, int64_t n_texts, int64_t text_tokens) {
  const int64_t longest = room(source, text_tokens);
  std::vector<std::vector<int64_t>> prompts;
  std::vector<std::uint64_t> seeds;
  size_t longest_prompt = 0;
  for (int64_t i = 0; i < n_texts; ++i) {
    prompts.push_back(make_question_prompt(source.model, kRequests[static_cast<size_t>(i) % kRequests.size()]));
    seeds.push_back(derive_seed(source.seed, fmt::format("cartridge/text {}", i)));
    longest_prompt = std::max(longest_prompt, prompts.back().size());
  }
  DecodeSettings settings;
  settings.max_new_tokens = std::max<int64_t>(1, longest - static_cast<int64_t>(longest_prompt));
  settings.temperature = 0.7;
  settings.top_p = 0.8;
  settings.top_k = 20;
  const std::vector<Generation> answers = generate(source.model, source.cache, prompts, settings, seeds);
  for (size_t i = 0; i < prompts.size(); ++i) {
    prompts[i].insert(prompts[i].end(), answers[i].tokens.begin(), answers[i].tokens.end());
    prompts[i].resize(std::min(prompts[i].size(), static_cast<size_t>(longest)));
  }
  return prompts;
}

std::vector<TrainingText> with_teacher(const TextSource& source, std::vector<std::vector<int64_t>> texts) {
  const c10::InferenceMode inference;
  std::vector<TrainingText> result;
  for (std::vector<int64_t>& text : texts) {
    Tails tails = Tails::behind(source.cache, 1, static_cast<int64_t>(text.size()));
    at::Tensor teacher = source.model.decoder().forward(PackedTokens::single(text), source.cache, tails);
    result.push_back({std::move(text), std::move(teacher)});
  }
  return result;
}

}  // namespace kvc
