// Synthetic records of realistic shape for the tests of the report: a small sweep whose accuracies fall and whose KL
// rises with the ratio.
#pragma once

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "harness/core/stable_hash.h"
#include "harness/sweep/record.h"

namespace kvc::test_records {

struct Shape {
  std::vector<std::pair<Json, double>> methods = {  // and how much each loses, 0..1
      {Json{{"name", "attention_matching"}, {"bias", "nnls"}, {"values", "least_squares"}}, 0.16},
      {Json{{"name", "attention_matching"}, {"bias", "none"}, {"values", "least_squares"}}, 0.24},
      {Json{{"name", "h2o"}, {"n_sink", 4}}, 0.30},
      {Json{{"name", "snapkv"}, {"window", 64}, {"kernel", 7}}, 0.45},
      {Json{{"name", "streaming_llm"}, {"n_sink", 4}}, 0.62},
      {Json{{"name", "random_keys"}}, 0.85}};
  std::vector<double> targets = {0.5, 0.2, 0.1, 0.05, 0.02};
  int n_documents = 2;
  bool references = true;  // full_cache and no_context
  bool needle = true;
  bool kl_is_zero = false;
};

// `n` methods of growing loss, named as long as real ones are.
inline Shape many_methods(int n, int n_documents) {
  Shape shape;
  shape.methods.clear();
  const char* const names[] = {"attention_matching",
                               "kvzip",
                               "expected_attention",
                               "snapkv",
                               "h2o",
                               "tova",
                               "keydiff",
                               "key_norm",
                               "streaming_llm",
                               "cam",
                               "d2o",
                               "cartridge"};
  for (int i = 0; i < n; ++i) {
    Json method = Json{{"name", names[i % 12]}};
    if (i % 12 < 5) method["score"] = i < 12 ? "rms" : "mean";
    if (i >= 12) method["n_sink"] = i;
    shape.methods.emplace_back(method, 0.1 + 0.8 * i / n);
  }
  shape.n_documents = n_documents;
  return shape;
}

struct Level {
  double loss;  // 0 = full cache, 1 = no context
  double kept;
};

inline Json answer(const std::string& task, int i, const Level& level, bool kl_is_zero, std::mt19937_64& random) {
  const auto uniform = [&] { return static_cast<double>(random() >> 11) * 0x1p-53; };
  Json json = Json{{"question_id", "q" + std::to_string(i)}, {"n_options", 4}, {"extra", Json::object()}};
  if (task == "likelihood") {
    const bool right = uniform() < 0.47 - 0.22 * level.loss;
    json["gold_option"] = i % 4;
    json["option_tokens"] = {5, 8, 6, 7};
    json["option_log_likelihood"] = {-15.0, -24.0, -18.0, -21.0};
    json["option_log_likelihood"][static_cast<size_t>(right ? i % 4 : (i + 1) % 4)] = -5.0;
  } else if (task == "exact_match") {
    const bool right = uniform() < 0.83 * (1 - level.loss);
    json["gold_answer"] = "4821";
    json["text"] = right ? "The secret code is 4821." : "The secret code is 1234.";
    json["stop_reason"] = "end";
    json["n_tokens"] = 8;
  } else {
    const double kl = kl_is_zero ? 0 : 0.58 * level.loss * (0.6 + 0.8 * uniform());
    json["n_tokens"] = 16;
    json["kl_sum"] = 16 * kl;
    json["log_likelihood_sum"] = -16 * (0.4 + 0.8 * kl);
    json["top_agreement"] = static_cast<int>(std::lround(16 * (1 - 0.7 * level.loss)));
  }
  return json;
}

inline Record record(const Json& cell, int document, const Level& level, const Shape& shape, std::mt19937_64& random) {
  Record r;
  r.cell = cell;
  r.cell_id = stable_hash(canonical_json(cell));
  const bool needle = cell.at("dataset").at("name") == "needle";
  r.document_id = needle ? "needle-" + std::to_string(document) : std::to_string(20000 + document);
  r.status = "done";
  r.provenance = Json{{"kvc_version", "0.1.0"}, {"threads", 2}, {"started_at", "2026-01-01T00:00:00Z"}};
  const double tokens = needle ? 2500 + document % 3 : 2900 + 30 * document, before = 30 * 3 * (tokens + 40) * 256;
  r.sizes = Json{{"context_tokens", tokens + 40},
                 {"compactable_tokens", tokens},
                 {"kept_fraction", level.kept},
                 {"bytes_before", before},
                 {"bytes_after", 30 * 3 * (level.kept * tokens + 40) * 260},
                 {"head_len_min", std::floor(level.kept * tokens) + 40},
                 {"head_len_mean", level.kept * tokens + 40},
                 {"head_len_max", std::floor(level.kept * tokens) + 41}};
  r.seconds = Json{{"prefill_s", 2.0 + document}, {"queries_s", cell.at("queries").is_null() ? 0.0 : 3.0},
                   {"compaction_shared_s", 0.5},  {"compaction_s", 0.25},
                   {"reference_s", 1.0},          {"ask_s", 0.75}};
  const std::string task = cell.at("task").at("name");
  const int n = needle ? 6 : document % 2 == 0 ? 17 : 10;
  for (int i = 0; i < n; ++i) {
    r.answers.push_back(answer(task, i, level, shape.kl_is_zero, random));
    if (needle) r.answers.back()["extra"]["depth_fraction"] = (i + 0.1 + 0.2 * (document % 4)) / n;
  }
  return r;
}

inline std::vector<Record> make(const Shape& shape) {
  std::mt19937_64 random(7);
  std::vector<Record> records;
  const auto add = [&](const Json& dataset, const char* task, const Json& method, const Json& target,
                       const Level& level) {
    const std::string name = method.at("name");
    const bool plain = name == "full_cache" || name == "no_context" || name == "random_keys" || name == "streaming_llm";
    const Json cell =
        Json{{"model", {{"name", "smollm2-135m-instruct.gguf"}, {"dtype", "bfloat16"}, {"chat_template", "auto"}}},
             {"dataset", dataset},
             {"task", {{"name", task}}},
             {"queries", plain ? Json(nullptr) : Json{{"name", "repeat_prefill"}, {"max_queries", 4096}}},
             {"method", method},
             {"target", target},
             {"seed", 7}};
    for (int document = 0; document < shape.n_documents; ++document)
      records.push_back(record(cell, document, level, shape, random));
  };
  std::vector<std::pair<Json, std::vector<const char*>>> asked = {
      {Json{{"name", "quality"}, {"articles", "all"}}, {"likelihood", "fidelity"}}};
  if (shape.needle) asked.push_back({Json{{"name", "needle"}, {"tokens", 2500}}, {"exact_match", "fidelity"}});
  for (const auto& [dataset, tasks] : asked) {
    for (const char* task : tasks) {
      if (shape.references) add(dataset, task, Json{{"name", "full_cache"}}, nullptr, {0, 1});
      if (shape.references) add(dataset, task, Json{{"name", "no_context"}}, nullptr, {1, 0});
      for (const auto& [method, weakness] : shape.methods) {
        for (const double target : shape.targets) {
          add(dataset, task, method, target, {std::min(1.0, weakness * std::pow(0.02 / target, 0.42)), target});
        }
      }
    }
  }
  return records;
}

inline void fail(Record& record, const std::string& error) {
  record.status = "failed";
  record.error = error;
  record.answers.clear();
  record.sizes = Json::object();
  record.seconds = Json::object();
}

// A record of one cell with these answers.
inline Record one(const std::string& task, const std::string& method, const Json& target, std::vector<Json> answers,
                  const std::string& document = "d") {
  Record r;
  r.cell = Json{{"model", {{"name", "m"}}},
                {"dataset", {{"name", "s"}}},
                {"task", {{"name", task}}},
                {"queries", nullptr},
                {"method", {{"name", method}}},
                {"target", target},
                {"seed", 7}};
  r.cell_id = stable_hash(canonical_json(r.cell));
  r.document_id = document;
  r.status = "done";
  r.answers = std::move(answers);
  return r;
}

// An answer to task exact_match.
inline Json match(const std::string& id, bool right) {
  return {{"question_id", id}, {"gold_answer", "7"}, {"text", right ? "7" : "8"}, {"stop_reason", "end"}};
}

}  // namespace kvc::test_records
