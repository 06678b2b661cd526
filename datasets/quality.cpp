// QuALITY: multiple-choice questions about whole articles. Pang et al., "QuALITY: Question Answering with Long Input
// Texts, Yes!", NAACL 2022 (arXiv:2112.08608). Reads the released JSON lines, v1.0.1, html-stripped.

#include <set>

#include "datasets/quality_file.h"

namespace kvc {
namespace {

class Quality final : public Dataset {
 public:
  struct Options {
    std::string path = kQualitySample;
    std::vector<std::string> articles;
    int64_t max_questions = 0;

    void fields(auto&& visit) {
      visit("path", path, "QuALITY JSONL file (v1.0.1, html-stripped)");
      visit("articles", articles, "ids of the articles to use, in this order; empty: all");
      visit("max_questions", max_questions, "first questions of each article to use; 0: all");
    }
    void check(const OptionCheck& fail) const {
      if (path.empty()) fail("path", "is empty", "name a QuALITY JSONL file");
      if (max_questions < 0) fail("max_questions", "is negative", "0 for all, or the number of questions per article");
      const std::set<std::string> distinct(articles.begin(), articles.end());
      if (distinct.size() != articles.size()) fail("articles", "names an article twice", "name each once");
    }
  };

  explicit Quality(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& /*request*/) const override {
    std::vector<Document> documents =
        select_documents(read_quality_file(options_.path), options_.articles, options_.path);
    if (options_.max_questions > 0) {
      const auto limit = static_cast<size_t>(options_.max_questions);
      for (Document& document : documents) {
        if (document.questions.size() > limit) document.questions.resize(limit);
      }
    }
    return documents;
  }

  Json identity() const override { return quality_file_identity(options_.path); }

 private:
  Options options_;
};

KVC_REGISTER_DATASET(Quality, "quality", "arXiv:2112.08608");

}  // namespace
}  // namespace kvc
