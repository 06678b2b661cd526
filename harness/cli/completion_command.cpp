// kvc completion: what a shell needs to complete commands and options, made from the commands themselves.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "harness/cli/commands.h"
#include "harness/cli/list.h"
#include "harness/cli/model_options.h"

namespace kvc {
namespace {

struct Words {
  std::string command, help;
  std::vector<std::string> options, helps;  // "--model", what it is for
  std::vector<std::string> values;          // of each option: "md csv tsv"; empty where it is not one of a few
};

// "TEXT:{kept,ratio}" -> "kept ratio"
std::string values_in(const std::string& type) {
  const size_t begin = type.find('{'), end = type.find('}');
  if (begin == std::string::npos || end == std::string::npos) return "";
  std::string values = type.substr(begin + 1, end - begin - 1);
  std::replace(values.begin(), values.end(), ',', ' ');
  return values;
}

std::string first_sentence(const std::string& help) {
  std::string text;
  for (const char c : help.substr(0, help.find_first_of(";\n"))) text += c == '\'' || c == '[' || c == ']' ? ' ' : c;
  return text;
}

std::vector<Words> words_of(const CLI::App& app) {
  std::vector<Words> list;
  for (const CLI::App* command : app.get_subcommands({})) {
    Words words{command->get_name(), first_sentence(command->get_description()), {}, {}, {}};
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        words.options.push_back("--" + name);
        words.helps.push_back(first_sentence(option->get_description()));
        words.values.push_back(values_in(option->get_type_name()));
      }
    }
    list.push_back(std::move(words));
  }
  return list;
}

std::string commands_text(const std::vector<Words>& list) {
  std::vector<std::string> names;
  for (const Words& words : list) names.push_back(words.command);
  return fmt::format("{}", fmt::join(names, " "));
}

// The values that `kvc list` and `kvc completion` take.
std::string values_of(const std::string& command) {
  if (command == "list") return fmt::format("{}", fmt::join(list_kinds(), " "));
  return command == "completion" ? "bash zsh fish" : "";
}

std::string bash(const std::vector<Words>& list) {
  std::string text =
      "# Bash completion of kvc: source it, or write it to ~/.local/share/bash-completion/completions/kvc\n"
      "_kvc() {\n"
      "  local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} before=${COMP_WORDS[COMP_CWORD-1]} options= "
      "values=\n"
      "  COMPREPLY=()\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n";
  text += fmt::format("    COMPREPLY=($(compgen -W '{} --help --version' -- \"$word\"))\n", commands_text(list));
  text += "    return\n  fi\n  case $command in\n";
  for (const Words& words : list) {
    text += fmt::format("    {}) options='{}' values='{}' ;;\n", words.command, fmt::join(words.options, " "),
                        values_of(words.command));
  }
  text += "  esac\n  case $command$before in\n";
  for (const Words& words : list) {
    for (size_t i = 0; i < words.options.size(); ++i) {
      if (!words.values[i].empty())
        text += fmt::format("    {}{}) values='{}' ;;\n", words.command, words.options[i], words.values[i]);
    }
  }
  text +=
      "  esac\n"
      "  case $word in\n"
      "    -*) COMPREPLY=($(compgen -W \"$options --threads\" -- \"$word\")) ;;\n"
      "    *) if [ -n \"$values\" ]; then COMPREPLY=($(compgen -W \"$values\" -- \"$word\")); else "
      "COMPREPLY=($(compgen -f -- \"$word\")); fi ;;\n"
      "  esac\n}\ncomplete -o filenames -F _kvc kvc\n";
  return text;
}

std::string zsh(const std::vector<Words>& list) {
  std::string text =
      "#compdef kvc\n# Zsh completion of kvc: write it to a file _kvc in a folder of $fpath\n_kvc() {\n"
      "  local -a commands\n  commands=(\n";
  for (const Words& words : list) text += fmt::format("    '{}:{}'\n", words.command, words.help);
  text += "  )\n  if (( CURRENT == 2 )); then _describe command commands; return; fi\n  case $words[2] in\n";
  for (const Words& words : list) {
    text += fmt::format("    {}) _arguments", words.command);
    for (size_t i = 0; i < words.options.size(); ++i) {
      text += fmt::format(" '{}[{}]{}'", words.options[i], words.helps[i],
                          words.values[i].empty() ? "" : fmt::format(":value:({})", words.values[i]));
    }
    const std::string values = values_of(words.command);
    text += values.empty() ? " '*:file:_files' ;;\n" : fmt::format(" '*:value:({})' ;;\n", values);
  }
  return text + "  esac\n}\ncompdef _kvc kvc\n";
}

std::string fish(const std::vector<Words>& list) {
  std::string text = "# Fish completion of kvc: write it to ~/.config/fish/completions/kvc.fish\n";
  for (const Words& words : list) {
    text += fmt::format("complete -c kvc -n __fish_use_subcommand -f -a {} -d '{}'\n", words.command, words.help);
    const std::string here = fmt::format("complete -c kvc -n '__fish_seen_subcommand_from {}'", words.command);
    for (size_t i = 0; i < words.options.size(); ++i) {
      text += fmt::format("{} -l {} -d '{}'{}\n", here, words.options[i].substr(2), words.helps[i],
                          words.values[i].empty() ? "" : fmt::format(" -x -a '{}'", words.values[i]));
    }
    if (const std::string values = values_of(words.command); !values.empty())
      text += fmt::format("{} -f -a '{}'\n", here, values);
  }
  return text;
}

}  // namespace

Runner declare_completion(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("completion", "print a shell's completion of commands and options");
  command->add_option("shell", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  return [shell, &app] {
    const std::vector<Words> list = words_of(app);
    print_out(*shell == "bash" ? bash(list) : *shell == "zsh" ? zsh(list) : fish(list));
    return 0;
  };
}

}  // namespace kvc
