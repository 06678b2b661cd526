#include "datasets/ruler_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "datasets/needle_text.h"
#include "harness/core/error.h"

namespace kvc {
namespace {

const std::array<std::string, 5> kNoiseSentences = {"The river is wide.", "The hill is steep.", "The wind is cold.",
                                                    "On we walk.", "And home once more."};

std::string joined_list(const std::vector<std::string>& items) {
  if (items.size() < 2) return items.empty() ? "" : items.front();
  return fmt::format("{} and {}", fmt::join(items.begin(), items.end() - 1, ", "), items.back());
}

double depth_in(const std::string& text, size_t at) {
  return std::round(static_cast<double>(at) / static_cast<double>(text.size()) * 1e4) / 1e4;
}

// n of the numbers 0 .. size - 1, ascending.
std::vector<size_t> distinct_places(size_t n, size_t size, RandomDraws& draws) {
  std::set<size_t> places;
  while (places.size() < n) places.insert(draws.below(size));
  return {places.begin(), places.end()};
}

// ---- Needles: statements "A secret number for KEY is VALUE." ----

enum class HaystackKind { kNoise, kEssays, kNeedles };

struct NeedleForm {
  HaystackKind haystack;
  bool uuid_keys;
  bool uuid_values;
  size_t keys, values, asked;  // values of each key; keys that the question names
};

const NeedleForm* needle_form(const std::string& task) {
  static const std::map<std::string, NeedleForm> forms = {
      {"niah_single_1", {HaystackKind::kNoise, false, false, 1, 1, 1}},
      {"niah_single_2", {HaystackKind::kEssays, false, false, 1, 1, 1}},
      {"niah_single_3", {HaystackKind::kEssays, false, true, 1, 1, 1}},
      {"niah_multikey_1", {HaystackKind::kEssays, false, false, 4, 1, 1}},
      {"niah_multikey_2", {HaystackKind::kNeedles, false, false, 1, 1, 1}},
      {"niah_multikey_3", {HaystackKind::kNeedles, true, true, 1, 1, 1}},
      {"niah_multivalue", {HaystackKind::kEssays, false, false, 1, 4, 1}},
      {"niah_multiquery", {HaystackKind::kEssays, false, false, 4, 1, 4}},
  };
  const auto found = forms.find(task);
  return found == forms.end() ? nullptr : &found->second;
}

std::string draw_uuid(RandomDraws& draws) {
  std::string uuid;
  for (const char c : std::string("xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx")) {
    if (c == 'x' || c == 'y') {
      const size_t digit = c == 'x' ? draws.below(16) : 8 + draws.below(4);
      uuid += "0123456789abcdef"[digit];
    } else {
      uuid += c;
    }
  }
  return uuid;
}

class NeedleWriter {
 public:
  NeedleWriter(const NeedleForm& form, RandomDraws& draws) : form_(form), draws_(draws) {}

  std::string key() {
    return distinct([&] {
      if (form_.uuid_keys) return draw_uuid(draws_);
      const auto &kinds = needle_kinds(), &subjects = needle_subjects();
      const size_t first = draws_.below(kinds.size() + subjects.size());
      return (first < kinds.size() ? kinds[first] : subjects[first - kinds.size()]) + "-" +
             subjects[draws_.below(subjects.size())];
    });
  }
  std::string value() {
    return distinct(
        [&] { return form_.uuid_values ? draw_uuid(draws_) : std::to_string(1000000 + draws_.below(9000000)); });
  }
  std::string noun(bool several) const {
    return fmt::format("secret {}{}", form_.uuid_values ? "uuid" : "number", several ? "s" : "");
  }
  std::string statement(const std::string& key, const std::string& value) const {
    return fmt::format("A {} for {} is {}.", noun(false), key, value);
  }

 private:
  std::string distinct(const std::function<std::string()>& draw) {
    for (int tries = 0; tries < 100000; ++tries) {
      std::string text = draw();
      if (seen_.insert(text).second) return text;
    }
    throw Error(ErrorKind::kData, fmt::format("{} distinct keys are not enough for this length", seen_.size()), "ruler",
                "ask for fewer tokens");
  }

  const NeedleForm& form_;
  RandomDraws& draws_;
  std::set<std::string> seen_;
};

// The first `n` words of the essays, which are repeated where they are too short, cut into sentences.
std::vector<std::string> essay_sentences(const std::string& essays, int64_t n) {
  const std::vector<std::string> words = split_words(essays);
  std::string text;
  for (int64_t i = 0; i < n; ++i) {
    const size_t at = static_cast<size_t>(i) % words.size();
    if (at == 0 && i > 0) text += "\n\n";
    text += words[at];
  }
  return split_sentences(text);
}

// Needles behind sentences, at depths drawn without replacement from 40 even ones, as published.
std::string hide_in_essays(const std::vector<std::string>& needles, int64_t size, const RulerSources& sources,
                           RandomDraws& draws) {
  constexpr size_t kDepths = 40;
  const std::vector<size_t> depths = distinct_places(needles.size(), kDepths, draws);
  const std::vector<std::string> sentences = essay_sentences(sources.essays, size);
  std::string text;
  size_t next = 0;
  const auto place = [&](size_t n_before) {
    while (next < needles.size() && sentences.size() * depths[next] / (kDepths - 1) <= n_before) {
      if (!text.empty() && text.back() != ' ' && text.back() != '\n') text += ' ';
      text += needles[next++] + " ";
    }
  };
  for (size_t i = 0; i < sentences.size(); ++i) {
    place(i);
    text += sentences[i];
  }
  place(sentences.size());
  while (!text.empty() && (text.back() == ' ' || text.back() == '\n')) text.pop_back();
  return text;
}

// Lines with each needle in front of one of them.
std::string hide_in_lines(const std::vector<std::string>& needles, std::vector<std::string> lines, RandomDraws& draws) {
  const std::vector<size_t> places = distinct_places(needles.size(), lines.size(), draws);
  for (size_t i = needles.size(); i-- > 0;) {
    lines.insert(lines.begin() + static_cast<std::ptrdiff_t>(places[i]), needles[i]);
  }
  return fmt::format("{}", fmt::join(lines, "\n"));
}

std::string noise_line() {
  return fmt::format("{}", fmt::join(kNoiseSentences, " "));
}

RulerSample needle_sample(const NeedleForm& form, int64_t size, const RulerSources& sources, RandomDraws& draws) {
  NeedleWriter writer(form, draws);
  std::vector<std::string> keys, needles;
  std::vector<std::vector<std::string>> values;
  for (size_t k = 0; k < form.keys; ++k) {
    keys.push_back(writer.key());
    values.emplace_back();
    for (size_t v = 0; v < form.values; ++v) {
      values.back().push_back(writer.value());
      needles.push_back(writer.statement(keys.back(), values.back().back()));
    }
  }
  draws.shuffle(needles);
  std::string body;
  if (form.haystack == HaystackKind::kEssays) {
    body = hide_in_essays(needles, size, sources, draws);
  } else {
    RandomDraws of_lines(draws.below(size_t{1} << 62U));  // places are drawn apart: they depend on the size
    std::vector<std::string> lines;
    for (int64_t i = 0; i < size; ++i) {
      lines.push_back(form.haystack == HaystackKind::kNoise ? noise_line()
                                                            : writer.statement(writer.key(), writer.value()));
    }
    body = hide_in_lines(needles, std::move(lines), of_lines);
  }
  const bool several = form.values * form.asked > 1;
  RulerSample sample;
  sample.text = fmt::format("The text below hides {}. Remember {}: you will be asked for {} afterwards.\n\n{}",
                            several || form.keys > 1 ? writer.noun(true) : "a " + writer.noun(false),
                            several || form.keys > 1 ? "them" : "it", several || form.keys > 1 ? "them" : "it", body);
  const std::vector<std::string> asked(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(form.asked));
  sample.question = fmt::format("{} for {} in the text above?{}",
                                several ? "What are all the " + writer.noun(true) : "What is the " + writer.noun(false),
                                joined_list(asked), several ? " Name every one." : "");
  sample.answer_prefix =
      fmt::format("The {} for {} in the text {}", writer.noun(several), joined_list(asked), several ? "are" : "is");
  for (size_t k = 0; k < form.asked; ++k) {
    for (const std::string& value : values[k]) {
      sample.references.push_back(value);
      sample.depth_fractions.push_back(depth_in(sample.text, sample.text.find(writer.statement(keys[k], value))));
    }
  }
  return sample;
}

// ---- Variable tracking: one chain of four hops ----

constexpr size_t kHops = 4;

std::string draw_variable(size_t n_letters, std::set<std::string>& seen, RandomDraws& draws) {
  std::string name;
  do {
    name.clear();
    for (size_t i = 0; i < n_letters; ++i) name += static_cast<char>('A' + draws.below(26));
  } while (!seen.insert(name).second);
  return name;
}

struct Chain {
  std::string value;
  std::vector<std::string> names, statements;
};

Chain draw_chain(size_t n_letters, RandomDraws& draws) {
  Chain chain{std::to_string(10000 + draws.below(90000)), {}, {}};
  std::set<std::string> seen;
  for (size_t i = 0; i <= kHops; ++i) {
    chain.names.push_back(draw_variable(n_letters, seen, draws));
    chain.statements.push_back(
        fmt::format("VAR {} = {}", chain.names[i], i == 0 ? chain.value : "VAR " + chain.names[i - 1]));
  }
  return chain;
}

std::string tracking_text(const Chain& chain, int64_t n_lines, RandomDraws& draws) {
  const std::vector<std::string> lines(static_cast<size_t>(n_lines), noise_line());
  return "The text below hides assignments of variables. Follow them: you will be asked which variables have a "
         "value.\n\n" +
         hide_in_lines(chain.statements, lines, draws);
}
std::string tracking_question(const Chain& chain) {
  return fmt::format("Which variables of the text above have the value {}, directly or through others?", chain.value);
}
std::string tracking_answer_prefix(const Chain& chain) {
  return fmt::format("{} variables have the value {}:", chain.names.size(), chain.value);
}

RulerSample tracking_sample(int64_t size, const RulerSources& sources, RandomDraws& draws) {
  const Chain chain = draw_chain(5, draws);
  RulerSample sample;
  sample.text = sources.worked_example + tracking_text(chain, size, draws);
  sample.question = tracking_question(chain);
  sample.answer_prefix = tracking_answer_prefix(chain);
  sample.references = chain.names;
  for (const std::string& statement : chain.statements) {
    sample.depth_fractions.push_back(depth_in(sample.text, sample.text.find(statement)));
  }
  return sample;
}

// ---- Common words: ten of them stand more often than the others ----

std::vector<std::string> draw_words(size_t n, RandomDraws& draws) {
  const auto &subjects = needle_subjects(), &kinds = needle_kinds();
  std::vector<std::string> words;  // pairs only: a single word would stand inside others
  for (const std::string& kind : kinds) {
    for (const std::string& subject : subjects) words.push_back(kind + "-" + subject);
  }
  for (const std::string& a : subjects) {
    for (const std::string& b : subjects) {
      if (words.size() >= 2 * n + 1000) break;
      if (a != b) words.push_back(a + "-" + b);
    }
  }
  if (words.size() < n) {
    throw Error(ErrorKind::kData, fmt::format("cwe has {} distinct words, {} are needed", words.size(), n), "ruler",
                "ask for fewer tokens");
  }
  draws.shuffle(words);
  words.resize(n);
  return words;
}

constexpr size_t kCommon = 10;

// A numbered list of `n` words, the first ten of which stand `often` times, the others `rarely`.
std::string word_list(const std::vector<std::string>& words, size_t often, size_t rarely, RandomDraws& draws) {
  std::vector<std::string> list;
  for (size_t i = 0; i < words.size(); ++i) {
    for (size_t k = 0; k < (i < kCommon ? often : rarely); ++k) list.push_back(words[i]);
  }
  draws.shuffle(list);
  std::string text;
  for (size_t i = 0; i < list.size(); ++i) text += fmt::format("{}{}. {}", i == 0 ? "" : " ", i + 1, list[i]);
  return text;
}

RulerSample common_words_sample(int64_t size, const RulerSources& sources, RandomDraws& draws) {
  const bool is_short = sources.tokens < 4096;
  // Example and list share no word, so the example is drawn first and its words stay away from the list.
  const size_t n_example = is_short ? 20 : 40;
  const auto n_list = static_cast<size_t>(size);
  RandomDraws of_example(draws.below(size_t{1} << 62U)), of_list(draws.below(size_t{1} << 62U));
  const std::vector<std::string> all = draw_words(n_example + 50000, of_example);
  const std::vector<std::string> example(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n_example));
  if (n_example + n_list > all.size()) {
    throw Error(ErrorKind::kData,
                fmt::format("cwe has {} distinct words, {} are needed", all.size(), n_example + n_list), "ruler",
                "ask for fewer tokens");
  }
  const std::vector<std::string> words(all.begin() + static_cast<std::ptrdiff_t>(n_example),
                                       all.begin() + static_cast<std::ptrdiff_t>(n_example + n_list));
  const auto ask = [](const std::string& list) {
    return fmt::format(
        "Below is a numbered list of words. Some stand in it more often than the others; remember the "
        "ones that stand most often.\n{}",
        list);
  };
  const auto names = [](const std::vector<std::string>& from) {
    std::string text;
    for (size_t i = 0; i < kCommon; ++i) text += fmt::format("{}{}. {}", i == 0 ? "" : " ", i + 1, from[i]);
    return text;
  };
  RulerSample sample;
  sample.question = "Which ten words stand most often in the list above?";
  sample.answer_prefix = "The ten words that stand most often in the list are:";
  sample.text = ask(word_list(example, is_short ? 3 : 10, is_short ? 1 : 3, of_example)) + "\n" + sample.question +
                " " + sample.answer_prefix + " " + names(example) + "\n\n" +
                ask(word_list(words, is_short ? 6 : 30, is_short ? 1 : 3, of_list));
  sample.references.assign(words.begin(), words.begin() + kCommon);
  return sample;
}

// ---- Frequent words: coded words whose counts fall with the square of their rank ----

RulerSample frequent_words_sample(int64_t size, const RulerSources& sources, RandomDraws& draws) {
  constexpr double kZeta2 = 1.6449340668482264;  // sum of 1 / k^2
  const auto n_vocabulary = static_cast<size_t>(std::max<int64_t>(10, sources.tokens / 50));
  std::set<std::string> seen;
  std::vector<std::string> vocabulary = {"..."};  // the first rank is noise
  while (vocabulary.size() < n_vocabulary) {
    std::string word;
    for (int i = 0; i < 6; ++i) word += static_cast<char>('a' + draws.below(26));
    if (seen.insert(word).second) vocabulary.push_back(word);
  }
  std::vector<std::string> words;
  for (size_t k = 0; k < vocabulary.size(); ++k) {
    const auto rank = static_cast<double>(k + 1);
    const auto count = static_cast<size_t>(static_cast<double>(size) / (rank * rank) / kZeta2);
    words.insert(words.end(), count, vocabulary[k]);
  }
  draws.shuffle(words);
  RulerSample sample;
  sample.text = fmt::format(
      "The text below is made of coded words and dots. Remember which three coded words stand in "
      "it most often; the dots do not count.\n\n{}",
      fmt::join(words, " "));
  sample.question = "Which three coded words stand most often in the text above? Dots do not count.";
  sample.answer_prefix = "The three coded words that stand most often in the text are:";
  sample.references.assign(vocabulary.begin() + 1, vocabulary.begin() + 4);
  return sample;
}

// ---- Questions about passages among others ----

// Passages beside the question's own, in the order in which they are taken: those of its article before all others.
std::vector<std::string> other_passages(const RulerQuestion& asked, const RulerSources& sources, RandomDraws& draws) {
  const std::set<std::string> golden(asked.golden.begin(), asked.golden.end());
  std::set<size_t> of_article;
  if (asked.article >= 0) {
    const std::vector<size_t>& article = sources.articles.at(static_cast<size_t>(asked.article));
    of_article.insert(article.begin(), article.end());
  }
  std::vector<std::string> near, far;
  for (size_t i = 0; i < sources.passages.size(); ++i) {
    if (golden.count(sources.passages[i]) > 0) continue;
    (of_article.count(i) > 0 ? near : far).push_back(sources.passages[i]);
  }
  draws.shuffle(near);
  draws.shuffle(far);
  near.insert(near.end(), far.begin(), far.end());
  return near;
}

RulerSample passages_sample(int64_t size, const RulerSources& sources, RandomDraws& draws) {
  const RulerQuestion& asked = sources.questions.at(static_cast<size_t>(sources.index) % sources.questions.size());
  std::vector<std::string> passages = asked.golden;
  const std::vector<std::string> others = other_passages(asked, sources, draws);
  if (static_cast<size_t>(size) > others.size()) {
    throw Error(
        ErrorKind::kData,
        fmt::format("the file has {} passages beside those of the question, {} are needed", others.size(), size),
        "ruler, option 'qa_path'", "ask for fewer tokens, or name a file with more passages");
  }
  passages.insert(passages.end(), others.begin(), others.begin() + size);
  draws.shuffle(passages);
  RulerSample sample;
  sample.text = "Answer the question from these documents, with the answer alone and no explanation.";
  for (size_t i = 0; i < passages.size(); ++i) sample.text += fmt::format("\n\nDocument {}:\n{}", i + 1, passages[i]);
  sample.question =
      "Answer from the documents above, with the answer alone and no explanation.\n\nQuestion: " + asked.text;
  sample.answer_prefix = "Answer:";
  sample.references = asked.answers;
  sample.any_reference = true;
  for (const std::string& golden : asked.golden) {
    sample.depth_fractions.push_back(depth_in(sample.text, sample.text.find(golden)));
  }
  return sample;
}

}  // namespace

const std::vector<std::string>& ruler_tasks() {
  static const std::vector<std::string> tasks = {"niah_single_1",
                                                 "niah_single_2",
                                                 "niah_single_3",
                                                 "niah_multikey_1",
                                                 "niah_multikey_2",
                                                 "niah_multikey_3",
                                                 "niah_multivalue",
                                                 "niah_multiquery",
                                                 "vt",
                                                 "cwe",
                                                 "fwe",
                                                 "qa"};
  return tasks;
}

int64_t ruler_answer_tokens(const std::string& task) {
  if (task == "vt") return 30;
  if (task == "cwe") return 120;
  if (task == "fwe") return 50;
  return task == "qa" ? 32 : 128;
}

int64_t ruler_least_size(const std::string& task) {
  if (const NeedleForm* form = needle_form(task)) return form->haystack == HaystackKind::kEssays ? 60 : 2;
  if (task == "vt") return static_cast<int64_t>(kHops) + 1;
  if (task == "cwe") return static_cast<int64_t>(kCommon) + 1;
  return task == "fwe" ? 80 : 0;  // 80: the third coded word stands oftener than the fourth
}

std::string ruler_tracking_example(const std::function<int64_t(std::string_view)>& count_tokens, RandomDraws draws) {
  constexpr int64_t kMostTokens = 500, kAnswerTokens = 30, kStep = 5;  // of the published generator
  const Chain chain = draw_chain(3, draws);
  const auto example = [&](int64_t n_lines) {
    RandomDraws of_lines = draws;
    return fmt::format("{}\n{} {} {}\n\n", tracking_text(chain, n_lines, of_lines), tracking_question(chain),
                       tracking_answer_prefix(chain), fmt::join(chain.names, " "));
  };
  int64_t n_lines = kStep;
  while (count_tokens(example(n_lines + kStep)) + kAnswerTokens <= kMostTokens) n_lines += kStep;
  return example(n_lines);
}

RulerSample ruler_sample(const std::string& task, int64_t size, const RulerSources& sources, RandomDraws draws) {
  if (const NeedleForm* form = needle_form(task)) return needle_sample(*form, size, sources, draws);
  if (task == "vt") return tracking_sample(size, sources, draws);
  if (task == "cwe") return common_words_sample(size, sources, draws);
  if (task == "fwe") return frequent_words_sample(size, sources, draws);
  return passages_sample(size, sources, draws);
}

}  // namespace kvc
