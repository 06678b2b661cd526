// The commands of kvc. Each is one file: declare_NAME() adds the command and its options to `app` and returns what
// runs it (its result is the exit code). A new command is a file, a line here, and a line in the table of cli.cpp.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvc {

using Runner = std::function<int()>;

constexpr int kSomeFailed = 1;  // exit code: the rest is done, some cells failed

Runner declare_new(CLI::App& app);
Runner declare_doctor(CLI::App& app);
Runner declare_list(CLI::App& app);

Runner declare_recommend(CLI::App& app);

Runner declare_run(CLI::App& app);
Runner declare_validate(CLI::App& app);
Runner declare_submit(CLI::App& app);
Runner declare_merge(CLI::App& app);
Runner declare_import(CLI::App& app);
Runner declare_report(CLI::App& app);
Runner declare_score(CLI::App& app);
Runner declare_explain(CLI::App& app);
Runner declare_plot(CLI::App& app);
Runner declare_table(CLI::App& app);
Runner declare_compare(CLI::App& app);
Runner declare_export(CLI::App& app);

Runner declare_compact(CLI::App& app);
Runner declare_ask(CLI::App& app);
Runner declare_capture(CLI::App& app);
Runner declare_fit(CLI::App& app);
Runner declare_budget(CLI::App& app);

Runner declare_inspect(CLI::App& app);
Runner declare_generate(CLI::App& app);
Runner declare_perplexity(CLI::App& app);
Runner declare_tokenize(CLI::App& app);
Runner declare_completion(CLI::App& app);

}  // namespace kvc
