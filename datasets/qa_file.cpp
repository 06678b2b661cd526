#include "datasets/qa_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "datasets/data_file.h"

namespace kvc {
namespace {

constexpr const char* kForms =
    "give SQuAD's JSON ({\"data\": [{\"paragraphs\": [{\"context\", \"qas\"}]}]}) or HotpotQA's (a list of "
    "{\"question\", \"answer\", \"context\": [[title, [sentence, ...]], ...]})";

class QaReader {
 public:
  QaReader(const std::string& path, RulerSources& sources) : in_(path, kForms), path_(path), sources_(sources) {}

  void read() {
    const std::string text = read_data_file(path_);
    const Json file = in_.parse(text);
    if (file.is_discarded()) refuse(invalid_json("the file", text));
    if (file.is_object() && file.contains("data")) {
      check_version(file);
      squad(file.at("data"));
    } else if (file.is_array()) {
      for (size_t i = 0; i < file.size(); ++i) hotpot(file[i], fmt::format("[{}]", i));
    } else {
      refuse("the file must be SQuAD's or HotpotQA's JSON");
    }
    in_.fail_if_needed();
    if (sources_.questions.empty()) refuse("the file has no question with an answer");
  }

 private:
  [[noreturn]] void refuse(const std::string& fact) const { throw Error(ErrorKind::kData, fact, path_, kForms); }

  // A version that is a number must be SQuAD's; other sets of the same form have names there.
  void check_version(const Json& file) {
    if (!file.contains("version") || !file.at("version").is_string()) return;
    std::string number = file.at("version").get<std::string>();
    if (number.starts_with("v")) number.erase(0, 1);
    const bool is_number = !number.empty() && number.find_first_not_of("0123456789.") == std::string::npos;
    if (is_number && !number.starts_with("1.") && !number.starts_with("2.") && number != "1" && number != "2") {
      in_.add("version", fmt::format("'version' must be 1.1 or 2.0; got {}", shown(file.at("version"))),
              "take a file of SQuAD 1.1 or 2.0");
    }
  }

  // The list under `name`; an empty one after adding a problem.
  const Json& list(const Json& object, const std::string& at, const char* name) {
    static const Json kNone = Json::array();
    const std::string field = at + "." + name;
    if (!object.is_object()) {
      in_.add(at, fmt::format("must be an object; got {}", shown(object)), kForms);
    } else if (!object.contains(name)) {
      in_.add(field, fmt::format("'{}' is missing", name), kForms);
    } else if (!object.at(name).is_array()) {
      in_.add(field, fmt::format("'{}' must be a list; got {}", name, shown(object.at(name))), kForms);
    } else {
      return object.at(name);
    }
    return kNone;
  }

  std::string text(const Json& object, const std::string& at, const char* name) {
    if (object.is_object()) return in_.text_field(object, at + ".", name);
    in_.add(at, fmt::format("must be an object; got {}", shown(object)), kForms);
    return "";
  }

  void check_id(const Json& object, const std::string& at, const char* name) {
    if (!object.is_object() || !object.contains(name) || !object.at(name).is_string()) return;
    in_.check_distinct("question id", object.at(name).get<std::string>(), at + "." + name);
  }

  void squad(const Json& data) {
    if (!data.is_array()) refuse(fmt::format("'data' must be a list; got {}", shown(data)));
    for (size_t a = 0; a < data.size(); ++a) {
      const std::string article = fmt::format("data[{}]", a);
      const Json& paragraphs = list(data[a], article, "paragraphs");
      sources_.articles.emplace_back();
      for (size_t p = 0; p < paragraphs.size(); ++p) {
        squad_paragraph(paragraphs[p], fmt::format("{}.paragraphs[{}]", article, p));
      }
    }
  }

  void squad_paragraph(const Json& paragraph, const std::string& at) {
    const std::string context = text(paragraph, at, "context");
    if (!paragraph.is_object()) return;
    sources_.articles.back().push_back(add_passage(context));
    const Json& qas = list(paragraph, at, "qas");
    for (size_t q = 0; q < qas.size(); ++q) {
      const std::string field = fmt::format("{}.qas[{}]", at, q);
      check_id(qas[q], field, "id");
      if (qas[q].is_object() && qas[q].value("is_impossible", Json(false)) == Json(true)) continue;
      RulerQuestion question{fmt::format("{}", sources_.questions.size() + 1),
                             text(qas[q], field, "question"),
                             {},
                             {context},
                             static_cast<int64_t>(sources_.articles.size()) - 1};
      if (!qas[q].is_object()) continue;
      const Json& answers = list(qas[q], field, "answers");
      for (size_t i = 0; i < answers.size(); ++i) {
        question.answers.push_back(text(answers[i], fmt::format("{}.answers[{}]", field, i), "text"));
      }
      if (!question.answers.empty()) sources_.questions.push_back(std::move(question));
    }
  }

  void hotpot(const Json& item, const std::string& at) {
    RulerQuestion question{fmt::format("{}", sources_.questions.size() + 1), text(item, at, "question"), {}, {}, -1};
    if (!item.is_object()) return;
    check_id(item, at, "_id");
    question.answers.push_back(text(item, at, "answer"));
    const Json& context = list(item, at, "context");
    for (size_t i = 0; i < context.size(); ++i) {
      std::string passage = hotpot_passage(context[i], fmt::format("{}.context[{}]", at, i));
      add_passage(passage);
      question.golden.push_back(std::move(passage));
    }
    if (question.golden.empty()) in_.add(at + ".context", "'context' is empty", "give at least one passage");
    sources_.questions.push_back(std::move(question));
  }

  std::string hotpot_passage(const Json& entry, const std::string& at) {
    const bool is_passage = entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_array() &&
                            std::all_of(entry[1].begin(), entry[1].end(), [](const Json& s) { return s.is_string(); });
    if (!is_passage) {
      in_.add(at, fmt::format("a passage must be [title, [sentence, ...]]; got {}", shown(entry)), kForms);
      return "";
    }
    std::string passage = strip_space(entry[0].get<std::string>()) + "\n";
    for (const Json& sentence : entry[1]) passage += sentence.get<std::string>();
    return passage;
  }

  // Its number among the passages.
  size_t add_passage(const std::string& passage) {
    const auto [known, is_new] = seen_.emplace(passage, sources_.passages.size());
    if (is_new) sources_.passages.push_back(passage);
    return known->second;
  }

  DataReader in_;
  const std::string& path_;
  RulerSources& sources_;
  std::unordered_map<std::string, size_t> seen_;
};

}  // namespace

void read_qa_file(const std::string& path, RulerSources& sources) {
  QaReader(path, sources).read();
}

}  // namespace kvc
