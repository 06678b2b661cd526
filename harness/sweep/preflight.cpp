#include "harness/sweep/preflight.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sstream>

#include "harness/api/context.h"
#include "harness/core/count.h"
#include "harness/core/stable_hash.h"
#include "harness/core/text_file.h"
#include "harness/model/families/inspect.h"
#include "harness/sweep/document_run.h"
#include "harness/text/chat_template.h"
#include "harness/text/tokenizer/load_tokenizer.h"

namespace kvc {
namespace {

// A model's headers, as far as they could be read.
struct Header {
  const SweepModel* model = nullptr;
  std::string name;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;
  int64_t max_positions = 0;
};

constexpr const char* kOtherTask =
    "choose another task for this data: multiple_choice needs options, exact_match answers, published_score a "
    "published benchmark, string_match RULER, side_effects the data set of that name";

class Checker {
 public:
  explicit Checker(const SweepConfig& config) : config_(config) {
    for (const Json& task : config.tasks) tasks_.push_back(config.plugins->get<Task>(task));
    askable_.assign(tasks_.size(), false);
    for (const SweepMethod& method : config.methods) {
      for (const Json& queries : method.queries)
        repeats_ |= queries.is_object() && queries.at("name") == "repeat_prefill";
    }
  }

  Preflight run(const std::vector<Problem>& of_files) {
    found_.problems = of_files;
    for (const SweepModel& model : config_.models) guarded(model.config.path, [&] { read_header(model); });
    for (const Json& dataset : config_.datasets) guarded(dataset.at("name"), [&] { check_dataset(dataset); });
    for (size_t i = 0; i < tasks_.size(); ++i) {
      if (askable_[i] || config_.datasets.empty() || n_loaded_ < config_.datasets.size()) continue;
      add(fmt::format("no data set has a question for task {}", config_.tasks[i].at("name").get<std::string>()), "task",
          kOtherTask);
    }
    return std::move(found_);
  }

  std::vector<ModelProblems> run_models() {
    std::vector<ModelProblems> list;
    for (const SweepModel& model : config_.models) {
      found_ = {};
      guarded(model.config.path, [&] { read_header(model); });
      list.push_back({&model, std::move(found_.problems)});
    }
    return list;
  }

 private:
  void add(const std::string& fact, const std::string& where, const std::string& mend) {
    found_.problems.push_back({fact, fmt::format("{}, {}", config_.path, where), mend});
  }

  template <class What>
  void guarded(const std::string& subject, const What& what) {
    try {
      what();
    } catch (const Error& error) {
      if (error.where().empty())
        add(error.fact(), subject, error.mend());
      else
        found_.problems.push_back({error.fact(), error.where(), error.mend()});
    }
  }

  void read_header(const SweepModel& model) {
    const std::string& path = model.config.path;
    const ModelFacts facts = inspect_model(path);
    if (!facts.weight_problem.empty()) add(facts.weight_problem, "model " + path, "see kvc inspect " + path);
    Header header = header_of(model, facts.spec);
    found_.facts.push_back(fmt::format("{}: {}, {:.1f} M parameters, {} positions", header.name, facts.architecture,
                                       static_cast<double>(facts.parameters) / 1e6, facts.spec.max_positions));
    check_rows(header, facts.spec);
    headers_.push_back(std::move(header));
  }

  static Header header_of(const SweepModel& model, const DecoderSpec& spec) {
    const std::string& path = model.config.path;
    Header header{&model, last_name(path), load_tokenizer(path), load_chat_template(path, model.config.chat_template),
                  spec.max_positions};
    if (!model.config.rope_scaling.empty()) header.max_positions = std::numeric_limits<int64_t>::max();
    return header;
  }

  // What fails on every document of that model.
  void check_rows(const Header& header, const DecoderSpec& spec) {
    check_byte_targets(header, spec);
    check_budget_files(header, spec);
    check_calibration_texts(header);
  }

  // A target in bytes below what the template's entries and one entry of each head take fails on every document.
  void check_byte_targets(const Header& header, const DecoderSpec& spec) {
    std::map<int64_t, std::string> asked;  // and how it is written
    for (const SweepMethod& method : config_.methods) {
      for (const std::optional<TargetSize>& target : method.targets) {
        if (!target || target->unit != TargetSize::Unit::kBytes) continue;
        const auto written = config_.written_bytes.find(target->bytes);
        asked[target->bytes] = written == config_.written_bytes.end() ? target->text() : written->second;
      }
    }
    if (asked.empty()) return;
    const bool two_bytes = header.model->config.dtype != "float32";  // auto may be either: the smaller of the two
    const int64_t entry_bytes = 2 * spec.head_dim * (two_bytes ? 2 : 4);
    const int64_t n_heads = spec.n_layers * spec.n_kv_heads;
    const Context context = make_context(*header.tokenizer, *header.chat_template, header.max_positions, "x");
    const int64_t of_template = static_cast<int64_t>(context.tokens.size()) - context.article_len();
    const int64_t offsets = (n_heads + spec.n_layers) * static_cast<int64_t>(sizeof(int64_t));
    const int64_t least = n_heads * (1 + of_template) * entry_bytes + offsets;
    for (const auto& [bytes, written] : asked) {
      if (bytes >= least) continue;
      add(fmt::format("a target of {} is too small for {}: the smallest cache has {} bytes: {} heads x {} entries "
                      "({} of the template and one of the document) x {} bytes + {} bytes of offsets",
                      written, header.name, least, n_heads, 1 + of_template, of_template, entry_bytes, offsets),
          "target", fmt::format("write \"{} B\" or more", least));
    }
  }

  // A budget's file that was made for another model fails on every document. Targets that are no fraction of the
  // document are not tried.
  void check_budget_files(const Header& header, const DecoderSpec& spec) {
    constexpr int64_t kSomeLength = 1000;
    const HeadTable<int64_t> source_len(spec.n_layers,
                                        std::vector<int64_t>(static_cast<size_t>(spec.n_kv_heads), kSomeLength));
    std::set<std::string> seen;
    for (const SweepMethod& method : config_.methods) {
      for (const Json& budget : method.budgets) {
        if (!budget.is_object() || !budget.contains("file")) continue;
        if (!seen.insert(canonical_json(budget)).second) continue;
        TargetSize half;
        half.unit = TargetSize::Unit::kFraction;
        half.fraction = 0.5;
        try {
          config_.plugins->get<BudgetRule>(budget)->spread({half, source_len});
        } catch (const Error& error) {
          add(error.fact(), fmt::format("budget {} on model {}", budget.at("file").get<std::string>(), header.name),
              error.mend());
        }
      }
    }
  }

  // Tokens that a method, or the one whose scores it takes, wants from the end of what its queries read.
  static int64_t window_of(const Json& method) {
    int64_t window =
        method.contains("window") && method.at("window").is_number_integer() ? method.at("window").get<int64_t>() : 0;
    if (method.contains("scores") && method.at("scores").is_object())
      window = std::max(window, window_of(method.at("scores")));
    return window;
  }

  // The widest window over queries of that source; 0: none.
  int64_t widest_window(const std::string& source) const {
    int64_t widest = 0;
    for (const SweepMethod& method : config_.methods) {
      for (const Json& queries : method.queries) {
        if (queries.is_object() && queries.at("name") == source) widest = std::max(widest, window_of(method.method));
      }
    }
    return widest;
  }

  void check_calibration_texts(const Header& header) {
    const int64_t window = widest_window("calibration_text");
    std::set<std::string> seen;
    for (const SweepMethod& method : config_.methods) {
      for (const Json& queries : method.queries) {
        if (!queries.is_object() || queries.at("name") != "calibration_text") continue;
        const auto file = queries.at("file").get<std::string>();
        if (!seen.insert(canonical_json(queries)).second) continue;
        const auto n = std::min(static_cast<int64_t>(header.tokenizer->encode_text(read_utf8_file(file)).size()),
                                queries.at("tokens").get<int64_t>());
        const int64_t least = std::max<int64_t>(2, window);
        if (n >= least) continue;
        add(fmt::format("the calibration text has {} tokens of {}; a method's window needs {}", n, header.name, least),
            "queries, file " + file, "take a longer text, or a smaller window");
      }
    }
  }

  void check_dataset(const Json& dataset) {
    const std::string name = dataset.at("name");
    const auto count_tokens = [&](std::string_view text) {
      return headers_.empty() ? count_words(text)
                              : static_cast<int64_t>(headers_.front().tokenizer->encode_text(text).size());
    };
    const auto loader = config_.plugins->get<Dataset>(dataset);
    const auto documents = loader->load({config_.seeds.front(), count_tokens});
    if (documents.empty())
      add("the data set has no documents", "dataset " + name, "see its options: kvc list datasets " + name);
    size_t questions = 0;
    for (const Document& document : documents) questions += document.questions.size();
    found_.facts.push_back(fmt::format("{}: {}, {}", name, count(std::ssize(documents), "document"),
                                       count(static_cast<int64_t>(questions), "question")));
    for (const std::string& note : loader->notes()) found_.facts.push_back(fmt::format("{}: note: {}", name, note));
    check_tasks(documents, name);
    ++n_loaded_;
    const bool reads_documents =
        std::any_of(tasks_.begin(), tasks_.end(), [](const auto& task) { return !task->compacts_online(); });
    for (const Header& header : headers_) {
      if (reads_documents) check_positions(header, documents, name);
    }
  }

  // A task that suits one data set and not another is no mistake: those cells are left out.
  void check_tasks(const std::vector<Document>& documents, const std::string& dataset) {
    bool any = documents.empty();
    for (size_t i = 0; i < tasks_.size(); ++i) {
      const bool asks = std::any_of(documents.begin(), documents.end(), [&](const Document& document) {
        return !accepted_questions(*tasks_[i], document).empty();
      });
      if (!asks) {
        found_.facts.push_back(fmt::format("{}: no question for task {}; these cells are left out", dataset,
                                           config_.tasks[i].at("name").get<std::string>()));
      }
      askable_[i] = askable_[i] || asks;
      any = any || asks;
    }
    if (!any) add(fmt::format("no task can ask a question of data set {}", dataset), "dataset " + dataset, kOtherTask);
  }

  void check_positions(const Header& header, const std::vector<Document>& documents, const std::string& dataset) {
    std::optional<Error> first;
    size_t failing = 0;
    for (const Document& document : documents) {
      try {
        const Context context =
            make_context(*header.tokenizer, *header.chat_template, header.max_positions, document.text);
        const int64_t window = widest_window("context_prefill");
        const int64_t n_read = static_cast<int64_t>(context.tokens.size()) - context.prefix_len;
        if (n_read < window) {
          throw Error(
              ErrorKind::kData,
              fmt::format("document '{}' has {} tokens; a method's window needs {}", document.id, n_read, window), "",
              "write a smaller window, or take longer documents");
        }
        const auto twice = static_cast<int64_t>(context.tokens.size()) + context.article_len();
        if (!repeats_ || twice <= header.max_positions) continue;
        throw Error(ErrorKind::kData,
                    fmt::format("document '{}' needs at least {} positions with repeat_prefill; the model has {}",
                                document.id, twice, header.max_positions),
                    "", "use queries: context_prefill, shorter documents, or a model with more positions");
      } catch (const Error& error) {
        if (++failing == 1) first = error;
      }
    }
    if (!first) return;
    const std::string fact = failing == 1 ? first->fact()
                                          : fmt::format("{} of {} documents will fail; the first: {}", failing,
                                                        documents.size(), first->fact());
    add(fact, fmt::format("data set {} on model {}", dataset, header.name), first->mend());
  }

  const SweepConfig& config_;
  std::vector<std::shared_ptr<const Task>> tasks_;
  std::vector<bool> askable_;  // by task: whether any data set has a question for it
  size_t n_loaded_ = 0;
  std::vector<Header> headers_;
  bool repeats_ = false;
  Preflight found_;
};

}  // namespace

Preflight check_sweep(const SweepConfig& config, const std::vector<Problem>& of_files) {
  return Checker(config).run(of_files);
}

std::vector<ModelProblems> check_models(const SweepConfig& config) {
  return Checker(config).run_models();
}

int64_t count_words(std::string_view text) {
  std::istringstream words{std::string(text)};
  std::string word;
  int64_t count = 0;
  while (words >> word) ++count;
  return count;
}

}  // namespace kvc
