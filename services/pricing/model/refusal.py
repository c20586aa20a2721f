"""Says why a bill was refused: where it breaks which rule, and the way out. A bill is taken whole or not at all."""

from __future__ import annotations


class BillRefused(Exception):
    """A bill that can't be used.

    `row` counts from 1 after the header of the part that broke the rule; 0 means the header or the file itself. `rule`
    is a fixed name (see the README), `column` is empty where no single column is to blame.
    """

    def __init__(self, rule: str, message: str, way_out: str, *, row: int = 0, column: str = "") -> None:
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
