// How far a cache moves the model from what it would have said with the full cache: the full cache's own greedy answers
// are read on both caches, and the two distributions over each of their tokens are compared. No gold is needed.
//
// Fields of an answer: prompt (the user turn), rendered_prompt, reference_text (the full cache's answer), n_tokens
// (tokens compared), kl_sum (sum of KL(full || this) over the tokens, nats), kl_max (the largest), log_likelihood_sum
// (of the reference tokens on this cache, natural log), top_agreement (tokens at which both caches' likeliest token is
// the same).
//
// An answer that ends at once is compared at the end token. KL and likelihood are computed in float32 (ATen's
// log_softmax), a few rows at a time: never tokens x vocabulary.
//
// Metrics, over the n_tokens reference tokens (an answer without one counts nowhere): kl (kl_sum / n_tokens, nats),
// log_perplexity (-log_likelihood_sum / n_tokens, nats), top_agreement (count / n_tokens).

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/model/next_token_kl.h"
#include "harness/tasks/judging/judge.h"
#include "harness/tasks/written_answers.h"

namespace kvc {
namespace {

constexpr int64_t kRowsAtATime = 128;
constexpr int64_t kAnswersVersion =
    1;  // raised when the same request gives another answer: kept ones are then not read

struct FidelityReference {
  std::vector<std::vector<int64_t>> prompts;
  std::vector<Continuation> answers;  // answer i to prompt i
  std::vector<std::string> texts;
  std::vector<at::Tensor> hidden;  // (tokens of answer i, hidden), model dtype
};

// Of N tokens, each (N) on the CPU.
struct Comparison {
  at::Tensor kl;              // float64
  at::Tensor log_likelihood;  // float64
  at::Tensor agreement;       // bool
};

// full, compact: (N, hidden); tokens: (N) int64.
Comparison compare_distributions(const Decoder& decoder, const at::Tensor& full, const at::Tensor& compact,
                                 const at::Tensor& tokens) {
  std::vector<at::Tensor> kl, log_likelihood, agreement;
  for (int64_t begin = 0; begin < full.size(0); begin += kRowsAtATime) {
    const int64_t n = std::min(kRowsAtATime, full.size(0) - begin);
    const at::Tensor p = at::log_softmax(decoder.logits(full.narrow(0, begin, n)), -1);
    at::Tensor q = at::log_softmax(decoder.logits(compact.narrow(0, begin, n)), -1);
    const at::Tensor ids = tokens.narrow(0, begin, n).to(q.device()).unsqueeze(1);
    log_likelihood.push_back(q.gather(1, ids).squeeze(1).to(at::kCPU, at::kDouble));
    agreement.push_back(p.argmax(-1).eq(q.argmax(-1)).cpu());
    kl.push_back(next_token_kl(p, std::move(q)).cpu());
  }
  return {at::cat(kl), at::cat(log_likelihood), at::cat(agreement)};
}

class Fidelity final : public ComparingTask<FidelityReference> {
 public:
  struct Options {
    int64_t max_new_tokens = 16;
    void fields(auto&& visit) { visit("max_new_tokens", max_new_tokens, "longest reference answer", at_least(1)); }
  };

  explicit Fidelity(Options options) : options_(options) {}

  bool accepts(const Question& /*question*/) const override { return true; }

  FidelityReference make_reference(const AskRequest& on_full_cache) const override {
    const Model& model = on_full_cache.model;
    FidelityReference reference;
    std::vector<Ask> asks;
    for (const Question& question : on_full_cache.questions) asks.push_back({question.text, question.answer_prefix});
    reference.prompts = make_prompts(model, asks);
    for (const std::vector<int64_t>& tokens : full_answers(on_full_cache, reference.prompts)) {
      const auto prompt = static_cast<int64_t>(reference.answers.size());
      reference.texts.push_back(model.tokenizer().decode(tokens));
      reference.answers.push_back({prompt, tokens.empty() ? std::vector<int64_t>{end_token(model)} : tokens});
    }
    reference.hidden = continuation_hidden(model, on_full_cache.cache, reference.prompts, reference.answers);
    return reference;
  }

  std::vector<Json> compare(const AskRequest& request, const FidelityReference& reference) const override {
    if (reference.answers.empty()) return {};
    const std::vector<at::Tensor> hidden =
        continuation_hidden(request.model, request.cache, reference.prompts, reference.answers);
    std::vector<int64_t> tokens;
    for (const Continuation& answer : reference.answers)
      tokens.insert(tokens.end(), answer.tokens.begin(), answer.tokens.end());
    const Comparison all = compare_distributions(request.model.decoder(), at::cat(reference.hidden), at::cat(hidden),
                                                 at::tensor(tokens, at::kLong));

    std::vector<Json> answers;
    int64_t begin = 0;
    for (size_t i = 0; i < reference.answers.size(); ++i) {
      const auto n = static_cast<int64_t>(reference.answers[i].tokens.size());
      Json answer = summarise(request.questions[i], all, begin, n);
      answer["rendered_prompt"] = spelled(request.model, reference.prompts[i]);
      answer["reference_text"] = reference.texts[i];
      answers.push_back(std::move(answer));
      begin += n;
    }
    return answers;
  }

 private:
  // The full cache's own greedy answers: those that are kept, and the others written together.
  std::vector<std::vector<int64_t>> full_answers(const AskRequest& request,
                                                 const std::vector<std::vector<int64_t>>& prompts) const {
    DecodeSettings settings;
    settings.max_new_tokens = options_.max_new_tokens;
    std::vector<std::vector<int64_t>> answers(prompts.size());
    std::vector<size_t> missing;
    std::vector<std::vector<int64_t>> to_ask;
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto kept =
          request.kept == nullptr ? std::nullopt : request.kept->find(asked(request, prompts[i], settings));
      if (kept && read_tokens(*kept, request.model, answers[i])) continue;
      missing.push_back(i);
      to_ask.push_back(prompts[i]);
    }
    if (missing.empty()) return answers;
    const std::vector<Generation> made = generate(request.model, request.cache, to_ask, settings,
                                                  std::vector<std::uint64_t>(missing.size(), request.seed));
    for (size_t m = 0; m < missing.size(); ++m) {
      answers[missing[m]] = made[m].tokens;
      if (request.kept != nullptr)
        request.kept->keep(asked(request, to_ask[m], settings), {{"tokens", made[m].tokens}});
    }
    return answers;
  }

  // All that a greedy answer depends on besides model and document; the seed is not among it.
  static Json asked(const AskRequest& request, const std::vector<int64_t>& prompt, const DecodeSettings& settings) {
    return {{"what", "greedy answer"},
            {"version", kAnswersVersion},
            {"prompt", prompt},
            {"decode", settings.to_json()},
            {"end_tokens", request.model.tokenizer().end_ids()}};
  }

  // False, and nothing read, where the kept answer is no list of at most max_new_tokens tokens of this model.
  bool read_tokens(const Json& kept, const Model& model, std::vector<int64_t>& tokens) const {
    if (!kept.is_object() || !kept.contains("tokens") || !kept.at("tokens").is_array()) return false;
    const Json& list = kept.at("tokens");
    const bool fits = static_cast<int64_t>(list.size()) <= options_.max_new_tokens &&
                      std::all_of(list.begin(), list.end(), [&](const Json& token) {
                        return token.is_number_integer() && token >= 0 && token < model.spec().vocab_size;
                      });
    if (fits) tokens = list.get<std::vector<int64_t>>();
    return fits;
  }

  static int64_t end_token(const Model& model) {
    const std::vector<int64_t> ends = model.tokenizer().end_ids();
    if (ends.empty()) throw Error(ErrorKind::kInternal, "an answer ended, but the tokenizer has no end token", "", "");
    return ends.front();
  }

  static Json summarise(const Question& question, const Comparison& all, int64_t begin, int64_t n) {
    const at::Tensor kl = all.kl.narrow(0, begin, n);
    const auto kl_sum = kl.sum().item<double>();
    const auto log_likelihood_sum = all.log_likelihood.narrow(0, begin, n).sum().item<double>();
    if (!std::isfinite(kl_sum) || !std::isfinite(log_likelihood_sum)) {
      throw Error(ErrorKind::kData, fmt::format("KL is {} and log-likelihood {}", kl_sum, log_likelihood_sum),
                  "question " + question.id, "the cache holds numbers that are not finite; try dtype float32");
    }
    return {{"question_id", question.id},
            {"prompt", question.text},
            {"n_tokens", n},
            {"kl_sum", kl_sum},
            {"kl_max", kl.max().item<double>()},
            {"log_likelihood_sum", log_likelihood_sum},
            {"top_agreement", all.agreement.narrow(0, begin, n).sum().item<int64_t>()}};
  }

  Options options_;
};

std::vector<double> judge_fidelity(const AnswerFields& answer) {
  const auto n = static_cast<double>(answer.integer("n_tokens", 0));
  const double kl = answer.number("kl_sum");
  const double log_likelihood = answer.number("log_likelihood_sum");
  const double agreement = answer.number("top_agreement");
  if (agreement < 0 || agreement > n) answer.fail("top_agreement", fmt::format("is {} of {} tokens", agreement, n));
  if (n == 0) return {};
  return {kl / n, -log_likelihood / n, agreement / n};
}

KVC_REGISTER_TASK(Fidelity, "fidelity", "KL against the uncompacted cache");
KVC_REGISTER_METRICS("fidelity", one_by_one<judge_fidelity>,
                     {{"kl", "KL(full || compacted), nats per token", false, false},
                      {"log_perplexity", "log-perplexity of the full cache's answers, nats per token", false, false},
                      {"top_agreement", "share of tokens with the full cache's top token", true, true}});

}  // namespace
}  // namespace kvc
