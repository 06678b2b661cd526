// QuALITY: multiple-choice questions about whole articles. Pang et al., "QuALITY: Question Answering with Long Input
// Texts, Yes!", NAACL 2022 (arXiv:2112.08608). Reads the released JSON lines, v1.0.1, html-stripped.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "datasets/data_file.h"
#include "datasets/quality_file.h"

namespace kvc {
namespace {

// Articles of Attention Matching's evaluation (arXiv:2602.16284): 50 with 894 questions of the dev split, and the ten
// on which its head budgets were chosen.
const std::vector<std::string> kEvaluation50 = {
    "20002", "20006", "20007", "20008", "30029", "30035", "32665", "40965", "50818", "51027", "51267", "51351", "51461",
    "51483", "51605", "51650", "51687", "52845", "52855", "55815", "60412", "61119", "61146", "61285", "61430", "61434",
    "61467", "62085", "62139", "62261", "62314", "62382", "62476", "62498", "63041", "63130", "63150", "63392", "63401",
    "63473", "63523", "63616", "63633", "63645", "63812", "63833", "63855", "63862", "63916", "63936"};
const std::vector<std::string> kHeadBudget10 = {"22876", "22958", "22966", "22967", "23104",
                                                "23160", "23563", "24290", "31736", "59368"};

// Each subset holds the smaller ones.
int64_t subset_size(const std::string& subset) {
  return subset == "smoke" ? 2 : subset == "small" ? 10 : 0;
}

class Quality final : public Dataset {
 public:
  struct Options {
    std::string path = kQualitySample;
    std::vector<std::string> articles;
    std::string preset;
    std::string subset = "full";
    int64_t count = 0;
    bool hard_only = false;
    int64_t max_questions = 0;

    void fields(auto&& visit) {
      visit("path", path, "QuALITY JSONL file (v1.0.1, html-stripped)", named("a QuALITY JSONL file"));
      visit("articles", articles, "ids of the articles to use, in this order; empty: all");
      visit("preset", preset, "a published list of articles instead: evaluation_50 or head_budget_10",
            none_or(one_of({"evaluation_50", "head_budget_10"})));
      visit("subset", subset, "first articles of these: smoke (2), small (10) or full",
            one_of({"smoke", "small", "full"}));
      visit("count", count, "first articles of the subset; 0: all", at_least(0));
      visit("hard_only", hard_only, "only questions marked difficult; articles without one are left out");
      visit("max_questions", max_questions, "first questions of each article to use; 0: all", at_least(0));
    }
    void check(const OptionCheck& fail) const {
      const std::set<std::string> distinct(articles.begin(), articles.end());
      if (distinct.size() != articles.size()) fail("articles", "names an article twice", "name each once");
      if (!preset.empty() && !articles.empty())
        fail("preset", "cannot be combined with 'articles'", "give one of the two");
    }
  };

  explicit Quality(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& /*request*/) const override {
    std::vector<Document> documents = select_documents(read_quality_file(options_.path), chosen(), options_.path);
    shorten(documents, subset_size(options_.subset));
    shorten(documents, options_.count);
    if (options_.hard_only) keep_hard(documents);
    if (options_.max_questions > 0) {
      const auto limit = static_cast<size_t>(options_.max_questions);
      for (Document& document : documents) {
        if (document.questions.size() > limit) document.questions.resize(limit);
      }
    }
    return documents;
  }

  Json identity() const override { return data_file_identity(options_.path); }
  std::vector<std::vector<std::string>> file_keys() const override { return {{"article", "questions"}}; }

 private:
  const std::vector<std::string>& chosen() const {
    if (options_.preset.empty()) return options_.articles;
    return options_.preset == "evaluation_50" ? kEvaluation50 : kHeadBudget10;
  }

  static void shorten(std::vector<Document>& documents, int64_t n) {
    if (n > 0 && static_cast<int64_t>(documents.size()) > n) documents.resize(static_cast<size_t>(n));
  }

  // A file without the mark must not pass for one without hard questions.
  void keep_hard(std::vector<Document>& documents) const {
    for (Document& document : documents) {
      for (const Question& question : document.questions) {
        if (question.extra.contains("difficult")) continue;
        throw Error(ErrorKind::kData, fmt::format("question '{}' has no field 'difficult'", question.id),
                    options_.path + ", option 'hard_only'", "use the released file, which marks the hard subset");
      }
      std::erase_if(document.questions,
                    [](const Question& question) { return question.extra.at("difficult") != true; });
    }
    std::erase_if(documents, [](const Document& document) { return document.questions.empty(); });
    if (documents.empty()) {
      throw Error(ErrorKind::kData, "no question is difficult", options_.path + ", option 'hard_only'",
                  "take more articles, or leave the option out");
    }
  }

  Options options_;
};

KVC_REGISTER_DATASET(Quality, "quality", "arXiv:2112.08608");

}  // namespace
}  // namespace kvc
