// kvc new: a sweep file to start from.

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <memory>
#include <string>

#include "harness/cli/commands.h"
#include "harness/cli/model_options.h"
#include "harness/cli/starter.h"
#include "harness/core/json_lines.h"
#include "harness/core/output_file.h"
#include "harness/model/families/inspect.h"
#include "harness/sweep/sweep_config.h"
#include "harness/text/tokenizer/load_tokenizer.h"

namespace kvc {
namespace {

struct NewArguments {
  std::string out, model, data = "quality";
};

// The file's name without its ending, as a sweep may be called.
std::string sweep_name(const std::string& path) {
  std::string name = std::filesystem::path(path).stem().string();
  for (char& c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 128 || (std::isalnum(byte) == 0 && c != '_' && c != '-' && c != '.')) c = '_';
  }
  name.resize(std::min<size_t>(name.size(), 64));
  while (!name.empty() && (name[0] == '.' || name[0] == '-')) name.erase(0, 1);
  return name.empty() ? "sweep" : name;
}

int run_new(const NewArguments& options) {
  check_outputs({{"kvc new", options.out, {}}}, {options.model, options.data}, /*replace=*/false);
  inspect_model(options.model);
  const auto tokenizer = load_tokenizer(options.model);
  const FoundData data = find_data(options.data, tokenizer.get());
  if (data.tasks.empty()) {
    throw Error(ErrorKind::kData, "no task can ask a question of this data", options.data,
                "give questions with options or answers; datasets/README.md shows the forms");
  }
  const std::string text = starter_sweep(sweep_name(options.out), options.model, data);
  parse_sweep(ConfigText::from_string(text, options.out));
  write_file_atomically(options.out, text);
  for (const std::string& note : data.notes) fmt::print(stderr, "note: {}\n", note);
  print_out(fmt::format("{} written: data set {}, {}\n  kvc validate {}\n  kvc run {}\n", options.out, data.dataset,
                        data.counts(), options.out, options.out));
  return 0;
}

}  // namespace

Runner declare_new(CLI::App& app) {
  auto options = std::make_shared<NewArguments>();
  CLI::App* command = app.add_subcommand("new", "write a commented sweep file for a model and data, to start from");
  command->add_option("file", options->out, "sweep file to write, e.g. sweep.yaml; never replaced")->required();
  command->add_option("--model", options->model, "GGUF file, or folder as downloaded from a model hub")->required();
  command
      ->add_option("--data", options->data, "your data file (JSON lines, ...), folder of texts, or name of a data set")
      ->capture_default_str();
  return [options] { return run_new(*options); };
}

}  // namespace kvc
