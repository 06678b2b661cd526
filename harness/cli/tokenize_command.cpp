// kvc tokenize: ids of a text as data: no BOS, and the spelling of a special token is plain text.

#include <fmt/format.h>

#include <memory>
#include <string>

#include "harness/cli/commands.h"
#include "harness/cli/model_options.h"
#include "harness/core/text_file.h"
#include "harness/text/tokenizer/load_tokenizer.h"

namespace kvc {
namespace {

struct TokenizeArguments {
  std::string model;
  std::string file, encoding = "utf-8";
  bool json = false;
};

// One token a line: id, and its bytes with everything unprintable escaped.
std::string as_lines(const Tokenizer& tokenizer, const std::vector<int64_t>& ids) {
  std::string text;
  for (const int64_t id : ids) {
    text += fmt::format("{}\t", id);
    for (const char c : tokenizer.token_bytes(id)) {
      const auto byte = static_cast<unsigned char>(c);
      text += byte < 0x20 || byte >= 0x7F || c == '\\' ? fmt::format("\\x{:02x}", byte) : std::string(1, c);
    }
    text += '\n';
  }
  return text;
}

int run_tokenize(const TokenizeArguments& options) {
  const std::string text = read_document(options.file, options.encoding);
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(options.model);
  const std::vector<int64_t> ids = tokenizer->encode_text(text);
  print_out(options.json ? Json{{"ids", ids}}.dump() + "\n" : as_lines(*tokenizer, ids));
  return 0;
}

}  // namespace

Runner declare_tokenize(CLI::App& app) {
  auto options = std::make_shared<TokenizeArguments>();
  CLI::App* command = app.add_subcommand("tokenize", "print the token ids of a text");
  command->add_option("--model", options->model, "GGUF file, or folder with the tokenizer's files")->required();
  command->add_option("--file", options->file, "text to read; - for standard input")->required();
  add_encoding(*command, options->encoding);
  command->add_flag("--json", options->json, R"({"ids": [...]} instead of a line for each token)");
  return [options] { return run_tokenize(*options); };
}

}  // namespace kvc
