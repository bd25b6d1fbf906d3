"""Tables that fit, and what they leave out."""

import io

from rich.console import Console

from models.metrics.measures import SAME_IDENTITY, Scores
from models.metrics.tables import Table, as_markdown, at_width, print_table, scores_table


def test_measures_that_no_row_has_are_left_out() -> None:
    rows = [("a", Scores(l1=0.1, psnr=20.0)), ("b", Scores(psnr=30.0))]
    table = scores_table("Title", rows, ("psnr", "l1", "fid"), "Note.")
    assert table.columns == ("", "PSNR ↑", "L1 ↓")
    assert table.rows == (("a", "20.00", "0.1000"), ("b", "30.00", "-"))


def test_markdown_has_title_note_and_a_line_a_row() -> None:
    text = as_markdown(Table("Title", ("", "x"), (("a", "1"), ("b", "2")), "Note."))
    assert text == "**Title**\n\n|  | x |\n|---|---|\n| a | 1 |\n| b | 2 |\n\nNote.\n"


def test_the_layout_of_table_1_fits_80_columns() -> None:
    full = Scores(**{key: 0.1234 for key in SAME_IDENTITY if key not in ("fid", "lse_d", "lse_c")})
    file = io.StringIO()
    print_table(Console(file=file, width=80), scores_table("T", [("keyframe unmoved", full)], SAME_IDENTITY))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert file.getvalue().count("0.12") == 8  # no number is broken or cut


def test_a_file_gets_wide_tables() -> None:
    assert at_width(Console(file=io.StringIO(), width=80)).width == 120
    assert at_width(Console(file=io.StringIO(), width=200)).width == 200
    assert at_width(Console(file=io.StringIO(), width=80, force_terminal=True)).width == 80
