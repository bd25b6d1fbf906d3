"""Tables of measures, as plain rows; printed by rich in a terminal and as Markdown in a file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from models.metrics.measures import BY_KEY, Scores, shown

WIDE = 120  # columns, where it is not a terminal that says how many
LABEL_COLUMNS = 12  # at least, for the names of the rows
HYPHEN = re.compile(r"-(?=\w{3})")  # titles break behind it, so that columns stay narrow


@dataclass(frozen=True, slots=True)
class Table:
    """Text cells; the first column is left-aligned, the others right. `bold` rows matter most."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    bold: frozenset[int] = frozenset()
    words: bool = False  # whether the other columns hold words too, and are left-aligned


def scores_table(
    title: str,
    rows: Sequence[tuple[str, Scores]],
    keys: Sequence[str],
    note: str = "",
    bold: frozenset[int] = frozenset(),
) -> Table:
    """The measures `keys` of every named row; those that no row has are left out."""
    kept = [key for key in keys if any(getattr(scores, key) is not None for _, scores in rows)]
    columns = ("", *(f"{BY_KEY[key].title} {_arrow(key)}" for key in kept))
    cells = tuple((name, *(shown(key, getattr(scores, key)) for key in kept)) for name, scores in rows)
    return Table(title, columns, cells, note, bold)


def at_width(console: Console) -> Console:
    """The console, or a wide one where it is a file that would cut the tables short."""
    if console.is_terminal or console.width >= WIDE:
        return console
    return Console(file=console.file, width=WIDE)


def print_table(console: Console, table: Table) -> None:
    """One table, as wide as the console."""
    shown_table = RichTable(
        title=table.title,
        caption=table.note or None,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title_justify="left",
        caption_justify="left",
    )
    for number, column in enumerate(table.columns):
        shown_table.add_column(
            HYPHEN.sub("-\n", column),
            justify="left" if number == 0 or table.words else "right",
            overflow="fold",
            min_width=LABEL_COLUMNS if number == 0 else None,
        )
    for number, row in enumerate(table.rows):
        shown_table.add_row(*row, style="bold" if number in table.bold else "")
    console.print(shown_table)


def as_markdown(table: Table) -> str:
    """The table with its title and note, ending with a line break."""
    lines = [f"**{table.title}**", "", f"| {' | '.join(table.columns)} |"]
    lines.append("|---" * len(table.columns) + "|")
    lines += [f"| {' | '.join(row)} |" for row in table.rows]
    return "\n".join([*lines, *(["", table.note] if table.note else [])]) + "\n"


def _arrow(key: str) -> str:
    return "↑" if BY_KEY[key].better.value > 0 else "↓"
