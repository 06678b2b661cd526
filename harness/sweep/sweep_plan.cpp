#include "harness/sweep/sweep_plan.h"

#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "harness/core/count.h"
#include "harness/core/json_lines.h"
#include "harness/core/progress.h"
#include "harness/core/stable_hash.h"
#include "harness/core/stopwatch.h"
#include "harness/sweep/calibration.h"
#include "harness/sweep/coverage.h"
#include "harness/sweep/record_origin.h"
#include "harness/sweep/record_set.h"
#include "harness/sweep/results_folder.h"
#include "harness/sweep/run_info.h"
#include "harness/sweep/shard.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostEarlierRecords = 20000;

// Bytes of one token's keys and values in every layer.
std::int64_t token_bytes(const Model& model) {
  const DecoderSpec& spec = model.spec();
  const auto element = static_cast<std::int64_t>(model.decoder().options().dtype().itemsize());
  return 2 * spec.n_layers * spec.n_kv_heads * spec.head_dim * element;
}

class BlockPlanner {
 public:
  BlockPlanner(const Model& model, const StageRates& rates, Plan& plan) : model_(model), rates_(rates), plan_(plan) {}

  void add(const Block& block) {
    plan_.cells += static_cast<std::int64_t>(block.cells.size());
    for (const Document& document : block.documents) add(block, document);
  }

  std::int64_t longest() const { return longest_; }

 private:
  void add(const Block& block, const Document& document) {
    const std::int64_t tokens = count(document.text) + template_tokens_;
    std::int64_t asked = 0;
    for (const auto& [task, n] : block.tasks.at(document.id).items()) asked = std::max(asked, n.get<std::int64_t>());
    if (asked == 0) return;
    ++plan_.documents;
    plan_.questions += asked;
    plan_.context_tokens += tokens;
    for (const Question& question : document.questions) plan_.question_tokens += count(question.text);
    longest_ = std::max(longest_, tokens);
    for (const PlannedCell& cell : block.cells) {
      const std::int64_t n = block.tasks.at(document.id).at(task_key(cell.cell.task));
      plan_.answers += n;
      plan_.records += n > 0 ? 1 : 0;
      plan_.found += n > 0 && block.done.at(cell.id).contains(document.id) ? 1 : 0;
    }
    add_unit(block, document, tokens);
  }

  void add_unit(const Block& block, const Document& document, std::int64_t tokens) {
    std::vector<CellWork> work;
    for (const PlannedCell* cell : block.missing_cells(document)) {
      const std::int64_t n = block.tasks.at(document.id).at(task_key(cell->cell.task));
      work.push_back({&cell->cell, tokens, n});
      plan_.record_bytes += rates_.record_bytes(cell->cell, n);
      if (!rates_.knows(cell->cell) && unknown_.insert(cell->label).second) plan_.unknown.push_back(cell->label);
    }
    if (work.empty()) return;
    UnitPlan unit{block.key,
                  document.id,
                  fmt::format("{}, document '{}' of {}", block.model->cell.value("name", ""), document.id,
                              block.dataset_cell.value("name", "")),
                  block.model->cell,
                  block.dataset_cell,
                  block.seed,
                  rates_.predict(work),
                  0};
    for (const CellSeconds& cell : unit.cells) {
      plan_.stages += cell;
      unit.seconds += cell.total();
    }
    plan_.units.push_back(std::move(unit));
  }

  std::int64_t count(const std::string& text) const {
    return static_cast<std::int64_t>(model_.tokenizer().encode_text(text).size());
  }

  const Model& model_;
  const StageRates& rates_;
  Plan& plan_;
  std::set<std::string> unknown_;
  std::int64_t longest_ = 0;
  // What the chat template puts around a document is some tens of tokens.
  static constexpr std::int64_t template_tokens_ = 40;
};

// The self-proof compacts the beginning of a document twice with every method, and compares a few answers.
double proof_seconds(const std::vector<const Block*>& blocks, const StageRates& rates, std::int64_t proof_tokens,
                     std::int64_t longest) {
  constexpr std::int64_t kQuestions = 4;
  double seconds = 0;
  for (const Block* block : blocks) {
    std::vector<CellWork> work;
    for (const PlannedCell& cell : block->cells) {
      work.push_back({&cell.cell, proof_tokens > 0 ? std::min(proof_tokens, longest) : longest, kQuestions});
    }
    const bool any = std::any_of(block->documents.begin(), block->documents.end(),
                                 [&](const Document& d) { return !block->missing_cells(d).empty(); });
    if (!any) continue;
    std::set<std::string> methods;
    double reference = 0;
    const std::vector<CellSeconds> cells = rates.predict(work);
    for (size_t i = 0; i < cells.size(); ++i) {
      seconds += cells[i].prefill + cells[i].queries + 2 * cells[i].compaction;
      reference = std::max(reference, cells[i].reference);
      methods.insert(canonical_json(Json::array({work[i].cell->method, work[i].cell->queries})));
    }
    seconds += reference * static_cast<double>(methods.size());
  }
  return seconds;
}

std::string bytes_text(double bytes) {
  if (bytes >= 1e9) return fmt::format("{:.1f} GB", bytes / 1e9);
  if (bytes >= 1e6) return fmt::format("{:.0f} MB", bytes / 1e6);
  return fmt::format("{:.0f} kB", std::ceil(bytes / 1e3));
}

std::string number_text(std::int64_t value) {
  std::string digits = std::to_string(value);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

std::string counted(std::int64_t n, std::string_view noun) {
  return number_text(n) + " " + noun_of(n, noun);
}

}  // namespace

double Plan::slowest_shard(std::int64_t count) const {
  std::map<std::int64_t, double> shards;
  for (const UnitPlan& unit : units)
    shards[shard_of(unit.model, unit.dataset, unit.seed, unit.document_id, count)] += unit.seconds;
  double slowest = 0;
  for (const auto& [shard, seconds] : shards) slowest = std::max(slowest, seconds);
  return slowest + load_s + proof_s;
}

std::optional<std::int64_t> Plan::shards_within(double seconds) const {
  double longest = 0;
  for (const UnitPlan& unit : units) longest = std::max(longest, unit.seconds);
  if (longest + load_s + proof_s > seconds) return std::nullopt;
  // Divided by a hash, so that two long documents may fall together: more shards do not always help at once.
  for (std::int64_t count = 1;
       count <= std::min<std::int64_t>(kMaxShards, 8 * static_cast<std::int64_t>(units.size()) + 1); ++count) {
    if (slowest_shard(count) <= seconds) return count;
  }
  return std::nullopt;
}

void Plan::operator+=(const Plan& other) {
  cells += other.cells;
  documents += other.documents;
  questions += other.questions;
  answers += other.answers;
  context_tokens += other.context_tokens;
  question_tokens += other.question_tokens;
  records += other.records;
  found += other.found;
  stages += other.stages;
  load_s += other.load_s;
  proof_s += other.proof_s;
  host_bytes = std::max(host_bytes, other.host_bytes);
  device_bytes = std::max(device_bytes, other.device_bytes);
  record_bytes += other.record_bytes;
  units.insert(units.end(), other.units.begin(), other.units.end());
  earlier_records += other.earlier_records;
  calibration_s += other.calibration_s;
  unknown.insert(unknown.end(), other.unknown.begin(), other.unknown.end());
}

std::int64_t add_earlier_records(const std::string& folder, const Model& model, StageRates& rates) {
  const Json own = run_info();
  std::error_code error;
  const fs::path here = fs::absolute(folder, error).lexically_normal();
  const fs::path beside = (here.has_filename() ? here : here.parent_path()).parent_path();
  std::vector<std::string> folders = record_folders(folder);
  for (fs::directory_iterator it(beside, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (!fs::exists(it->path() / "sweep.json", ignored) || fs::equivalent(it->path(), here, ignored)) continue;
    for (const std::string& part : record_folders(it->path().string())) folders.push_back(part);
  }
  std::int64_t n = 0;
  for (const std::string& part : folders) {
    for (fs::directory_iterator it(part, error), end; !error && it != end; it.increment(error)) {
      if (it->path().extension() != ".jsonl") continue;
      for (const Json& line : read_json_lines(it->path().string()).values) {
        Record record;
        try {
          record = Record::from_json(line, it->path().string());
        } catch (const Error&) {
          continue;  // another program's file beside; only this sweep's own folder must be whole, and is checked
                     // elsewhere
        }
        const bool same =
            record.provenance.value("hardware", Json()) == own.at("hardware") &&
            record.provenance.value("threads", Json()) == own.at("threads") &&
            weights_of(record.provenance) == weights_of(Json{{"model", model.identity()}}) &&
            record.provenance.at("model").value("device", Json()) == model.identity().value("device", Json());
        if (!same || record.status != "done" || n >= kMostEarlierRecords) continue;
        rates.add(record);
        ++n;
      }
    }
    error.clear();
  }
  return n;
}

Plan plan_blocks(const Model& model, const std::vector<const Block*>& blocks, const StageRates& rates,
                 std::int64_t proof_tokens) {
  Plan plan;
  BlockPlanner planner(model, rates, plan);
  for (const Block* block : blocks) planner.add(*block);
  plan.proof_s = proof_seconds(blocks, rates, proof_tokens, planner.longest());
  // The full cache, a few compacted ones, and what a prefill holds besides.
  const double caches = 3.0 * static_cast<double>(token_bytes(model) * planner.longest());
  const bool on_device = model.identity().value("device", "") == "cuda";
  plan.host_bytes = std::max(peak_resident_bytes(),
                             static_cast<std::int64_t>(rates.peak_bytes(static_cast<double>(planner.longest()))));
  if (on_device) plan.device_bytes = static_cast<std::int64_t>(model.identity().value("bytes", 0.0) + caches);
  return plan;
}

Plan plan_sweep(const SweepConfig& config, const PlanOptions& options) {
  const c10::InferenceMode inference;
  Progress progress(options.quiet);
  // Read without a lock: nothing is written, and a run may go on meanwhile.
  const auto done = [&](const std::string& cell) { return done_documents(config.results, cell); };
  std::vector<Block> blocks = make_blocks(config, done);
  Plan plan;
  for (const SweepModel& model : config.models) {
    const Stopwatch loading;
    progress.note(fmt::format("loading {}", model.config.path));
    const Model loaded = options.load_model(model.config);
    const double load_s = loading.seconds();
    StageRates rates;
    const std::int64_t n_earlier = add_earlier_records(config.results, loaded, rates);
    const Stopwatch calibration;
    std::vector<const Block*> own;
    for (Block& block : blocks) {
      if (block.model != &model) continue;
      load_documents(block, loaded.tokenizer());
      calibrate(loaded, block, rates, [&](const std::string& what) { progress.stage("calibration: " + what); },
                {config.ask_together});
      own.push_back(&block);
    }
    Plan part = plan_blocks(loaded, own, rates, options.skip_proof ? 0 : config.proof_tokens);
    if (options.skip_proof) part.proof_s = 0;
    part.load_s = load_s;
    part.earlier_records = n_earlier;
    part.calibration_s = calibration.seconds();
    plan += part;
  }
  return plan;
}

std::string plan_text(const Plan& plan, double within_s) {
  std::string text =
      fmt::format("{}, {} of {}, {} of {}, {}\n", counted(plan.cells, "cell"), counted(plan.documents, "document"),
                  counted(plan.context_tokens, "token"), counted(plan.questions, "question"),
                  counted(plan.question_tokens, "token"), counted(plan.answers, "answer"));
  text += fmt::format("{} of {} to be measured, {} on disk\n", number_text(plan.records - plan.found),
                      counted(plan.records, "record"), bytes_text(plan.record_bytes));
  text += fmt::format(
      "{} on this machine: {} prefill, {} queries, {} compaction, {} reference answers, {} asking, {} "
      "self-proof, {} loading\n",
      duration_text(plan.total_s()), duration_text(plan.stages.prefill), duration_text(plan.stages.queries),
      duration_text(plan.stages.compaction), duration_text(plan.stages.reference), duration_text(plan.stages.ask),
      duration_text(plan.proof_s), duration_text(plan.load_s));
  text += fmt::format(
      "  by {}\n", plan.earlier_records > 0
                       ? fmt::format("{} of earlier runs on this hardware, and {:.0f} s of calibration",
                                     counted(plan.earlier_records, "record"), plan.calibration_s)
                       : fmt::format("a calibration of {:.0f} s on the beginnings of documents", plan.calibration_s));
  text += fmt::format("memory at the peak: {}{}\n", bytes_text(static_cast<double>(plan.host_bytes)),
                      plan.device_bytes > 0
                          ? fmt::format(", {} on the GPU", bytes_text(static_cast<double>(plan.device_bytes)))
                          : ", no GPU");
  if (!plan.units.empty()) {
    const auto longest = std::max_element(plan.units.begin(), plan.units.end(),
                                          [](const UnitPlan& a, const UnitPlan& b) { return a.seconds < b.seconds; });
    text += fmt::format("longest document: {} ({})\n", duration_text(longest->seconds), longest->label);
    if (within_s > 0) {
      const auto shards = plan.shards_within(within_s);
      text += shards ? fmt::format("within {}: {}, the slowest {}\n", duration_text(within_s), count(*shards, "shard"),
                                   duration_text(plan.slowest_shard(*shards)))
                     : fmt::format("within {}: not possible, one document with loading and self-proof takes longer\n",
                                   duration_text(within_s));
    }
  }
  if (!plan.unknown.empty()) {
    text += fmt::format("not in the time: {} with no time estimate, e.g. {}\n", count(std::ssize(plan.unknown), "cell"),
                        plan.unknown.front());
  }
  return text;
}

double parse_duration(const std::string& text) {
  const auto fail = [&]() -> double {
    throw Error(ErrorKind::kUsage, fmt::format("a time must be like 6h, 90m or 1h30m; got '{}'", text), "--within",
                "write hours (h), minutes (m or min) or seconds (s)");
  };
  double total = 0;
  size_t at = 0;
  bool any = false;
  while (at < text.size()) {
    if (text[at] == ' ') {
      ++at;
      continue;
    }
    size_t end = at;
    while (end < text.size() && (std::isdigit(static_cast<unsigned char>(text[end])) != 0 || text[end] == '.')) ++end;
    char* stop = nullptr;
    const std::string digits = text.substr(at, end - at);
    const double value = std::strtod(digits.c_str(), &stop);
    if (digits.empty() || *stop != '\0') return fail();
    while (end < text.size() && text[end] == ' ') ++end;
    size_t unit_end = end;
    while (unit_end < text.size() && std::isalpha(static_cast<unsigned char>(text[unit_end])) != 0) ++unit_end;
    const std::string unit = text.substr(end, unit_end - end);
    if (unit == "h")
      total += value * 3600;
    else if (unit == "m" || unit == "min")
      total += value * 60;
    else if (unit == "s")
      total += value;
    else
      return fail();
    at = unit_end;
    any = true;
  }
  if (!any || !(total > 0)) return fail();
  return total;
}

}  // namespace kvc
