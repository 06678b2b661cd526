// Needles in a haystack: statements such as "The secret code of the castle is 4821." hidden between the sentences of
// real articles, one question for each. The answer stands in the document alone, so that chance is nought, and every
// needle's depth is known. After G. Kamradt, "Needle In A Haystack" (2023), with several needles as in RULER
// (arXiv:2404.06654).

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "datasets/data_file.h"
#include "datasets/needle_text.h"
#include "datasets/quality_file.h"
#include "datasets/random_draws.h"
#include "harness/core/stable_hash.h"

namespace kvc {
namespace {

constexpr int64_t kTextVersion = 1;  // raised when the same options and seed give another text

struct Needle {
  std::string subject;
  std::string code;
  bool asked = true;  // false: a distractor
  std::string stem() const { return "The secret code of the " + subject + " is"; }
  std::string statement() const { return stem() + " " + code + "."; }
};

// Neither in the haystack nor drawn before.
std::string draw_code(const std::string& haystack, std::set<std::string>& codes, RandomDraws& random) {
  std::string code;
  for (int tries = 0; tries < 20000; ++tries) {
    code = std::to_string(1000 + random.below(9000));
    if (haystack.find(code) == std::string::npos && codes.insert(code).second) return code;
  }
  throw Error(ErrorKind::kData, "the articles hold nearly every number from 1000 to 9999", "secret codes of needles",
              "name a file with other articles");
}

// Distinct subjects and codes of which the haystack holds nothing that could answer for them.
std::vector<Needle> draw_needles(int64_t n, const std::string& haystack, RandomDraws& random) {
  std::vector<std::string> subjects = needle_subjects();
  random.shuffle(subjects);
  std::erase_if(subjects, [&](const std::string& subject) {
    return haystack.find("secret code of the " + subject) != std::string::npos;
  });
  std::set<std::string> codes;
  std::vector<Needle> needles;
  for (const std::string& subject : subjects) {
    if (static_cast<int64_t>(needles.size()) == n) break;
    needles.push_back({subject, draw_code(haystack, codes, random)});
  }
  return needles;
}

// Statements that are nearly those of `needles` but answer no question: "... of the old castle is 1234."
std::vector<Needle> draw_distractors(const std::vector<Needle>& needles, int64_t n_each, const std::string& haystack,
                                     RandomDraws& random) {
  std::set<std::string> codes;
  for (const Needle& needle : needles) codes.insert(needle.code);
  std::vector<Needle> list;
  for (const Needle& needle : needles) {
    std::vector<std::string> kinds = needle_kinds();
    random.shuffle(kinds);
    for (int64_t i = 0; i < n_each; ++i) {
      list.push_back({kinds[static_cast<size_t>(i)] + " " + needle.subject, draw_code(haystack, codes, random), false});
    }
  }
  return list;
}

// One needle in each n-th part of the text, somewhere in the middle 70 % of it: even depths that are still not
// periodic.
std::vector<double> draw_depths(int64_t n, RandomDraws& random) {
  std::vector<double> depths;
  for (int64_t i = 0; i < n; ++i) {
    depths.push_back((static_cast<double>(i) + 0.15 + 0.7 * random.unit()) / static_cast<double>(n));
  }
  return depths;
}

struct Composed {
  std::string text;
  std::vector<double> depth_fractions;  // of each needle: bytes before it, of all bytes
};

// The sentences with needle i behind the sentence that ends nearest to depths[i], none before the first or behind the
// last. Needs two sentences; where there are fewer than needles, several needles stand side by side.
Composed compose(const std::vector<std::string>& sentences, const std::vector<Needle>& needles,
                 const std::vector<double>& depths) {
  std::vector<double> ends;
  double total = 0;
  for (const std::string& sentence : sentences) ends.push_back(total += static_cast<double>(sentence.size()));
  std::vector<size_t> after(needles.size());  // needle i stands behind sentence after[i]
  for (size_t i = 0; i < needles.size(); ++i) {
    size_t best = i == 0 ? 0 : after[i - 1];
    while (best + 2 < sentences.size() &&
           std::abs(ends[best + 1] - depths[i] * total) < std::abs(ends[best] - depths[i] * total))
      ++best;
    after[i] = best;
  }
  Composed result;
  std::vector<size_t> starts;
  size_t next = 0;
  for (size_t s = 0; s < sentences.size(); ++s) {
    result.text += sentences[s];
    while (next < needles.size() && after[next] == s) {
      if (result.text.back() != ' ' && result.text.back() != '\n') result.text += ' ';
      const char space = result.text.back();
      starts.push_back(result.text.size());
      result.text += needles[next++].statement() + space;
    }
  }
  while (!result.text.empty() && (result.text.back() == ' ' || result.text.back() == '\n')) result.text.pop_back();
  for (const size_t start : starts) {
    const double fraction = static_cast<double>(start) / static_cast<double>(result.text.size());
    result.depth_fractions.push_back(std::round(fraction * 1e4) / 1e4);
  }
  return result;
}

// Texts of one length from a file of articles.
class Haystack {
 public:
  Haystack(const std::string& path, int64_t tokens) : path_(path), tokens_(tokens) {}

  // Whole articles from the `first` on, round the file at most once, until the length is reached.
  std::string long_enough(const std::vector<Document>& articles, size_t first, const DatasetRequest& request,
                          std::vector<std::string>& titles) const {
    std::string text;
    int64_t n_tokens = 0;
    for (size_t i = 0; i < articles.size() && n_tokens < tokens_; ++i) {
      const Document& article = articles[(first + i) % articles.size()];
      if (!text.empty()) text += "\n\n";
      text += article.text;
      titles.push_back(article.title);
      n_tokens = request.count_tokens(text);
    }
    if (n_tokens < tokens_) {
      throw Error(ErrorKind::kData,
                  fmt::format("all {} articles together have {} tokens, fewer than the {} asked for", articles.size(),
                              n_tokens, tokens_),
                  path_, fmt::format("set tokens to at most {}, or name a file with more articles", n_tokens));
    }
    return text;
  }

  // The haystack's first sentences with the needles in them, of the length asked for. Cut behind a sentence; where the
  // nearest sentence end would miss the length by more than 1 %, behind a word.
  Composed cut_to_length(const std::string& haystack, const std::vector<Needle>& needles,
                         const std::vector<double>& depths, const DatasetRequest& request) const {
    const auto length = [&](const std::vector<std::string>& parts) {
      return request.count_tokens(compose(parts, needles, depths).text);
    };
    std::vector<std::string> parts = split_sentences(haystack);
    constexpr size_t kLeast = 2;
    if (parts.size() < kLeast || length({parts.begin(), parts.begin() + kLeast}) > tokens_) {
      throw Error(ErrorKind::kData,
                  fmt::format("{} needles between two sentences need more than {} tokens", needles.size(), tokens_),
                  path_, "raise tokens or ask for fewer needles");
    }
    const std::vector<std::string> fitting = longest_fitting(parts, {}, kLeast, length);
    Composed best = compose(fitting, needles, depths);
    if (!within(request.count_tokens(best.text), 0.01) && fitting.size() < parts.size()) {
      best = compose(longest_fitting(split_words(parts[fitting.size()]), fitting, 0, length), needles, depths);
    }
    if (const int64_t n = request.count_tokens(best.text); !within(n, 0.02)) {
      throw Error(ErrorKind::kData, fmt::format("a text of {} tokens cannot be cut nearer than {}", tokens_, n), path_,
                  "raise tokens");
    }
    return best;
  }

 private:
  bool within(int64_t n_tokens, double share) const {
    const auto wanted = static_cast<double>(tokens_);
    return std::abs(static_cast<double>(n_tokens) - wanted) <= std::max(share * wanted, 2.0);
  }

  // `head` and as many of `parts` as stay within the length, at least `least`. Parts behind a head are joined into one.
  template <class Length>
  std::vector<std::string> longest_fitting(const std::vector<std::string>& parts, const std::vector<std::string>& head,
                                           size_t least, const Length& length) const {
    const auto first = [&](size_t n) {
      std::vector<std::string> list = head;
      if (head.empty()) {
        list.assign(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(n));
      } else if (n > 0) {
        list.push_back(fmt::format("{}", fmt::join(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(n), "")));
      }
      return list;
    };
    size_t low = least;
    size_t high = parts.size();
    while (low < high) {
      const size_t middle = low + (high - low + 1) / 2;
      if (length(first(middle)) <= tokens_) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return first(low);
  }

  const std::string& path_;
  int64_t tokens_;
};

std::vector<Question> questions_of(const std::string& id, const std::vector<Needle>& needles,
                                   const Composed& composed) {
  std::vector<Question> questions;
  for (size_t i = 0; i < needles.size(); ++i) {
    if (!needles[i].asked) continue;
    Question question;
    question.id = id + "_" + needles[i].subject;
    question.text = "What is the secret code of the " + needles[i].subject + "?";
    question.gold_answer = needles[i].code;
    question.answer_prefix = needles[i].stem();
    question.extra["depth_fraction"] = composed.depth_fractions[i];
    questions.push_back(std::move(question));
  }
  return questions;
}

class NeedleHaystack final : public Dataset {
 public:
  struct Options {
    std::string path = kQualitySample;
    int64_t documents = 2;
    int64_t tokens = 2500;
    int64_t needles = 6;

    void fields(auto&& visit) {
      visit("path", path, "QuALITY JSONL file (v1.0.1, html-stripped) whose articles are the haystack",
            named("a QuALITY JSONL file"));
      visit("documents", documents, "documents to make, each from another article while there are enough",
            between(1, 100000));
      visit("tokens", tokens, "length of a document in tokens of the model, needles included", at_least(64));
      visit("needles", needles, "hidden statements in each document, with one question each",
            between(1, static_cast<double>(needle_subjects().size())));
    }
  };

  explicit NeedleHaystack(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& request) const override {
    if (!request.count_tokens) {
      throw Error(ErrorKind::kInternal, "needle needs count_tokens", "", "give DatasetRequest::count_tokens");
    }
    const std::vector<Document> articles = read_quality_file(options_.path);
    std::vector<Document> documents;
    for (int64_t i = 0; i < options_.documents; ++i) documents.push_back(make(articles, i, request));
    return documents;
  }

  Json identity() const override {
    Json identity = data_file_identity(options_.path);
    identity["text_version"] = kTextVersion;
    return identity;
  }

 private:
  Document make(const std::vector<Document>& articles, int64_t index, const DatasetRequest& request) const {
    const std::string id = fmt::format("needle_{}", index + 1);
    RandomDraws random(derive_seed(request.seed, id));
    std::vector<std::string> titles;
    const Haystack texts(options_.path, options_.tokens);
    const std::string haystack = texts.long_enough(articles, static_cast<size_t>(index), request, titles);
    const std::vector<Needle> needles = draw_needles(options_.needles, haystack, random);
    const std::vector<double> depths = draw_depths(options_.needles, random);
    const Composed composed = texts.cut_to_length(haystack, needles, depths, request);
    return {id, fmt::format("{} needles in: {}", needles.size(), fmt::join(titles, " / ")), composed.text,
            questions_of(id, needles, composed)};
  }

  Options options_;
};

KVC_REGISTER_DATASET(NeedleHaystack, "needle", "needle in a haystack (Kamradt 2023; RULER, arXiv:2404.06654)");

// The same by a plan: documents of every length of a grid, with a needle at every depth of a grid, and statements that
// are nearly the needles'.
class NeedleGrid final : public Dataset {
 public:
  struct Options {
    std::string path = kQualitySample;
    int64_t documents = 2;
    std::vector<int64_t> lengths = {1000, 2000, 4000};
    std::vector<int64_t> depths = {0, 25, 50, 75, 100};
    int64_t distractors = 0;

    void fields(auto&& visit) {
      visit("path", path, "QuALITY JSONL file (v1.0.1, html-stripped) whose articles are the haystack",
            named("a QuALITY JSONL file"));
      visit("documents", documents, "documents of each length, each from another article while there are enough",
            between(1, 10000));
      visit("lengths", lengths, "lengths of documents in tokens of the model, needles included", at_least(64));
      visit("depths", depths, "places of the needles in per cent of a document, one needle and question at each",
            between(0, 100));
      visit("distractors", distractors, "for each needle, statements of nearly the same subject with other codes",
            between(0, static_cast<double>(needle_kinds().size())));
    }
    void check(const OptionCheck& fail) const {
      if (lengths.empty() || lengths.size() > 100)
        return fail("lengths", fmt::format("must be 1 to 100 lengths; got {}", lengths.size()),
                    "default: [1000, 2000]");
      if (depths.empty() || depths.size() > 100)
        return fail("depths", fmt::format("must be 1 to 100 depths; got {}", depths.size()),
                    "default: [0, 25, 50, 75, 100]");
      for (const int64_t length : lengths) {
        if (std::count(lengths.begin(), lengths.end(), length) > 1)
          return fail("lengths", fmt::format("holds {} twice", length), "keep one of them");
      }
      for (size_t i = 1; i < depths.size(); ++i) {
        if (depths[i] <= depths[i - 1]) return fail("depths", "must rise", "write [0, 25, 50, 75, 100]");
      }
    }
  };

  explicit NeedleGrid(Options options) : options_(std::move(options)) {}

  std::vector<Document> load(const DatasetRequest& request) const override {
    if (!request.count_tokens) {
      throw Error(ErrorKind::kInternal, "needle_grid needs count_tokens", "", "give DatasetRequest::count_tokens");
    }
    const std::vector<Document> articles = read_quality_file(options_.path);
    std::vector<Document> documents;
    for (const int64_t length : options_.lengths) {
      for (int64_t i = 0; i < options_.documents; ++i) documents.push_back(make(articles, length, i, request));
    }
    return documents;
  }

  Json identity() const override {
    Json identity = data_file_identity(options_.path);
    identity["text_version"] = kTextVersion;
    return identity;
  }

 private:
  // Needles are the same at every length of a document's number: what differs is the length alone.
  Document make(const std::vector<Document>& articles, int64_t length, int64_t index,
                const DatasetRequest& request) const {
    RandomDraws random(derive_seed(request.seed, fmt::format("needle_grid_{}", index + 1)));
    const std::string id = fmt::format("needle_{}_{}", length, index + 1);
    const int64_t longest = *std::max_element(options_.lengths.begin(), options_.lengths.end());
    std::vector<std::string> titles;
    const auto first = static_cast<size_t>(index);
    const std::string all = Haystack(options_.path, longest).long_enough(articles, first, request, titles);
    std::vector<Needle> needles = draw_needles(static_cast<int64_t>(options_.depths.size()), all, random);
    const std::vector<Needle> distractors = draw_distractors(needles, options_.distractors, all, random);
    std::vector<std::pair<double, Needle>> placed;
    for (size_t i = 0; i < needles.size(); ++i)
      placed.emplace_back(static_cast<double>(options_.depths[i]) / 100, needles[i]);
    for (const Needle& distractor : distractors) placed.emplace_back(random.unit(), distractor);
    std::stable_sort(placed.begin(), placed.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    needles.clear();
    std::vector<double> depths;
    for (const auto& [depth, needle] : placed) {
      depths.push_back(depth);
      needles.push_back(needle);
    }
    const Composed composed = Haystack(options_.path, length).cut_to_length(all, needles, depths, request);
    Document document{id,
                      fmt::format("{} needles and {} distractors in: {}", options_.depths.size(), distractors.size(),
                                  fmt::join(titles, " / ")),
                      composed.text, questions_of(id, needles, composed)};
    size_t next = 0;
    for (Question& question : document.questions) {
      question.extra["depth_asked"] = static_cast<double>(options_.depths[next++]) / 100;
      question.extra["length_asked"] = length;
      question.extra["distractors"] = options_.distractors;
    }
    return document;
  }

  Options options_;
};

KVC_REGISTER_DATASET(NeedleGrid, "needle_grid", "needles by length and depth (Kamradt 2023; RULER, arXiv:2404.06654)");

}  // namespace
}  // namespace kvc
