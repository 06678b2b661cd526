#include "harness/head_budgets/streaming_gates.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "harness/api/context.h"
#include "harness/core/error.h"

namespace kvc {
namespace {

at::Tensor gates_of_one(const DecoderSpec& spec) {
  const c10::InferenceMode tracking(false);
  return at::ones({spec.n_layers, spec.n_kv_heads}, at::TensorOptions(at::kDouble)).requires_grad_(true);
}

Json numbers_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().to(at::kCPU, at::kDouble).contiguous().flatten();
  return std::vector<double>(flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel());
}

std::string right_answer(const Question& question) {
  if (!question.gold_answer.empty()) return question.gold_answer;
  if (!question.gold_option) return "";
  return question.options.at(static_cast<size_t>(*question.gold_option));
}

// Of what the answers' tokens see, a streaming head should miss this part at least, or its gate tells little.
constexpr double kLeastHidden = 0.5;

int64_t window_of(const GateSettings& settings) {
  return settings.n_sink + settings.n_recent;
}

std::string longer_texts(const GateSettings& settings) {
  return fmt::format("take documents of {} tokens or more, or smaller --sink and --recent",
                     std::llround(static_cast<double>(window_of(settings)) / (1 - kLeastHidden)));
}

// A step of Adam is as long as the rate while the gradient keeps its direction.
double longest_way(const GateSettings& settings) {
  double way = 0;
  for (int64_t step = 0; step < settings.steps; ++step) way += settings.rate_of(step);
  return way;
}

}  // namespace

double GateSettings::rate_of(int64_t step) const {
  const double fifth = std::max(1.0, std::floor(static_cast<double>(steps) / 5));
  const double rising = static_cast<double>(step + 1) / fifth, falling = static_cast<double>(steps - step) / fifth;
  return learning_rate * std::min({1.0, std::max(rising, 0.1), std::max(falling, 0.1)});
}

Json GateSettings::to_json() const {
  return {{"n_sink", n_sink},
          {"n_recent", n_recent},
          {"steps", steps},
          {"learning_rate", learning_rate},
          {"penalty", penalty}};
}

GateText gate_text(const Model& model, const Document& document) {
  GateText text;
  text.tokens = make_context(model, document.text).tokens;
  for (const Question& question : document.questions) {
    std::string answer = right_answer(question);
    if (answer.empty()) continue;
    if (!question.answer_prefix.empty()) answer.insert(0, " ");
    const std::vector<int64_t> prompt = make_question_prompt(model, question.text, question.answer_prefix);
    text.tokens.insert(text.tokens.end(), prompt.begin(), prompt.end());
    for (const int64_t token : model.tokenizer().encode_text(answer)) {
      text.rows.push_back(static_cast<int64_t>(text.tokens.size()));
      text.tokens.push_back(token);
    }
  }
  if (text.rows.empty()) {
    throw Error(ErrorKind::kData, "the document has no question with a right answer", "document " + document.id,
                "heads are compared by what right answers need: take a data set that has them");
  }
  return text;
}

double hidden_share(const std::vector<GateText>& texts, const GateSettings& settings) {
  double sum = 0;
  for (const GateText& text : texts) {
    int64_t hidden = 0, seen = 0;
    for (const int64_t row : text.rows) {
      hidden += std::max<int64_t>(0, row + 1 - window_of(settings));
      seen += row + 1;
    }
    sum += static_cast<double>(hidden) / static_cast<double>(seen);
  }
  return sum / static_cast<double>(texts.size());
}

void check_gate_texts(const std::vector<GateText>& texts, const GateSettings& settings) {
  if (hidden_share(texts, settings) > 0) return;
  int64_t most = 0;
  for (const GateText& text : texts) most = std::max(most, text.rows.back() + 1);
  throw Error(ErrorKind::kUsage,
              fmt::format("a streaming head keeps {} entries, and an answer's token sees {} at most: no gate decides "
                          "anything",
                          window_of(settings), most),
              "--recent", longer_texts(settings));
}

std::vector<std::string> gate_warnings(const std::vector<GateText>& texts, const GateSettings& settings) {
  std::vector<std::string> warnings;
  if (const double hidden = hidden_share(texts, settings); hidden < kLeastHidden) {
    warnings.push_back(fmt::format(
        "of what an answer's token sees, a streaming head of {} entries misses {:.2g} % only: the gates tell "
        "more of the penalty and the number of steps than of the heads; {}",
        window_of(settings), 100 * hidden, longer_texts(settings)));
  }
  if (const double way = longest_way(settings); way < 0.5) {
    GateSettings more = settings;
    while (longest_way(more) < 0.5 && more.steps < 100000) ++more.steps;
    warnings.push_back(
        fmt::format("in {} steps a gate falls by {:.2g} at most, so that none can come below a half; take "
                    "--steps {} or more",
                    settings.steps, way, more.steps));
  }
  return warnings;
}

GateTraining::GateTraining(const Decoder& decoder, const GateSettings& settings, at::ScalarType dtype)
    : original_(decoder),
      settings_(settings),
      decoder_(decoder, dtype),
      gates_(gates_of_one(decoder.spec())),
      adam_({gates_}) {
  const c10::InferenceMode tracking(false);
  const at::Tensor none = at::empty({0, decoder.spec().head_dim}, decoder.options().dtype(dtype));
  nothing_before_.resize(static_cast<size_t>(decoder.spec().n_kv_heads), {none, none, {}});
}

StreamingMix GateTraining::mix(int64_t layer) const {
  return {gates_.select(0, layer).to(original_.options().device()), settings_.n_sink, settings_.n_recent};
}

// What every layer reads, and what the last one writes.
std::vector<at::Tensor> GateTraining::states(const GateText& text, bool mixed) const {
  const c10::AutoGradMode off(false);
  std::vector<at::Tensor> list = {decoder_.embed(text.tokens)};
  for (int64_t l = 0; l < decoder_.spec().n_layers; ++l) {
    const StreamingMix own = mix(l);
    list.push_back(decoder_.run_layer(l, list.back(), nothing_before_, 0, mixed ? &own : nullptr));
  }
  return list;
}

at::Tensor GateTraining::ends(const at::Tensor& hidden, const GateText& text) const {
  const at::Tensor rows = at::tensor(text.rows, at::kLong).to(hidden.device());
  return at_least_float(decoder_.final_norm(hidden.index_select(0, rows)));
}

void GateTraining::read_as_it_is(GateText& text) const {
  const c10::InferenceMode tracking(false);
  const c10::AutoGradMode off(false);
  text.wanted = ends(states(text, false).back(), text);
}

double GateTraining::distance(const GateText& text) const {
  const c10::InferenceMode tracking(false);
  const c10::AutoGradMode off(false);
  return (ends(states(text, true).back(), text) - text.wanted).square().mean().item<double>();
}

// Keeps what each layer reads and computes the layers again one by one: memory of one layer, not of all.
double GateTraining::accumulate(const GateText& text) {
  const c10::InferenceMode tracking(false);
  std::vector<at::Tensor> inputs = states(text, true);
  const c10::AutoGradMode on(true);
  const auto leaf = [](const at::Tensor& tensor) { return tensor.detach().requires_grad_(true); };
  at::Tensor input = leaf(inputs.back());
  const at::Tensor distance = (ends(input, text) - text.wanted).square().mean();
  distance.backward();
  for (int64_t l = decoder_.spec().n_layers - 1; l >= 0; --l) {
    const at::Tensor gradient = input.grad();
    inputs.pop_back();
    input = l > 0 ? leaf(inputs.back()) : inputs.back();  // nothing is asked of the embedding
    const StreamingMix own = mix(l);
    decoder_.run_layer(l, input, nothing_before_, 0, &own).backward(gradient);
  }
  return distance.item<double>();
}

void GateTraining::step() {
  const c10::InferenceMode tracking(false);
  const c10::AutoGradMode off(false);
  at::Tensor gradient = gates_.grad();
  gradient.add_(gates_.detach().sign(), settings_.penalty);
  adam_.step(settings_.rate_of(steps_made_));
  gates_.detach().clamp_(0, 1);
  ++steps_made_;
}

Json GateTraining::state() const {
  return {{"step", steps_made_},
          {"gates", numbers_of(gates_)},
          {"means", numbers_of(adam_.means().front())},
          {"squares", numbers_of(adam_.squares().front())}};
}

void GateTraining::restore(const Json& state, const std::string& where) {
  const c10::InferenceMode tracking(false);
  const c10::AutoGradMode off(false);
  const auto read = [&](const char* name) {
    const Json list = state.is_object() ? state.value(name, Json()) : Json();
    const bool fits = list.is_array() && static_cast<int64_t>(list.size()) == gates_.numel() &&
                      std::all_of(list.begin(), list.end(), [](const Json& one) { return one.is_number(); });
    if (!fits)
      throw Error(ErrorKind::kData, fmt::format("'{}' is not of {} heads", name, gates_.numel()), where,
                  "delete the file; the command begins anew");
    return at::tensor(list.get<std::vector<double>>(), at::TensorOptions(at::kDouble)).view(gates_.sizes());
  };
  const at::Tensor gates = read("gates"), means = read("means"), squares = read("squares");
  const Json step = state.value("step", Json());
  if (!step.is_number_integer() || step < 0)
    throw Error(ErrorKind::kData, "'step' must be a number of steps", where,
                "delete the file; the command begins anew");
  gates_.detach().copy_(gates);
  steps_made_ = step.get<int64_t>();
  adam_.restore({means.clone()}, {squares.clone()}, steps_made_);
}

std::string gates_as_tsv(const at::Tensor& gates) {
  std::string text;
  for (int64_t l = 0; l < gates.size(0); ++l) {
    for (int64_t h = 0; h < gates.size(1); ++h)
      text += fmt::format("{}{:.6f}", h == 0 ? "" : "\t", gates[l][h].item<double>());
    text += '\n';
  }
  return text;
}

}  // namespace kvc
