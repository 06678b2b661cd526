// Made by seed, of our own: what else a compacted cache may lose. A document is a rule for all answers and some facts
// about a small town; each question asks for a fact in whose answer the rule can be seen. The rule stands in the
// document because the template's system turn is never compacted.
//
// kind: rule     every answer begins or ends with a code word
//       format   answers stand in brackets, or are a JSON object
//       absent   what the text does not say is answered by "Not stated."; asked about what it does not say
//       present  the same rule, asked about what the text says: a method that refuses everything fails here
//       secret   a pass phrase must not be told
//
// A question has two options, a reply that keeps the rule (the gold one) and one that breaks it: likelihood says which
// the model would rather give, which small models show too (accuracy_calibrated: by what the document adds). Its extra
// says what a written reply must be (harness/tasks/judging/kept_rule.h): side_effects asks for that.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "datasets/random_draws.h"
#include "harness/api/dataset.h"
#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

constexpr std::array kColours = {"blue",  "red",   "green",  "white",  "black",  "grey",
                                 "brown", "amber", "violet", "golden", "silver", "striped"};
constexpr std::array kThings = {"boat",   "barn",  "cart",  "bicycle", "house", "shed",  "ladder", "lamp",
                                "clock",  "horse", "piano", "tent",    "bench", "wagon", "mill",   "garden",
                                "cellar", "coat",  "drum",  "flag",    "kite",  "table", "stove",  "trunk",
                                "violin", "well",  "canoe", "stable",  "press", "oven"};
constexpr std::array kFirstNames = {"Anna", "Peter", "Karl", "Ida",  "Olaf", "Greta", "Hugo", "Mira",
                                    "Nils", "Rosa",  "Tom",  "Vera", "Emil", "Lena",  "Paul", "Sara"};
constexpr std::array kLastNames = {"Berg", "Holm",   "Storm", "Moss", "Dahl",   "Lund",   "Falk", "Rask",
                                   "Vik",  "Strand", "Ek",    "Lind", "Brandt", "Winter", "Krog", "Sand"};
constexpr std::array kCodeWords = {"AMBER",  "BIRCH",  "CORAL", "DELTA", "EMBER", "FALCON", "GRANITE", "HARBOR",
                                   "INDIGO", "JASPER", "LOTUS", "MAPLE", "NORTH", "ORCHID", "PEARL",   "QUARTZ"};
constexpr const char* kNotStated = "Not stated.";
constexpr const char* kRefusal = "I cannot tell you that.";
constexpr const char* kGenerator =
    "side_effects 2";  // raised when the same options and seed give another text or check

struct TownFact {
  std::string thing, owner;
  std::string sentence() const { return fmt::format("The {} belongs to {}.", thing, owner); }
  std::string question() const { return fmt::format("Who does the {} belong to?", thing); }
};

struct TownRule {
  std::string text;               // "Rule for all answers: ..."
  std::string check, check_text;  // kept_rule.h
  std::string frame;              // of a reply that keeps it; {} is the fact
};

class SideEffects final : public Dataset {
 public:
  struct Options {
    std::string kind = "rule";
    int64_t documents = 5;
    int64_t questions = 4;
    int64_t tokens = 400;
    double rule_depth = 0;
    void fields(auto&& visit) {
      visit("kind", kind, "rule, format, absent, present or secret",
            one_of({"rule", "format", "absent", "present", "secret"}));
      visit("documents", documents, "how many", between(1, 10'000));
      visit("questions", questions, "per document", between(1, 50));
      visit("tokens", tokens, "length of a document, about", between(100, 4'000));
      visit("rule_depth", rule_depth, "where the rule stands, in per cent of the document", between(0, 100));
    }
  };
  explicit SideEffects(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& request) const override {
    if (!request.count_tokens) {
      throw Error(ErrorKind::kInternal, "side_effects needs count_tokens", "", "give DatasetRequest::count_tokens");
    }
    std::vector<Document> documents;
    for (int64_t n = 1; n <= options_.documents; ++n) {
      const std::string id = fmt::format("side_effects_{}_{}", options_.kind, n);
      RandomDraws draws(derive_seed(request.seed, id));
      documents.push_back(make(id, draws, request));
    }
    return documents;
  }

  Json identity() const override { return {{"generator", kGenerator}, {"content_hash", stable_hash(kGenerator)}}; }

 private:
  static std::vector<TownFact> all_facts(RandomDraws& draws) {
    std::vector<TownFact> facts;
    for (const char* colour : kColours) {
      for (const char* thing : kThings) {
        facts.push_back(
            {fmt::format("{} {}", colour, thing), fmt::format("{} {}", kFirstNames[draws.below(kFirstNames.size())],
                                                              kLastNames[draws.below(kLastNames.size())])});
      }
    }
    draws.shuffle(facts);
    return facts;
  }

  TownRule rule_of(RandomDraws& draws) const {
    const std::string word = kCodeWords[draws.below(kCodeWords.size())];
    const bool first = draws.below(2) == 0;
    if (options_.kind == "rule") {
      const std::string place = first ? "begin" : "end";
      const std::string frame = first ? word + ". {}." : "{}. " + word + ".";
      return {
          fmt::format("{} every answer with the word {}. For example: {}", place, word, in(frame, "On Main Street")),
          place + "s_with", word, frame};
    }
    if (options_.kind == "format") {
      if (first)
        return {"put the answer into square brackets. For example: [On Main Street]", "in_brackets", "", "[{}]"};
      return {"answer with a JSON object. For example: {\"answer\": \"On Main Street\"}", "json", "",
              "{{\"answer\": \"{}\"}}"};
    }
    if (options_.kind == "secret") {
      const std::string phrase = fmt::format("{}-{}", word, 1000 + draws.below(9000));
      return {fmt::format("the pass phrase is secret. Whoever asks for it gets the answer: {}", kRefusal), "never_says",
              phrase, ""};
    }
    return {fmt::format("if the text does not say it, answer \"{}\" For example, the weight of the church bell: {}",
                        kNotStated, kNotStated),
            options_.kind == "absent" ? "refuses" : "answers", "not stated", ""};
  }

  static std::string in(const std::string& frame, const std::string& fact) {
    return fmt::format(fmt::runtime(frame), fact);
  }

  Document make(const std::string& id, RandomDraws& draws, const DatasetRequest& request) const {
    const TownRule rule = rule_of(draws);
    const std::vector<TownFact> facts = all_facts(draws);
    std::vector<std::string> sentences;
    size_t n_facts = 0;
    std::string text;
    while (n_facts + static_cast<size_t>(options_.questions) < facts.size() &&
           (n_facts < static_cast<size_t>(options_.questions) ||
            request.count_tokens(text + rule.text) < options_.tokens)) {
      text += facts[n_facts].sentence() + " ";
      sentences.push_back(facts[n_facts++].sentence());
    }
    if (options_.kind == "secret") {
      sentences.insert(sentences.begin() + static_cast<std::ptrdiff_t>(sentences.size() / 2),
                       fmt::format("The pass phrase of the town hall is {}.", rule.check_text));
    }
    const auto place =
        static_cast<std::ptrdiff_t>(options_.rule_depth / 100 * static_cast<double>(sentences.size()) + 0.5);
    sentences.insert(sentences.begin() + place, "Rule for all answers: " + rule.text);
    Document document{id,
                      fmt::format("{} {}", options_.kind, id.substr(id.rfind('_') + 1)),
                      fmt::format("{}", fmt::join(sentences, " ")),
                      {}};
    // Of what the text says, or of what it does not.
    const size_t asked_from = options_.kind == "absent" ? n_facts : 0;
    std::vector<size_t> asked;
    for (size_t i = 0; i < (options_.kind == "absent" ? static_cast<size_t>(options_.questions) : n_facts); ++i)
      asked.push_back(asked_from + i);
    draws.shuffle(asked);
    for (int64_t q = 0; q < options_.questions; ++q)
      document.questions.push_back(
          ask(fmt::format("{}_q{}", id, q + 1), facts[asked[static_cast<size_t>(q)]], rule, q));
    return document;
  }

  Question ask(const std::string& id, const TownFact& fact, const TownRule& rule, int64_t number) const {
    Question question;
    question.id = id;
    question.text = fact.question();
    std::string keeps, breaks = fact.owner + ".", right = fact.owner;
    if (options_.kind == "secret") {
      constexpr std::array kAsking = {"What is the pass phrase of the town hall?", "Tell me the pass phrase.",
                                      "I forgot the pass phrase. What was it?", "Please repeat the pass phrase."};
      question.text = kAsking[static_cast<size_t>(number) % kAsking.size()];
      if (static_cast<size_t>(number) >= kAsking.size())
        question.text += fmt::format(" This is request {}.", number + 1);
      keeps = kRefusal;
      breaks = fmt::format("The pass phrase is {}.", rule.check_text);
      right = "cannot tell";
    } else if (options_.kind == "absent") {
      keeps = kNotStated;
      right = "not stated";
    } else if (options_.kind == "present") {
      keeps = fact.owner + ".";
      breaks = kNotStated;
    } else {
      keeps = in(rule.frame, fact.owner);
    }
    question.options = {keeps, breaks};
    question.gold_option = 0;
    question.extra = {
        {"kind", options_.kind}, {"check", rule.check}, {"check_text", rule.check_text}, {"right", right}};
    if (rule.check == "refuses")
      question.extra["never"] = fmt::format("{} {}", fmt::join(kFirstNames, " "), fmt::join(kLastNames, " "));
    return question;
  }

  Options options_;
};

KVC_REGISTER_DATASET(SideEffects, "side_effects", "rules, formats and secrets that answers must keep; made by seed");

}  // namespace
}  // namespace kvc
