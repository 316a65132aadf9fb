"""What is read, and which rows take what from it: each row by itself, or each interaction of a user once.

Knows nothing of tokens and models: a text is a run of items here.

Windows overlap, so that one interaction stands in up to eleven rows. An interaction is noise or it is not: read once, with
the most history before it, it has one probability and one replacement in all rows that hold it.

The target of a valid or test row must not reach the row's history. So each interaction has a `first_unknowable` place, the
first one that its probability and replacement may not know: the earliest target among the valid and test rows whose history
holds it, and, where a train row holds it, the end of the user's train rows, so that nothing of later periods reaches it either.
A text ends at or before the first unknowable place of all that it scores, or it is read causally: what stands behind a title
cannot reach the likelihood of that title, and for a replacement the text is cut at the first unknowable place.
"""

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from denoise_code.common.errors import InputError
from denoise_code.data_set.folder import find_train_file
from denoise_code.data_set.planting import PLANTED
from denoise_code.data_set.rows import read_windows, scores_all_items, whole_numbers
from denoise_code.data_set.windows import ScoredSplit, Window

# An interaction is scored with at least half a window before it, so about as much as a row's items have on average.
LEAST_HISTORY = 0.5
# Each text reads again half a window that the text before it ended with: of 4 windows' length that is an eighth of its items.
# Longer texts save little more, and more models have too few positions for them.
WINDOWS_A_CAUSAL_TEXT = 4


@dataclass(frozen=True, slots=True)
class Interaction:
    """An item at its place in a stretch, and the first place there that its probability and replacement may not know."""

    item: int
    first_unknowable: int


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A row of a split: its scored items are `length` interactions from place `start` on."""

    split: str
    row: int
    start: int
    length: int

    @property
    def stop(self) -> int:
        """The place behind the last scored item: the target's, of a valid or test row."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Text:
    """Interactions that the model reads as one window: those of a stretch from place `start` on.

    The first `n_only_read` of them are only read; the text scores the others. window: the items of the longest row.
    """

    items: tuple[int, ...]
    start: int
    n_only_read: int
    window: int

    @property
    def stop(self) -> int:
        return self.start + len(self.items)

    @property
    def first_scored(self) -> int:
        """The place of the first interaction that this text scores."""
        return self.start + self.n_only_read

    @property
    def size(self) -> int:
        """How many windows hold as many items, rounded up."""
        return -(-len(self.items) // self.window)


@dataclass(frozen=True)
class Stretch:
    """Interactions of one user that follow each other without a gap, oldest first; no other stretch holds any of them.

    texts: by place, each scores what follows the one before it. rows: those that take their values from here.
    window: the items of the longest row.
    """

    interactions: list[Interaction]
    texts: list[Text]
    rows: list[PlacedRow]
    window: int

    def text_number(self, place: int) -> int:
        """The number in `texts` of the text that scores the interaction at a place (of those before all texts, the first)."""
        return max(0, bisect_right(self.texts, place, key=lambda text: text.first_scored) - 1)

    def items_not_to_suggest(self, place: int) -> frozenset[int]:
        """Items of the rows that may hold this interaction, as far as it may know them: none of them is its replacement."""
        first = max(0, place + 1 - self.window)
        stop = min(place + self.window, self.interactions[place].first_unknowable)
        return frozenset(interaction.item for interaction in self.interactions[first:stop])


def plan_parts(splits: dict[str, ScoredSplit], by_interaction: bool, causal: bool, data_set: Path) -> dict[str, list[Stretch]]:
    """{part of the job: stretches}: a split by itself, or all splits of the users as one part.

    Planted rows are a part of their own. Read causally, each has the history that an interaction of its place is read with.
    """
    if not by_interaction:
        return {split: plan_rows(split, scored.windows) for split, scored in splits.items()}
    users = {split: scored for split, scored in splits.items() if split != PLANTED}
    parts = {"interactions": plan_interactions(users, causal)}
    if PLANTED in splits:
        planted = splits[PLANTED]
        histories = planted_histories(planted.table, read_windows(find_train_file(data_set))) if causal else None
        parts[PLANTED] = plan_rows(PLANTED, planted.windows, histories)
    return parts


def plan_rows(split: str, windows: list[Window], histories: list[tuple[int, ...]] | None = None) -> list[Stretch]:
    """A stretch for each row, read by itself or after its history: items that stand before it in its user's sequence."""
    stretches = []
    for window, history in zip(windows, histories or [()] * len(windows)):
        items, length = (*history, *window.items), len(window.items)
        interactions = [Interaction(item, first_unknowable=len(items)) for item in items]
        text = Text(items, start=0, n_only_read=len(history), window=length)
        row = PlacedRow(split, window.row, start=len(history), length=length)
        stretches.append(Stretch(interactions, [text], [row], length))
    return stretches


def plan_interactions(
    splits: dict[str, ScoredSplit],
    causal: bool,
    least_history: float = LEAST_HISTORY,
    windows_a_causal_text: int = WINDOWS_A_CAUSAL_TEXT,
) -> list[Stretch]:
    """The stretches that all rows of the splits make.

    Each interaction is read with at least `least_history` of a window before it, as far as there is that much.
    A causal text is as long as `windows_a_causal_text` windows, any other as one.
    """
    rows = place_rows(splits)
    window = int(rows["length"].max())
    text_length = windows_a_causal_text * window if causal else window
    n_only_read = min(int(np.ceil(least_history * window)), text_length - 1)  # each text scores one interaction or more

    users = rows["user"].tolist()
    columns = (rows[name].tolist() for name in ("split", "row", "start", "length"))
    placed = [PlacedRow(*values) for values in zip(*columns)]
    firsts = np.flatnonzero(starts_a_stretch(rows)).tolist()
    stretches = []
    for first, stop in zip(firsts, [*firsts[1:], len(placed)]):
        sequence, own_rows = join_rows(users[first], placed[first:stop], splits)
        first_unknowable = first_unknowable_places(own_rows, len(sequence))
        texts = cut_into_texts(sequence, first_unknowable, text_length, n_only_read, causal, window)
        interactions = [Interaction(item, place) for item, place in zip(sequence, first_unknowable)]
        stretches.append(Stretch(interactions, texts, own_rows, window))
    return stretches


def starts_a_stretch(rows: pd.DataFrame) -> np.ndarray:
    """(N,) bool of rows by user and start: the user's first row, and each that starts behind a gap after all before it."""
    stop = rows["start"] + rows["length"]
    furthest_stop = stop.groupby(rows["user"], sort=False).cummax()
    before = furthest_stop.groupby(rows["user"], sort=False).shift()  # NaN in the first row of a user
    return (before.isna() | (rows["start"] > before)).to_numpy()


def join_rows(user, rows: list[PlacedRow], splits: dict[str, ScoredSplit]) -> tuple[tuple[int, ...], list[PlacedRow]]:
    """The sequence of items that overlapping rows make, by their starts, and the rows as they are placed in it."""
    offset, item_at, placed = rows[0].start, {}, []
    for row in rows:
        for place, item in enumerate(splits[row.split].windows[row.row].items, row.start - offset):
            if item_at.setdefault(place, item) != item:
                raise InputError(
                    f"{row.split}.csv row {row.row + 1}: start {row.start} of user {user} disagrees with the rows before it"
                )
        placed.append(PlacedRow(row.split, row.row, row.start - offset, row.length))
    return tuple(item_at[place] for place in range(len(item_at))), placed


def first_unknowable_places(rows: list[PlacedRow], n: int) -> list[int]:
    """The first place that each of n interactions may not know, from the rows that hold them."""
    places = np.full(n, n)  # (n,) int64
    train_stop = max((row.stop for row in rows if scores_all_items(row.split)), default=0)  # no planted rows: a part of their own
    places[:train_stop] = train_stop
    for row in rows:
        if not scores_all_items(row.split):
            history = slice(row.start, row.stop)
            places[history] = np.minimum(places[history], row.stop)  # the place of the row's target
    # A text that scores an interaction also scores later ones, so nothing may know more than what comes after it.
    return np.minimum.accumulate(places[::-1])[::-1].tolist()


def cut_into_texts(
    items: tuple[int, ...], first_unknowable: list[int], length: int, n_only_read: int, causal: bool, window: int
) -> list[Text]:
    """Texts of at most `length` items that score each of the items (n,) once, after `n_only_read` others where there are so many."""
    texts, place = [], 0  # place: the first that is not scored yet
    while place < len(items):
        stop = max(0, place - n_only_read) + length
        if causal:
            stop, start = min(stop, len(items)), max(0, place - n_only_read)
        else:
            stop = min(stop, first_unknowable[place])
            start = max(0, stop - length)  # the most history that the length allows: it costs no more
        texts.append(Text(items[start:stop], start, place - start, window))
        place = stop
    return texts


def place_rows(splits: dict[str, ScoredSplit]) -> pd.DataFrame:
    """user, split, row, start and (scored) length of all rows, by user and start; starts are found where none are given."""
    tables = []
    for split, scored in splits.items():
        table, lengths = scored.table, [len(window.items) for window in scored.windows]
        rows = pd.DataFrame(
            {"user": table["user_id"].to_numpy(), "split": split, "row": np.arange(len(table)), "length": lengths}
        )
        rows["time"] = pd.to_numeric(table["timestamp"], errors="coerce").to_numpy()
        rows["start"] = whole_numbers(f"{split}.csv", table, "start") if "start" in table else -1
        tables.append(rows)
    rows = pd.concat(tables, ignore_index=True)
    if (rows["start"] < 0).any():
        rows = rows.sort_values(["user", "time"], kind="stable", ignore_index=True)
        rows["start"] = starts_where_rows_agree(rows, splits)
    return rows.sort_values(["user", "start", "length"], kind="stable", ignore_index=True)


def starts_where_rows_agree(rows: pd.DataFrame, splits: dict[str, ScoredSplit]) -> list[int]:
    """Starts (N,) of rows by user and time: where a row goes on as the one before it ends, for half of it or more.

    A row that continues nothing stands behind a gap after all of them. Rows that are joined are read as one text, so they must agree in all
    that they share; `interactions.place_windows`, for the table of interactions, joins rows that disagree in some places, too.
    """
    users = rows["user"].tolist()
    items = [splits[split].windows[row].items for split, row in zip(rows["split"], rows["row"])]  # (N,)
    starts, furthest_stop = [], 0
    for number, later in enumerate(items):
        if number == 0 or users[number] != users[number - 1]:
            start, furthest_stop = 0, 0
        else:
            shift = shift_between(items[number - 1], later)
            start = furthest_stop + 1 if shift is None else starts[-1] + shift
        starts.append(start)
        furthest_stop = max(furthest_stop, start + len(later))
    return starts


def shift_between(earlier: tuple[int, ...], later: tuple[int, ...]) -> int | None:
    """By how many places a window goes on from an earlier one: the fewest under which at least half of the shorter overlaps."""
    least_overlap = (min(len(earlier), len(later)) + 1) // 2
    for shift in range(len(earlier) - least_overlap + 1):
        if earlier[shift : shift + len(later)] == later[: len(earlier) - shift]:
            return shift
    return None


def planted_histories(planted: pd.DataFrame, train: pd.DataFrame) -> list[tuple[int, ...]]:
    """What stands before the first item of each planted row, where the train row that it was is read causally by interaction."""
    train_rows = np.flatnonzero(train["user_id"].isin(planted["user_id"]))
    windows = [Window(row, tuple(train["item_ids"].iat[row])) for row in train_rows]
    history_of = {}
    for stretch in plan_interactions({"train": ScoredSplit(train.iloc[train_rows], windows)}, causal=True):
        for row in stretch.rows:
            text = stretch.texts[stretch.text_number(row.start)]
            history_of[train_rows[row.row]] = text.items[: row.start - text.start]
    return [history_of[row] for row in planted["train_row"]]
