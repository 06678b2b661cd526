#include "harness/report/certification.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "harness/report/test_records.h"

namespace kvc {
namespace {

constexpr int kManyRuns = 2000;
// What a chance of 5 % may show in so many runs: three standard errors more.
const double kMost = kManyRuns * 0.05 + 3 * std::sqrt(kManyRuns * 0.05 * 0.95);

const std::vector<double> kSizes = {0.5, 0.3, 0.2, 0.1, 0.05};
const Json kTask = {{"name", "fidelity"}, {"max_new_tokens", 1}};

std::string id_of(int method, size_t size) {
  return fmt::format("m{}-{}", method, size);
}

RuledBlock block_of(int n_methods, int n_documents, int n_questions, const std::vector<double>& sizes = kSizes) {
  RuledBlock block;
  block.cells.push_back({"full", "full", {{"method", {{"name", "full_cache"}}}, {"target", nullptr}, {"task", kTask}}});
  for (int m = 0; m < n_methods; ++m) {
    for (size_t s = sizes.size(); s > 0; --s) {  // the order of the file is not that of the sizes
      block.cells.push_back(
          {id_of(m, s - 1),
           "",
           {{"method", {{"name", fmt::format("m{}", m)}}}, {"target", sizes[s - 1]}, {"task", kTask}}});
    }
  }
  for (int d = 0; d < n_documents; ++d) {
    RuledDocument document{fmt::format("d{}", d), {}};
    for (const RuledCell& cell : block.cells) document.n_questions[cell.id] = n_questions;
    block.documents.push_back(document);
  }
  return block;
}

LossSettings settings_of(double tolerance, const std::string& metric = "agreement") {
  LossSettings settings;
  settings.metric = metric;
  settings.tolerance = tolerance;
  return settings;
}

LossSettings halving_of(double tolerance) {
  LossSettings settings = settings_of(tolerance);
  settings.halving = true;
  return settings;
}

// Loss of each method and size; what a document loses at one size it loses at all smaller ones, and documents differ.
using Curves = std::vector<std::vector<double>>;

class Simulation {
 public:
  Simulation(Curves curves, int n_documents, const LossSettings& settings, RuleKind kind = RuleKind::kCertify)
      : curves_(std::move(curves)),
        n_documents_(n_documents),
        tolerance_(settings.tolerance),
        block_(block_of(static_cast<int>(curves_.size()), n_documents, kQuestions)),
        start_(settings, kind, block_, kTask) {}
  Simulation(Curves curves, int n_documents, double tolerance, RuleKind kind = RuleKind::kCertify)
      : Simulation(std::move(curves), n_documents, settings_of(tolerance), kind) {}

  Certification run(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto uniform = [&] { return static_cast<double>(random() >> 11) * 0x1p-53; };
    Certification certification = start_;
    for (int d = 0; d < n_documents_; ++d) {
      const std::string document = fmt::format("d{}", d);
      double right = 0;
      std::vector<double> draws;
      for (int q = 0; q < kQuestions; ++q) right += uniform() < 0.9 ? 1 : 0;
      const double whole = uniform();  // half of what is lost is lost by whole documents
      for (double i = 0; i < right; ++i) draws.push_back(uniform() < 0.5 ? whole : uniform());
      std::vector<std::string> wanted;
      for (const RuledCell& cell : block_.cells) {
        if (certification.wants(cell.id, document)) wanted.push_back(cell.id);
      }
      for (const std::string& id : wanted) {
        DocumentScore score;
        score.loss.right = right;
        if (id != "full") {
          const double loss = curves_[static_cast<size_t>(id[1] - '0')][static_cast<size_t>(id[3] - '0')];
          for (const double draw : draws) score.loss.lost += draw < loss ? 1 : 0;
          ++n_measured_;
        }
        certification.add(id, document, score);
      }
    }
    return certification;
  }

  // Whether anything is certified that loses more than the tolerance.
  bool false_certificate(Certification& certification) const {
    for (size_t m = 0; m < curves_.size(); ++m) {
      const Chain& chain = certification.chains()[m];
      for (size_t i = 0; i < chain.n_certified; ++i) {
        if (curves_[m][i] > tolerance_) return true;
      }
    }
    return false;
  }
  int64_t n_measured() const { return n_measured_; }

 private:
  static constexpr int kQuestions = 4;
  Curves curves_;
  int n_documents_;
  double tolerance_;
  RuledBlock block_;
  Certification start_;
  int64_t n_measured_ = 0;
};

struct Size {
  int n_documents;
  double tolerance;  // that so few documents can certify
};
const std::vector<Size> kRunSizes = {{5, 0.75}, {10, 0.5}, {30, 0.25}};

// Three methods, the first size of each just above the tolerance: everything certified is wrong.
TEST(Certification, ErrsInAtMostFivePerCentOfRunsWhereNothingIsWithinTheTolerance) {
  for (const Size& size : kRunSizes) {
    const double above = size.tolerance + 1e-9;
    Simulation simulation(Curves(3, std::vector<double>(5, above)), size.n_documents, size.tolerance);
    int wrong = 0;
    for (int run = 0; run < kManyRuns; ++run) {
      Certification certification = simulation.run(static_cast<std::uint64_t>(run));
      wrong += simulation.false_certificate(certification) ? 1 : 0;
    }
    EXPECT_LE(wrong, kMost) << size.n_documents << " documents";
  }
}

// Sizes that lose nothing, then one just above the tolerance: the end of each chain is where it may go wrong. The third
// method is certified to its end and passes its part of the chance to be wrong on.
TEST(Certification, ErrsInAtMostFivePerCentOfRunsWhereLossesGrow) {
  for (const Size& size : kRunSizes) {
    const double above = size.tolerance + 1e-9;
    const Curves curves = {{0, 0.01, above, 0.8, 0.9}, {0, 0, 0, above, above}, {0, 0, 0, 0, 0}};
    Simulation simulation(curves, size.n_documents, size.tolerance);
    int wrong = 0, found = 0;
    for (int run = 0; run < kManyRuns; ++run) {
      Certification certification = simulation.run(static_cast<std::uint64_t>(run));
      wrong += simulation.false_certificate(certification) ? 1 : 0;
      found += certification.chains()[2].n_certified == 5 ? 1 : 0;
    }
    EXPECT_LE(wrong, kMost) << size.n_documents << " documents";
    if (size.n_documents == 30) {
      EXPECT_GE(found, kManyRuns * 95 / 100);
    }  // or no error would be easy
  }
}

// The race stops methods by what was seen; what is certified must hold all the same. Curves of both tests above.
TEST(Certification, ErrsInAtMostFivePerCentOfRunsWhenMethodsRace) {
  for (const Size& size : kRunSizes) {
    const double above = size.tolerance + 1e-9;
    for (const Curves& curves :
         {Curves(4, std::vector<double>(5, above)),
          Curves{{0, 0.01, above, 0.8, 0.9}, {0, 0, 0, above, above}, {0, 0, 0, 0, 0}, {0, above, above, 0.9, 0.9}}}) {
      Simulation simulation(curves, size.n_documents, halving_of(size.tolerance));
      int wrong = 0;
      for (int run = 0; run < kManyRuns; ++run) {
        Certification certification = simulation.run(static_cast<std::uint64_t>(run));
        wrong += simulation.false_certificate(certification) ? 1 : 0;
      }
      EXPECT_LE(wrong, kMost) << size.n_documents << " documents";
    }
  }
}

// Eight methods, one of them good at a size smaller than the others: the race comes to the same size with fewer cells.
TEST(Certification, ARaceFindsTheSameSizeWithFewerMeasurements) {
  Curves curves;
  for (int m = 0; m < 8; ++m) curves.push_back({0, 0.02 + 0.005 * m, 0.06 + 0.01 * m, 0.2 + 0.02 * m, 0.5});
  curves[5] = {0, 0, 0.005, 0.02, 0.4};
  constexpr int kDocuments = 150, kRaces = 200;
  const auto best = [](Certification& certification) {
    size_t most = 0;
    for (const Chain& chain : certification.chains()) most = std::max(most, chain.n_certified);
    return most;
  };
  Simulation whole(curves, kDocuments, 0.1), race(curves, kDocuments, halving_of(0.1));
  int whole_found = 0, race_found = 0;
  for (int run = 0; run < kRaces; ++run) {
    Certification one = whole.run(static_cast<std::uint64_t>(run)), other = race.run(static_cast<std::uint64_t>(run));
    whole_found += best(one) >= 4 ? 1 : 0;
    race_found += best(other) >= 4 ? 1 : 0;
  }
  std::printf("size found: %d of %d, racing %d; cells measured: %ld, racing %ld\n", whole_found, kRaces, race_found,
              static_cast<long>(whole.n_measured()), static_cast<long>(race.n_measured()));
  EXPECT_GE(race_found, whole_found - kRaces / 20);
  EXPECT_LT(static_cast<double>(race.n_measured()), 0.75 * static_cast<double>(whole.n_measured()));
}

TEST(Certification, MeasuresOnlyWhereItDecides) {
  const Curves curves = {{0, 0, 0, 0.02, 0.05}, {0.5, 0.6, 0.7, 0.8, 0.9}, {0.01, 0.05, 0.4, 0.6, 0.9}};
  constexpr int kDocuments = 100;
  Simulation simulation(curves, kDocuments, 0.1);
  int best = 0;
  for (int run = 0; run < 100; ++run) {
    Certification certification = simulation.run(static_cast<std::uint64_t>(run));
    best += certification.chains()[0].n_certified >= 4 ? 1 : 0;
    for (const CertifiedCell& cell : certification.cells()) {
      if (cell.ruled.id != "full") {
        EXPECT_NE(cell.state, CellState::kUndecided) << cell.ruled.id;
      }
    }
  }
  EXPECT_GE(best, 90);
  EXPECT_LT(simulation.n_measured(), 100 * kDocuments * 15 / 2);  // of what the whole grid would measure
}

// Losses of one cell and others that lose nothing, all measured by hand.
class ByHand : public ::testing::Test {
 protected:
  void measure(Certification& certification, const std::string& document, const std::map<std::string, double>& lost,
               const std::string& failing = "") {
    std::vector<std::string> wanted;
    for (const RuledCell& cell : block_.cells) {
      if (certification.wants(cell.id, document)) wanted.push_back(cell.id);
    }
    for (const std::string& id : wanted) {
      if (id == failing) {
        Record record;
        record.cell_id = id;
        record.document_id = document;
        record.status = "failed";
        record.error = "out of memory";
        certification.add(record);
        continue;
      }
      DocumentScore score;
      score.loss.right = 1;
      const auto found = lost.find(id);
      score.loss.lost = found == lost.end() ? 0 : found->second;
      certification.add(id, document, score);
    }
  }
  static CellState state(Certification& certification, const std::string& id) {
    for (const CertifiedCell& cell : certification.cells()) {
      if (cell.ruled.id == id) return cell.state;
    }
    ADD_FAILURE() << id;
    return CellState::kFailed;
  }

  RuledBlock block_ = block_of(2, 100, 1, {0.5, 0.2});
};

TEST_F(ByHand, LeavesWhatIsDecidedBehindOrBeaten) {
  block_ = block_of(2, 1000, 1, {0.5, 0.2});
  Certification certification(settings_of(0.1), RuleKind::kCertify, block_, kTask);
  for (int d = 0; d < 60; ++d) measure(certification, fmt::format("d{}", d), {{"m1-0", d % 3 == 0}});
  EXPECT_EQ(state(certification, "m1-0"), CellState::kOutside);
  EXPECT_EQ(state(certification, "m1-1"), CellState::kBehind);
  EXPECT_EQ(state(certification, "m0-0"), CellState::kCertified);
  EXPECT_EQ(state(certification, "m0-1"), CellState::kCertified);
  EXPECT_FALSE(certification.wants("full", "d61"));
  EXPECT_FALSE(certification.wants("m0-1", "d99"));
  const Json stopped = certification.stopped();
  EXPECT_EQ(stopped.at("m0-1").at("state"), "certified");
  EXPECT_EQ(stopped.at("m1-0").at("state"), "outside");
  EXPECT_GT(stopped.at("m1-0").at("low").get<double>(), 0.1);
  EXPECT_EQ(stopped.at("full").at("state"), "not_needed");
}

TEST_F(ByHand, DropsAMethodThatCannotKeepLessThanAnother) {
  Certification certification(settings_of(0.2), RuleKind::kCertify, block_, kTask);
  // Method 1 loses a tenth at the large size, too near to decide, and all at the small one.
  int d = 0;
  for (; d < 100 && state(certification, "m0-1") != CellState::kCertified; ++d)
    measure(certification, fmt::format("d{}", d), {{"m1-0", d % 5 == 2}, {"m1-1", 1}});
  EXPECT_LT(d, 40);
  EXPECT_EQ(state(certification, "m1-1"), CellState::kOutside);
  EXPECT_EQ(state(certification, "m1-0"), CellState::kDropped);
}

TEST_F(ByHand, ARaceKeepsTheBetterHalfAndWhatIsAsGood) {
  block_ = block_of(4, 200, 1, {0.5, 0.2});
  Certification certification(halving_of(0.2), RuleKind::kCertify, block_, kTask);
  // Method 3 loses a part even at the large size; 1 and 2 lose nothing, 0 loses at the small size.
  int d = 0;
  for (; d < 100 && state(certification, "m3-0") == CellState::kUndecided; ++d)
    measure(certification, fmt::format("d{}", d), {{"m0-1", 0.5}, {"m3-0", 0.3}, {"m3-1", 0.5}});
  EXPECT_LT(d, 10);
  EXPECT_EQ(state(certification, "m3-0"), CellState::kHalved);
  EXPECT_EQ(state(certification, "m3-1"), CellState::kHalved);
  EXPECT_EQ(state(certification, "m0-0"), CellState::kHalved);
  EXPECT_EQ(state(certification, "m1-1"), CellState::kUndecided);
  EXPECT_EQ(state(certification, "m2-1"), CellState::kUndecided);
  EXPECT_FALSE(certification.wants("m3-0", "d99"));
  EXPECT_EQ(certification.stopped().at("m3-0").at("state"), "halved");
  for (; d < 100; ++d) measure(certification, fmt::format("d{}", d), {});
  EXPECT_EQ(state(certification, "m1-1"), CellState::kCertified);  // two as good as each other: neither is left
  EXPECT_EQ(state(certification, "m2-1"), CellState::kCertified);
}

TEST_F(ByHand, GivesUpWhatTheDocumentsLeftCannotCertify) {
  block_ = block_of(1, 33, 1, {0.5});
  Certification certification(settings_of(0.1), RuleKind::kCertify, block_, kTask);
  EXPECT_TRUE(certification.wants("m0-0", "d0"));
  measure(certification, "d0", {});
  EXPECT_TRUE(certification.wants("m0-0", "d1"));
  measure(certification, "d1", {{"m0-0", 1}});
  EXPECT_EQ(state(certification, "m0-0"), CellState::kOutOfReach);
  EXPECT_FALSE(certification.wants("m0-0", "d2"));
  Certification few(settings_of(0.05), RuleKind::kCertify, block_, kTask);
  EXPECT_FALSE(few.wants("m0-0", "d0"));  // known before anything is measured
}

TEST_F(ByHand, AFailedMethodIsNotCertifiedAndADocumentThatTheFullCacheFailsOnIsLeftOut) {
  Certification certification(settings_of(0.1), RuleKind::kCertify, block_, kTask);
  measure(certification, "d0", {}, "m0-1");
  measure(certification, "d1", {}, "full");
  for (int d = 2; d < 60; ++d) measure(certification, fmt::format("d{}", d), {});
  EXPECT_EQ(state(certification, "m0-1"), CellState::kFailed);
  EXPECT_EQ(state(certification, "m0-0"), CellState::kCertified);
  EXPECT_EQ(state(certification, "m1-1"), CellState::kCertified);
  EXPECT_EQ(certification.n_left_out(), 1);
  EXPECT_FALSE(certification.stopped().contains("m0-1"));  // the next run tries again
}

// Killed after any record, the run goes on as if it had not been: the same records, in the same documents.
TEST(Certification, ARunThatWasKilledAnywhereGoesOnTheSame) {
  for (const bool halving : {false, true}) {
    const RuledBlock block = block_of(3, 40, 1);
    const auto loss = [](const std::string& id, int d) {
      const int size = id[3] - '0', method = id[1] - '0';
      return id != "full" && (d * 7 + method * 3) % (12 - 2 * size) == 0 && method + size > 2 ? 1.0 : 0.0;
    };
    std::vector<std::pair<std::string, int>> measured;
    const auto finish = [&](std::vector<std::pair<std::string, int>> found) {
      Certification certification(halving ? halving_of(0.2) : settings_of(0.2), RuleKind::kCertify, block, kTask);
      const auto add = [&](const std::string& id, int d) {
        certification.add(id, fmt::format("d{}", d), {{}, {loss(id, d), 1}});
      };
      for (auto at = found.rbegin(); at != found.rend(); ++at) add(at->first, at->second);  // in any order
      const std::set<std::pair<std::string, int>> there(found.begin(), found.end());
      for (int d = 0; d < 40; ++d) {
        std::vector<std::string> wanted;
        for (const RuledCell& cell : block.cells) {
          if (!there.contains({cell.id, d}) && certification.wants(cell.id, fmt::format("d{}", d)))
            wanted.push_back(cell.id);
        }
        for (const std::string& id : wanted) {
          add(id, d);
          found.emplace_back(id, d);
        }
      }
      return found;
    };
    const auto whole = finish({});
    EXPECT_GT(whole.size(), 100U);
    EXPECT_LT(whole.size(), 40U * 16U);
    for (size_t kept = 0; kept < whole.size(); ++kept) {
      const auto resumed = finish({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(kept)});
      ASSERT_EQ(resumed, whole) << "killed after " << kept << " records";
    }
  }
}

// Whether the sequential interval misses the truth: where the evidence against the truth itself is enough, which takes
// one pass over the documents in place of a bisection for each end; now and then both are compared.
bool outside_interval(const Certification& certification, const CertifiedCell& cell, double truth, bool bisect) {
  bool missed = false;
  const double enough = std::log(2 / certification.settings().level());
  if (truth > 0) {
    LossEvidence evidence(truth, certification.most());
    for (const DocumentLoss& document : cell.losses) evidence.add(document);
    missed = evidence.inside() >= enough || evidence.outside() >= enough;
  }
  if (bisect) {
    const auto [low, high] = certification.interval(cell);
    EXPECT_EQ(missed, truth < low || truth > high);
  }
  return missed;
}

// stop_when: decided. Each cell goes by itself; its interval holds whenever it was stopped.
TEST(Certification, IntervalsOfCellsThatWereStoppedEarlyCoverTheirLoss) {
  const Curves curves = {{0, 0.03, 0.08, 0.2, 0.6}};
  Simulation simulation(curves, 60, 0.05, RuleKind::kDecided);
  std::vector<int> missed(5), stopped(5);
  std::vector<double> documents(5);
  for (int run = 0; run < kManyRuns; ++run) {
    Certification certification = simulation.run(static_cast<std::uint64_t>(run));
    for (size_t i = 0; i < 5; ++i) {
      const CertifiedCell& cell = certification.cells()[certification.chains()[0].cells[i]];
      missed[i] += outside_interval(certification, cell, curves[0][i], /*bisect=*/run % 20 == 0) ? 1 : 0;
      stopped[i] += cell.state == CellState::kOutside ? 1 : 0;
      documents[i] += static_cast<double>(cell.losses.size()) / kManyRuns;
    }
  }
  for (size_t i = 0; i < 5; ++i) EXPECT_LE(missed[i], kMost) << curves[0][i];
  EXPECT_EQ(stopped[0], 0);
  EXPECT_LE(stopped[1], kMost / 2);  // within the tolerance: level / 2
  EXPECT_GE(stopped[4], kManyRuns * 99 / 100);
  EXPECT_LT(documents[4], 12);
  EXPECT_NEAR(documents[0], 60, 1e-9);
}

TEST(Certification, AccuracyCountsWhatTheFullCacheHadRight) {
  const DocumentScore full{{{"a", 1}, {"b", 1}, {"c", 0}, {"d", 0.5}}, {}};
  const DocumentScore method{{{"a", 1}, {"c", 1}, {"d", 0.25}}, {}};
  const DocumentLoss loss = document_loss(settings_of(0.1, "accuracy"), method, full);
  EXPECT_EQ(loss.right, 2.5);
  EXPECT_EQ(loss.lost, 1.25);  // b is missing, a quarter of d; c was not there to lose
}

TEST(Certification, LossesOfFidelityRecords) {
  Record record;
  record.cell = {{"task", {{"name", "fidelity"}, {"max_new_tokens", 16}}}};
  record.cell_id = "c";
  record.document_id = "d";
  for (const double kl : {0.1, 5.0, -1e-9}) {
    record.answers.push_back(Json{{"question_id", fmt::format("{}", kl)},
                                  {"n_tokens", 10},
                                  {"kl_sum", 10 * kl},
                                  {"log_likelihood_sum", -3.0},
                                  {"top_agreement", 7}});
  }
  const DocumentLoss kl = document_score(settings_of(0.1, "kl"), record).loss;
  EXPECT_EQ(kl.right, 3);
  EXPECT_NEAR(kl.lost, 0.05 + 1 + 0, 1e-12);  // in units of the bound of 2 nats
  const DocumentLoss agreement = document_score(settings_of(0.1), record).loss;
  EXPECT_EQ(agreement.right, 30);
  EXPECT_EQ(agreement.lost, 9);
  EXPECT_EQ(most_right(settings_of(0.1), record.cell.at("task"), 3), 48);
  EXPECT_TRUE(has_loss("accuracy", "exact_match"));
  EXPECT_FALSE(has_loss("accuracy", "fidelity"));
  EXPECT_FALSE(has_loss("kl", "likelihood"));
}

TEST(Certification, RecordsOfOtherDataAreRefused) {
  const RuledBlock block = block_of(1, 3, 1);
  Certification certification(settings_of(0.1), RuleKind::kCertify, block, kTask);
  Record record;
  record.cell = block.cells[1].cell;
  record.cell_id = block.cells[1].id;
  record.document_id = "d1";
  record.status = "done";
  record.answers.push_back(
      {{"question_id", "q"}, {"n_tokens", 5}, {"kl_sum", 0.0}, {"log_likelihood_sum", 0.0}, {"top_agreement", 5}});
  EXPECT_THROW(certification.add(record), Error);
}

TEST(Certification, AccuracyNeedsTheFullCache) {
  RuledBlock block = block_of(1, 3, 1);
  block.cells.erase(block.cells.begin());
  EXPECT_THROW(Certification(settings_of(0.1, "accuracy"), RuleKind::kDecided, block, kTask), Error);
}

}  // namespace
}  // namespace kvc
