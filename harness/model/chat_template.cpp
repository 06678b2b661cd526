#include "harness/model/chat_template.h"

#include <fmt/format.h>

#include <filesystem>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/json_lines.h"
#include "harness/core/text_file.h"
#include "harness/model/formats/gguf.h"

namespace kvc {
namespace {

// Roles are a closed set, so that a header is the template's own text and never the user's.
void check_role(const std::string& role) {
  static const std::vector<std::string> known = {"system", "user", "assistant"};
  for (const std::string& name : known) {
    if (role == name) return;
  }
  throw Error(ErrorKind::kUsage, fmt::format("unknown chat role '{}'", role), "", suggest_name(role, known));
}

// Qwen, SmolLM: "<|im_start|>role\ncontent<|im_end|>\n" a turn.
class ChatMl final : public ChatTemplate {
 public:
  std::string name() const override { return "chatml"; }

  std::vector<Segment> render(const std::vector<ChatTurn>& turns, bool /*start*/,
                              bool generation_prompt) const override {
    std::vector<Segment> segments;
    for (const ChatTurn& turn : turns) {
      check_role(turn.role);
      segments.push_back({fmt::format("<|im_start|>{}\n", turn.role), true});
      segments.push_back({turn.content, false});
      segments.push_back({"<|im_end|>\n", true});
    }
    if (generation_prompt) segments.push_back({"<|im_start|>assistant\n", true});
    return segments;
  }
};

// Llama 3: "<|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>" a turn. Contents are taken as they are (the
// published template strips blanks around them), so that an article keeps its bytes.
class Llama3 final : public ChatTemplate {
 public:
  std::string name() const override { return "llama3"; }

  std::vector<Segment> render(const std::vector<ChatTurn>& turns, bool start, bool generation_prompt) const override {
    std::vector<Segment> segments;
    if (start) segments.push_back({"<|begin_of_text|>", true});
    for (const ChatTurn& turn : turns) {
      check_role(turn.role);
      segments.push_back({header(turn.role), true});
      segments.push_back({turn.content, false});
      segments.push_back({"<|eot_id|>", true});
    }
    if (generation_prompt) segments.push_back({header("assistant"), true});
    return segments;
  }

 private:
  static std::string header(const std::string& role) {
    return fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n", role);
  }
};

// Of a model that can read text but not hold a conversation.
class NoChat final : public ChatTemplate {
 public:
  explicit NoChat(Error reason) : reason_(std::move(reason)) {}
  std::string name() const override { return "none"; }
  std::vector<Segment> render(const std::vector<ChatTurn>& /*turns*/, bool /*start*/,
                              bool /*generation_prompt*/) const override {
    throw Error(reason_);
  }

 private:
  Error reason_;
};

std::string stored_template(const std::string& model_path) {
  if (!std::filesystem::is_directory(model_path)) {
    return GgufFile(model_path).find_string("tokenizer.chat_template").value_or("");
  }
  const std::string path = model_path + "/tokenizer_config.json";
  if (!std::filesystem::exists(path)) return "";
  const Json config = Json::parse(read_text_file(path), nullptr, false);
  if (!config.is_object()) throw Error(ErrorKind::kData, "the file is no JSON object", path, "fetch it again");
  const Json stored = config.value("chat_template", Json());
  return stored.is_string() ? stored.get<std::string>() : "";
}

}  // namespace

std::unique_ptr<ChatTemplate> load_chat_template(const std::string& model_path, const std::string& name) {
  if (!name.empty()) return make_chat_template(name);
  const std::string stored = stored_template(model_path);
  try {
    return recognise_chat_template(stored, model_path);
  } catch (const Error& error) {
    return std::make_unique<NoChat>(error);
  }
}

std::vector<std::string> chat_template_names() {
  return {"chatml", "llama3"};
}

std::unique_ptr<ChatTemplate> make_chat_template(const std::string& name) {
  if (name == "chatml") return std::make_unique<ChatMl>();
  if (name == "llama3") return std::make_unique<Llama3>();
  throw Error(ErrorKind::kUsage, fmt::format("unknown chat template '{}'", name), "",
              suggest_name(name, chat_template_names()));
}

std::unique_ptr<ChatTemplate> recognise_chat_template(const std::string& stored_template, const std::string& where) {
  const auto has = [&](const char* token) { return stored_template.find(token) != std::string::npos; };
  const bool chatml = has("<|im_start|>") && has("<|im_end|>");
  const bool llama3 = has("<|start_header_id|>") && has("<|end_header_id|>") && has("<|eot_id|>");
  if (chatml != llama3) return make_chat_template(chatml ? "chatml" : "llama3");
  const char* fact = stored_template.empty() ? "the model file holds no chat template"
                     : chatml                ? "the stored chat template has the control tokens of chatml and of llama3"
                                             : "the stored chat template has the control tokens of no known one";
  throw Error(ErrorKind::kData, fact, where,
              "write 'chat_template: chatml' or 'chat_template: llama3' in the model's config");
}

}  // namespace kvc
