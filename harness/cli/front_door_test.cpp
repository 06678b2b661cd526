// What a newcomer meets first: kvc alone, mistyped commands and options, new, doctor, list, completion, validate.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>

#include "harness/cli/cli_test.h"
#include "harness/core/config_text.h"
#include "harness/core/text_file.h"

namespace kvc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class FrontDoor : public Cli {
 protected:
  std::string sweep(const std::string& name, const std::string& dataset, const std::string& task,
                    const std::string& more = "method: [{method: snapkv, window: 8}]\ntarget: 0.5\n") const {
    return write(name,
                 "sweep: t\nmodel: {path: " + kModel + "}\ndataset: " + dataset + "\ntask: " + task + "\n" + more);
  }
};

TEST_F(FrontDoor, AloneItSaysWhatToDoNext) {
  const Outcome alone = kvc({});
  EXPECT_EQ(alone.code, 2);
  EXPECT_THAT(alone.err, AllOf(HasSubstr("kvc doctor"), HasSubstr("kvc new sweep.yaml"), HasSubstr("kvc run")));
  EXPECT_EQ(std::count(alone.err.begin(), alone.err.end(), '\n'), 7);
}

TEST_F(FrontDoor, AWrongOptionGetsASuggestion) {
  const Outcome wrong = kvc({"run", "x.yaml", "--resluts", "folder"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_THAT(wrong.err,
              AllOf(HasSubstr("unknown option '--resluts' of kvc run"), HasSubstr("did you mean '--results'")));
  EXPECT_THAT(kvc({"run", "x.yaml", "--sed", "3"}).err, AllOf(HasSubstr("'--sed'"), Not(HasSubstr("3"))));
  EXPECT_THAT(kvc({"ask", "--temprature=3"}).err, HasSubstr("did you mean '--temperature'?"));
  EXPECT_THAT(kvc({"--threds", "2", "list"}).err, HasSubstr("did you mean '--threads'?"));
  EXPECT_THAT(kvc({"tokenize", "--frobnicate"}).err, HasSubstr("see kvc tokenize --help"));
}

TEST_F(FrontDoor, MistakesAreNamedInPlainWords) {
  EXPECT_THAT(kvc({"report", "a", "b", "c"}).err, HasSubstr("unexpected argument 'b'"));
  EXPECT_THAT(kvc({"--threads", "2"}).err, HasSubstr("no command given"));
  EXPECT_THAT(kvc({"run"}).err, AllOf(HasSubstr("config is required"), HasSubstr("see kvc run --help")));
  EXPECT_THAT(kvc({"tokenize", "--model"}).err, HasSubstr("--model needs a value"));
  EXPECT_THAT(kvc({"fit", "--seed", "many"}).err,
              HasSubstr("--seed: must be a whole number from 0 to 9223372036854775807; got many"));
  EXPECT_THAT(kvc({"generate", "--model", "m", "--prompt", "a", "--prompt-file", "b"}).err,
              HasSubstr("cannot be given together"));
  EXPECT_THAT(kvc({"generate", "--model", "m", "--prompt", "a", "--system", "b"}).err,
              HasSubstr("--system needs --chat"));
}

// Limits as people write them: not 309 digits for the largest double.
TEST_F(FrontDoor, RangesAreShort) {
  const auto error = [&](const std::vector<std::string>& command) { return kvc(command).err; };
  EXPECT_THAT(error({"generate", "--model", kModel, "--prompt", "a", "--seed", "-1"}),
              HasSubstr("--seed: must be a whole number from 0 to 9223372036854775807; got -1"));
  for (const std::string seed : {"99999999999999999999", "18446744073709551616", "-1"}) {
    for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
             {"compact", "--model", kModel, "--document", "x", "--method", "h2o", "--target", "0.5", "--out", "x"},
             {"fit", "--in", "x", "--method", "am_omp", "--target", "0.5", "--out", "x"},
             {"budget", "--model", kModel, "--dataset", "needle", "--out", "x"}}) {
      std::vector<std::string> words = command;
      words.insert(words.end(), {"--seed", seed});
      EXPECT_THAT(error(words), HasSubstr("--seed: must be a whole number from 0")) << words[0] << " " << seed;
    }
  }
  EXPECT_THAT(error({"perplexity", "--model", kModel, "f.txt", "--stride", "0"}),
              HasSubstr("--stride must be above 0; got 0"));
  EXPECT_THAT(error({"--threads", "0", "list"}), HasSubstr("--threads must be 1 to 4096; got 0"));
  EXPECT_THAT(error({"generate", "--model", kModel, "--prompt", "a", "--seed", "1.5"}),
              HasSubstr("--seed: must be a whole number from 0 to 9223372036854775807; got 1.5"));
}

// The smallest cache is known from the header; a smaller target fails before anything is loaded.
TEST_F(FrontDoor, ATargetOfTooFewBytesIsRefusedEarly) {
  const std::string own = "{dataset: jsonl, path: " + kRoot + "/datasets/samples/own.jsonl}";
  const Outcome small =
      kvc({"validate", sweep("small.yaml", own, "fidelity", "method: [key_norm]\ntarget: \"1 B\"\n")});
  EXPECT_EQ(small.code, 3);
  EXPECT_THAT(small.err, AllOf(HasSubstr("a target of 1 B is too small"), HasSubstr("the smallest cache has"),
                               HasSubstr("B\" or more")));
  const size_t at = small.err.find("write \"");
  ASSERT_NE(at, std::string::npos);
  const std::string least = small.err.substr(at + 7, small.err.find('"', at + 7) - at - 7);
  EXPECT_EQ(
      kvc({"validate", sweep("least.yaml", own, "fidelity", "method: [key_norm]\ntarget: \"" + least + "\"\n")}).code,
      0);
}

TEST_F(FrontDoor, ListsAllKindsAndOneOfThem) {
  const Json all = Json::parse(kvc({"list", "--json"}).out);
  for (const char* kind : {"methods", "queries", "budgets", "datasets", "tasks", "families"})
    EXPECT_FALSE(all.at(kind).empty()) << kind;
  const std::string methods = kvc({"list", "methods"}).out;
  std::istringstream lines(methods);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80u) << line;
  EXPECT_THAT(methods, ::testing::ContainsRegex("snapkv +\\[context_prefill\\]"));
  EXPECT_THAT(methods, ::testing::ContainsRegex("kvzip +\\[repeat_prefill\\]"));
  EXPECT_THAT(methods, HasSubstr("On the text, which is read again"));
  EXPECT_THAT(kvc({"list", "methods", "snapkv"}).out, AllOf(HasSubstr("window: integer"), Not(HasSubstr("kvzip"))));
  EXPECT_EQ(Json::parse(kvc({"list", "methods", "snapkv", "--json"}).out).size(), 1u);
  EXPECT_THAT(kvc({"list", "methods", "snapkw"}).err, HasSubstr("did you mean 'snapkv'"));
}

TEST_F(FrontDoor, CompletionKnowsEveryCommandAndOption) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const Outcome outcome = kvc({"completion", shell});
    EXPECT_EQ(outcome.code, 0);
    const std::string dashes = shell == std::string("fish") ? "-l " : "--";
    EXPECT_THAT(outcome.out,
                AllOf(HasSubstr("perplexity"), HasSubstr(dashes + "thinking-budget"), HasSubstr("datasets")));
    const std::string file = write(std::string("completion.") + shell, outcome.out);
    if (std::system((std::string("command -v ") + shell + " >/dev/null").c_str()) == 0) {
      EXPECT_EQ(std::system((std::string(shell) + " -n " + file).c_str()), 0) << shell;
    }
  }
  EXPECT_EQ(kvc({"completion", "tcsh"}).code, 2);
  const std::string bash =
      write("complete.bash", kvc({"completion", "bash"}).out +
                                 "COMP_WORDS=(kvc ru); COMP_CWORD=1; _kvc; echo ${COMPREPLY[@]}\n"
                                 "COMP_WORDS=(kvc run --dr); COMP_CWORD=2; _kvc; echo ${COMPREPLY[@]}\n"
                                 "COMP_WORDS=(kvc run --progress js); COMP_CWORD=3; _kvc; echo ${COMPREPLY[@]}\n");
  EXPECT_EQ(std::system(("[ \"$(bash " + bash + " | tr '\\n' ,)\" = run,--dry-run,json, ]").c_str()), 0);
}

TEST_F(FrontDoor, WhatNewWritesIsValid) {
  for (const std::string data : {"quality", "own.jsonl", "aime_like.jsonl"}) {
    const std::string given = data == "quality" ? data : kRoot + "/datasets/samples/" + data;
    const std::string file = path("new_" + data + ".yaml");
    const Outcome made = kvc({"new", file, "--model", kModel, "--data", given});
    ASSERT_EQ(made.code, 0) << data << ": " << made.err;
    const Outcome valid = kvc({"validate", file});
    EXPECT_EQ(valid.code, 0) << data << ": " << valid.err << read_text_file(file);
    EXPECT_THAT(read_text_file(file), HasSubstr("# "));
    const std::string before = read_text_file(file);
    EXPECT_EQ(kvc({"new", file, "--model", kModel, "--data", given}).code, 2);
    EXPECT_EQ(read_text_file(file), before);
  }
  // Methods on the text do not run under reasoning, and kvc validate says so.
  for (const std::string data : {"gsm8k_form.jsonl", "math500_form.jsonl", "aime_form.jsonl"}) {
    const std::string file = path("plan_" + data + ".yaml");
    ASSERT_EQ(kvc({"new", file, "--model", kModel, "--data", kRoot + "/datasets/samples/" + data}).code, 0) << data;
    const std::string text = read_text_file(file);
    const Outcome valid = kvc({"validate", file});
    EXPECT_EQ(valid.code, 0) << data << ": " << valid.err << text;
    EXPECT_EQ(text.find("answer_tokens: 64") != std::string::npos, data == "math500_form.jsonl");
    const size_t methods = text.find("  - streaming_llm");
    ASSERT_NE(methods, std::string::npos);
    const std::string with_text = text.substr(0, methods) + "  - no_context\n" + text.substr(methods);
    const Outcome refused = kvc({"validate", write("text_" + data + ".yaml", with_text)});
    EXPECT_EQ(refused.code, 2) << data;
    EXPECT_THAT(refused.err, HasSubstr("method 'no_context' works on a text before it is read"));
  }
  // A document of a dozen tokens: the window of a method must fit into it.
  const std::string tiny = write(
      "tiny.jsonl",
      R"({"context": "The mill has nine doors and one window.", "questions": [{"question": "How many doors?", "answer": "nine"}]})");
  EXPECT_EQ(kvc({"new", path("tiny.yaml"), "--model", kModel, "--data", tiny}).code, 0);
  EXPECT_THAT(read_text_file(path("tiny.yaml")), HasSubstr("{method: snapkv, window: 1}"));
  const Outcome none = kvc({"new", path("n.yaml"), "--model", kModel, "--data", write("notes.txt", "no data\n")});
  EXPECT_EQ(none.code, 3);
  EXPECT_THAT(none.err, AllOf(HasSubstr("no data set reads this file"), HasSubstr("jsonl:"), HasSubstr("longhealth:")));
  EXPECT_EQ(kvc({"new", path("n.yaml"), "--model", path("absent.gguf")}).code, 3);
  EXPECT_FALSE(std::filesystem::exists(path("n.yaml")));
}

TEST_F(FrontDoor, AFolderOfTextsIsData) {
  const std::string folder = path("texts/");
  std::filesystem::create_directories(folder + "sub");
  write("texts/a.txt", "The mill was sold.\n");
  write("texts/sub/b.md", "The keys are with Anna.\n");
  write("texts/c.pdf", "%PDF-");
  const Outcome unasked = kvc({"validate", folder});
  EXPECT_EQ(unasked.code, 0) << unasked.err;
  EXPECT_THAT(unasked.out, AllOf(HasSubstr("2 documents, 6 questions, 6 of them to be written by the model"),
                                 HasSubstr("1 file is not read"), HasSubstr("kvc new")));
  write("texts/questions.csv", "document;question;answer\r\na;What was sold?;the mill\r\nb;Who?;Anna\r\n");
  const Outcome wrong = kvc({"validate", folder});
  EXPECT_EQ(wrong.code, 3);
  EXPECT_THAT(wrong.err, AllOf(HasSubstr("there is no document 'b' in the folder"), HasSubstr("questions.csv:3")));
  EXPECT_EQ(kvc({"doctor", "--model", kModel, "--data", folder}).code, 3);
  EXPECT_EQ(kvc({"new", path("folder.yaml"), "--model", kModel, "--data", folder}).code, 3);

  write("texts/questions.csv", "document;question;answer\r\na;What was sold?;the mill\r\n");
  const Outcome made = kvc({"new", path("folder.yaml"), "--model", kModel, "--data", folder});
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_THAT(made.err, HasSubstr("note: 1 of 2 documents have no question in questions.csv and are left out"));
  const Outcome valid = kvc({"validate", path("folder.yaml")});
  EXPECT_EQ(valid.code, 0) << valid.err;
  EXPECT_THAT(valid.out, AllOf(HasSubstr("jsonl: 1 document, 1 question"), HasSubstr("note: 1 file is not read")));
  const Outcome well = kvc({"doctor", "--model", kModel, "--data", folder, "--results", path("results")});
  EXPECT_THAT(well.out, AllOf(HasSubstr("data set jsonl, 1 document, 1 question"), HasSubstr("are left out")));
}

TEST_F(FrontDoor, DoctorLooksAtMachineModelAndData) {
  const Outcome well = kvc({"doctor", "--model", kModel, "--data", "quality", "--results", path("results")});
  EXPECT_EQ(well.code, 0) << well.out;
  EXPECT_THAT(well.out, AllOf(HasSubstr("134.5 M parameters"), HasSubstr("2 documents, 27 questions"),
                              HasSubstr("GiB free"), HasSubstr("commit")));
  const Outcome ill = kvc({"doctor", "--model", path("absent.gguf"), "--data", path("absent.jsonl"), "--json"});
  EXPECT_EQ(ill.code, 3);
  std::vector<std::string> problems;
  for (const Json& finding : Json::parse(ill.out)) {
    if (finding.at("state") == "problem") problems.push_back(finding.at("subject"));
    EXPECT_EQ(finding.at("cure").get<std::string>().empty(), finding.at("state") == "OK") << finding.dump();
  }
  EXPECT_THAT(problems, ::testing::ElementsAre("model", "data"));
}

TEST_F(FrontDoor, ValidateOpensDataAndModels) {
  const std::string own = kRoot + "/datasets/samples/own.jsonl";
  const Outcome good = kvc({"validate", sweep("good.yaml", "{dataset: jsonl, path: " + own + "}", "fidelity")});
  EXPECT_EQ(good.code, 0) << good.err;
  EXPECT_THAT(good.out, AllOf(HasSubstr("134.5 M parameters"), HasSubstr("jsonl: 2 documents")));

  std::string lines;
  for (int i = 0; i < 12; ++i) lines += "{\"context\": 3}\n";
  const std::string broken = write("broken.jsonl", lines);
  const std::string bad = write("bad.yaml", "sweep: t\nmodel: [{path: " + path("absent.gguf") +
                                                "}]\ndataset: {dataset: jsonl, path: " + broken +
                                                "}\ntask: fidelity\nmethod: [snapkv]\ntarget: 0.5\n");
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"validate", bad}, {"run", bad, "--dry-run", "--results", path("results")}}) {
    const Outcome outcome = kvc(command);
    EXPECT_EQ(outcome.code, 3);
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("2 problems in"), HasSubstr("absent.gguf"), HasSubstr("broken.jsonl:")));
  }
  EXPECT_FALSE(std::filesystem::exists(path("results")));
  EXPECT_EQ(kvc({"validate", bad}).out.find("is valid"), std::string::npos);  // not of a sweep that would not run
  EXPECT_EQ(kvc({"validate", bad, "--config-only"}).code, 0);

  const Outcome mute = kvc({"validate", sweep("mute.yaml", "quality", "exact_match")});
  EXPECT_EQ(mute.code, 3);
  EXPECT_THAT(mute.err, HasSubstr("no data set has a question for task exact_match"));
  const std::string needle = "{dataset: needle, documents: 1, tokens: 5000, needles: 1}";
  const Outcome twice = kvc({"validate", sweep("twice.yaml", needle, "exact_match", "method: [kvzip]\ntarget: 0.5\n")});
  EXPECT_EQ(twice.code, 3);
  EXPECT_THAT(twice.err,
              AllOf(HasSubstr("positions with repeat_prefill; the model has 8192"), HasSubstr("context_prefill")));
  EXPECT_EQ(kvc({"validate", sweep("once.yaml", needle, "exact_match")}).code, 0);
}

// A data file given to kvc validate is checked as --data would check it, not read as a sweep.
TEST_F(FrontDoor, ValidateChecksDataFilesToo) {
  for (const std::string name :
       {"own.jsonl", "quality.jsonl", "gsm8k_form.jsonl", "longbench_form.jsonl", "longbench_v2_form.jsonl",
        "longbook_qa_eng.jsonl", "loogle_form.jsonl", "math500_form.jsonl", "longhealth.json"}) {
    const Outcome valid = kvc({"validate", kRoot + "/datasets/samples/" + name});
    EXPECT_EQ(valid.code, 0) << name << valid.err;
    EXPECT_THAT(valid.out, AllOf(HasSubstr("is valid data ("), HasSubstr("kvc new"))) << name;
  }
  const std::string squad = R"({"version": "v2.0", "data": [{"paragraphs": [{"context": "The mill is old.", "qas": [
      {"id": "1", "question": "What is old?", "answers": [{"text": "the mill"}]}]}]}]})";
  const Outcome qa = kvc({"validate", write("squad.json", squad)});
  EXPECT_EQ(qa.code, 0) << qa.err;
  EXPECT_THAT(qa.out, HasSubstr("is valid data (ruler): 1 document, 1 question"));
  const Outcome twice =
      kvc({"validate", write("twice.json", R"([{"question": 5, "answer": "a", "context": [["t", [3]]]}])")});
  EXPECT_EQ(twice.code, 3);
  EXPECT_THAT(twice.err, AllOf(HasSubstr("'question' must be text; got 5"), HasSubstr("[0].context[0]")));
  const std::string bad = write("bad.jsonl", "{\"context\": \"A mill.\", \"questions\": []}\n{\"context\": 3}\n");
  const Outcome refused = kvc({"validate", bad});
  EXPECT_EQ(refused.code, 3);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("bad.jsonl:1, questions"), HasSubstr("bad.jsonl:2, context")));
  const Outcome utf16 = kvc({"validate", write("wide.jsonl", std::string("\xFF\xFE{\0\"\0", 6))});
  EXPECT_EQ(utf16.code, 3);
  EXPECT_THAT(utf16.err, AllOf(HasSubstr("iconv -f utf-16 -t utf-8"), ::testing::Not(HasSubstr("--encoding"))));
  // A sweep with an error stays a sweep.
  const Outcome sweep_error = kvc({"validate", write("sweep.json", "{\"sweep\": \"t\", \"method\": [}")});
  EXPECT_EQ(sweep_error.code, 2);
  EXPECT_THAT(sweep_error.err, HasSubstr("not valid JSON"));
}

// A source that reads the question is refused where no question is asked of a cache, in the line of the file.
TEST_F(FrontDoor, ValidateRefusesQuestionsWhereNoneIsAsked) {
  const auto errors_of = [&](const std::string& task, const std::string& rest) {
    return kvc({"validate", "--config-only",
                write("question.yaml",
                      "sweep: t\nmodel: " + kModel + "\ndataset: needle\ntask: [" + task + "]\ntarget: 0.5\n" + rest)});
  };
  const auto refused = [&](const std::string& task, const std::string& rest) {
    const Outcome outcome = errors_of(task, rest);
    EXPECT_EQ(outcome.code, 2) << rest;
    return outcome.err;
  };
  EXPECT_THAT(refused("exact_match, reasoning", "method:\n  - {method: r_kv, queries: question}\n"),
              AllOf(HasSubstr("task 'reasoning' compacts what the model writes, so it cannot use the query source "
                              "'question'"),
                    HasSubstr("question.yaml:7, method[0].queries")));
  EXPECT_THAT(refused("{task: reasoning, every: 9}", "queries: [context_prefill, question]\nmethod: r_kv\n"),
              HasSubstr("question.yaml:6, queries"));
  for (const std::string outer : {"{method: stacked, first: truncate_text, then: ", "{method: chunked, then: "}) {
    EXPECT_THAT(refused("exact_match", "method:\n  - " + outer + "{method: snapkv, queries: question}}\n"),
                AllOf(HasSubstr("is made before a question is asked, so it cannot use the query source 'question'"),
                      HasSubstr("question.yaml:7, method[0].then.queries")));
  }
  EXPECT_EQ(errors_of("exact_match", "method: {method: r_kv, queries: question}\n").code, 0);
}

// What would fail on every document is told before anything runs.
TEST_F(FrontDoor, ValidateSeesWhatFitsNoDocument) {
  const std::string tiny = write(
      "tiny.jsonl",
      R"({"context": "The mill has nine doors and one window.", "questions": [{"question": "How many doors?", "answer": "nine"}]})");
  const auto sweep = [&](const std::string& dataset, const std::string& method) {
    return write("fits.yaml", "sweep: t\nmodel: " + kModel + "\ndataset: " + dataset +
                                  "\ntask: exact_match\ntarget: 0.5\nresults: " + path("fits") + "\nmethod: " + method +
                                  "\n");
  };
  const auto refused = [&](const std::string& dataset, const std::string& method, const char* command = "validate") {
    const Outcome outcome = kvc({command, sweep(dataset, method)});
    EXPECT_EQ(outcome.code, 3) << method;
    return outcome.err;
  };
  const std::string own = "{dataset: jsonl, path: " + tiny + "}";
  EXPECT_THAT(refused(own, "snapkv"), HasSubstr("a method's window needs 64"));
  EXPECT_EQ(kvc({"validate", sweep(own, "{method: snapkv, window: 4}")}).code, 0);
  const std::string text = write("calibration.txt", "A short text.\n");
  EXPECT_THAT(refused("needle", "{method: snapkv, queries: {queries: calibration_text, file: " + text + "}}"),
              AllOf(HasSubstr("the calibration text has"), HasSubstr("needs 64"), HasSubstr("calibration.txt")));
  EXPECT_EQ(kvc({"validate",
                 sweep("needle", "{method: q_filters, queries: {queries: calibration_text, file: " + text + "}}")})
                .code,
            0);
  // kvc run refuses what fits no document too, before it reads the weights or proves anything.
  const std::string gates = write("gates.tsv", "0.1\t0.9\n0.2\t0.8\n");
  for (const char* command : {"validate", "run"}) {
    EXPECT_THAT(
        refused("needle", "{method: streaming_llm, budget: {budget: duo_attention, file: " + gates + "}}", command),
        AllOf(HasSubstr("a model with 2 layers of 2 KV heads; this one has 30 of 3"), HasSubstr("gates.tsv"),
              ::testing::Not(HasSubstr("loading"))));
  }
  const Outcome run =
      kvc({"run", sweep("{dataset: ruler, task: niah_single_1, documents: 1, tokens: 9000}", "streaming_llm")});
  EXPECT_EQ(run.code, 3);
  EXPECT_THAT(run.err, AllOf(HasSubstr("data set ruler: none of its documents (1) can be read"),
                             ::testing::Not(HasSubstr("self-proof"))));
}

// Methods around another one take the queries of that one's paper.
TEST_F(FrontDoor, ListShowsTheQueriesOfThePaper) {
  std::map<std::string, std::string> needs;
  for (const Json& plugin : Json::parse(kvc({"list", "methods", "--json"}).out)) {
    needs[plugin.at("name")] = plugin.at("needs");
  }
  for (const char* name : {"critical_kv", "chunk_kv", "threshold", "q_filters", "snapkv"}) {
    EXPECT_THAT(needs.at(name), HasSubstr("context_prefill")) << name;
  }
  EXPECT_THAT(needs.at("kvzip"), HasSubstr("repeat_prefill"));
  for (const char* name : {"cartridge", "summarize"})
    EXPECT_THAT(needs.at(name), HasSubstr("the model writes")) << name;
}

// Forty methods, a line each, no wider than a terminal.
TEST_F(FrontDoor, ListHasALineForEachMethod) {
  std::istringstream lines(kvc({"list", "methods"}).out);
  size_t n_methods = 0;
  std::string group;
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 80u) << line;
    if (line.rfind("  ", 0) == 0) ++n_methods;
    if (!line.empty() && line[0] != ' ') group = line;
    EXPECT_NE(line.rfind("      ", 0), 0u) << line;
    if (line.rfind("  cartridge ", 0) == 0) {
      EXPECT_THAT(group, HasSubstr("Trained"));
    }
  }
  EXPECT_EQ(n_methods, Json::parse(kvc({"list", "methods", "--json"}).out).size());
}

// The task that a benchmark is scored by, not exact_match, which would ask a summary in sixteen tokens.
TEST_F(FrontDoor, NewProposesTheTaskOfTheData) {
  const std::vector<std::pair<std::string, std::string>> tasks = {
      {"longbench_form.jsonl", "task: [published_score] "},
      {"loogle_form.jsonl", "task: [published_score] "},
      {"longbook_qa_eng.jsonl", "task: [published_score] "},
      {"longbench_v2_form.jsonl", "task: [likelihood, multiple_choice] "},
      {"quality.jsonl", "task: [likelihood, multiple_choice] "},
      {"gsm8k_form.jsonl", "task: [reasoning] "},
      {"aime_form.jsonl", "task: [reasoning] "},
      {"own.jsonl", "task: [exact_match, likelihood] "},
      {"side_effects", "task: [side_effects, likelihood] "},
      {"needle", "task: [exact_match, fidelity] "}};
  for (const auto& [data, task] : tasks) {
    const std::string file = path("task_" + data + ".yaml");
    const std::string given = data.find('.') == std::string::npos ? data : kRoot + "/datasets/samples/" + data;
    ASSERT_EQ(kvc({"new", file, "--model", kModel, "--data", given}).code, 0) << data;
    EXPECT_THAT(read_text_file(file), HasSubstr(task)) << data;
  }
}

}  // namespace
}  // namespace kvc
