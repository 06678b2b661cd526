#include "harness/sweep/self_proof.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "harness/api/read_document.h"
#include "harness/core/count.h"
#include "harness/core/stable_hash.h"
#include "harness/model/continuation.h"
#include "harness/model/generate.h"
#include "harness/model/next_token_kl.h"

namespace kvc {
namespace {

constexpr size_t kProofQuestions = 4;
constexpr int64_t kProofAnswerTokens = 16;

bool same_tensor(const at::Tensor& a, const at::Tensor& b) {
  if (a.defined() != b.defined()) return false;
  return !a.defined() || (a.scalar_type() == b.scalar_type() && at::equal(a, b));
}

struct Comparison {
  double mean_kl = 0;
  double agreement = 0;  // of the top token, given the same tokens before
  bool same_answers = false;
  int64_t n_tokens = 0;
};

class Prover {
 public:
  explicit Prover(const ProofJob& job) : job_(job), seed_(derive_seed(job.cells.front()->cell.seed, "proof")) {}

  Json run() {
    if (const auto failure = failure_of([&] { prepare(); }, device_)) return skipped(*failure);
    Json methods = Json::array();
    std::vector<Json> seen;
    for (const PlannedCell* cell : job_.cells) {
      const Json key = {cell->cell.method, cell->cell.queries};
      if (std::find(seen.begin(), seen.end(), key) != seen.end()) continue;
      seen.push_back(key);
      Json found = {{"method", cell->cell.method}, {"queries", cell->cell.queries}};
      job_.stage(fmt::format("self-proof: {}", cell->cell.method.value("name", "")));
      found.update(prove_method(*cell));
      methods.push_back(std::move(found));
    }
    return Json{{"document", job_.document.id}, {"article_tokens", read_->context.article_len()}, {"methods", methods}};
  }

 private:
  static Json skipped(const std::string& reason) { return Json{{"skipped", reason}}; }

  // The cut context, and a few questions with the full cache's own greedy answers.
  void prepare() {
    // A third of the positions, so that a source that reads the text twice still fits.
    const int64_t n_tokens = std::min(job_.proof_tokens, job_.model.spec().max_positions / 3);
    read_.emplace(ReadDocument::read(job_.model, cut_text(job_.model.tokenizer(), job_.document.text, n_tokens)));
    for (size_t i = 0; i < std::min(kProofQuestions, job_.document.questions.size()); ++i) {
      const Question& question = job_.document.questions[i];
      prompts_.push_back(make_question_prompt(job_.model, question.text, question.answer_prefix));
    }
    if (prompts_.empty()) prompts_.push_back(make_question_prompt(job_.model, "What is this text about?"));
    answers_ = greedy(read_->full);
    for (size_t i = 0; i < answers_.size(); ++i) {
      if (!answers_[i].empty()) continuations_.push_back({static_cast<int64_t>(i), answers_[i]});
    }
    // A model that says nothing at all is still compared on the token it would say first.
    if (continuations_.empty()) continuations_.push_back({0, {job_.model.tokenizer().end_ids().front()}});
    full_hidden_ = continuation_hidden(job_.model, read_->full, prompts_, continuations_);
  }

  std::vector<std::vector<int64_t>> greedy(const KvCache& cache) const {
    DecodeSettings settings;
    settings.max_new_tokens = kProofAnswerTokens;
    std::vector<std::vector<int64_t>> list;
    const std::vector<std::uint64_t> seeds(prompts_.size(), 0);
    for (Generation& generation : generate(job_.model, cache, prompts_, settings, seeds)) {
      list.push_back(std::move(generation.tokens));
    }
    return list;
  }

  Comparison compare(const KvCache& cache) const {
    const std::vector<at::Tensor> hidden = continuation_hidden(job_.model, cache, prompts_, continuations_);
    Comparison result;
    double agreeing = 0;
    for (size_t i = 0; i < hidden.size(); ++i) {
      const at::Tensor p = at::log_softmax(job_.model.decoder().logits(full_hidden_[i]), -1);
      at::Tensor q = at::log_softmax(job_.model.decoder().logits(hidden[i]), -1);
      agreeing += p.argmax(-1).eq(q.argmax(-1)).sum().item<double>();
      result.mean_kl += next_token_kl(p, std::move(q)).sum().item<double>();
      result.n_tokens += p.size(0);
    }
    result.mean_kl /= static_cast<double>(result.n_tokens);
    result.agreement = agreeing / static_cast<double>(result.n_tokens);
    result.same_answers = greedy(cache) == answers_;
    return result;
  }

  // What cannot serve this text is skipped; a plug-in that breaks its contract ends the sweep.
  std::optional<std::string> failure(const PlannedCell& cell, const std::function<void()>& work) const {
    std::optional<std::string> broken;
    const auto message = failure_of(
        [&] {
          try {
            work();
          } catch (const Error& error) {
            if (error.kind() == ErrorKind::kInternal) broken = error.fact();
            throw;
          }
        },
        device_);
    if (broken) fail(cell, *broken);
    return message;
  }

  Json prove_method(const PlannedCell& cell) {
    std::unique_ptr<LayerQueries> queries;
    if (cell.queries != nullptr) {
      const auto failed = failure(cell, [&] {
        queries =
            read_->queries(job_.model, cell.queries.get(), derive_seed(seed_, "queries"), &job_.document.questions);
      });
      if (failed) return skipped(*failed);
    }
    return cell.method->needs_target() ? prove_targets(cell, queries.get()) : prove_repeat(cell, queries.get());
  }

  // Without a target there is no budget to test; the same call twice must still agree.
  Json prove_repeat(const PlannedCell& cell, const LayerQueries* queries) const {
    std::vector<Compaction> first;
    if (const auto failed = failure(cell, [&] { first = compact(cell, queries, {}); })) return skipped(*failed);
    const std::vector<Compaction> second = compact(cell, queries, {});
    if (!bit_equal(first.front().cache, second.front().cache)) fail_repeat(cell, "the same cell twice");
    Json found = Json{{"repeats", true}};
    if (cell.method->compacts_cache() && first.front().cache.n_entries() == read_->full.n_entries()) {
      check_reproduction(cell, compare(first.front().cache), found);
    }
    return found;
  }

  Json prove_targets(const PlannedCell& cell, const LayerQueries* queries) const {
    const auto [large, small] = two_budgets(cell);
    const HeadBudget everything = budget(read_->context.article_len());
    std::vector<Compaction> first;
    const auto failed = failure(cell, [&] {
      first = compact(cell, queries, {everything, budget(large), budget(small)});
    });
    if (failed) return skipped(*failed);
    Json found = Json{{"target_len_large", large}, {"target_len_small", small}};
    if (cell.method->compacts_cache()) {
      check_reproduction(cell, compare(first[0].cache), found);
      check_budget(cell, first[1].cache, large);
      check_budget(cell, first[2].cache, small);
      if (bit_equal(first[1].cache, first[2].cache)) fail_dead_switch(cell, large, small);
      found["budgets_differ"] = true;
    }
    const std::vector<Compaction> alone = compact(cell, queries, {budget(small)});
    if (!bit_equal(first[2].cache, alone[0].cache)) {
      const std::vector<Compaction> again = compact(cell, queries, {everything, budget(large), budget(small)});
      fail_repeat(cell, bit_equal(first[2].cache, again[2].cache) ? "one target alone and together with larger ones"
                                                                  : "the same cell twice");
    }
    found["repeats"] = true;
    return found;
  }

  // Two different lengths, from the sweep's own targets where they give two on this text.
  std::pair<int64_t, int64_t> two_budgets(const PlannedCell& like) const {
    const int64_t source_len = read_->context.article_len();
    std::set<int64_t> lengths;
    for (const PlannedCell* cell : job_.cells) {
      const std::optional<TargetSize>& target = cell->cell.target;
      if (cell->cell.method != like.cell.method || !target || target->unit == TargetSize::Unit::kBytes) continue;
      const double asked = target->unit == TargetSize::Unit::kFraction
                               ? std::floor(target->fraction * static_cast<double>(source_len))
                               : static_cast<double>(target->entries);
      if (asked >= 1 && asked < static_cast<double>(source_len)) lengths.insert(static_cast<int64_t>(asked));
    }
    lengths.insert(std::max<int64_t>(1, source_len / 2));
    if (lengths.size() < 2) lengths.insert(std::max<int64_t>(1, source_len / 4));
    return {*lengths.rbegin(), *lengths.begin()};
  }

  HeadBudget budget(int64_t target_len) const { return every_head(read_->full, target_len); }

  std::vector<Compaction> compact(const PlannedCell& cell, const LayerQueries* queries,
                                  const std::vector<HeadBudget>& budgets) const {
    return read_->compact(job_.model, *cell.method, queries, budgets, derive_seed(seed_, "method"));
  }

  void check_reproduction(const PlannedCell& cell, const Comparison& seen, Json& found) const {
    found["mean_kl"] = seen.mean_kl;
    found["token_agreement"] = seen.agreement;
    found["same_greedy_answers"] = seen.same_answers;
    found["compared_tokens"] = seen.n_tokens;
    const bool exact = job_.model.decoder().options().dtype() == at::kFloat;
    const double bound = exact ? kProofKlFloat32 : kProofKlBfloat16;
    // Not (a <= b): NaN must not pass.
    if (!(seen.mean_kl <= bound)) {
      fail(cell,
           fmt::format("a budget of everything must reproduce the untouched cache; mean KL is {:.3g} over {} tokens, "
                       "at most {:g} is rounding",
                       seen.mean_kl, seen.n_tokens, bound));
    }
    if (exact && !seen.same_answers) {
      fail(cell, "a budget of everything must reproduce the untouched cache; greedy answers differ in float32");
    }
    if (!exact && seen.agreement < kProofAgreementBfloat16) {
      fail(cell,
           fmt::format(
               "a budget of everything must reproduce the untouched cache; the top token agrees at {:.1f} % of {} "
               "tokens, at least {:g} % must",
               100 * seen.agreement, seen.n_tokens, 100 * kProofAgreementBfloat16));
    }
  }

  void check_budget(const PlannedCell& cell, const KvCache& cache, int64_t target_len) const {
    const int64_t per_head = read_->context.prefix_len + read_->context.suffix_len + target_len;
    const int64_t allowed = per_head * read_->full.n_layers() * read_->full.n_kv_heads();
    if (cache.n_entries() <= allowed) return;
    fail(cell, fmt::format("it keeps {} entries where the budget allows {}", cache.n_entries(), allowed));
  }

  [[noreturn]] void fail_dead_switch(const PlannedCell& cell, int64_t large, int64_t small) const {
    fail(cell, fmt::format("budgets of {} and {} entries per head give the same cache: the budget has no effect", large,
                           small));
  }

  [[noreturn]] void fail_repeat(const PlannedCell& cell, const std::string& which) const {
    fail(cell, fmt::format("{} gives different caches", which));
  }

  [[noreturn]] void fail(const PlannedCell& cell, const std::string& fact) const {
    const Json& queries = cell.cell.queries;
    throw Error(ErrorKind::kData,
                fmt::format("self-proof failed for method '{}': {}", cell.cell.method.value("name", ""), fact),
                fmt::format("method {}{}, first {} article tokens of document '{}'", cell.cell.method.dump(),
                            queries.is_null() ? "" : ", queries " + queries.dump(), read_->context.article_len(),
                            job_.document.id),
                "mend the method or take it out of the sweep; --skip-proof runs without and says so in every record");
  }

  const ProofJob& job_;
  const DeviceCare device_ = DeviceCare::of(job_.model.decoder().devices());
  std::uint64_t seed_;
  std::optional<ReadDocument> read_;
  std::vector<std::vector<int64_t>> prompts_;
  std::vector<std::vector<int64_t>> answers_;
  std::vector<Continuation> continuations_;
  std::vector<at::Tensor> full_hidden_;
};

}  // namespace

bool bit_equal(const KvCache& a, const KvCache& b) {
  if (a.n_layers() != b.n_layers() || a.next_position() != b.next_position()) return false;
  for (int64_t i = 0; i < a.n_layers(); ++i) {
    const LayerKv& left = a.layer(i);
    const LayerKv& right = b.layer(i);
    if (left.head_offsets != right.head_offsets || !same_tensor(left.keys, right.keys) ||
        !same_tensor(left.values, right.values) || !same_tensor(left.bias, right.bias)) {
      return false;
    }
  }
  return true;
}

std::string cut_text(const Tokenizer& tokenizer, const std::string& text, int64_t n_tokens) {
  std::vector<int64_t> ends;
  tokenizer.encode({Segment{text, false}}, &ends);
  if (n_tokens <= 0 || static_cast<size_t>(n_tokens) >= ends.size()) return text;
  auto cut = static_cast<size_t>(ends[static_cast<size_t>(n_tokens) - 1]);
  while (cut > 0 && cut < text.size() && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80)
    --cut;  // whole UTF-8 only
  return text.substr(0, cut);
}

Json prove(const ProofJob& job) {
  return Prover(job).run();
}

std::vector<std::string> proof_notes(const Json& found, const std::string& dataset) {
  const std::string subject = fmt::format("self-proof on {}", dataset);
  if (found.contains("skipped"))
    return {fmt::format("{}: not possible: {}", subject, found.at("skipped").get<std::string>())};
  std::vector<std::string> notes;
  double worst = 0;
  int64_t proved = 0;
  bool reproduced = false, budgets_differ = false;
  for (const Json& method : found.at("methods")) {
    if (method.contains("skipped")) {
      notes.push_back(fmt::format("{}: not possible for {}: {}", subject, method.at("method").value("name", ""),
                                  method.at("skipped").get<std::string>()));
      continue;
    }
    ++proved;
    worst = std::max(worst, method.value("mean_kl", 0.0));
    reproduced |= method.contains("mean_kl");
    budgets_differ |= method.contains("budgets_differ");
  }
  if (proved == 0) {
    notes.push_back(fmt::format("{}: nothing was proved", subject));
    return notes;
  }
  std::string note =
      fmt::format("{}, first {} article tokens: {} {} bit by bit", subject, found.at("article_tokens").dump(),
                  count(proved, "method"), proved == 1 ? "repeats itself" : "repeat themselves");
  if (reproduced)
    note += fmt::format("; a budget of everything reproduces the full cache (mean KL at most {:.1e})", worst);
  if (budgets_differ) note += "; budgets have their effect";
  notes.push_back(note);
  return notes;
}

}  // namespace kvc
