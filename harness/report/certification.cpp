#include "harness/report/certification.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "harness/core/byte_size.h"
#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

std::string method_name(const Json& cell) {
  return cell.contains("method") ? cell.at("method").value("name", "") : "";
}

// Large sizes first: fractions, then numbers of entries, then bytes.
std::pair<int, double> size_key(const Json& cell) {
  const Json target = cell_part(cell, "target");
  if (target.is_number()) return {0, -target.get<double>()};
  const std::string text = target.is_string() ? target.get<std::string>() : "0";
  if (const auto bytes = parse_bytes(text)) return {2, -static_cast<double>(*bytes)};
  return {1, -std::strtod(text.c_str(), nullptr)};
}

// The numbers of documents after which the better half of so many methods goes on.
std::vector<int64_t> halving_points(const LossSettings& settings, const std::vector<double>& right, double most,
                                    size_t n_methods) {
  if (n_methods < 2) return {};
  double part = 0;
  for (const double one : right) part += one / most / static_cast<double>(right.size());
  const int64_t needed =
      lossless_documents(settings.tolerance / settings.unit(), part, settings.level() / static_cast<double>(n_methods));
  int64_t rounds = 0;
  while ((size_t{1} << rounds) < n_methods) ++rounds;
  std::vector<int64_t> points;
  constexpr int64_t kFewest = 3;  // fewer documents say too little of a method
  for (; rounds > 0; --rounds)
    points.push_back(std::max(points.empty() ? kFewest : points.back() + 1, needed >> rounds));
  return points;
}

bool may_go_on(CellState state) {
  return state == CellState::kUndecided || state == CellState::kCertified;
}

}  // namespace

Json cell_part(const Json& cell, const char* name) {
  return cell.contains(name) ? cell.at(name) : Json(nullptr);
}

std::string_view state_name(CellState state) {
  switch (state) {
    case CellState::kUndecided:
      return "undecided";
    case CellState::kCertified:
      return "certified";
    case CellState::kOutside:
      return "outside";
    case CellState::kOutOfReach:
      return "out_of_reach";
    case CellState::kBehind:
      return "behind";
    case CellState::kDropped:
      return "dropped";
    case CellState::kHalved:
      return "halved";
    default:
      return "failed";
  }
}

Certification::Certification(LossSettings settings, RuleKind kind, const RuledBlock& block, const Json& task)
    : settings_(std::move(settings)), kind_(kind) {
  std::vector<RuledCell> own;
  for (const RuledCell& cell : block.cells) {
    if (cell_part(cell.cell, "task") == task) own.push_back(cell);
  }
  for (const RuledDocument& document : block.documents) {
    int64_t questions = 0;
    for (const RuledCell& cell : own) {
      const auto found = document.n_questions.find(cell.id);
      if (found != document.n_questions.end()) questions = std::max(questions, found->second);
    }
    if (questions == 0) continue;
    document_place_[document.id] = order_.size();
    order_.push_back({document.id, most_right(settings_, task, questions), {}, {}});
    most_ = std::max(most_, order_.back().most);
  }
  most_ = std::max(most_, 1.0);  // no document at all
  const double tolerance = settings_.tolerance / settings_.unit();
  const LossEvidence none(tolerance, most_);
  gains_.resize(order_.size() + 1, BetLogs{});
  for (size_t i = order_.size(); i > 0; --i) {
    gains_[i - 1] = lossless_gains(tolerance, {order_[i - 1].most}, most_);
    for (size_t bet = 0; bet < kNBets; ++bet) gains_[i - 1][bet] += gains_[i][bet];
  }
  std::map<std::string, Chain> chains;
  std::vector<std::string> names;  // in the order of the sweep
  for (const RuledCell& cell : own) {
    const size_t index = cells_.size();
    place_[cell.id] = index;
    cells_.push_back({cell, CellState::kUndecided, {}, none, false, ""});
    if (cell_part(cell.cell, "target").is_null()) {
      if (method_name(cell.cell) == "full_cache") full_ = index;
      continue;
    }
    // What was compacted knowing the questions says nothing of a cache made before them.
    const Json queries = cell_part(cell.cell, "queries");
    if (queries.is_object() && queries.value("name", "") == "question") continue;
    const std::string name = canonical_json(
        Json{cell_part(cell.cell, "method"), cell_part(cell.cell, "queries"), cell_part(cell.cell, "budget")});
    if (!chains.contains(name)) names.push_back(name);
    chains[name].cells.push_back(index);
  }
  for (const std::string& name : names) {
    Chain& chain = chains.at(name);
    std::stable_sort(chain.cells.begin(), chain.cells.end(), [&](size_t a, size_t b) {
      return size_key(cells_[a].ruled.cell) < size_key(cells_[b].ruled.cell);
    });
    chain.share = 1.0 / static_cast<double>(names.size());
    chains_.push_back(chain);
  }
  if (settings_.halving && !order_.empty())
    halvings_ = halving_points(settings_, right_at_most(), most_, chains_.size());
  if (settings_.metric == "accuracy" && !full_) {
    throw Error(ErrorKind::kUsage, "losses are measured against full_cache, which the sweep lacks", "stop_when",
                "add full_cache to the methods");
  }
  decide();
}

void Certification::add(const Record& record) {
  const auto cell = place_.find(record.cell_id);
  const auto document = document_place_.find(record.document_id);
  if (cell == place_.end() || document == document_place_.end()) return;
  Place& place = order_[document->second];
  if (record.status != "done") {
    place.entries[cell->second] = {true, record.error, {}};
    return;
  }
  DocumentScore score = document_score(settings_, record);
  const double most = std::max(score.loss.right, static_cast<double>(score.questions.size()));
  if (most > place.most || score.loss.lost > score.loss.right || score.loss.lost < 0) {
    throw Error(ErrorKind::kData,
                fmt::format("a record has {} answers to document '{}', more than the {} that the data set asks for",
                            most, record.document_id, place.most),
                record.place.empty() ? fmt::format("cell {}", record.cell_id) : record.place,
                "take another results folder; this one was measured on other data");
  }
  add(record.cell_id, record.document_id, std::move(score));
}

void Certification::add(const std::string& cell_id, const std::string& document_id, DocumentScore score) {
  order_[document_place_.at(document_id)].entries[place_.at(cell_id)] = {false, "", std::move(score)};
}

bool Certification::wants(const std::string& cell_id, const std::string& document_id) {
  advance();
  const auto cell = place_.find(cell_id);
  const auto document = document_place_.find(document_id);
  if (cell == place_.end() || document == document_place_.end()) return false;
  const bool behind = document->second < next_;
  return (behind ? *order_[document->second].wanted : wanted_next()).contains(cell->second);
}

// By the documents that are complete.
const std::set<size_t>& Certification::wanted_next() {
  static const std::set<size_t> none;
  if (next_ == order_.size()) return none;
  Place& place = order_[next_];
  if (!place.wanted) place.wanted = wanted_now();
  return *place.wanted;
}

void Certification::advance() {
  while (next_ < order_.size()) {
    if (wanted_next().empty() || !complete(order_[next_])) return;
    take(order_[next_++]);
    decide();
  }
}

bool Certification::complete(const Place& place) const {
  return std::all_of(place.wanted->begin(), place.wanted->end(), [&](size_t i) { return place.entries.contains(i); });
}

// Counts a complete document. One that the full cache failed on tells nothing of any method and is left out.
void Certification::take(const Place& place) {
  if (full_ && place.entries.contains(*full_) && place.entries.at(*full_).failed) {
    ++n_left_out_;
    return;
  }
  ++n_documents_;
  for (const size_t i : *place.wanted) {
    CertifiedCell& cell = cells_[i];
    const Entry& entry = place.entries.at(i);
    if (cell_part(cell.ruled.cell, "target").is_null()) continue;
    if (entry.failed) {
      cell.state = CellState::kFailed;
      cell.error = entry.error;
      continue;
    }
    const DocumentScore& full = full_ && place.entries.contains(*full_) ? place.entries.at(*full_).score : entry.score;
    cell.losses.push_back(document_loss(settings_, entry.score, full));
    cell.evidence.add(cell.losses.back());
  }
}

std::set<size_t> Certification::wanted_now() const {
  std::set<size_t> wanted;
  for (const Chain& chain : chains_) {
    for (const size_t i : chain.cells) {
      if (cells_[i].state == CellState::kUndecided && !cells_[i].reached) wanted.insert(i);
    }
  }
  if (wanted.empty() && kind_ == RuleKind::kCertify) return wanted;
  for (size_t i = 0; i < cells_.size(); ++i) {
    if (cell_part(cells_[i].ruled.cell, "target").is_null()) wanted.insert(i);
  }
  return wanted;
}

void Certification::decide() {
  for (CertifiedCell& cell : cells_) {
    const bool open = cell.state == CellState::kUndecided && !cell.reached;
    if (open && cell.evidence.outside() >= std::log(2 / settings_.level())) cell.state = CellState::kOutside;
  }
  if (kind_ == RuleKind::kDecided) return;
  certify();
  give_up();
  drop_losers();
  while (n_halved_ < halvings_.size() && n_documents_ >= halvings_[n_halved_]) {
    halve();
    ++n_halved_;
  }
}

// The part of the chance to be wrong that comes to this method if all that may be certified is.
double Certification::level_at_best(const Chain& chain) const {
  double share = chain.share;
  for (const Chain& other : chains_) {
    const bool open =
        std::all_of(other.cells.begin(), other.cells.end(), [&](size_t i) { return may_go_on(cells_[i].state); });
    if (&other != &chain && other.n_certified < other.cells.size() && open) share += other.share;
  }
  return share * settings_.level();
}

void Certification::give_up() {
  for (bool changed = true; changed;) {
    changed = false;
    for (const Chain& chain : chains_) {
      const double enough = std::log(1 / level_at_best(chain)) - 1e-12;
      for (const size_t i : chain.cells) {
        CertifiedCell& cell = cells_[i];
        const bool open = settings_.give_up && cell.state == CellState::kUndecided && !cell.reached;
        if (!open || cell.evidence.reachable(gains_[next_]) >= enough) continue;
        cell.state = CellState::kOutOfReach;
        changed = true;
      }
    }
    changed = close_chains() || changed;
  }
}

void Certification::certify() {
  for (bool changed = true; changed;) {
    changed = false;
    for (Chain& chain : chains_) {
      const double enough = std::log(1 / (settings_.level() * chain.share)) - 1e-12;
      for (const size_t i : chain.cells) {
        if (cells_[i].state == CellState::kUndecided && cells_[i].evidence.inside() >= enough) cells_[i].reached = true;
      }
      while (chain.n_certified < chain.cells.size()) {
        CertifiedCell& head = cells_[chain.cells[chain.n_certified]];
        if (head.state != CellState::kUndecided || !head.reached) break;
        head.state = CellState::kCertified;
        ++chain.n_certified;
        changed = true;
      }
      if (chain.n_certified < chain.cells.size() || chain.share == 0) continue;
      const auto others = std::count_if(chains_.begin(), chains_.end(),
                                        [](const Chain& other) { return other.n_certified < other.cells.size(); });
      for (Chain& other : chains_) {
        if (other.n_certified < other.cells.size()) other.share += chain.share / static_cast<double>(others);
      }
      if (others > 0) chain.share = 0;
    }
  }
}

bool Certification::close_chains() {
  bool changed = false;
  for (const Chain& chain : chains_) {
    bool closed = false;
    for (const size_t i : chain.cells) {
      if (closed && cells_[i].state == CellState::kUndecided) {
        cells_[i].state = CellState::kBehind;
        changed = true;
      }
      closed = closed || !may_go_on(cells_[i].state);
    }
  }
  return changed;
}

void Certification::drop_losers() {
  for (Chain& chain : chains_) {
    std::optional<std::pair<int, double>> least;  // that this method may still come to
    for (const size_t i : chain.cells) {
      if (may_go_on(cells_[i].state)) least = size_key(cells_[i].ruled.cell);
    }
    if (!least) continue;
    const bool beaten = std::any_of(chains_.begin(), chains_.end(), [&](const Chain& other) {
      if (&other == &chain || other.n_certified == 0) return false;
      const auto has = size_key(cells_[other.cells[other.n_certified - 1]].ruled.cell);
      return has.first == least->first && has.second >= least->second;
    });
    if (!beaten) continue;
    for (const size_t i : chain.cells) {
      if (cells_[i].state == CellState::kUndecided) cells_[i].state = CellState::kDropped;
    }
  }
}

void Certification::halve() {
  // What a method may come to: its smallest size within the tolerance so far, and the loss there.
  struct Prospect {
    bool within = false;
    std::pair<int, double> size;
    double loss = 1;
    Chain* chain = nullptr;
    auto rank() const {
      return std::tuple(!within, within ? std::pair(-size.first, -size.second) : std::pair(0, 0.0), loss);
    }
  };
  std::vector<Prospect> racing;
  for (Chain& chain : chains_) {
    const bool open = std::any_of(chain.cells.begin(), chain.cells.end(),
                                  [&](size_t i) { return cells_[i].state == CellState::kUndecided; });
    if (!open) continue;
    Prospect prospect;
    prospect.chain = &chain;
    for (const size_t i : chain.cells) {
      if (!may_go_on(cells_[i].state)) break;
      const double loss = measured_loss(cells_[i].losses).value_or(0);
      const bool within = loss <= settings_.tolerance / settings_.unit();
      if (!within && prospect.within) break;
      prospect.within = within;
      prospect.size = size_key(cells_[i].ruled.cell);
      prospect.loss = loss;
      if (!within) break;
    }
    racing.push_back(prospect);
  }
  if (racing.size() < 2) return;
  std::stable_sort(racing.begin(), racing.end(),
                   [](const Prospect& a, const Prospect& b) { return a.rank() < b.rank(); });
  const size_t keep = (racing.size() + 1) / 2;
  for (size_t i = keep; i < racing.size(); ++i) {
    if (racing[i].rank() == racing[keep - 1].rank()) continue;  // as good as the last that goes on
    for (const size_t cell : racing[i].chain->cells) {
      if (cells_[cell].state == CellState::kUndecided) cells_[cell].state = CellState::kHalved;
    }
  }
}

Json Certification::stopped() {
  advance();
  Json list = Json::object();
  for (const CertifiedCell& cell : cells_) {
    if (cell_part(cell.ruled.cell, "target").is_null() || (cell.state == CellState::kUndecided && !cell.reached))
      continue;
    if (cell.state == CellState::kFailed) continue;  // the next run tries again
    const auto [low, high] = interval(cell);
    const std::optional<double> loss = measured_loss(cell.losses);
    list[cell.ruled.id] = {
        {"state", cell.reached && cell.state == CellState::kUndecided ? "certified_alone" : state_name(cell.state)},
        {"documents", cell.losses.size()},
        {"metric", settings_.metric},
        {"tolerance", settings_.tolerance},
        {"confidence", settings_.confidence},
        {"loss", loss ? Json(*loss * settings_.unit()) : Json(nullptr)},
        {"low", low},
        {"high", high}};
  }
  // Once nothing is asked any more, full_cache and no_context are complete too.
  if (kind_ == RuleKind::kCertify && next_ < order_.size() && wanted_now().empty()) {
    for (const CertifiedCell& cell : cells_) {
      if (!cell_part(cell.ruled.cell, "target").is_null()) continue;
      list[cell.ruled.id] = {{"state", "not_needed"}, {"documents", n_documents_}};
    }
  }
  return list;
}

const std::vector<CertifiedCell>& Certification::cells() {
  advance();
  return cells_;
}

const std::vector<Chain>& Certification::chains() {
  advance();
  return chains_;
}

std::vector<double> Certification::right_at_most() const {
  std::vector<double> right;
  for (const Place& place : order_) right.push_back(place.most);
  return right;
}

std::pair<double, double> Certification::interval(const CertifiedCell& cell) const {
  const double level = settings_.level() / 2, most = most_;
  return {loss_lower_bound(cell.losses, most, level) * settings_.unit(),
          loss_upper_bound(cell.losses, most, level) * settings_.unit()};
}

double Certification::bound(const CertifiedCell& cell) const {
  size_t n = 0;
  for (const Chain& chain : chains_) n += chain.cells.size();
  return loss_upper_bound(cell.losses, most_, settings_.level() / static_cast<double>(n)) * settings_.unit();
}

namespace {

class BlockRule final : public StopRule {
 public:
  BlockRule(const StopSettings& settings, const RuledBlock& block) {
    std::vector<Json> tasks;
    for (const RuledCell& cell : block.cells) {
      const Json task = cell_part(cell.cell, "task");
      if (std::find(tasks.begin(), tasks.end(), task) != tasks.end()) continue;
      tasks.push_back(task);
      for (const std::string& metric : loss_metrics()) {
        const auto tolerance = settings.tolerance.find(metric);
        if (tolerance == settings.tolerance.end() || !has_loss(metric, task.value("name", ""))) continue;
        const LossSettings loss{metric,           tolerance->second, settings.kl_bound, settings.confidence,
                                settings.give_up, settings.halving};
        parts_.emplace_back(loss, settings.kind, block, task);
        break;
      }
    }
  }

  void add(const Record& record) override {
    for (Certification& part : parts_) part.add(record);
  }
  bool wants(const std::string& cell_id, const std::string& document_id) override {
    for (Certification& part : parts_) {
      if (part.has(cell_id)) return part.wants(cell_id, document_id);
    }
    return true;
  }
  Json stopped() override {
    Json all = Json::object();
    for (Certification& part : parts_) all.update(part.stopped());
    return all;
  }

 private:
  std::vector<Certification> parts_;
};

}  // namespace

std::unique_ptr<StopRule> make_stop_rule(const StopSettings& settings, const RuledBlock& block) {
  return std::make_unique<BlockRule>(settings, block);
}

}  // namespace kvc
