"""Says why a bill was refused: where it breaks which rule, and the way out. A bill is taken whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# The rule of what no rule foresees.
UNFORESEEN = "unforeseen"


class BillRefused(Exception):
    """A bill that can't be used.

    `row` counts from 1 after the header of the part that broke the rule; 0 means the header or the file itself. `rule`
    is a fixed name (see the README), `column` is empty where no single column is to blame. What can't be printed is
    shown by its code: a refusal quotes what somebody else wrote, and the database takes no NUL or lone surrogate.
    """

    def __init__(self, rule: str, message: str, way_out: str, *, row: int = 0, column: str = "") -> None:
        message = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in message)
        where = ", ".join(filter(None, [f"row {row}" if row else "", f"column {column}" if column else ""]))
        super().__init__(f"{where}: {message} {way_out}" if where else f"{message} {way_out}")
        self.rule, self.message, self.way_out = rule, message, way_out
        self.row, self.column = row, column


class FieldRefused(Exception):
    """One value that breaks a rule; the reader of the row adds where it stands."""

    def __init__(self, rule: str, message: str, way_out: str) -> None:
        super().__init__(message)
        self.rule, self.message, self.way_out = rule, message, way_out

    def at(self, row: int, column: str) -> BillRefused:
        """The same refusal, with its place."""
        return BillRefused(self.rule, self.message, self.way_out, row=row, column=column)


@contextmanager
def refusing_unforeseen(where: str) -> Iterator[None]:
    """Make a refusal of what goes wrong with a value while a bill's content is read, and no rule foresees.

    For the pure reading of content only: whatever somebody wrote there must not end a source's daily job, while a
    mistake anywhere else must be seen as one.
    """
    try:
        yield
    except (ValueError, ArithmeticError) as error:
        raise BillRefused(
            UNFORESEEN,
            f"{where} has something that we didn't foresee ({type(error).__name__}: {str(error)[:200]}).",
            "Have the export delivered again; if that doesn't help, report it.",
        ) from error
