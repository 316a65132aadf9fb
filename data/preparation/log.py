"""An interaction log: what a source gives and windows are cut from. Knows nothing of files, windows and noise."""

from dataclasses import dataclass, replace

import numpy as np


class DataError(ValueError):
    """Input that cannot be used; the message names file, line or option."""


@dataclass(frozen=True)
class Log:
    """Interactions in file order: users, items and times are (N,) int64; titles[item] is None where unknown.

    times are whole numbers of 10^-decimals of the file's unit; ratings are (N,) float64, None where a source has none.
    """

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    titles: list
    ratings: np.ndarray | None = None
    decimals: int = 0

    def pick(self, rows: np.ndarray) -> "Log":
        """The log with these rows only, all titles kept."""
        ratings = None if self.ratings is None else self.ratings[rows]
        return replace(self, users=self.users[rows], items=self.items[rows], times=self.times[rows], ratings=ratings)

    def named(self, titles: dict) -> "Log":
        """The log whose titles so far were the items' keys, with the titles by key."""
        return replace(self, titles=[titles.get(key) for key in self.titles])
