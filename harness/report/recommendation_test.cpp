#include "harness/report/recommendation.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <random>
#include <set>
#include <tuple>

#include "harness/core/json_lines.h"
#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const Json kTask = {{"name", "fidelity"}, {"max_new_tokens", 1}};

// Two methods and the full cache; `lost` says whether a method loses document d at a size.
class Made {
 public:
  Made(int n_documents, double tolerance, const std::function<bool(int method, double size, int d)>& lost,
       double right = 1, bool give_up = true, bool halving = false) {
    RuledBlock block;
    const auto add_cell = [&](const std::string& name, const Json& target) {
      const Json cell = {
          {"model", {{"name", "m"}}},   {"dataset", {{"name", "d"}}}, {"task", kTask}, {"queries", nullptr},
          {"method", {{"name", name}}}, {"target", target},           {"seed", 0}};
      block.cells.push_back({stable_hash(canonical_json(cell)), name, cell});
    };
    add_cell("full_cache", nullptr);
    for (const char* name : {"good", "poor"}) {
      for (const double size : {0.5, 0.2, 0.1}) add_cell(name, size);
    }
    for (int d = 0; d < n_documents; ++d) {
      block.documents.push_back({fmt::format("d{}", d), {}});
      for (const RuledCell& cell : block.cells) block.documents.back().n_questions[cell.id] = 1;
    }
    LossSettings settings;
    settings.metric = "agreement";
    settings.tolerance = tolerance;
    settings.give_up = give_up;
    settings.halving = halving;
    certification = std::make_unique<Certification>(settings, RuleKind::kCertify, block, kTask);
    for (int d = 0; d < n_documents; ++d) {
      std::vector<const RuledCell*> wanted;
      for (const RuledCell& cell : block.cells) {
        if (certification->wants(cell.id, fmt::format("d{}", d))) wanted.push_back(&cell);
      }
      for (const RuledCell* cell : wanted) {
        const Json& target = cell->cell.at("target");
        const bool loses = !target.is_null() && lost(cell->label == "good" ? 0 : 1, target.get<double>(), d);
        certification->add(cell->id, fmt::format("d{}", d), {{}, {loses ? right : 0, right}});
        Record record;
        record.cell_id = cell->id;
        record.cell = cell->cell;
        record.document_id = fmt::format("d{}", d);
        record.status = "done";
        record.sizes = {{"kept_fraction", target.is_null() ? 1 : target.get<double>() - 0.001},
                        {"bytes_before", 1048576},
                        {"bytes_after", 104857.6}};
        record.seconds = {{"compaction_shared_s", 0.5}, {"compaction_s", 0.25}};
        records.push_back(record);
      }
    }
    recommendation = recommendation_of(*certification, records, nullptr);
    recommendation.data = "own.jsonl";
    recommendation.task = "fidelity";
  }

  std::unique_ptr<Certification> certification;
  std::vector<Record> records;
  Recommendation recommendation;
};

TEST(Recommendation, SaysTheSmallestCertifiedSizeAndWhatTheOthersLack) {
  const Made made(200, 0.05, [](int method, double size, int d) {
    return method == 0 ? size == 0.1 && d % 3 == 0 : size < 0.5 && d % 2 == 0;
  });
  const Recommendation& r = made.recommendation;
  ASSERT_NE(r.best(), nullptr);
  EXPECT_EQ(r.best()->label, "good");
  EXPECT_EQ(r.best()->certified()->target, 0.2);
  EXPECT_THAT(recommendation_sentence(r),
              AllOf(HasSubstr("Keep 20 % of the cache with good: at most 5 % of the full cache's own tokens"),
                    HasSubstr("with 95 % confidence (0 of 79 lost on 79 documents)")));
  const TextTable table = recommendation_table(r);
  ASSERT_EQ(table.rows.size(), 2U);
  EXPECT_EQ(table.rows[0][1], "20 %");
  EXPECT_EQ(table.rows[0][6], "0.750");
  EXPECT_EQ(table.rows[0][7], "102.4 KiB");
  EXPECT_EQ(table.rows[1][0], "poor");
  const std::vector<std::string> notes = recommendation_notes(r);
  ASSERT_EQ(notes.size(), 2U);
  EXPECT_THAT(notes[0], HasSubstr("good at 10 %: l"));
  EXPECT_THAT(notes[1], HasSubstr("poor at 20 %: l"));
  const Json json = recommendation_json(r);
  EXPECT_EQ(json.at("certified"), true);
  EXPECT_EQ(json.at("methods").at(0).at("sizes").size(), 3U);
  const std::string svg = render_svg(recommendation_plot(r));
  EXPECT_THAT(svg, AllOf(HasSubstr("tolerated"), HasSubstr("#DCEFE4"), HasSubstr("good")));
}

TEST(Recommendation, SaysHowManyMoreDocumentsWouldDecideAndWhatIsCertain) {
  const Made made(
      40, 0.05, [](int, double size, int) { return size < 0.5; }, 1, /*give_up=*/false);
  const std::string sentence = recommendation_sentence(made.recommendation);
  EXPECT_THAT(sentence, AllOf(HasSubstr("No size is certified for a loss of at most 5 %"),
                              HasSubstr("What is certain: keeping 50 % with good loses at most "),
                              HasSubstr("About 39 more documents like these would certify good at 50 %")));
  EXPECT_THAT(render_svg(recommendation_plot(made.recommendation)), Not(HasSubstr("#DCEFE4")));
  const Made hopeless(40, 0.05, [](int, double, int d) { return d % 2 == 0; });
  EXPECT_THAT(recommendation_sentence(hopeless.recommendation), HasSubstr("would not change that"));
}

// "good" loses nothing at any size, "poor" a document in twelve at each, too little to be decidedly outside soon.
TEST(Recommendation, AMethodOutOfTheRaceIsSaidToBeAndIsPromisedNothing) {
  const auto lost = [](int method, double, int d) { return method == 1 && d % 12 == 1; };
  const Made race(60, 0.05, lost, 1, /*give_up=*/false, /*halving=*/true);
  const std::vector<std::string> notes = recommendation_notes(race.recommendation);
  ASSERT_EQ(notes.size(), 2U);
  const std::string& poor = notes[0].starts_with("poor") ? notes[0] : notes[1];
  EXPECT_THAT(poor, HasSubstr("poor at 50 %: dropped out of the race after "));
  EXPECT_THAT(recommendation_sentence(race.recommendation), HasSubstr("would certify good at 50 %"));
  for (const MethodOutcome& method : race.recommendation.methods) {
    for (const SizeOutcome& size : method.sizes)
      EXPECT_EQ(size.state, method.label == "poor" ? CellState::kHalved : CellState::kUndecided);
  }
  const Made every(60, 0.05, lost, 1, /*give_up=*/false, /*halving=*/false);
  for (const MethodOutcome& method : every.recommendation.methods)
    EXPECT_EQ(method.sizes.front().state, CellState::kUndecided) << method.label;
}

TEST(Recommendation, SaysWhenNothingCanBeLost) {
  const Made made(
      60, 0.1, [](int, double, int) { return false; }, /*right=*/0);
  EXPECT_THAT(recommendation_sentence(made.recommendation), HasSubstr("nothing can be lost"));
}

// Replay of published records. The documents of a folder stand for the source; half of them, drawn at random, are all
// that is looked at, and the tolerance is just below what the method loses on all of them, so that whatever half of the
// documents certify is false. One document after the other, stopping where it is certified.
TEST(Recommendation, HalfOfThePublishedDocumentsRarelyCertifyWhatAllOfThemRefute) {
  constexpr int kDraws = 400;
  int n_cells = 0;
  for (const auto& file : fs::recursive_directory_iterator(fs::path(KVC_SOURCE_DIR) / "results/published")) {
    if (file.path().filename() != "records.jsonl") continue;
    std::map<std::string, std::map<std::string, DocumentLoss>> losses;  // by cell, document
    LossSettings settings;
    settings.metric = "kl";
    for (const Json& line : read_json_lines(file.path().string()).values) {
      const Record record = Record::from_json(line, file.path().string());
      if (record.status != "done" || record.cell.at("task").value("name", "") != "fidelity") continue;
      losses[record.cell_id][record.document_id] = document_score(settings, record).loss;
    }
    for (const auto& [cell, by_document] : losses) {
      std::vector<DocumentLoss> documents;
      for (const auto& [id, loss] : by_document) documents.push_back(loss);
      const double truth = measured_loss(documents).value_or(0);
      if (documents.size() < 8 || truth <= 0.01 || truth >= 0.99) continue;
      ++n_cells;
      double most = 1;
      for (const DocumentLoss& document : documents) most = std::max(most, document.right);
      std::mt19937_64 random(3);
      int wrong = 0;
      for (int draw = 0; draw < kDraws; ++draw) {
        std::shuffle(documents.begin(), documents.end(), random);
        LossEvidence evidence(truth * 0.999, most);
        for (size_t i = 0; i < documents.size() / 2; ++i) evidence.add(documents[i]);
        wrong += evidence.inside() >= std::log(20) ? 1 : 0;
      }
      EXPECT_LE(wrong, 0.05 * kDraws) << file.path() << ", cell " << cell;
    }
  }
  EXPECT_GE(n_cells, 20);
}

// Replay of whole recommendations. The twelve documents of a published data set stand for the source; half of them,
// drawn at random, are what a user has. Every size of a method that they certify must be within the tolerance on all
// documents.
struct Replayed {
  RuledBlock block;  // of one task: full cache and one method, all documents
  std::map<std::string, std::map<std::string, DocumentScore>> scores;  // by cell, document
  std::map<std::string, double> loss;                                  // of each cell on all documents
};

std::vector<Replayed> replayed_methods(const fs::path& file, const std::string& task, const LossSettings& settings) {
  std::map<std::string, std::vector<Record>> by_method, full_caches;  // the latter by data set
  for (const Json& line : read_json_lines(file.string()).values) {
    Record record = Record::from_json(line, file.string());
    if (record.status != "done" || record.cell.at("task").value("name", "") != task) continue;
    const bool full = record.cell.at("method").value("name", "") == "full_cache";
    if (!full && cell_part(record.cell, "target").is_null()) continue;
    const std::string dataset = record.cell.at("dataset").dump();
    const std::string key =
        Json{record.cell.at("method"), cell_part(record.cell, "queries"), cell_part(record.cell, "budget")}.dump();
    (full ? full_caches[dataset] : by_method[dataset + key]).push_back(std::move(record));
  }
  std::vector<Replayed> list;
  for (const auto& [key, records] : by_method) {
    const std::vector<Record>& full = full_caches.at(records.front().cell.at("dataset").dump());
    Replayed one;
    std::map<std::string, std::vector<DocumentLoss>> losses;
    std::set<std::string> documents, cells;
    const auto take = [&](const Record& record) {
      one.scores[record.cell_id][record.document_id] = document_score(settings, record);
      documents.insert(record.document_id);
      if (cells.insert(record.cell_id).second) one.block.cells.push_back({record.cell_id, "", record.cell});
    };
    for (const Record& record : full) take(record);
    const std::string& full_id = full.front().cell_id;
    for (const Record& record : records) {
      take(record);
      losses[record.cell_id].push_back(document_loss(settings, one.scores[record.cell_id][record.document_id],
                                                     one.scores[full_id][record.document_id]));
    }
    for (const auto& [cell, of_documents] : losses) one.loss[cell] = measured_loss(of_documents).value_or(0);
    for (const std::string& document : documents) {
      RuledDocument ruled{document, {}};
      for (const RuledCell& cell : one.block.cells)
        ruled.n_questions[cell.id] = static_cast<int64_t>(full.front().answers.size());
      one.block.documents.push_back(ruled);
    }
    list.push_back(std::move(one));
  }
  return list;
}

TEST(Recommendation, HalfOfThePublishedDocumentsRarelyCertifyAChainTooFar) {
  constexpr int kDraws = 100;
  int n_chains = 0, n_certified = 0;
  for (const auto& [task, metric, tolerances] : std::vector<std::tuple<std::string, std::string, std::vector<double>>>{
           {"exact_match", "accuracy", {0.5, 0.6}}, {"fidelity", "kl", {0.9, 1.2}}}) {
    for (const double tolerance : tolerances) {
      LossSettings settings;
      settings.metric = metric;
      settings.tolerance = tolerance;
      for (const Replayed& one :
           replayed_methods(fs::path(KVC_SOURCE_DIR) / "results/published/evidence/records.jsonl", task, settings)) {
        ++n_chains;
        std::mt19937_64 random(7);
        int wrong = 0;
        for (int draw = 0; draw < kDraws; ++draw) {
          RuledBlock half = one.block;
          std::shuffle(half.documents.begin(), half.documents.end(), random);
          half.documents.resize(half.documents.size() / 2);
          Certification certification(settings, RuleKind::kCertify, half, half.cells.front().cell.at("task"));
          for (const RuledDocument& document : half.documents) {
            for (const RuledCell& cell : half.cells) {
              if (certification.wants(cell.id, document.id))
                certification.add(cell.id, document.id, one.scores.at(cell.id).at(document.id));
            }
          }
          const Chain chain = certification.chains().front();
          bool too_far = false;
          for (size_t i = 0; i < chain.n_certified; ++i) {
            ++n_certified;
            const std::string id = certification.cells()[chain.cells[i]].ruled.id;
            too_far = too_far || one.loss.at(id) * settings.unit() > tolerance;
          }
          wrong += too_far ? 1 : 0;
        }
        EXPECT_LE(wrong, 0.05 * kDraws) << task << " at " << tolerance << ", " << one.block.cells.back().cell.dump();
      }
    }
  }
  EXPECT_GE(n_chains, 20);
  EXPECT_GE(n_certified, 100);  // else the test could not fail
}

}  // namespace
}  // namespace kvc
