#include "datasets/qa_file.h"

#include <fmt/format.h>

#include <unordered_set>

#include "datasets/data_file.h"

namespace kvc {
namespace {

constexpr const char* kForms =
    "give SQuAD's JSON ({\"data\": [{\"paragraphs\": [{\"context\", \"qas\"}]}]}) or HotpotQA's (a list of "
    "{\"question\", \"answer\", \"context\": [[title, [sentence, ...]], ...]})";

class QaReader {
 public:
  QaReader(const std::string& path, RulerSources& sources) : path_(path), sources_(sources) {}

  void read() {
    const Json file = Json::parse(read_data_file(path_), nullptr, false);
    if (file.is_discarded()) refuse("the file is not JSON", "");
    if (file.is_object() && file.contains("data")) {
      squad(file.at("data"));
    } else if (file.is_array()) {
      for (size_t i = 0; i < file.size(); ++i) hotpot(file[i], fmt::format("[{}]", i));
    } else {
      refuse("the file must be SQuAD's or HotpotQA's JSON", "");
    }
    if (sources_.questions.empty()) refuse("the file has no question with an answer", "");
  }

 private:
  [[noreturn]] void refuse(const std::string& fact, const std::string& field) const {
    throw Error(ErrorKind::kData, fact, field.empty() ? path_ : fmt::format("{}, {}", path_, field), kForms);
  }

  const Json& member(const Json& object, const char* name, const std::string& field) const {
    if (!object.is_object() || !object.contains(name)) refuse(fmt::format("'{}' is missing", name), field);
    return object.at(name);
  }
  const Json& list(const Json& object, const char* name, const std::string& field) const {
    const Json& value = member(object, name, field);
    if (!value.is_array()) refuse(fmt::format("'{}' must be a list; got {}", name, shown(value)), field);
    return value;
  }
  std::string text(const Json& value, const std::string& field) const {
    if (!value.is_string()) refuse(fmt::format("must be text; got {}", shown(value)), field);
    return strip_space(value.get<std::string>());
  }

  void squad(const Json& data) {
    if (!data.is_array()) refuse(fmt::format("'data' must be a list; got {}", shown(data)), "data");
    for (size_t a = 0; a < data.size(); ++a) {
      const std::string article = fmt::format("data[{}]", a);
      const Json& paragraphs = list(data[a], "paragraphs", article);
      for (size_t p = 0; p < paragraphs.size(); ++p) {
        squad_paragraph(paragraphs[p], fmt::format("{}.paragraphs[{}]", article, p));
      }
    }
  }

  void squad_paragraph(const Json& paragraph, const std::string& at) {
    const std::string context = text(member(paragraph, "context", at), at + ".context");
    add_passage(context);
    const Json& qas = list(paragraph, "qas", at);
    for (size_t q = 0; q < qas.size(); ++q) {
      const std::string field = fmt::format("{}.qas[{}]", at, q);
      if (qas[q].is_object() && qas[q].value("is_impossible", Json(false)) == Json(true)) continue;
      RulerQuestion question{fmt::format("{}", sources_.questions.size() + 1),
                             text(member(qas[q], "question", field), field + ".question"),
                             {},
                             {context}};
      for (const Json& answer : list(qas[q], "answers", field)) {
        question.answers.push_back(text(member(answer, "text", field + ".answers"), field + ".answers"));
      }
      add_question(std::move(question));
    }
  }

  void hotpot(const Json& item, const std::string& at) {
    RulerQuestion question{fmt::format("{}", sources_.questions.size() + 1),
                           text(member(item, "question", at), at + ".question"),
                           {text(member(item, "answer", at), at + ".answer")},
                           {}};
    for (const Json& entry : list(item, "context", at)) {
      if (!entry.is_array() || entry.size() != 2 || !entry[1].is_array()) {
        refuse("a passage must be [title, [sentence, ...]]", at + ".context");
      }
      std::string passage = text(entry[0], at + ".context") + "\n";
      for (const Json& sentence : entry[1]) {
        if (!sentence.is_string()) refuse("a sentence must be text", at + ".context");
        passage += sentence.get<std::string>();
      }
      add_passage(passage);
      question.golden.push_back(std::move(passage));
    }
    if (question.golden.empty()) refuse("'context' is empty", at);
    add_question(std::move(question));
  }

  void add_passage(const std::string& passage) {
    if (!passage.empty() && seen_.insert(passage).second) sources_.passages.push_back(passage);
  }
  void add_question(RulerQuestion question) {
    std::erase(question.answers, "");
    if (!question.text.empty() && !question.answers.empty()) sources_.questions.push_back(std::move(question));
  }

  const std::string& path_;
  RulerSources& sources_;
  std::unordered_set<std::string> seen_;
};

}  // namespace

void read_qa_file(const std::string& path, RulerSources& sources) {
  QaReader(path, sources).read();
}

}  // namespace kvc
