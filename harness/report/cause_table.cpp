#include "harness/report/cause_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "harness/core/printable.h"

namespace kvc {
namespace {

std::vector<const CellSummary*> cells_of_row(const Row& row) {
  std::vector<const CellSummary*> cells;
  if (row.untargeted) cells.push_back(&*row.untargeted);
  for (const auto& cell : row.cells) {
    if (cell) cells.push_back(&*cell);
  }
  return cells;
}

bool still_wrong(const CellSummary& cell, const Explanation& explanation) {
  return std::any_of(cell.answers.begin(), cell.answers.end(), [&](const ScoredQuestion& question) {
    return question.document == explanation.document_id && question.question == explanation.question_id &&
           !question.values.empty() && question.values.front() < 0.5;
  });
}

std::string heads_text(const std::vector<HeadReading>& heads) {
  std::vector<std::string> list;
  for (const HeadReading& head : heads) {
    list.push_back(fmt::format("L{}H{} weight {:.2f} -> {:.2f}, mass {:+.2f} nats, output error {:.2f}", head.layer,
                               head.kv_head, head.weight_full, head.weight_compact, head.mass_error,
                               head.output_error));
  }
  return fmt::format("{}", fmt::join(list, "; "));
}

std::string tie_text(const TieFacts& tie) {
  std::string text;
  if (tie.margin_full && tie.margin_compact && tie.margin_deviation) {
    text = fmt::format("margin of the right answer {:+.2f} nats -> {:+.2f}, {:.2g} of it by noise; ", *tie.margin_full,
                       *tie.margin_compact, *tie.margin_deviation);
  }
  return text + fmt::format("under noise of {:.3g} the full cache is right in {} of {} draws{}", tie.noise, tie.right,
                            tie.draws, tie.near_tie ? " (a near-tie)" : "");
}

}  // namespace

std::vector<const Explanation*> explanations_of(const CellSummary& cell, const std::vector<Explanation>& explanations) {
  std::vector<const Explanation*> list;
  for (const Explanation& one : explanations) {
    const bool own = std::find(cell.cell_ids.begin(), cell.cell_ids.end(), one.cell_id) != cell.cell_ids.end();
    if (own && still_wrong(cell, one)) list.push_back(&one);
  }
  return list;
}

TextTable cause_table(const Table& table, const std::vector<Explanation>& explanations) {
  std::vector<std::string> causes = known_causes();
  const bool all_reproduced = std::none_of(explanations.begin(), explanations.end(),
                                           [](const Explanation& one) { return one.cause == kNotReproduced; });
  if (all_reproduced) causes.pop_back();
  TextTable text{{"method", "target", "explained"}, {}};
  text.header.insert(text.header.end(), causes.begin(), causes.end());
  for (const Row& row : table.rows) {
    for (const CellSummary* cell : cells_of_row(row)) {
      const std::vector<const Explanation*> own = explanations_of(*cell, explanations);
      if (own.empty()) continue;
      std::vector<std::string> line = {row.label(), cell->target.is_null() ? kNoValue : target_text(cell->target),
                                       std::to_string(own.size())};
      for (const std::string& cause : causes) {
        line.push_back(std::to_string(
            std::count_if(own.begin(), own.end(), [&](const Explanation* one) { return one->cause == cause; })));
      }
      text.rows.push_back(std::move(line));
    }
  }
  return text;
}

std::string cell_name(const Tabulated& tabulated, const std::string& cell_id) {
  for (const Table& table : tabulated.tables) {
    for (const Row& row : table.rows) {
      for (const CellSummary* cell : cells_of_row(row)) {
        if (std::find(cell->cell_ids.begin(), cell->cell_ids.end(), cell_id) == cell->cell_ids.end()) continue;
        return cell->target.is_null() ? row.label() : row.label() + " at " + target_text(cell->target);
      }
    }
  }
  return cell_id;
}

std::string explanation_text(const Explanation& e, const std::string& cell_name) {
  std::string text = fmt::format("{}, {}\n  full cache: {}\n  compact:    {}\n  {}{}: {}\n", printable(e.question_id),
                                 cell_name, printable(e.full_reply), printable(e.compact_reply), e.cause,
                                 e.repair.empty() ? "" : " (" + e.repair + ")", e.sentence);
  for (const TextPiece& piece : e.pieces) {
    text += fmt::format("    token{} {}{}: {}[[{}]]{}\n", piece.n_tokens == 1 ? "" : "s", piece.first_token,
                        piece.n_tokens == 1 ? "" : fmt::format("-{}", piece.first_token + piece.n_tokens - 1),
                        printable(piece.before), printable(piece.text), printable(piece.after));
  }
  if (!e.pieces.empty()) {
    text += fmt::format("    the compact cache kept {:.0f} % of their entries{}\n", 100 * e.kept_share,
                        e.pieces_finished ? "" : "; the limit of tests was reached, less text may do");
  }
  if (e.tie.draws > 0) text += fmt::format("  {}\n", tie_text(e.tie));
  if (!e.heads.empty()) text += fmt::format("  heads: {}\n", heads_text(e.heads));
  for (const std::string& line : e.assumed) text += fmt::format("  assumed: {}\n", line);
  return text;
}

}  // namespace kvc
