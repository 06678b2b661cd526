#include "harness/text/chat_template.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <filesystem>
#include <mutex>
#include <utility>

#include "harness/core/config_text.h"
#include "harness/core/error.h"
#include "harness/core/text_file.h"
#include "harness/files/gguf.h"
#include "harness/text/chat_template_texts.h"
#include "harness/text/jinja/fail.h"
#include "harness/text/jinja/template.h"

namespace kvc {
namespace {

using NamedTokens = std::map<std::string, std::string>;

constexpr size_t kMaxFileBytes = size_t{64} << 20U;

// Roles are a closed set, so that a header is the template's own text and never the user's.
void check_role(const std::string& role) {
  static const std::vector<std::string> known = {"system", "user", "assistant"};
  for (const std::string& name : known) {
    if (role == name) return;
  }
  throw Error(ErrorKind::kUsage, fmt::format("unknown chat role '{}'", role), "", suggest_name(role, known));
}

jinja::Date read_date(const std::string& text) {
  jinja::Date date;
  const char* at = text.data();
  const char* end = at + text.size();
  bool good = text.size() == 10;
  const auto number = [&](int& value, size_t digits) {
    const auto read = std::from_chars(at, end, value);
    good = good && read.ec == std::errc() && read.ptr == at + digits && value > 0;
    at = read.ptr;
    if (at != end && *at == '-') ++at;
  };
  number(date.year, 4);
  number(date.month, 2);
  number(date.day, 2);
  static constexpr std::array<int, 12> kDays = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = (date.year % 4 == 0 && date.year % 100 != 0) || date.year % 400 == 0;
  good = good && text[4] == '-' && text[7] == '-' && date.month <= 12 &&
         date.day <= kDays.at(static_cast<size_t>(date.month - 1)) + (leap && date.month == 2 ? 1 : 0);
  if (!good) {
    throw Error(ErrorKind::kUsage, fmt::format("'{}' is not a date", text), "date of a chat template",
                "write it as 2024-07-26");
  }
  return date;
}

class JinjaChat final : public ChatTemplate {
 public:
  JinjaChat(std::string name, std::string text, NamedTokens special_tokens, std::string where)
      : name_(std::move(name)),
        template_(std::move(text), std::move(where)),
        special_tokens_(std::move(special_tokens)) {}

  std::string name() const override { return name_; }
  std::string source() const override { return template_.source(); }

  std::vector<Segment> render(const std::vector<ChatTurn>& turns, const RenderOptions& options) const override {
    const bool system_first = turns.size() > 1 && turns[0].role == "system" && turns[1].role == "user";
    if (!system_first || has_system_turn()) return render_as_written(turns, options);
    std::vector<ChatTurn> merged(turns.begin() + 1, turns.end());
    if (!turns[0].content.empty()) merged[0].content = turns[0].content + "\n\n" + merged[0].content;
    return render_as_written(merged, options);
  }

 private:
  // Whether the template writes what a system turn says. One that knows no such turn raises an exception or drops it.
  bool has_system_turn() const {
    std::call_once(system_checked_, [this] { has_system_turn_ = find_system_turn(); });
    return has_system_turn_;
  }

  bool find_system_turn() const {
    const std::string mark = "\x02kvc-system\x02x";
    const ChatTurn system{"system", mark}, user{"user", "x"}, marked_user{"user", mark};
    const auto shows = [&](const std::vector<ChatTurn>& turns) {
      try {
        std::string text;
        for (const Segment& segment : render_as_written(turns, {})) text += segment.text;
        return text.find(mark) != std::string::npos;
      } catch (const Error&) {
        return false;
      }
    };
    // Where a user turn alone is refused too, the template's own words are the better message.
    return shows({system, user}) || !shows({marked_user});
  }

  std::vector<Segment> render_as_written(const std::vector<ChatTurn>& turns, const RenderOptions& options) const {
    size_t n_bytes = 0;
    std::vector<jinja::Value> messages;
    for (const ChatTurn& turn : turns) {
      check_role(turn.role);
      n_bytes += turn.content.size();
      messages.push_back(jinja::make_dict(
          {{"role", jinja::make_text(turn.role, true)}, {"content", jinja::make_text(turn.content, false)}}));
    }
    std::vector<std::pair<std::string, jinja::Value>> variables = {
        {"messages", jinja::make_list(std::move(messages))},
        {"tools", nullptr},
        {"documents", nullptr},
        {"add_generation_prompt", options.generation_prompt}};
    for (const auto& [name, spelling] : special_tokens_) variables.emplace_back(name, jinja::make_text(spelling, true));
    if (options.thinking) variables.emplace_back("enable_thinking", *options.thinking);
    return template_.render(variables, limits(turns.size(), n_bytes), read_date(options.date)).segments();
  }

  // Enough for a conversation of any size.
  static jinja::Limits limits(size_t n_turns, size_t n_bytes) {
    jinja::Limits limits;
    limits.steps += 5000 * static_cast<int64_t>(n_turns);
    limits.bytes += 100 * static_cast<int64_t>(n_bytes);
    limits.output_bytes += 4 * static_cast<int64_t>(n_bytes);
    return limits;
  }

  std::string name_;
  jinja::Template template_;
  NamedTokens special_tokens_;
  mutable std::once_flag system_checked_;
  mutable bool has_system_turn_ = true;
};

// Of a model that can read text but not hold a conversation.
class NoChat final : public ChatTemplate {
 public:
  NoChat(Error reason, std::string source) : reason_(std::move(reason)), source_(std::move(source)) {}
  std::string name() const override { return "none"; }
  std::string source() const override { return source_; }
  std::vector<Segment> render(const std::vector<ChatTurn>& /*turns*/, const RenderOptions& /*options*/) const override {
    throw Error(reason_);
  }

 private:
  Error reason_;
  std::string source_;
};

struct StoredTemplate {
  std::string text;
  NamedTokens special_tokens;
  std::string where;
};

StoredTemplate stored_in_gguf(const std::string& path) {
  const GgufFile file(path);
  StoredTemplate stored;
  stored.where = path + ", tokenizer.chat_template";
  stored.text = file.find_string("tokenizer.chat_template").value_or("");
  const std::vector<std::string> spellings =
      file.find_strings("tokenizer.ggml.tokens").value_or(std::vector<std::string>());
  static constexpr std::array<std::array<const char*, 2>, 4> kKeys = {
      {{"bos", "bos_token"}, {"eos", "eos_token"}, {"unknown", "unk_token"}, {"padding", "pad_token"}}};
  for (const auto& [key, variable] : kKeys) {
    const auto id = file.find_integer(fmt::format("tokenizer.ggml.{}_token_id", key));
    if (id && *id >= 0 && *id < static_cast<int64_t>(spellings.size())) {
      stored.special_tokens[variable] = spellings[static_cast<size_t>(*id)];
    }
  }
  return stored;
}

Json read_object(const std::string& path) {
  if (!std::filesystem::exists(path)) return Json::object();
  Json value = Json::parse(read_text_file(path, kMaxFileBytes), nullptr, false);
  if (!value.is_object()) throw Error(ErrorKind::kData, "the file is not a JSON object", path, "fetch it again");
  return value;
}

// A token is written as its spelling or as {"content": spelling, ...}; null is none.
void add_special_tokens(const Json& config, NamedTokens& special_tokens) {
  static constexpr std::array<const char*, 7> kNames = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                        "pad_token", "cls_token", "mask_token"};
  for (const char* name : kNames) {
    const auto found = config.find(name);
    if (found == config.end()) continue;
    const Json spelling = found->is_object() ? found->value("content", Json()) : *found;
    if (spelling.is_string()) special_tokens[name] = spelling.get<std::string>();
    if (spelling.is_null()) special_tokens.erase(name);
  }
}

std::string template_text(const Json& value, const std::string& where) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  std::string names;
  if (value.is_array()) {
    for (const Json& entry : value) {
      const bool complete = entry.is_object() && entry.contains("name") && entry["name"].is_string() &&
                            entry.contains("template") && entry["template"].is_string();
      if (!complete) continue;
      if (entry["name"] == "default") return entry["template"].get<std::string>();
      names += (names.empty() ? "" : ", ") + jinja::excerpt(entry["name"].get<std::string>());
    }
  }
  throw Error(ErrorKind::kData,
              names.empty() ? "'chat_template' is neither a text nor a list of named texts"
                            : fmt::format("'chat_template' names {}, but no 'default'", names),
              where, jinja::kWayOut);
}

StoredTemplate stored_in_folder(const std::string& folder) {
  StoredTemplate stored;
  add_special_tokens(read_object(folder + "/special_tokens_map.json"), stored.special_tokens);
  const std::string path = folder + "/tokenizer_config.json";
  const Json config = read_object(path);
  add_special_tokens(config, stored.special_tokens);
  const std::string beside = folder + "/chat_template.jinja";
  if (std::filesystem::exists(beside)) {
    stored.where = beside;
    stored.text = read_text_file(beside, kMaxFileBytes);
    return stored;
  }
  stored.where = path + ", chat_template";
  stored.text = template_text(config.value("chat_template", Json()), path);
  return stored;
}

}  // namespace

std::vector<Segment> ThinkingChat::render(const std::vector<ChatTurn>& turns, const RenderOptions& options) const {
  RenderOptions with = options;
  with.thinking = options.thinking.value_or(thinking_);
  return inner_->render(turns, with);
}

std::unique_ptr<ChatTemplate> load_chat_template(const std::string& model_path, const std::string& name) {
  if (!name.empty()) return make_chat_template(name);
  StoredTemplate stored;
  try {
    const bool folder = std::filesystem::is_directory(model_path);
    stored = folder ? stored_in_folder(model_path) : stored_in_gguf(model_path);
    if (stored.text.empty()) {
      throw Error(ErrorKind::kData, "the model stores no chat template", model_path, jinja::kWayOut);
    }
    return make_chat_template(stored.text, stored.special_tokens, stored.where);
  } catch (const Error& error) {
    if (error.mend() != jinja::kWayOut) throw;  // a damaged file
    return std::make_unique<NoChat>(error, stored.text);
  }
}

std::unique_ptr<ChatTemplate> with_thinking(std::unique_ptr<ChatTemplate> chat_template, bool thinking) {
  if (chat_template->source().find("enable_thinking") == std::string::npos) {
    throw Error(ErrorKind::kUsage, "the model's chat template has no thinking switch (enable_thinking)",
                "model option 'thinking'", "leave it out: the template has one way to begin an answer");
  }
  return std::make_unique<ThinkingChat>(std::move(chat_template), thinking);
}

std::vector<std::string> chat_template_names() {
  std::vector<std::string> names;
  for (const NamedTemplate& known : named_templates()) names.emplace_back(known.name);
  return names;
}

std::unique_ptr<ChatTemplate> make_chat_template(const std::string& name) {
  for (const NamedTemplate& known : named_templates()) {
    if (name != known.name) continue;
    NamedTokens special_tokens{{"eos_token", known.eos_token}};
    if (*known.bos_token != '\0') special_tokens["bos_token"] = known.bos_token;
    return std::make_unique<JinjaChat>(name, known.text, std::move(special_tokens),
                                       fmt::format("built-in chat template '{}'", name));
  }
  throw Error(ErrorKind::kUsage, fmt::format("unknown chat template '{}'", name), "",
              suggest_name(name, chat_template_names()));
}

std::unique_ptr<ChatTemplate> make_chat_template(std::string text, std::map<std::string, std::string> special_tokens,
                                                 std::string where) {
  return std::make_unique<JinjaChat>("model", std::move(text), std::move(special_tokens), std::move(where));
}

}  // namespace kvc
