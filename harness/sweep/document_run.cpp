#include "harness/sweep/document_run.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <set>
#include <utility>

#include "harness/api/read_document.h"
#include "harness/core/stopwatch.h"
#include "harness/sweep/cache_sizes.h"
#include "harness/sweep/online_sizes.h"
#include "harness/sweep/peak_memory.h"
#include "harness/sweep/run_info.h"
#include "harness/sweep/written_questions.h"

namespace kvc {
namespace {

using Cells = std::vector<const PlannedCell*>;

// Cells that share `key`, in order of first appearance.
template <class Key>
std::vector<Cells> group_by(const Cells& cells, const Key& key) {
  std::vector<decltype(key(*cells.front()))> keys;
  std::vector<Cells> groups;
  for (const PlannedCell* cell : cells) {
    const auto value = key(*cell);
    const auto found = std::find(keys.begin(), keys.end(), value);
    const auto index = static_cast<size_t>(found - keys.begin());
    if (found == keys.end()) {
      keys.push_back(value);
      groups.emplace_back();
    }
    groups[index].push_back(cell);
  }
  return groups;
}

// What several records share.
struct Shared {
  double prefill_s = 0;
  double queries_s = 0;
  int64_t n_queries = 0;
  Peak read_peak, queries_peak, method_peak;
};

// A task on this document: its questions, and the full cache's answers where it compares with them.
struct Asked {
  std::vector<Question> questions;
  std::unique_ptr<TaskReference> reference;
  std::optional<std::string> failure;
  Json notes = Json::object();  // for every record
  Task::Batch batch;
  double reference_s = 0;
  int64_t question_tokens = 0;
  size_t n_unwritten = 0;  // questions that the model was to write and did not
  Peak peak;               // while all this was made
};

// A source's queries as they were taken during the prefill.
struct Heard {
  const QuerySource* source;
  std::unique_ptr<QueryListener> listener;
  double seconds = 0;
};

// A GPU works on after a call returns; reading one number waits for it, so that a stopwatch shows its work.
void wait_for(const KvCache& cache) {
  const at::Tensor& last = cache.layer(cache.n_layers() - 1).values;
  if (!last.is_cpu() && last.numel() > 0) last.flatten()[0].item();
}

class DocumentRun {
 public:
  explicit DocumentRun(const DocumentJob& job) : job_(job), seed_(job.cells.front()->cell.seed) {}

  void run() {
    Cells before, online;
    for (const PlannedCell* cell : job_.cells) (cell->task->compacts_online() ? online : before).push_back(cell);
    if (!before.empty()) run_before(before);
    // What is compacted while it is written reads its own prompt.
    shared_ = {};
    if (!online.empty()) ask_all(online, {nothing_read()});
  }

 private:
  std::optional<std::string> failure_in(const std::function<void()>& work) const {
    return failure_of(work, job_.device);
  }

  // Of all stages a record is made of so far.
  Peak peak_with(const Peak& last) const {
    return larger(larger(shared_.read_peak, shared_.queries_peak), larger(shared_.method_peak, last));
  }

  void run_before(const Cells& cells) {
    job_.stage(fmt::format("{}: prefill", job_.document.id));
    (void)take_peak(job_.device);
    const auto failure = failure_in([&] {
      Context context = make_context(job_.model, job_.document.text);
      listen(cells, context);
      double listening_s = 0;
      const Stopwatch clock;
      KvCache cache = job_.model.decoder().prefill(context.tokens, /*chunk=*/0,
                                                   [&](int64_t layer, int64_t first_token, const at::Tensor& queries) {
                                                     if (heard_.empty()) return;
                                                     const Stopwatch listening;
                                                     for (Heard& heard : heard_)
                                                       heard.listener->take(layer, first_token, queries);
                                                     listening_s += listening.seconds();
                                                   });
      wait_for(cache);
      shared_.prefill_s = clock.seconds() - listening_s;
      for (Heard& heard : heard_) heard.seconds = listening_s / static_cast<double>(heard_.size());
      read_.emplace(std::move(context), std::move(cache));
    });
    shared_.read_peak = take_peak(job_.device);
    if (failure) return fail(cells, *failure);
    for (const Cells& group : group_by(cells, [](const auto& c) { return c.cell.queries; })) run_queries(group);
  }

  // Sources that take their queries from this very reading of the context.
  void listen(const Cells& cells, const Context& context) {
    std::set<const QuerySource*> seen;
    for (const PlannedCell* cell : cells) {
      const QuerySource* source = cell->queries.get();
      if (source == nullptr || !seen.insert(source).second) continue;
      if (auto listener = source->listen(job_.model, context, purpose_seed("queries")))
        heard_.push_back({source, std::move(listener)});
    }
  }

  std::unique_ptr<LayerQueries> make_queries(const QuerySource& source) {
    const Stopwatch clock;
    const auto heard =
        std::find_if(heard_.begin(), heard_.end(), [&](const Heard& one) { return one.source == &source; });
    double before_s = 0;
    std::unique_ptr<LayerQueries> queries;
    if (heard == heard_.end()) {
      queries = read_->queries(job_.model, &source, purpose_seed("queries"));
    } else {
      const c10::InferenceMode inference;
      before_s = heard->seconds;
      queries = heard->listener->finish();
      heard_.erase(heard);
    }
    shared_.queries_s = before_s + clock.seconds();
    shared_.n_queries = queries->n_queries();
    return queries;
  }

  KvCache nothing_read() const { return job_.model.decoder().empty_cache(); }

  void run_queries(const Cells& cells) {
    std::unique_ptr<LayerQueries> queries;
    shared_.queries_s = 0;
    shared_.n_queries = 0;
    shared_.queries_peak = shared_.method_peak = {};
    if (const QuerySource* source = cells.front()->queries.get(); source != nullptr && source->question_aware()) {
      for (const PlannedCell* cell : cells) ask_question_by_question(*cell);
      return;
    }
    if (const QuerySource* source = cells.front()->queries.get(); source != nullptr) {
      job_.stage(fmt::format("{}: queries {}", job_.document.id, cells.front()->cell.queries.value("name", "")));
      if (const auto failure = failure_in([&] { queries = make_queries(*source); })) return fail(cells, *failure);
      if (const Json notes = queries->notes(); job_.keep_texts && !notes.empty()) {
        job_.keep_texts({{"document_id", job_.document.id},
                         {"queries", cells.front()->cell.queries},
                         {"seed", seed_},
                         {"notes", notes}});
      }
    }
    shared_.queries_peak = take_peak(job_.device);
    for (const Cells& group : group_by(cells, [](const auto& c) { return c.cell.method; }))
      run_method(group, queries.get());
  }

  // One call of the method for all targets still to be measured.
  void run_method(const Cells& cells, const LayerQueries* queries) {
    shared_.method_peak = {};
    std::vector<Cells> targets;
    std::vector<HeadBudget> budgets;
    for (Cells& group : group_by(cells, [](const auto& c) { return std::pair(c.cell.budget, c.cell.target); })) {
      if (const auto& target = group.front()->cell.target) {
        HeadBudget budget;
        const auto failure = failure_in([&] {
          budget = group.front()->budget->spread({*target, read_->source_lengths(), read_->entry_sizes()});
        });
        if (failure) {
          fail(group, *failure);
          continue;
        }
        budgets.push_back(std::move(budget));
      }
      targets.push_back(std::move(group));
    }
    if (targets.empty()) return;
    job_.stage(fmt::format("{}: {}", job_.document.id, cells.front()->cell.method.value("name", "")));
    std::vector<Compaction> made;
    const auto failure = failure_in(
        [&] { made = read_->compact(job_.model, *cells.front()->method, queries, budgets, purpose_seed("method")); });
    shared_.method_peak = take_peak(job_.device);
    if (failure && targets.size() > 1) return run_targets_alone(targets, queries);
    if (failure) return fail(targets.front(), *failure);
    ask_batches(targets, made);
  }

  // A cache for every question, made knowing it; one record of them all.
  void ask_question_by_question(const PlannedCell& cell) {
    job_.stage(fmt::format("{}: {}, question by question", job_.document.id, cell.label));
    measure(cell, [&](Record& record) { ask_each(cell, record); });
  }

  // Writes the cell's record, or that of its failure.
  void measure(const PlannedCell& cell, const std::function<void(Record&)>& work) const {
    Record record = start_record(cell);
    if (const auto failure = failure_in([&] { work(record); })) return fail({&cell}, *failure);
    job_.sink(record);
  }

  void ask_each(const PlannedCell& cell, Record& record) {
    const Asked& asked = asked_for(cell);
    if (asked.failure) throw Error(ErrorKind::kData, *asked.failure, "the full cache's own answers", "");
    if (asked.questions.empty()) throw Error(ErrorKind::kData, "no question is left to compact for", "questions", "");
    double queries_s = 0, compaction_s = 0, reference_s = 0, ask_s = 0;
    std::vector<Json> sizes_of_each;
    for (const Question& question : asked.questions) {
      const std::vector<Question> alone = {question};
      Stopwatch clock;
      const auto queries = read_->queries(job_.model, cell.queries.get(), purpose_seed("queries"), &alone);
      queries_s += clock.lap();
      const Compaction made = compact_cell(job_.model, *read_, cell, queries.get(), job_.document.id);
      compaction_s += clock.lap();
      std::optional<DocumentReferences> kept;
      if (job_.references != nullptr) kept.emplace(*job_.references, read_->context.tokens);
      const auto reference = cell.task->reference(
          {job_.model, read_->full, alone, purpose_seed("ask"), nullptr, nullptr, nullptr, kept ? &*kept : nullptr});
      reference_s += clock.lap();
      std::vector<Json> answers = cell.task->ask(
          {job_.model, made.cache, alone, purpose_seed("ask"), reference.get(), nullptr, &record.task_notes});
      ask_s += clock.lap();
      complete_answers(alone, answers);
      record.answers.push_back(std::move(answers.front()));
      shared_.n_queries = queries->n_queries();
      sizes_of_each.push_back(sizes(made.cache, asked));
      for (const auto& [name, value] : made.notes.items()) {
        if (value.is_number()) record.notes[name] = record.notes.value(name, 0.0) + value.get<double>();
      }
    }
    record.task_notes.update(asked.notes);
    record.notes["question_aware"] = 1;
    record.status = "done";
    record.seconds = Json{{"prefill_s", shared_.prefill_s}, {"queries_s", queries_s},     {"compaction_shared_s", 0.0},
                          {"compaction_s", compaction_s},   {"reference_s", reference_s}, {"ask_s", ask_s}};
    record.sizes = mean_sizes(sizes_of_each);
    // The full cache and one question's were held at once; what they took together is not told apart.
    set_peak(record.sizes, larger(shared_.read_peak, take_peak(job_.device)));
  }

  // Which of several targets failed is found by asking for each alone.
  void run_targets_alone(const std::vector<Cells>& targets, const LayerQueries* queries) {
    for (const Cells& cells : targets) run_method(cells, queries);
  }

  struct ToAsk {
    const PlannedCell* cell;
    const Compaction* compaction;
  };

  // Each task of the caches of one method, some caches at a time.
  void ask_batches(const std::vector<Cells>& targets, const std::vector<Compaction>& made) {
    std::vector<std::pair<const Task*, std::vector<ToAsk>>> tasks;
    for (size_t i = 0; i < targets.size(); ++i) {
      for (const PlannedCell* cell : targets[i]) {
        const Task* task = cell->task.get();
        auto found = std::find_if(tasks.begin(), tasks.end(), [&](const auto& one) { return one.first == task; });
        if (found == tasks.end()) found = tasks.insert(tasks.end(), {task, {}});
        found->second.push_back({cell, &made[i]});
      }
    }
    for (const auto& [task, list] : tasks) {
      const Asked& asked = asked_for(*list.front().cell);
      const auto most = static_cast<size_t>(job_.together.at_once(job_.model, asked.batch));
      for (const auto& [begin, end] : batches_of(list.size(), most))
        ask_batch({list.begin() + static_cast<std::ptrdiff_t>(begin), list.begin() + static_cast<std::ptrdiff_t>(end)});
    }
  }

  void ask_batch(const std::vector<ToAsk>& batch) {
    const PlannedCell& first = *batch.front().cell;
    const Asked& asked = asked_for(first);
    if (batch.size() == 1 || asked.failure) return ask_each_alone(batch);
    job_.stage(fmt::format("{}: {} and {} more", job_.document.id, first.label, batch.size() - 1));
    std::vector<Record> records;
    std::vector<AskRequest> requests;
    records.reserve(batch.size());  // requests point at their notes
    for (const auto& [cell, compaction] : batch) {
      records.push_back(start_record(*cell));
      requests.push_back({job_.model, compaction->cache, asked.questions, purpose_seed("ask"), asked.reference.get(),
                          nullptr, &records.back().task_notes});
    }
    const auto failure = failure_in([&] {
      const Stopwatch clock;
      std::vector<std::vector<Json>> answers = first.task->ask_together(requests);
      const double share_s = clock.seconds() / static_cast<double>(batch.size());
      const Peak ask_peak = take_peak(job_.device);
      for (size_t i = 0; i < batch.size(); ++i) {
        records[i].answers = std::move(answers.at(i));
        finish_record(*batch[i].cell, *batch[i].compaction, asked, share_s, ask_peak, records[i]);
        records[i].seconds["asked_together"] = batch.size();
      }
    });
    if (failure) return ask_each_alone(batch);  // tells which of them failed
    for (const Record& record : records) job_.sink(record);
  }

  void ask_each_alone(const std::vector<ToAsk>& list) {
    for (const auto& [cell, compaction] : list) ask_all({cell}, *compaction);
  }

  void ask_all(const Cells& cells, const Compaction& compaction) {
    for (const PlannedCell* cell : cells) {
      job_.stage(fmt::format("{}: {}", job_.document.id, cell->label));
      measure(*cell, [&](Record& record) { ask(*cell, compaction, record); });
    }
  }

  void ask(const PlannedCell& cell, const Compaction& compaction, Record& record) {
    const Asked& asked = asked_for(cell);
    if (asked.failure) throw Error(ErrorKind::kData, *asked.failure, "the full cache's own answers", "");
    const OnlineCompaction online{job_.document.text, *cell.method, cell.queries.get(), cell.cell.target,
                                  cell.budget.get()};
    const Stopwatch clock;
    record.answers =
        cell.task->ask({job_.model, compaction.cache, asked.questions, purpose_seed("ask"), asked.reference.get(),
                        cell.task->compacts_online() ? &online : nullptr, &record.task_notes});
    finish_record(cell, compaction, asked, clock.seconds(), take_peak(job_.device), record);
  }

  // All but the answers, which the record has.
  void finish_record(const PlannedCell& cell, const Compaction& compaction, const Asked& asked, double ask_s,
                     const Peak& ask_peak, Record& record) const {
    record.task_notes.update(asked.notes);
    const size_t n_questions = job_.document.questions.size() - asked.n_unwritten;
    if (asked.questions.size() < n_questions) {
      record.task_notes["questions"] = {{"asked", asked.questions.size()}, {"in_document", n_questions}};
    }
    complete_answers(asked.questions, record.answers);
    record.status = "done";
    record.seconds = Json{{"prefill_s", shared_.prefill_s},
                          {"queries_s", shared_.queries_s},
                          {"compaction_shared_s", compaction.shared_s},
                          {"compaction_s", compaction.own_s},
                          {"reference_s", asked.reference_s},
                          {"ask_s", ask_s}};
    record.notes = compaction.notes;
    if (cell.task->compacts_online()) {
      set_online_cost(record);
    } else {
      record.sizes = sizes(compaction.cache, asked);
    }
    set_peak(record.sizes, peak_with(ask_peak));
    if (asked.reference) set_peak(record.sizes, asked.peak, "reference_");
  }

  // Nothing was read or compacted before; what the asking took is the writing, its compactions and the comparisons with
  // the uncompacted cache.
  void set_online_cost(Record& record) const {
    const auto element_bytes = static_cast<int64_t>(job_.model.decoder().options().dtype().itemsize());
    OnlineCost cost = online_cost(record.answers, job_.model.spec(), element_bytes);
    record.sizes = std::move(cost.sizes);
    record.seconds.erase("prefill_s");
    record.seconds["compaction_s"] = cost.compaction_s;
    record.seconds["drift_s"] = cost.drift_s;
    record.seconds["ask_s"] = record.seconds["ask_s"].get<double>() - cost.compaction_s - cost.drift_s;
  }

  const Asked& asked_for(const PlannedCell& cell) {
    const auto [place, is_new] = asked_.try_emplace(cell.task.get());
    Asked& asked = place->second;
    if (!is_new) return asked;
    asked.questions = accepted_questions(*cell.task, job_.document);
    asked.failure = failure_in([&] {
      write_questions_of(asked);
      for (const Question& question : asked.questions) {
        asked.question_tokens += static_cast<int64_t>(job_.model.tokenizer().encode_text(question.text).size());
      }
      if (cell.task->compacts_online()) return;
      asked.batch = cell.task->batch(job_.model, asked.questions);
      const Stopwatch clock;
      std::optional<DocumentReferences> kept;
      if (job_.references != nullptr) kept.emplace(*job_.references, read_->context.tokens);
      asked.reference = cell.task->reference({job_.model, read_->full, asked.questions, purpose_seed("ask"), nullptr,
                                              nullptr, nullptr, kept ? &*kept : nullptr});
      if (kept && kept->n_found() + kept->n_made() > 0)
        asked.notes["references"] = {{"kept", kept->n_found()}, {"made", kept->n_made()}};
      asked.reference_s = clock.seconds();
    });
    asked.peak = take_peak(job_.device);
    return asked;
  }

  // Questions that the model has to write; the same texts for every task.
  void write_questions_of(Asked& asked) const {
    const auto by_model = [](const Question& question) { return question.written_by_model; };
    if (std::none_of(asked.questions.begin(), asked.questions.end(), by_model)) return;
    if (!read_) {
      throw Error(ErrorKind::kInternal, "an online task cannot ask model-written questions", "",
                  "have its accepts() refuse them");
    }
    job_.stage(fmt::format("{}: writing questions", job_.document.id));
    std::optional<DocumentReferences> kept;
    if (job_.references != nullptr) kept.emplace(*job_.references, read_->context.tokens);
    const size_t n_wanted = asked.questions.size();
    asked.questions = write_questions(job_.model, read_->full, std::move(asked.questions),
                                      purpose_seed("written questions"), kept ? &*kept : nullptr);
    asked.n_unwritten = n_wanted - asked.questions.size();
    if (asked.n_unwritten > 0) asked.notes["questions_not_written"] = asked.n_unwritten;
  }

  Json sizes(const KvCache& cache, const Asked& asked) const {
    return cache_sizes(*read_, cache, asked.question_tokens, shared_.n_queries);
  }

  Record start_record(const PlannedCell& cell) const {
    Record record;
    record.cell_id = cell.id;
    record.document_id = job_.document.id;
    record.cell = cell.cell.to_json();
    record.provenance = job_.provenance;
    return record;
  }

  void fail(const Cells& cells, const std::string& message) const {
    const Peak peak = peak_with(take_peak(job_.device));
    for (const PlannedCell* cell : cells) {
      Record record = start_record(*cell);
      record.status = "failed";
      record.error =
          fmt::format("{}\n  cell:  {} ({}), document '{}'", message, cell->label, cell->id, job_.document.id);
      if (read_) {
        record.sizes = {{"context_tokens", read_->context.tokens.size()},
                        {"compactable_tokens", read_->context.article_len()}};
      }
      set_peak(record.sizes, peak);
      job_.sink(record);
    }
  }

  std::uint64_t purpose_seed(const std::string& purpose) const {
    return document_seed(seed_, purpose, job_.document.id);
  }

  const DocumentJob& job_;
  std::uint64_t seed_;
  std::optional<ReadDocument> read_;  // empty where nothing is compacted before it is written
  std::vector<Heard> heard_;          // not asked for yet
  Shared shared_;
  std::map<const Task*, Asked> asked_;
};

}  // namespace

void measure_document(const DocumentJob& job) {
  if (!job.cells.empty()) DocumentRun(job).run();
}

}  // namespace kvc
