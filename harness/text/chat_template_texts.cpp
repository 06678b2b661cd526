// The templates that have a name, for models that store none. Written for this project after the published formats;
// the same engine renders them.
#include "harness/text/chat_template_texts.h"

namespace kvc {
namespace {

// Qwen, SmolLM2 and many others, without a default system prompt.
constexpr const char* kChatMl = R"jinja(
{%- for turn in messages %}
    {{- '<|im_start|>' + turn.role + '\n' + turn.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
)jinja";

// Llama 3, without the date that 3.1 and later write.
constexpr const char* kLlama3 = R"jinja(
{{- bos_token }}
{%- for turn in messages %}
    {{- '<|start_header_id|>' + turn.role + '<|end_header_id|>\n\n' + turn.content|trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
)jinja";

// Llama 2 chat: the system prompt stands in the first user turn.
constexpr const char* kLlama2 = R"jinja(
{%- set system = '' %}
{%- set turns = messages %}
{%- if messages and messages[0].role == 'system' %}
    {%- set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}
    {%- set turns = messages[1:] %}
{%- endif %}
{%- for turn in turns %}
    {%- if turn.role != ('user' if loop.index0 % 2 == 0 else 'assistant') %}
        {{- raise_exception('user and assistant must take turns, the user first') }}
    {%- endif %}
    {%- if turn.role == 'user' %}
        {{- bos_token + '[INST] ' + ((system if loop.first else '') + turn.content).strip() + ' [/INST]' }}
    {%- else %}
        {{- ' ' + turn.content.strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
)jinja";

// Mistral instruct, third version: the system prompt stands in the last user turn.
constexpr const char* kMistral = R"jinja(
{%- set turns = messages %}
{%- if messages and messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
    {%- set turns = messages[1:] %}
{%- endif %}
{{- bos_token }}
{%- for turn in turns %}
    {%- if turn.role != ('user' if loop.index0 % 2 == 0 else 'assistant') %}
        {{- raise_exception('user and assistant must take turns, the user first') }}
    {%- endif %}
    {%- if turn.role == 'user' %}
        {{- '[INST] ' + (system + '\n\n' if loop.last and system is defined else '') + turn.content + '[/INST]' }}
    {%- else %}
        {{- ' ' + turn.content + eos_token }}
    {%- endif %}
{%- endfor %}
)jinja";

}  // namespace

const std::vector<NamedTemplate>& named_templates() {
  static const std::vector<NamedTemplate> known = {{"chatml", kChatMl, "", "<|im_end|>"},
                                                   {"llama2", kLlama2, "<s>", "</s>"},
                                                   {"llama3", kLlama3, "<|begin_of_text|>", "<|eot_id|>"},
                                                   {"mistral", kMistral, "<s>", "</s>"}};
  return known;
}

}  // namespace kvc
