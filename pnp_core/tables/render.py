"""Tables as Markdown, CSV, LaTeX and HTML. The same tables always give the same bytes."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict

from tabulate import tabulate

from pnp_core.storage.ledger import Ledger, forget_files
from pnp_core.storage.ownership import writing
from pnp_core.storage.run_folder import RunFolder
from pnp_core.tables.build import NOTHING, PARTIAL, UNVERIFIED, Cell, Table, Tables
from pnp_core.text.html import templates_of
from pnp_core.text.markdown import markdown_text

RECORD = "tables.json"
KEY = (
    f"{PARTIAL} not the whole split, see its source; {UNVERIFIED} not compared with its source; {NOTHING} no such run, "
    f"or its scores are missing"
)


def cell_text(cell: Cell, sources: bool = True) -> str:
    """A cell as text, with the names of its sources."""
    if not cell:
        return NOTHING
    return " / ".join(f"{entry.text} ({entry.source})" if sources else entry.text for entry in cell)


def _grid(table: Table, sources: bool) -> list[list[str]]:
    return [[name, *(cell_text(cell, sources) for cell in cells)] for name, cells in table.rows]


def markdown(tables: Tables) -> str:
    """One document with all tables."""
    lines = ["# Benchmark tables", "", f"{KEY}.", ""]
    for table in tables.tables:
        heads = [markdown_text(head) for head in (table.corner, *table.columns)]
        rows = [[markdown_text(text) for text in row] for row in _grid(table, sources=True)]
        aligned = ["left", *["right"] * len(table.columns)]
        body = tabulate(rows, headers=heads, tablefmt="github", colalign=aligned, disable_numparse=True)
        lines += [f"## {markdown_text(table.title)}", "", markdown_text(table.caption), "", body, ""]
    lines += ["## Sources", ""]
    lines += [f"- **{source.name}** {markdown_text(source.text)}" for source in tables.sources]
    return "\n".join(lines) + "\n"


def comma_separated(table: Table, tables: Tables) -> str:
    """A line for every number, with all that is known of it; mIoU as a share."""
    facts = {source.name: source.facts for source in tables.sources}
    columns = ["table", "row", "column", "value", "text", "source"]
    known = ["run", "evaluation", "commit", "weights", "images", "partial"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns + known)
    for row, cells in table.rows:
        for column, cell in zip(table.columns, cells, strict=True):
            for entry in cell:
                value = "" if entry.value is None else repr(entry.value)
                own = [facts[entry.source].get(name) for name in known]
                line = [table.name, row, column, value, entry.text, entry.source, *own]
                writer.writerow(["" if item is None else _harmless(str(item)) for item in line])
    return buffer.getvalue()


def _harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula.

    >>> _harmless("=1+1"), _harmless("0.5")
    ("'=1+1", '0.5')
    """
    return f"'{text}" if len(text) > 1 and text.startswith(("=", "+", "-", "@")) else text


def latex(table: Table) -> str:
    """A tabular for the package booktabs, without the sources."""
    head = f"% {table.title}. {table.caption}\n".replace("\n", " ").rstrip() + "\n"
    body = tabulate(
        _grid(table, sources=False),
        headers=[table.corner, *table.columns],
        tablefmt="latex_booktabs",
        colalign=["left", *["right"] * len(table.columns)],
        disable_numparse=True,
    )
    return head + body.replace(PARTIAL, r"$^\dagger$") + "\n"


def page(tables: Tables) -> str:
    """One HTML page with all tables."""
    return (
        templates_of("pnp_core.tables")
        .get_template("tables.html")
        .render(tables=tables, key=KEY, shades=_shades, nothing=NOTHING)
    )


def _shades(table: Table) -> list[list[int | None]]:
    """Per cell 0 (lowest value of the table) to 9 (highest), None without a value."""
    values = [[cell[0].value if cell else None for cell in cells] for _, cells in table.rows]
    known = [value for row in values for value in row if value is not None]
    low, span = min(known, default=0), max(known, default=0) - min(known, default=0)
    return [[None if v is None else round(9 * (v - low) / span) if span else 9 for v in row] for row in values]


def write_tables(tables: Tables, out: str) -> list[str]:
    """Write all formats into a folder (a path or any fsspec URL); returns the files' names.

    Files of earlier tables that are no more go.

    Raises:
        OutputError: the folder cannot be written, or is not one of tables.
    """
    files = {"tables.md": markdown(tables), "index.html": page(tables)}
    for table in tables.tables:
        files[f"{table.name}.csv"] = comma_separated(table, tables)
        files[f"{table.name}.tex"] = latex(table)
    folder, names = RunFolder(out), sorted([*files, RECORD])
    with writing(out, "tables"):
        for name, text in files.items():
            folder.write(name, text.encode())
        forget_files(folder, Ledger.read(folder).files.keys() - set(names))
        folder.write_json(RECORD, {"files": names, **asdict(tables)})
    return names
