"""The rows of a split as padded arrays, with what stage 2 said of them."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from denoise_code.common.errors import InputError
from denoise_code.data_set.catalogue import fingerprint_of_catalogue
from denoise_code.data_set.planting import INJECTED
from denoise_code.data_set.rows import (
    WINDOW_COLUMNS,
    check_columns,
    parse_list,
    parse_lists,
    read_windows,
    scores_all_items,
    whole_numbers,
)

READ_COLUMNS = {"user_id", "item_ids", "mask", "replaced_item_titles", "timestamp", "start", "true_item_ids"}
DENOISED_COLUMNS = ("noise_prob", "noise_items", "noise_items_prob", "suggest_item_ids")


@dataclass(frozen=True)
class Split:
    """The windows of one split; W columns, left-padded, the last one is the target. K suspects a row.

    items, mask, clean (N, W) int64: the rows as they are, 1 where noise was injected, and before noise. noise_prob
    (N, W) is NaN where nothing was scored. suspects, suggestions (N, K) are item ids, 0 where there is none;
    suspect_prob (N, K) is -inf there. The last four are None for rows that were not denoised. places (N, W): which of its
    user's interactions a position is, counted from 0; None for released rows, which do not tell. times (N,) float64 of the
    targets, NaN where not known.
    """

    path: Path
    users: np.ndarray
    items: np.ndarray
    mask: np.ndarray
    clean: np.ndarray
    noise_prob: np.ndarray | None = None
    suspects: np.ndarray | None = None
    suspect_prob: np.ndarray | None = None
    suggestions: np.ndarray | None = None
    places: np.ndarray | None = None
    times: np.ndarray | None = None

    @property
    def editable(self) -> np.ndarray:
        """(N, W) where the filter may edit: every item of a train row, the history of any other."""
        editable = self.items != 0
        if not scores_all_items(self.path.name):
            editable[:, -1] = False
        return editable


def resize(split: Split, width: int) -> Split:
    """The split with the last `width` places of each window, or with more padding on the left."""
    names = {"items": 0, "mask": 0, "clean": 0, "noise_prob": np.nan, "places": -1}
    arrays = {name: getattr(split, name) for name in names}
    resized = {name: last_columns(array, width, names[name]) for name, array in arrays.items() if array is not None}
    return replace(split, **resized)


def last_columns(array: np.ndarray, width: int, fill) -> np.ndarray:
    """The last `width` columns of (N, W); left of its first one `fill`."""
    missing = max(width - array.shape[1], 0)
    padded = np.pad(array, ((0, 0), (missing, 0)), constant_values=fill)
    return padded[:, padded.shape[1] - width :]


def pad(rows: list[list], width: int, fill, dtype, left=True) -> np.ndarray:
    """(N, width) array of the last `width` values of each row (with left=False the first), padded on that side."""
    lengths = np.minimum([len(row) for row in rows], width)
    padded = np.full((len(rows), width), fill, dtype=dtype)
    columns = np.arange(width)
    inside = columns >= width - lengths[:, None] if left else columns < lengths[:, None]
    kept = [row[-width:] if left else row[:width] for row in rows]
    padded[inside] = np.fromiter((value for row in kept for value in row), dtype=dtype, count=int(lengths.sum()))
    return padded


def read_split(path: Path, titles: list[str], columns: str) -> Split:
    """Read one split, as wide as its longest window; raises InputError naming file and row.

    columns: whether those of generate_denoised.py are "needed", "optional" or "ignored". The target of a valid or test
    row is restored to the item before noise where the file has noise there (the release restored only test).
    """
    read = READ_COLUMNS if columns == "ignored" else READ_COLUMNS | set(DENOISED_COLUMNS)
    table = read_windows(path, len(titles) - 1, read, WINDOW_COLUMNS)
    if columns == "needed":
        check_columns(path, table, DENOISED_COLUMNS, "; only rows that generate_denoised.py wrote can be filtered")
    is_denoised = set(DENOISED_COLUMNS) <= set(table.columns)  # never where they are ignored: they are not read
    items, mask = table["item_ids"].tolist(), table["mask"].tolist()
    true_items = read_true_items(path, table, items, mask, titles)
    if not scores_all_items(path.name):
        items = [window[:-1] + true_window[-1:] for window, true_window in zip(items, true_items)]
    width = max(map(len, items))
    split = Split(
        path,
        table["user_id"].to_numpy(),
        *(pad(rows, width, 0, np.int64) for rows in (items, mask, true_items)),
        places=read_places(path, table, items, width) if "start" in table else None,
        times=pd.to_numeric(table["timestamp"], errors="coerce").to_numpy(np.float64) if "timestamp" in table else None,
    )
    return read_denoised(split, table, items, len(titles) - 1) if is_denoised else split


def read_true_items(path: Path, table: pd.DataFrame, items: list, mask: list, titles: list[str]) -> list[list[int]]:
    """The windows before noise: by id where the file has `true_item_ids`, else by the titles that noise replaced (release)."""
    if "true_item_ids" not in table.columns:
        return restore(path, table, items, mask, titles)
    true_items = parse_lists(path, table, "true_item_ids")
    for row, (window, true_window) in enumerate(zip(items, true_items), 1):
        if len(window) != len(true_window):
            raise InputError(f"{path} row {row}: {len(window)} item_ids and {len(true_window)} true_item_ids")
        if min(true_window) < 1 or max(true_window) >= len(titles):
            raise InputError(f"{path} row {row}: true_item_ids outside 1..{len(titles) - 1}")
    return true_items


def read_places(path: Path, table: pd.DataFrame, items: list, width: int) -> np.ndarray:
    """Which of its user's interactions each column of a padded row is (N, W); `start` is that of a row's first item."""
    ends = whole_numbers(path, table, "start") + [len(window) for window in items]
    return ends[:, None] - width + np.arange(width)


def restore(path: Path, table: pd.DataFrame, items: list, mask: list, titles: list[str]) -> list[list[int]]:
    """The windows before noise was injected, by the titles that noise replaced; as they are where none are given.

    Of several items of one title the first counts. An item whose title is none of the catalogue stays. Both are counted and printed.
    """
    if "replaced_item_titles" not in table.columns:
        return items
    ids = {title: item for item, title in reversed(list(enumerate(titles))) if item}
    items_of_title = Counter(titles[1:])
    clean, unknown, ambiguous, cells = list(items), 0, 0, table["replaced_item_titles"].tolist()
    for row in [row for row, marks in enumerate(mask) if any(marks)]:
        replaced = parse_list(path, row + 1, "replaced_item_titles", cells[row], (str,))
        places = [place for place, mark in enumerate(mask[row]) if mark == INJECTED]
        if len(places) == len(replaced):  # else they are not given
            clean[row] = list(items[row])
            unknown += sum(title not in ids for title in replaced)
            ambiguous += sum(items_of_title[title] > 1 for title in replaced)
            for place, title in zip(places, replaced):
                clean[row][place] = ids.get(title, items[row][place])
    if unknown:
        print(f"{path}: {unknown} of replaced_item_titles are no titles of the catalogue, what replaced them stays")
    if ambiguous:
        print(f"{path}: {ambiguous} of replaced_item_titles are titles of several items, the first of them is taken")
    return clean


def read_denoised(split: Split, table: pd.DataFrame, items: list, n_items: int) -> Split:
    """The split with the columns of generate_denoised.py."""
    path, width, numbers = split.path, split.items.shape[1], (int, float)
    probs, suspect_probs = (parse_lists(path, table, column, numbers) for column in ("noise_prob", "noise_items_prob"))
    suspects, suggestions = (parse_lists(path, table, column) for column in ("noise_items", "suggest_item_ids"))
    for row, (window, prob, ids, id_probs, suggested) in enumerate(zip(items, probs, suspects, suspect_probs, suggestions), 1):
        scored = len(window) - (not scores_all_items(path.name))
        if len(prob) != scored:
            raise InputError(f"{path} row {row}: noise_prob has {len(prob)} values for {scored} scored items")
        if not np.isfinite(prob).all() or not np.isfinite(id_probs).all():
            raise InputError(f"{path} row {row}: noise_prob or noise_items_prob is not finite")
        if len(ids) > scored:
            raise InputError(f"{path} row {row}: {len(ids)} noise_items for {scored} scored items")
        if not len(ids) == len(id_probs) == len(suggested):
            raise InputError(f"{path} row {row}: noise_items, noise_items_prob and suggest_item_ids differ in length")
        if ids and (min(*ids, *suggested) < 1 or max(*ids, *suggested) > n_items):
            raise InputError(f"{path} row {row}: noise_items or suggest_item_ids outside 1..{n_items}")
    if not scores_all_items(path.name):
        probs = [[*prob, np.nan] for prob in probs]  # the target is not scored
    top_k = max(1, *map(len, suspects))
    return replace(
        split,
        noise_prob=pad(probs, width, np.nan, np.float64),
        suspects=pad(suspects, top_k, 0, np.int64, left=False),
        suspect_prob=pad(suspect_probs, top_k, -np.inf, np.float64, left=False),
        suggestions=pad(suggestions, top_k, 0, np.int64, left=False),
    )


def read_vectors(folder: Path, titles: list[str]) -> np.ndarray | None:
    """Title vectors (n_items + 1, D) float16 of length 1, zero for padding; None where the folder has none.

    Refuses those of another catalogue: an item would have another's vector.
    """
    from safetensors import SafetensorError, safe_open

    path, n_items = folder / "title_vectors.safetensors", len(titles) - 1
    if not path.exists():
        return None
    try:
        with safe_open(path, "np") as file:
            vectors, metadata = file.get_tensor("vectors"), file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not the title vectors of generate_denoised.py ({error})") from None
    if metadata.get("catalogue", fingerprint_of_catalogue(titles)) != fingerprint_of_catalogue(titles):
        raise InputError(
            f"{path}: made for another catalogue than {folder} has now; generate_denoised.py --overwrite makes it anew"
        )
    if vectors.ndim != 2 or len(vectors) != n_items or not vectors.shape[1]:
        raise InputError(f"{path}: shape {vectors.shape}, expected one vector for each of {n_items} items")
    bad = np.flatnonzero(~(np.abs(np.linalg.norm(vectors.astype(np.float32), axis=1) - 1) < 0.01))
    if len(bad):
        raise InputError(f"{path}: the vector of item {bad[0] + 1} is not of length 1")
    return np.concatenate([np.zeros((1, vectors.shape[1]), np.float16), vectors.astype(np.float16)])
