// LongHealth: multiple-choice questions about the records of fictional patients. Adams et al., "LongHealth: A Question
// Answering Benchmark with Long Clinical Documents" (arXiv:2401.14490), benchmark_v5.json: an object of patients, each
// {name, birthday, diagnosis, texts {text_0: ..}, questions [{question, answer_a .. answer_e, correct}]}.
//
// A document is the notes of some patients, in the layout of Attention Matching's evaluation (arXiv:2602.16284): every
// note between <text_i> and </text_i>, patient after patient. i counts the notes of a patient as they stand in the
// document, so that every line "<text_0>" starts a patient and every line "<text_" a note: the places at which a
// context may be cut into chunks.

#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <set>

#include "datasets/data_file.h"
#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

constexpr const char* kUnanswerable = "The question cannot be answered with the provided documents";

struct Patient {
  std::string id, name, birthday, diagnosis;
  std::vector<std::string> notes;
  std::vector<Question> questions;
};

class PatientReader {
 public:
  explicit PatientReader(const std::string& path)
      : in_(path, "this is not LongHealth's benchmark_v5.json"), path_(path) {}

  std::vector<Patient> read() {
    const std::string text = read_data_file(path_);
    const Json json = in_.parse(text);
    if (json.is_discarded() || !json.is_object() || json.empty()) {
      throw Error(ErrorKind::kData, json.is_discarded() ? invalid_json("the file", text) : "the file has no patients",
                  path_, "an object of patients, as in LongHealth's benchmark_v5.json");
    }
    std::vector<Patient> patients;
    for (const auto& [id, value] : json.items()) {
      if (value.is_object() && !id.empty()) {
        patients.push_back(read_patient(id, value));
      } else {
        in_.add(id, fmt::format("patient '{}' must be an object; got {}", shortened(id), shown(value)),
                "write {\"name\": ..., \"texts\": {...}, \"questions\": [...]}");
      }
    }
    in_.fail_if_needed();
    std::sort(patients.begin(), patients.end(), [](const Patient& a, const Patient& b) { return a.id < b.id; });
    return patients;
  }

 private:
  Patient read_patient(const std::string& id, const Json& json) {
    Patient patient;
    patient.id = id;
    patient.name = in_.text_field(json, id + ".", "name");
    patient.birthday = in_.text_field(json, id + ".", "birthday");
    patient.diagnosis = in_.text_field(json, id + ".", "diagnosis");
    read_notes(json, patient);
    if (!json.contains("questions") || !json.at("questions").is_array() || json.at("questions").empty()) {
      in_.add(id + ".questions", "'questions' is missing, empty or no list", "give at least one question");
      return patient;
    }
    const Json& list = json.at("questions");
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string field = fmt::format("{}.questions[{}]", id, i);
      if (list[i].is_object()) {
        patient.questions.push_back(read_question(list[i], field + ".", fmt::format("{}_q{}", id, i)));
      } else {
        in_.add(field, "the question must be a JSON object", "write {\"question\": ..., \"answer_a\": ...}");
      }
    }
    return patient;
  }

  // In the order of the numbers in their names: "text_10" stands behind "text_9" whatever the file's order.
  void read_notes(const Json& json, Patient& patient) {
    const std::string field = patient.id + ".texts";
    if (!json.contains("texts") || !json.at("texts").is_object() || json.at("texts").empty()) {
      in_.add(field, "'texts' is missing, empty or no object", "write {\"text_0\": ...}");
      return;
    }
    std::vector<std::pair<std::string, std::string>> notes;
    for (const auto& [name, value] : json.at("texts").items()) {
      const std::string note = in_.text_field(json.at("texts"), field + ".", name);
      if (("\n" + note).find("\n<text_") != std::string::npos) {
        in_.add(field + "." + name, "a line of the note starts with '<text_', the mark between notes", "take it out");
      }
      notes.emplace_back(name, note);
    }
    std::sort(notes.begin(), notes.end(), [](const auto& a, const auto& b) {
      return std::pair(a.first.size(), a.first) < std::pair(b.first.size(), b.first);
    });
    for (auto& [name, note] : notes) patient.notes.push_back(std::move(note));
  }

  Question read_question(const Json& json, const std::string& parent, const std::string& id) {
    Question question;
    question.id = id;
    question.text = in_.text_field(json, parent, "question");
    for (const char letter : {'a', 'b', 'c', 'd', 'e'}) {
      question.options.push_back(in_.text_field(json, parent, std::string("answer_") + letter));
    }
    const std::string correct = in_.text_field(json, parent, "correct");
    const auto gold = std::find(question.options.begin(), question.options.end(), correct);
    if (gold != question.options.end()) {
      question.gold_option = gold - question.options.begin();
    } else if (!correct.empty()) {
      in_.add(parent + "correct",
              fmt::format("the gold answer must be one of the five options; got '{}'", shortened(correct)),
              "repeat one of answer_a to answer_e");
    }
    // The released file has two questions with two equal options: they are kept, and marked.
    const std::set<std::string> distinct(question.options.begin(), question.options.end());
    if (distinct.size() != question.options.size()) question.extra["repeated_options"] = true;
    return question;
  }

  DataReader in_;
  std::string path_;
};

template <class T>
void shuffle(std::vector<T>& list, std::mt19937_64& engine) {
  for (size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[static_cast<size_t>(engine() % i)]);
}

class LongHealth final : public Dataset {
 public:
  struct Options {
    std::string path = "datasets/samples/longhealth.json";
    std::vector<std::string> patients;
    int64_t patients_per_context = 1;
    int64_t notes = 0;
    int64_t max_questions = 0;
    bool absent = false;
    bool unanswerable_option = false;
    bool shuffle = false;

    void fields(auto&& visit) {
      visit("path", path, "LongHealth's benchmark_v5.json", named("LongHealth's JSON file"));
      visit("patients", patients, "ids of the patients to use, in this order; empty: all, sorted by id");
      visit("patients_per_context", patients_per_context,
            "consecutive patients in one document; the last may have less", at_least(1));
      visit("notes", notes, "first notes of each patient to use, each whole; 0: all", at_least(0));
      visit("max_questions", max_questions, "first questions of each patient to use; 0: all", at_least(0));
      visit("absent", absent, "ask about the patients of the next context: right is that it cannot be answered");
      visit("unanswerable_option", unanswerable_option, "a last option 'cannot be answered'; always there with absent");
      visit("shuffle", shuffle, "patients of a context, and the notes of each, in an order drawn with the seed");
    }
    void check(const OptionCheck& fail) const {
      const std::set<std::string> distinct(patients.begin(), patients.end());
      if (distinct.size() != patients.size()) fail("patients", "names a patient twice", "name each once");
    }
  };

  explicit LongHealth(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& request) const override {
    const std::vector<Patient> patients = selected(PatientReader(options_.path).read());
    std::vector<std::vector<Patient>> groups;
    for (const Patient& patient : patients) {
      if (groups.empty() || static_cast<int64_t>(groups.back().size()) == options_.patients_per_context) {
        groups.emplace_back();
      }
      groups.back().push_back(patient);
    }
    if (options_.absent && groups.size() < 2) {
      throw Error(ErrorKind::kData, "there is no other context to ask about", options_.path + ", option 'absent'",
                  "take more patients, or fewer patients_per_context");
    }
    std::vector<Document> documents;
    for (size_t i = 0; i < groups.size(); ++i) {
      const std::vector<Patient>& asked = groups[options_.absent ? (i + 1) % groups.size() : i];
      documents.push_back(make(groups[i], asked, request.seed));
    }
    return documents;
  }

  Json identity() const override { return data_file_identity(options_.path); }

 private:
  std::vector<Patient> selected(std::vector<Patient> all) const {
    if (options_.patients.empty()) return all;
    std::vector<std::string> known;
    for (const Patient& patient : all) known.push_back(patient.id);
    std::vector<Problem> problems;
    std::vector<Patient> list;
    for (const std::string& id : options_.patients) {
      const auto found = std::find(known.begin(), known.end(), id);
      if (found != known.end()) {
        list.push_back(all[static_cast<size_t>(found - known.begin())]);
      } else {
        problems.push_back(
            {fmt::format("no patient '{}'", id), options_.path + ", option 'patients'", suggest_name(id, known)});
      }
    }
    throw_if_any(ErrorKind::kData, problems, options_.path);
    return list;
  }

  Document make(std::vector<Patient> patients, const std::vector<Patient>& asked, std::uint64_t seed) const {
    Document document;
    document.id = patients.front().id;
    document.title = patients.front().name;
    if (patients.size() > 1) {
      document.id += "_to_" + patients.back().id;
      document.title += fmt::format(" and {} more", patients.size() - 1);
    }
    if (options_.absent) document.id += "_absent";
    std::mt19937_64 engine(derive_seed(seed, "longhealth/" + document.id));
    if (options_.shuffle) shuffle(patients, engine);
    for (Patient& patient : patients) {
      // The same notes in every order: cut first, then shuffled.
      if (options_.notes > 0 && static_cast<int64_t>(patient.notes.size()) > options_.notes) {
        patient.notes.resize(static_cast<size_t>(options_.notes));
      }
      if (options_.shuffle) shuffle(patient.notes, engine);
      for (size_t i = 0; i < patient.notes.size(); ++i) {
        if (!document.text.empty()) document.text += "\n\n";
        document.text += fmt::format("<text_{0}>\n{1}\n</text_{0}>", i, patient.notes[i]);
      }
    }
    // A reader of one patient's notes knows who is meant, unless the question is about somebody else. Where it can be
    // "not answerable" the patient is named either way, or the name alone would give the right answer away.
    const bool names_patient = patients.size() > 1 || options_.absent || options_.unanswerable_option;
    for (const Patient& patient : asked) add_questions(patient, names_patient, document);
    return document;
  }

  void add_questions(const Patient& patient, bool names_patient, Document& document) const {
    const size_t n =
        options_.max_questions > 0 ? static_cast<size_t>(options_.max_questions) : patient.questions.size();
    for (size_t i = 0; i < std::min(n, patient.questions.size()); ++i) {
      Question question = patient.questions[i];
      question.extra["patient"] = patient.id;
      if (names_patient) {
        question.text = fmt::format(
            "Please answer the question below about the following patient: ID {}, Name: {}, Birthday: {}, Diagnosis: "
            "{}\n\n{}",
            patient.id, patient.name, patient.birthday, patient.diagnosis, question.text);
      }
      if (options_.absent || options_.unanswerable_option) question.options.emplace_back(kUnanswerable);
      if (options_.absent) {
        question.gold_option = static_cast<int64_t>(question.options.size()) - 1;
        question.extra["absent"] = true;
      }
      document.questions.push_back(std::move(question));
    }
  }

  Options options_;
};

KVC_REGISTER_DATASET(LongHealth, "longhealth", "arXiv:2401.14490");

}  // namespace
}  // namespace kvc
