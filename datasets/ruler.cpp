// RULER (arXiv:2404.06654): thirteen synthetic tasks of any length, made from a seed for the model at hand.
//
// Departures from the published generator: the templates are worded anew; essays are the articles of a QuALITY file,
// not Paul Graham's; `tokens` is the length of the document, without question and answer; keys are pairs of our own
// words. The published generator shuffles the passages of qa in the same way in every document, so that the question's
// own always stands at one place; here they are shuffled anew. Counts, kinds, depths and repetitions are the published
// ones, see ruler_published_test.cpp.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "datasets/data_file.h"
#include "datasets/qa_file.h"
#include "datasets/quality_file.h"
#include "datasets/ruler_text.h"
#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

// Raised for the tasks whose text becomes another for the same options and seed.
int64_t text_version(const std::string& task) {
  return task == "vt" || task == "qa" ? 2 : 1;
}

class Ruler final : public Dataset {
 public:
  struct Options {
    std::string task = "niah_single_2";
    int64_t documents = 10;
    int64_t tokens = 4000;
    std::string path = kQualitySample;
    std::string qa_path;

    void fields(auto&& visit) {
      visit("task", task,
            "niah_single_1, _2, _3; niah_multikey_1, _2, _3; niah_multivalue; niah_multiquery; vt; cwe; fwe; qa",
            one_of(ruler_tasks()));
      visit("documents", documents, "documents to make, with one question each", between(1, 100000));
      visit("tokens", tokens, "length of a document in tokens of the model, without question and answer",
            between(128, 1000000));
      visit("path", path, "QuALITY JSONL file (v1.0.1, html-stripped) whose articles are the essays",
            named("a QuALITY JSONL file"));
      visit("qa_path", qa_path, "for task qa: SQuAD's or HotpotQA's JSON file");
    }
    void check(const OptionCheck& fail) const {
      if (task == "qa" && qa_path.empty())
        fail("qa_path", "must name SQuAD's or HotpotQA's JSON file; got ''", "write qa_path: FILE");
    }
  };

  explicit Ruler(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& request) const override {
    if (!request.count_tokens) {
      throw Error(ErrorKind::kInternal, "ruler needs count_tokens", "", "give DatasetRequest::count_tokens");
    }
    RulerSources sources;
    sources.tokens = options_.tokens;
    if (options_.task == "qa") {
      read_qa_file(options_.qa_path, sources);
    } else {
      std::vector<std::string> articles;
      for (const Document& article : read_quality_file(options_.path)) articles.push_back(article.text);
      sources.essays = fmt::format("{}", fmt::join(articles, "\n\n"));
    }
    if (options_.task == "vt") {
      sources.worked_example =
          ruler_tracking_example(request.count_tokens, RandomDraws(derive_seed(request.seed, "ruler_vt_example")));
    }
    if (options_.task == "qa" && options_.documents > static_cast<int64_t>(sources.questions.size())) {
      throw Error(ErrorKind::kData,
                  fmt::format("{} documents need as many questions; the file has {} with an answer", options_.documents,
                              sources.questions.size()),
                  options_.qa_path, fmt::format("set documents to at most {}", sources.questions.size()));
    }
    std::vector<Document> documents;
    for (int64_t i = 0; i < options_.documents; ++i) {
      sources.index = i;
      documents.push_back(make(sources, request));
    }
    return documents;
  }

  Json identity() const override {
    Json identity = data_file_identity(options_.task == "qa" ? options_.qa_path : options_.path);
    identity["text_version"] = text_version(options_.task);
    return identity;
  }
  Json preferred_task() const override { return "string_match"; }

 private:
  Document make(const RulerSources& sources, const DatasetRequest& request) const {
    const std::string id = fmt::format("{}_{}_{}", options_.task, options_.tokens, sources.index + 1);
    const RandomDraws draws(derive_seed(request.seed, "ruler_" + id));
    const RulerSample sample = longest_fitting(sources, draws, request);
    Question question;
    question.id = id;
    question.text = sample.question;
    question.answer_prefix = sample.answer_prefix;
    if (sample.any_reference) {
      set_right_answers(sample.references, question);
    } else {
      question.gold_answer = fmt::format("{}", fmt::join(sample.references, ", "));
    }
    question.extra = {{"references", sample.references},
                      {"any_reference", sample.any_reference},
                      {"max_new_tokens", ruler_answer_tokens(options_.task)}};
    if (sample.depth_fractions.size() == 1) question.extra["depth_fraction"] = sample.depth_fractions.front();
    if (sample.depth_fractions.size() > 1) question.extra["depth_fractions"] = sample.depth_fractions;
    return {id, fmt::format("RULER {}, {} tokens", options_.task, options_.tokens), sample.text, {question}};
  }

  // The longest text of at most the tokens asked for.
  RulerSample longest_fitting(const RulerSources& sources, const RandomDraws& draws,
                              const DatasetRequest& request) const {
    const auto length = [&](int64_t size) {
      return request.count_tokens(ruler_sample(options_.task, size, sources, draws).text);
    };
    int64_t low = ruler_least_size(options_.task);
    if (const int64_t n = length(low); n > options_.tokens) {
      throw Error(
          ErrorKind::kData,
          fmt::format("the shortest text of {} has {} tokens; {} are asked for", options_.task, n, options_.tokens),
          "ruler, option 'tokens'", fmt::format("set tokens to {} or more", n));
    }
    const int64_t most = options_.task == "qa" ? most_passages(sources) : 4 * options_.tokens;
    int64_t step = std::max<int64_t>(low, 16);
    int64_t high = std::min(low + step, most);
    while (high < most && length(high) <= options_.tokens) {
      low = high;
      step *= 2;
      high = std::min(high + step, most);
    }
    while (low < high) {
      const int64_t middle = low + (high - low + 1) / 2;
      if (length(middle) <= options_.tokens) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return ruler_sample(options_.task, low, sources, draws);
  }

  // Passages beside the question's own.
  static int64_t most_passages(const RulerSources& sources) {
    const RulerQuestion& asked = sources.questions.at(static_cast<size_t>(sources.index));
    return static_cast<int64_t>(sources.passages.size()) - static_cast<int64_t>(asked.golden.size());
  }

  Options options_;
};

KVC_REGISTER_DATASET(Ruler, "ruler", "RULER, arXiv:2404.06654");

}  // namespace
}  // namespace kvc
