#include "harness/tasks/judging/thought.h"

#include <string_view>

namespace kvc {
namespace {

constexpr std::string_view kThinkTag = "<think>";
constexpr std::string_view kClose = "</think>";

}  // namespace

std::string without_thoughts(const std::string& text, bool opened) {
  const size_t close = text.rfind(kClose);
  if (close == std::string::npos && opened) return "";
  const size_t begin = close == std::string::npos ? 0 : close + kClose.size();
  return text.substr(begin, text.find(kThinkTag, begin) - begin);
}

bool prompt_opens_thought(const AnswerFields& answer) {
  if (answer.has("prompt_opens_thought") || !answer.has("rendered_prompt")) {
    return answer.flag("prompt_opens_thought", false);
  }
  const std::string& prompt = answer.text("rendered_prompt");
  const size_t last = prompt.find_last_not_of(" \t\r\n");
  return last != std::string::npos && std::string_view(prompt).substr(0, last + 1).ends_with(kThinkTag);
}

std::string answer_text(const AnswerFields& answer) {
  return without_thoughts(answer.text("text"), prompt_opens_thought(answer));
}

}  // namespace kvc
