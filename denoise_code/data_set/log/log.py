"""An interaction log: what a source gives and windows are cut from; and the account of what became of its records."""

from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class Log:
    """Interactions in file order: users, items and times are (N,) int64; titles[item] is None where unknown.

    times are whole numbers of 10^-decimals of the file's unit; ratings are (N,) float64, None where a source has none;
    rows (N,) int64 are the numbers of the input's records, from 0; user_keys[user] and item_keys[item] are the log's own.
    times_are_dates: whether they were ISO dates, so that the unit is seconds since 1970.
    """

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    titles: list
    ratings: np.ndarray | None = None
    decimals: int = 0
    rows: np.ndarray | None = None
    user_keys: list | None = None
    item_keys: list | None = None
    times_are_dates: bool = False

    def pick(self, rows: np.ndarray) -> "Log":
        """The log with these rows only, all titles and keys kept."""
        ratings = None if self.ratings is None else self.ratings[rows]
        numbers = None if self.rows is None else self.rows[rows]
        columns = {"users": self.users[rows], "items": self.items[rows], "times": self.times[rows]}
        return replace(self, **columns, ratings=ratings, rows=numbers)


NOT_LOST = {"duplicate_lines": ": kept", "single_interactions": ": kept, in no window"}


@dataclass
class Account:
    """What became of the records of a log: counts in the order of the steps, and what a person should know."""

    rows_read: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    nearly_meeting: dict[str, int] = field(default_factory=dict)  # keys of users, items and titles
    items_with_several_titles: int = 0

    def share(self, name: str) -> float:
        return self.counts[name] / max(self.rows_read, 1)

    def lines(self) -> list[str]:
        """The counts with their shares of the records read, for people."""
        lines = [f"rows read {self.rows_read:,}"]
        for name, count in self.counts.items():
            lines.append(f"  {name.replace('_', ' ')} {count:,} ({self.share(name):.2%}){NOT_LOST.get(name, '')}")
        return lines

    def as_json(self) -> dict:
        return {
            "rows_read": self.rows_read,
            **self.counts,
            "keys_that_nearly_meet": self.nearly_meeting,
            "items_with_several_titles": self.items_with_several_titles,
        }
