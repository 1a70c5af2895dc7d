"""Writes, reads and compares a Markdown table of instruction counts.

A row has the name of what was counted (one or several cells), the instructions, the work (multiply-adds, or elements
moved), and the instructions per four units of work, which one NEON instruction does.
"""

from dataclasses import dataclass
from pathlib import Path

# Allowed increase over the table. The noise is far smaller: a few hundred instructions in a run of a network.
GROWTH = 1.02


@dataclass
class Row:
    name: tuple[str, ...]
    executed: int
    work: int

    def cells(self) -> tuple:
        return *self.name, self.executed, self.work, f"{4 * self.executed / self.work:.3f}"


class Table:
    """The table in a file; `columns` name its cells."""

    def __init__(self, path: Path, title: str, columns: tuple[str, ...]):
        self.path, self.title, self.columns = path, title, columns

    def stored(self) -> dict[tuple[str, ...], int]:
        """Instructions by name."""
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in self.path.read_text().splitlines()]
        return {tuple(cells[:-3]): int(cells[-3]) for cells in lines if len(cells) > 3 and cells[-3].isdigit()}

    def write(self, rows: list[Row]) -> None:
        lines = [self.columns, ["---"] * len(self.columns), *(row.cells() for row in rows)]
        text = "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
        self.path.write_text(f"{self.title}\n\n{text.replace(' --- ', '---')}\n")


def compare(row: Row, before: dict[tuple[str, ...], int]) -> bool:
    """Print a row beside its entry in the table; whether it is within bounds."""
    stored = before.get(row.name)
    change = f"{100 * (row.executed / stored - 1):+.2f} %" if stored else "not in the table"
    width = 76 - sum(map(len, row.name[:-1]))
    name = " ".join((*row.name[:-1], row.name[-1].ljust(width)))
    print(f"{name} {row.executed / 1e6:9.3f} M, {row.cells()[-1]} for 4  {change if before else ''}", flush=True)
    return stored is not None and row.executed <= GROWTH * stored
