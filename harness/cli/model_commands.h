// The commands beside sweeps: those that look at one model (tokenize, perplexity, generate, inspect), and those that
// compact outside of a sweep (fit, capture, compact, ask, budget). Each function adds its command to `app` and returns
// what runs it; the result is the exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvc {

using Runner = std::function<int()>;

Runner declare_tokenize(CLI::App& app);
Runner declare_perplexity(CLI::App& app);
Runner declare_generate(CLI::App& app);
Runner declare_inspect(CLI::App& app);
Runner declare_fit(CLI::App& app);
Runner declare_capture(CLI::App& app);
Runner declare_compact(CLI::App& app);
Runner declare_ask(CLI::App& app);
Runner declare_budget(CLI::App& app);

}  // namespace kvc
