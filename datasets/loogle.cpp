// LooGLE (Li et al., arXiv:2311.04939), one of its published JSON lines files: a line is a text, `input`, with its
// `title` and `qa_pairs`, a list of {"Q", "A", "S"[, "type"]} (as JSON, or as Python writes it in a text), or "none"
// with a summary in `output`. Questions are asked by published_score: answers and summaries by the recall of ROUGE-L,
// what the published evaluation reports of it; blanks by exact match. Its other scores (BLEU, METEOR, BERTScore, a
// judgement by GPT-4) are not computed.
//
// Departures: prompts are told behind the text, in words of our own; a filled-in dictionary is looked for in the whole
// reply; blanks count per question, not all together. The longest answers are the published ones, but for blanks: 128
// tokens instead of 50.

#include <fmt/format.h>

#include <regex>
#include <set>

#include "datasets/benchmark_lines.h"
#include "harness/core/python_literal.h"

namespace kvc {
namespace {

constexpr int64_t kShortAnswer = 300, kLongAnswer = 500, kBlanks = 128;

class Loogle final : public Dataset {
 public:
  struct Options {
    std::string path = "datasets/samples/loogle_form.jsonl";
    int64_t documents = 0;
    void fields(auto&& visit) {
      visit("path", path, "one of LooGLE's JSON lines files, e.g. shortdep_qa.jsonl", named("a JSONL file"));
      visit("documents", documents, "first documents to use; 0: all", at_least(0));
    }
  };
  explicit Loogle(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& /*request*/) const override {
    DataReader in(options_.path, "this is not a line of LooGLE's published files");
    std::vector<Document> documents;
    read_json_lines(in, options_.path, R"({"input": ..., "title": ..., "qa_pairs": ..., "output": ...})",
                    [&](const Json& json) { read_line(in, json, documents); });
    const auto limit = static_cast<size_t>(options_.documents);
    if (limit > 0 && documents.size() > limit) documents.resize(limit);
    return documents;
  }

  Json identity() const override { return data_file_identity(options_.path); }
  std::vector<std::vector<std::string>> file_keys() const override { return {{"input", "qa_pairs"}}; }

 private:
  static void read_line(DataReader& in, const Json& json, std::vector<Document>& documents) {
    Document document;
    document.id = fmt::format("loogle_{}", in.line());
    document.text = in.text_field(json, "", "input");
    document.title = optional_text(in, json, "title");
    if (document.title.empty()) document.title = document.id;
    const Json pairs = pairs_of(json.value("qa_pairs", Json()));
    if (pairs == Json("none")) {
      add_question("summarization", "Write a summary of the paper.", in.text_field(json, "", "output"),
                   "rouge_l_recall", kLongAnswer, document);
    } else if (pairs.is_array() && !pairs.empty()) {
      for (size_t i = 0; i < pairs.size(); ++i) read_pair(in, pairs[i], fmt::format("qa_pairs[{}]", i), document);
    } else {
      in.add("qa_pairs", "'qa_pairs' must be a list of questions, or \"none\" beside a summary",
             "this is not a line of LooGLE's published files");
    }
    documents.push_back(std::move(document));
  }

  // A list that Python wrote into a text, or the value as it is.
  static Json pairs_of(const Json& value) {
    if (!value.is_string() || value == "none") return value;
    const std::string& text = value.get_ref<const std::string&>();
    size_t used = 0;
    const auto list = read_python_literal(text, used);
    return list && strip_space(text.substr(used)).empty() ? *list : value;
  }

  static void read_pair(DataReader& in, const Json& pair, const std::string& field, Document& document) {
    if (!pair.is_object()) return in.add(field, "the question must be an object", "write {\"Q\": ..., \"A\": ...}");
    const std::string asked = in.text_field(pair, field + ".", "Q");
    if (const Json answer = pair.value("A", Json()); answer.is_object() && !answer.empty()) {
      for (const auto& [mask, filled] : answer.items()) {
        if (!filled.is_string() || strip_space(filled.get<std::string>()).empty()) {
          in.add(fmt::format("{}.A", field),
                 fmt::format("the text for '{}' must be a string; got {}", shortened(mask), shown(filled)),
                 "write the name");
        }
      }
      check_blanks(in, asked, answer, field);
      add_question(
          "cloze",
          "Each <mask-n> in the following stands for a person, a place or an organisation of the text, the same "
          "one wherever it occurs. Answer with a dictionary of what they stand for, like {'<mask-0>': 'Bob', "
          "'<mask-1>': 'Bethel Horizon'}.\n\n" +
              asked,
          answer.dump(), "cloze", kBlanks, document);
      return;
    }
    std::string answer = pair.contains("A") && pair.at("A").is_number() ? pair.at("A").dump() : "";
    if (answer.empty()) answer = in.text_field(pair, field + ".", "A");
    add_question(pair.contains("type") ? "longdep_qa" : "shortdep_qa",
                 "Answer the question about the text.\n\nQuestion: " + asked, answer, "rouge_l_recall",
                 pair.contains("type") ? kLongAnswer : kShortAnswer, document);
    const std::string type = optional_text(in, pair, "type");
    if (!type.empty()) document.questions.back().extra["type"] = type;
  }

  // A blank without a gold name could not be judged.
  static void check_blanks(DataReader& in, const std::string& asked, const Json& answer, const std::string& field) {
    std::set<std::string> blanks;
    static const std::regex form("<mask-[0-9]+>");
    for (std::sregex_iterator found(asked.begin(), asked.end(), form), end; found != end; ++found)
      blanks.insert(found->str());
    for (const std::string& blank : blanks) {
      if (!answer.contains(blank))
        in.add(field + ".A", fmt::format("'{}' is in the text of 'Q' and has no name in 'A'", blank),
               fmt::format("write {{\"{}\": NAME}}", blank));
    }
  }

  static void add_question(const std::string& subset, const std::string& text, const std::string& gold,
                           const std::string& rule, int64_t max_new_tokens, Document& document) {
    Question question;
    question.id = fmt::format("{}_q{}", document.id, document.questions.size() + 1);
    question.text = text;
    question.gold_answer = gold;
    question.extra = score_extra(subset, rule, {gold}, max_new_tokens);
    document.questions.push_back(std::move(question));
  }

  Options options_;
};

KVC_REGISTER_DATASET(Loogle, "loogle", "questions, summaries and blanks of long texts (arXiv:2311.04939)");

}  // namespace
}  // namespace kvc
