"""Items that a log does not show. Noise may be any item of the catalogue that people chose from, and a log shows a part of it.

Every item of a log has a user. So an item that is planted with another user has one there, while an item that stands in the log may have
none but its own. If noise were drawn from the items of the log alone, what nobody else has would never look planted, and in a log
with many such items what two or three have would look planted too often.

How many items are unseen is estimated from those that one user has and those that two have (Chao 1984, in the form without bias). For
other users an item of one user is as good as unseen, so copies of these stand in for what is unseen: with the title, nobody's counts
and nothing that was learned of the item itself. Where every item has several users, as in k-core data, nothing is unseen.
"""

from dataclasses import dataclass

import numpy as np

from denoise_code.data_set.interactions import DataSet, users_having_items


@dataclass(frozen=True)
class UnseenItems:
    """originals (K,) int64: items of one user; the stand-in for originals[k] has the number n_items + 1 + k.

    n_items: of the catalogue. share: of the unseen among all items that noise is drawn from, 0 where there is no stand-in.
    """

    n_items: int
    originals: np.ndarray
    share: float

    @property
    def n_items_and_stand_ins(self) -> int:
        return self.n_items + len(self.originals)

    def with_stand_ins(self, of_items: np.ndarray | None) -> np.ndarray | None:
        """What stands for each item (n_items + 1, ...), title vectors say, and for the stand-ins behind them; None of None."""
        return None if of_items is None else np.concatenate([of_items, of_items[self.originals]])

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Items (count,) int64: uniform over the catalogue and what is unseen of it."""
        items = rng.integers(1, self.n_items + 1, count)
        if self.share > 0:
            unseen = rng.random(count) < self.share
            items[unseen] = rng.integers(self.n_items + 1, self.n_items_and_stand_ins + 1, int(unseen.sum()))
        return items

    def originals_of(self, items: np.ndarray) -> np.ndarray:
        """The same items, originals in place of stand-ins; any shape."""
        by_number = np.concatenate([np.arange(self.n_items + 1), self.originals])
        return by_number[items]


def unseen_items(data: DataSet) -> UnseenItems:
    """Of the train interactions of a data set."""
    table, n_items = data.interactions, data.n_items
    holders = users_having_items(table.users[table.in_train], table.items[table.in_train], n_items)[1:]  # (n_items,)
    without, of_one, of_two = (int((holders == count).sum()) for count in (0, 1, 2))
    unseen = of_one * (of_one - 1) / (2 * (of_two + 1)) - without  # those without a user in train are drawn with the catalogue
    if unseen <= 0:
        return UnseenItems(n_items, np.zeros(0, dtype=np.int64), 0.0)
    return UnseenItems(n_items, np.flatnonzero(holders == 1) + 1, unseen / (unseen + n_items))
