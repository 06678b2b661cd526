#include "datasets/document_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "datasets/csv_table.h"
#include "harness/core/config_text.h"
#include "harness/testing/checks.h"
#include "harness/testing/temporary_folder.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class Folder : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) const { folder_.write(name, text); }
  DocumentFolder read() const { return read_document_folder(path_); }
  // The message of what reading throws; every error of the folder is one of data.
  std::string error() const {
    return error_of(ErrorKind::kData, [&] { read(); });
  }
  std::string notes() const {
    std::string all;
    for (const std::string& note : read().notes) all += note + "\n";
    return all;
  }

  const TemporaryFolder folder_;
  const fs::path path_ = folder_.path();
};

// Both documents, and the rows in questions.csv.
class Questions : public Folder {
 protected:
  Questions() {
    write("a.txt", "The mill was sold.\n");
    write("sub/b.md", "The keys are with Anna.\n");
  }
  std::string error_of(const std::string& rows) {
    write("questions.csv", "document,question,answer,options,gold,id\n" + rows);
    return error();
  }
};

TEST(DocumentFolderSample, IsReadAsItsPageSays) {
  const auto dataset = Registry<Dataset>::instance().create("jsonl", {{"path", "datasets/samples/own_folder"}});
  const std::vector<Document> documents = dataset->load({});
  ASSERT_EQ(documents.size(), 2);
  EXPECT_EQ(documents[0].id, "harbour.txt");
  EXPECT_EQ(documents[1].id, "minutes/2024-05.md");
  ASSERT_EQ(documents[0].questions.size(), 2);
  EXPECT_THAT(documents[0].questions[0].options, ElementsAre("White", "Red", "Green"));
  EXPECT_EQ(documents[0].questions[0].gold_option, 1);
  EXPECT_EQ(documents[0].questions[1].text, "Who keeps the log of \"every ship\", as the text says?");
  EXPECT_EQ(documents[0].questions[1].gold_answer, "Ida Sommer");
  ASSERT_EQ(documents[1].questions.size(), 2);
  EXPECT_EQ(documents[1].questions[0].gold_option, 1);
  EXPECT_EQ(documents[1].questions[1].id, "minutes/2024-05.md_2");
  EXPECT_THAT(dataset->notes(), IsEmpty());
  EXPECT_FALSE(documents[0].questions[0].written_by_model);
}

TEST_F(Folder, ACellMayListSeveralRightAnswers) {
  write("a.txt", "One.");
  write("questions.csv", "document,question,answer\na,Where?,NYC | New York\na,Who?,Anna\n");
  const DocumentFolder folder = read();
  ASSERT_EQ(folder.documents.at(0).questions.size(), 2U);
  EXPECT_EQ(folder.documents[0].questions[0].gold_answer, "NYC");
  EXPECT_THAT(folder.documents[0].questions[0].other_answers, ElementsAre("New York"));
  EXPECT_THAT(folder.documents[0].questions[1].other_answers, IsEmpty());
  EXPECT_THAT(notes(),
              HasSubstr("questions with several right answers, separated by '|', of which any one is enough: 1"));
  const Json before = document_folder_identity(path_.string());
  write("questions.csv", "document,question,answer\na,Where?,NYC | York\na,Who?,Anna\n");
  EXPECT_NE(document_folder_identity(path_.string()), before);
  write("questions.csv", "document,question,answer\na,Where?,NYC |\na,Who?,Anna\n");
  EXPECT_THAT(error(), HasSubstr("a right answer must be text"));
}

TEST_F(Folder, WithoutQuestionsTheModelIsAsked) {
  write("a.txt", "One.");
  write("b.MD", "Two.");
  const DocumentFolder folder = read();
  ASSERT_EQ(folder.documents.size(), 2);
  for (const Document& document : folder.documents) {
    ASSERT_EQ(document.questions.size(), kQuestionsByModel);
    for (const Question& question : document.questions) {
      EXPECT_TRUE(question.written_by_model);
      EXPECT_EQ(question.extra.at("written_by"), "model");
      EXPECT_FALSE(question.gold_option.has_value());
      EXPECT_THAT(question.gold_answer, IsEmpty());
    }
  }
  EXPECT_THAT(folder.notes, ElementsAre(HasSubstr("the model writes 3 questions about each document")));
}

TEST_F(Folder, SaysWhatItDoesNotRead) {
  write("a.txt", "One.");
  write("deep/er/b.txt", "Two.");
  write("c.pdf", "%PDF-");
  write(".hidden.txt", "x");
  write(".git/d.txt", "x");
  fs::create_directory_symlink("..", path_ / "deep" / "loop");
  fs::create_symlink("/etc/hostname", path_ / "host.txt");
  ASSERT_EQ(::mkfifo((path_ / "pipe.txt").c_str(), 0600), 0);  // reading it would wait for ever
  const DocumentFolder folder = read();
  ASSERT_EQ(folder.documents.size(), 2);
  EXPECT_EQ(folder.documents[1].id, "deep/er/b.txt");
  EXPECT_THAT(notes(),
              AllOf(HasSubstr("2 files are not read, because they are not plain .txt or .md files: c.pdf, pipe.txt"),
                    HasSubstr("2 hidden files or folders are not read: .git, .hidden.txt"),
                    HasSubstr("2 symbolic links are not followed: deep/loop, host.txt")));
}

TEST_F(Folder, NamesEveryDocumentThatCannotBeRead) {
  write("empty.txt", " \n\t");
  write("latin.txt", "caf\xE9 au lait");
  write("nul.txt", std::string("ab\0c", 4));
  write("pdf.txt", "%PDF-1.7");
  write("huge.txt", "");
  fs::resize_file(path_ / "huge.txt", std::uintmax_t{1} << 40U);
  write("fine.txt", "Text.");
  EXPECT_THAT(error(), AllOf(HasSubstr("5 problems in " + path_.string() + "\n"),
                             HasSubstr("the document is empty\n  where: " + path_.string() + "/empty.txt"),
                             HasSubstr("not UTF-8: byte 0xe9 at offset 3; it seems to be Latin-1"),
                             HasSubstr("byte 0x00 at offset 2"), HasSubstr("a PDF file"),
                             HasSubstr("has 1099511627776 bytes; a document may have 67108864"),
                             Not(HasSubstr("fine.txt")), Not(HasSubstr("--encoding"))));
}

TEST_F(Folder, RefusesWhatWouldPassUnseen) {
  EXPECT_THAT(error(), HasSubstr("has no .txt or .md file"));
  write("c.pdf", "x");
  EXPECT_THAT(error(), HasSubstr("has no .txt or .md file; 1 file is not read"));
  write("a.txt", "One.");
  for (const std::string name : {"questions.xlsx", "Questions.csv", "questions.tsv"}) {
    write(name, "x");
    EXPECT_THAT(error(), AllOf(HasSubstr("questions are read from 'questions.csv' only"), HasSubstr("/" + name)));
    fs::remove(path_ / name);
  }
  fs::create_symlink("/etc/hostname", path_ / "questions.csv");
  EXPECT_THAT(error(), HasSubstr("'questions.csv' must be a file"));
  fs::remove(path_ / "questions.csv");
  write("bad\nname\x1b[2J.txt", "x");
  EXPECT_THAT(error(),
              AllOf(HasSubstr("control characters"), HasSubstr("bad\\x0aname\\x1b[2J.txt"), Not(HasSubstr("\x1b"))));
}

TEST_F(Folder, TellsCopiesOfOneText) {
  write("a.txt", "One.");
  write("b.txt", "One.\n");
  EXPECT_THAT(notes(), HasSubstr("2 documents have the same text, which makes intervals too narrow: a.txt, b.txt"));
}

TEST_F(Folder, IdentityIsThatOfTheContent) {
  write("a.txt", "One.");
  const Json before = document_folder_identity(path_);
  write("notes.pdf", "x");
  EXPECT_EQ(document_folder_identity(path_), before);
  const fs::path elsewhere = path_.string() + "_moved";
  fs::remove_all(elsewhere);
  fs::rename(path_, elsewhere);
  EXPECT_EQ(document_folder_identity(elsewhere).at("content_hash"), before.at("content_hash"));
  fs::rename(elsewhere, path_);
  write("questions.csv", "document,question,answer\na,Who?,me\n");
  const Json asked = document_folder_identity(path_);
  EXPECT_NE(asked.at("content_hash"), before.at("content_hash"));
  write("questions.csv", "document,question,answer\na,Who?,you\n");
  EXPECT_NE(document_folder_identity(path_).at("content_hash"), asked.at("content_hash"));
}

TEST_F(Questions, AreReadAsSpreadsheetsWriteThem) {
  for (const char separator : {',', ';', '\t'}) {
    std::string csv =
        "\xEF\xBB\xBF"
        "Document;Question;Answer;Option 1;Option 2;option_3;Gold;remark\r\n"
        "a.txt;\"What was \"\"sold\"\";\r\nwhen?\";the mill;;;;;\r\n"
        ";;;;;;;\r\n"
        ".\\sub\\b.md;Who?;;Ida;Anna;;b);x\r\n"
        "./sub/b;Who?;;Ida;Anna;;2;";
    std::replace(csv.begin(), csv.end(), ';', separator);
    if (separator != ';') csv.replace(csv.find("\"\"sold\"\"") + 8, 1, ";");
    write("questions.csv", csv);
    const DocumentFolder folder = read();
    ASSERT_EQ(folder.documents.size(), 2) << separator;
    EXPECT_EQ(folder.documents[0].questions.at(0).text, "What was \"sold\";\nwhen?");
    EXPECT_EQ(folder.documents[0].questions.at(0).gold_answer, "the mill");
    ASSERT_EQ(folder.documents[1].questions.size(), 2);
    for (const Question& question : folder.documents[1].questions) {
      EXPECT_THAT(question.options, ElementsAre("Ida", "Anna"));
      EXPECT_EQ(question.gold_option, 1);
    }
    EXPECT_THAT(folder.notes, ElementsAre("columns of questions.csv that are not read: remark"));
  }
}

TEST_F(Questions, LeaveOutDocumentsWithoutOne) {
  write("c.txt", "");
  EXPECT_EQ(error_of("a,What?,mill,,,\n"), "no error");  // an empty document nobody asks about is not read
  EXPECT_THAT(notes(),
              HasSubstr("2 of 3 documents have no question in questions.csv and are left out: c.txt, sub/b.md"));
  EXPECT_EQ(read().documents.size(), 1);
}

TEST_F(Questions, SayWhatIsWrongWithLineAndColumn) {
  write("sub/b.txt", "x");
  const std::string where = path_.string() + "/questions.csv:";
  struct Case {
    std::string rows, fact, place;
  };
  const std::vector<Case> cases = {
      {"b.md,Who?,x,,,\n", "there is no document 'b.md' in the folder", "2, document"},
      {"\n\na.tx,Who?,x,,,\n", "did you mean 'a.txt'?", "4, document"},
      {"../../etc/passwd,Who?,x,,,\n", "there is no document '../../etc/passwd'", "2, document"},
      {"/etc/passwd,Who?,x,,,\n", "there is no document '/etc/passwd'", "2, document"},
      {"sub/b,Who?,x,,,\n", "'sub/b' may be sub/b.md or sub/b.txt", "2, document"},
      {",Who?,x,,,\n", "'document' is missing", "2, document"},
      {"a,,x,,,\n", "'question' is missing", "2, question"},
      {"a,Who?,,,,\n", "'answer' is missing", "2, answer"},
      {"a,Who?,x,p|q,A,\n", "a question with options has a free answer too", "2, answer"},
      {"a,Who?,,p|q,,\n", "'gold' is missing", "2, gold"},
      {"a,Who?,,p|q,r,\n", "gold must be one of the options; got \"r\"", "2, gold"},
      {"a,Who?,,p|q,3,\n", "gold must be one of the options; got \"3\"", "2, gold"},
      {"a,Who?,,p|q,C,\n", "gold must be one of the options; got \"C\"", "2, gold"},
      {"a,Who?,,p|q,0,\n", "gold must be one of the options; got \"0\"", "2, gold"},
      {"a,Who?,,p|q,99999999999999999999999,\n", "gold must be one of the options", "2, gold"},
      {"a,Who?,,1|3|2,2,\n", "gold '2' is the text of option 3, but also names option 2", "2, gold"},
      {"a,Who?,,p|p,1,\n", "duplicate option 'p'", "2, options[1]"},
      {"a,Who?,,p|,1,\n", "the option is empty", "2, options[1]"},
      {"a,Who?,,p,1,\n", "there are 1 options", "2, options"},
      {"a,Who?,x,,,q1\nsub/b.md,When?,y,,,q1\n", "duplicate question id 'q1', first in line 2", "3, id"},
      {"a,Who?,x,,,,,more\n", "cell 8 has no column: 'more'", "2"},
      {"a,\"Who?,x,,,\n", "the quote that opens a cell here is not closed", "2"},
      {"a,\"Who\"?,x,,,\n", "there is text behind the closing quote", "2"},
      {"a," + std::string(300, ',') + "\n", "more than 256 cells", "2"},
      {"", "the file has no questions", ""},
  };
  for (const Case& one : cases) {
    const std::string message = error_of(one.rows);
    EXPECT_THAT(message, HasSubstr(one.fact)) << one.rows;
    EXPECT_THAT(message, HasSubstr(one.place.empty() ? "" : where + one.place)) << one.rows;
  }
}

TEST_F(Questions, NeedTheirColumns) {
  const auto error_with = [&](const std::string& csv) {
    write("questions.csv", csv);
    return error();
  };
  EXPECT_THAT(error_with("file,question,answer\na,b,c\n"),
              AllOf(HasSubstr("column 'document' is missing; the first row has: file, question, answer"),
                    HasSubstr("questions.csv:1")));
  EXPECT_THAT(error_with("document,question,options\na,b,c\n"), HasSubstr("there is no column 'answer'"));
  EXPECT_THAT(error_with("document,question,answer,Answer\na,b,c,d\n"), HasSubstr("duplicate column 'answer'"));
  EXPECT_THAT(error_with("document,question,option_1,option_2,option_3,gold\na,b,x,,y,1\n"),
              HasSubstr("the option is empty, but option_3 is not"));
  EXPECT_THAT(error_with("document,question,options,option_1,option_2,gold\na,b,x|y,x,y,1\n"),
              HasSubstr("options in 'options' and in columns of their own"));
  EXPECT_THAT(error_with("document,question,answer\na,caf\xE9,c\n"),
              AllOf(HasSubstr("byte 0xe9 at offset 30"), HasSubstr("CSV UTF-8")));
}

TEST_F(Questions, ManyUnknownDocumentsAreCountedInGoodTime) {
  for (int i = 0; i < 200; ++i) write("d" + std::to_string(i) + ".txt", "x");
  std::string rows;
  for (int i = 0; i < 100'000; ++i) rows += "no_such_document_" + std::to_string(i) + ",Who?,x,,,\n";
  EXPECT_THAT(error_of(rows), HasSubstr("(the first 20 of 100000)"));
}

CsvTable csv(const std::string& text) {
  DataReader in("t.csv", "");
  CsvTable table = read_csv(text, in);
  in.fail_if_needed();
  return table;
}

TEST(Csv, ReadsLinesOfEveryKind) {
  for (const std::string end : {"\n", "\r\n", "\r"}) {
    const CsvTable table = csv("a,b" + end + "1,\"x" + end + "y\"" + end + end + "2,");
    ASSERT_EQ(table.rows.size(), 3);
    EXPECT_THAT(table.rows[1].cells, ElementsAre("1", "x\ny"));
    EXPECT_EQ(table.rows[1].line, 2);
    EXPECT_THAT(table.rows[2].cells, ElementsAre("2", ""));
    EXPECT_EQ(table.rows[2].line, 5);
  }
}

TEST(Csv, FindsTheSeparator) {
  EXPECT_EQ(csv("a;b;\"c,d,e,f\"\n").separator, ';');
  EXPECT_EQ(csv("a\tb,c\td\n").separator, '\t');
  EXPECT_EQ(csv("a\n").separator, ',');
  const CsvTable named = csv("sep=;\r\na;b,c,d\r\n");
  ASSERT_EQ(named.rows.size(), 1);
  EXPECT_THAT(named.rows[0].cells, ElementsAre("a", "b,c,d"));
  EXPECT_EQ(named.rows[0].line, 2);
  EXPECT_EQ(csv("sep=\n\n1,2\n").rows.size(), 2);  // no separator: a row like others
  EXPECT_THAT(csv("").rows, IsEmpty());
}

TEST(Csv, AQuoteInsideAnUnquotedCellIsACharacter) {
  EXPECT_THAT(csv("6\" pipe,\"\"\"q\"\"\"\n").rows.at(0).cells, ElementsAre("6\" pipe", "\"q\""));
}

}  // namespace
}  // namespace kvc
