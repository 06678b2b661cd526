// LongBench (Bai et al., arXiv:2308.14508), a file of its published JSON lines: `input`, `context`, `answers`,
// `dataset`, `all_classes`, `length`, `_id`. Lines about one text are one document. Questions are asked by
// published_score with each data set's own score and longest answer.
//
// Departures: what the published prompts say before and after the text is told in the question, in words of our own;
// the few-shot and code data sets are asked as a chat turn too; texts are not cut in the middle. LongBench-E's lines
// ("hotpotqa_e") are read alike. Three Chinese data sets are refused: their scores are defined by jieba's words.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "datasets/benchmark_lines.h"

namespace kvc {
namespace {

struct LongBenchSet {
  std::string_view name;
  std::string_view rule;  // published_score.h
  int64_t max_new_tokens;
  bool first_line;
  std::string_view question;  // {} is the line's input
};

constexpr std::string_view kFromPassages =
    "Answer the question from the passages. Give the answer only, no other words.\n\nQuestion: {}";

constexpr std::array kLongBenchSets = {
    LongBenchSet{"narrativeqa", "f1", 128, false,
                 "Answer the question about the story as briefly as you can, with a single phrase if possible. Explain "
                 "nothing.\n\nQuestion: {}"},
    LongBenchSet{"qasper", "f1", 128, false,
                 "Answer the question about the article as briefly as you can, with a phrase or a sentence. If the "
                 "article does not answer it, write \"unanswerable\"; if it asks for yes or no, answer \"yes\", \"no\" "
                 "or \"unanswerable\". Explain nothing.\n\nQuestion: {}"},
    LongBenchSet{"multifieldqa_en", "f1", 64, false,
                 "Answer the question about the text. Give the answer only, no other words.\n\nQuestion: {}"},
    LongBenchSet{"hotpotqa", "f1", 32, false, kFromPassages},
    LongBenchSet{"2wikimqa", "f1", 32, false, kFromPassages},
    LongBenchSet{"musique", "f1", 32, false, kFromPassages},
    LongBenchSet{"gov_report", "rouge_l", 512, false,
                 "Write a summary of this report by a government agency, about one page long.{}"},
    LongBenchSet{"qmsum", "rouge_l", 512, false,
                 "Answer the query about the transcript of the meeting in one or more sentences.\n\nQuery: {}"},
    LongBenchSet{"multi_news", "rouge_l", 512, false, "Write a summary of all the news, about one page long.{}"},
    LongBenchSet{"trec", "classification", 64, true,
                 "The text has examples of questions with their types. Say in the same way which type this question "
                 "has.\n\n{}"},
    LongBenchSet{"triviaqa", "f1", 32, true,
                 "The text has examples of passages, questions and answers. Answer this question in the same way. Give "
                 "the answer only, no other words.\n\n{}"},
    LongBenchSet{
        "samsum", "rouge_l", 128, true,
        "The text has examples of dialogues with summaries. Sum up this dialogue in the same way, in a few short "
        "sentences.\n\n{}"},
    LongBenchSet{"lsht", "classification", 64, true, "上文是一些新闻及其类别的例子。请判断下面这条新闻的类别。\n\n{}"},
    LongBenchSet{
        "passage_count", "count", 32, false,
        "Some paragraphs of the text occur more than once. How many different paragraphs are there? Answer with "
        "the number only.{}"},
    LongBenchSet{"passage_retrieval_en", "retrieval", 32, false,
                 "From which paragraph is the following abstract?\n\n{}\n\nAnswer with the paragraph's number, like "
                 "\"Paragraph 1\"."},
    LongBenchSet{"passage_retrieval_zh", "retrieval", 32, false,
                 "下面的摘要出自上文哪一段？\n\n{}\n\n请只回答段落编号，例如“段落1”。"},
    LongBenchSet{"lcc", "code_edit", 64, false, "Write the next line of this code, and nothing else.{}"},
    LongBenchSet{"repobench-p", "code_edit", 64, false,
                 "Another file of this project begins like this:\n\n{}\n\nWrite its next line, and nothing else."},
};

constexpr std::array<std::string_view, 3> kNeedJieba = {"multifieldqa_zh", "dureader", "vcsum"};

class LongBench final : public Dataset {
 public:
  struct Options {
    std::string path = "datasets/samples/longbench_form.jsonl";
    int64_t lines = 0;
    void fields(auto&& visit) {
      visit("path", path, "one of LongBench's JSON lines files, e.g. hotpotqa.jsonl", named("a JSONL file"));
      visit("lines", lines, "first lines to use; 0: all", at_least(0));
    }
  };
  explicit LongBench(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& /*request*/) const override {
    DataReader in(options_.path, "this is not a line of LongBench's published files");
    DocumentsByText documents;
    read_json_lines(in, options_.path, R"({"input": ..., "context": ..., "answers": [...], "dataset": ...})",
                    [&](const Json& json) {
                      if (options_.lines == 0 || documents.n_questions() < static_cast<size_t>(options_.lines))
                        read_line(in, json, documents);
                    });
    return documents.take();
  }

  Json identity() const override { return data_file_identity(options_.path); }
  std::vector<std::vector<std::string>> file_keys() const override { return {{"context", "answers"}}; }

 private:
  static void read_line(DataReader& in, const Json& json, DocumentsByText& documents) {
    const std::string context = in.text_field(json, "", "context");
    std::string name = in.text_field(json, "", "dataset");
    const LongBenchSet* set = set_of(in, name);
    const std::string input = optional_text(in, json, "input");
    const std::vector<std::string> answers = texts_of_field(in, json, "answers");
    std::string id = optional_text(in, json, "_id");
    if (id.empty()) id = fmt::format("line_{}", in.line());
    in.check_distinct("question id", id, "_id");
    if (set == nullptr || answers.empty()) return;
    if (input.empty() && needs_input(*set)) {
      in.add("input", fmt::format("'input' is missing or empty: {} asks about it", set->name),
             "give the line its question, or remove the line");
    }
    check_numbers(in, *set, answers);
    Question question;
    question.id = id;
    question.text = strip_space(fmt::format(fmt::runtime(set->question), input));
    set_right_answers(answers, question);
    question.extra = score_extra(std::string(set->name), std::string(set->rule), answers, set->max_new_tokens);
    if (set->first_line) question.extra["first_line"] = true;
    if (set->rule == "classification") {
      const std::vector<std::string> classes = texts_of_field(in, json, "all_classes");
      question.extra["classes"] = classes;
      const std::set<std::string> distinct(classes.begin(), classes.end());
      if (distinct.size() != classes.size()) {
        in.add("all_classes",
               fmt::format("{} of the {} classes are there twice", classes.size() - distinct.size(), classes.size()),
               "name each class once");
      }
      const auto known = [&](const std::string& answer) {
        return std::find(classes.begin(), classes.end(), answer) != classes.end();
      };
      if (!classes.empty() && std::none_of(answers.begin(), answers.end(), known)) {
        in.add(
            "answers",
            fmt::format("the class '{}' is not in 'all_classes': no reply could be right", shortened(answers.front())),
            "write one of all_classes");
      }
    }
    if (const Json length = json.value("length", Json()); length.is_number_unsigned())
      question.extra["length"] = length;
    documents.add("longbench_" + id, "", context, std::move(question));
  }

  // Summaries, counts and code are asked about the text alone; there `{}` stands behind a full stop.
  static bool needs_input(const LongBenchSet& set) {
    const size_t place = set.question.find("{}");
    return place > 0 && set.question[place - 1] != '.';
  }

  // The scores of counts and paragraphs compare numbers: an answer without one is never right.
  static void check_numbers(DataReader& in, const LongBenchSet& set, const std::vector<std::string>& answers) {
    if (set.rule != "count" && set.rule != "retrieval") return;
    for (const std::string& answer : answers) {
      const bool right = set.rule == "count" ? answer.find_first_not_of("0123456789") == std::string::npos
                                             : answer.find_first_of("0123456789") != std::string::npos;
      if (!right) {
        in.add("answers",
               fmt::format("the answer of {} must {} a number; got '{}'", set.name, set.rule == "count" ? "be" : "hold",
                           shortened(answer)),
               "write it in digits");
      }
    }
  }

  static const LongBenchSet* set_of(DataReader& in, const std::string& name) {
    const std::string plain = name.ends_with("_e") ? name.substr(0, name.size() - 2) : name;
    const auto* found = std::find_if(kLongBenchSets.begin(), kLongBenchSets.end(),
                                     [&](const LongBenchSet& set) { return set.name == plain; });
    if (found != kLongBenchSets.end()) return found;
    if (std::find(kNeedJieba.begin(), kNeedJieba.end(), plain) != kNeedJieba.end()) {
      in.add("dataset",
             fmt::format("'{}' is not supported: its score compares words as jieba, a Python package, cuts "
                         "Chinese text",
                         plain),
             "use lsht or passage_retrieval_zh, whose scores do not");
    } else if (!plain.empty()) {
      std::vector<std::string> known;
      for (const LongBenchSet& set : kLongBenchSets) known.emplace_back(set.name);
      in.add("dataset", fmt::format("'{}' is none of LongBench's data sets", shortened(name)),
             suggest_name(plain, known));
    }
    return nullptr;
  }

  Options options_;
};

KVC_REGISTER_DATASET(LongBench, "longbench", "18 of its 21 data sets (arXiv:2308.14508)");

}  // namespace
}  // namespace kvc
