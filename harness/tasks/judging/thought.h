// Which part of a model's text is its answer: what it writes in <think> ... </think> never is.
#pragma once

#include <string>

#include "harness/tasks/judging/judge.h"

namespace kvc {

// The text behind the last "</think>", up to a "<think>" that is opened there. Without "</think>" the text before a
// "<think>", and nothing at all where the prompt itself had opened the thought (`opened`): the model was cut, or
// stopped, while it thought.
std::string without_thoughts(const std::string& text, bool opened);

// Whether the prompt of a stored answer ended inside a thought: the field "prompt_opens_thought"; in records of older
// programs, whether "rendered_prompt" ends in "<think>".
bool prompt_opens_thought(const AnswerFields& answer);

// without_thoughts() of the field "text".
std::string answer_text(const AnswerFields& answer);

}  // namespace kvc
