"""Made-up logs and data sets of their windows, for tests of interactions and of evidence."""

import json

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from denoise_code.data_set.interactions import Rows, build_data_set
from denoise_code.data_set.padded_rows import pad
from denoise_code.evidence.unseen_items import UnseenItems


def rows_of(rows, starts=None, masks=None, width=None):
    """Rows from (user, time, items); the last `width` items of each, by default those of the longest."""
    users, times, items = zip(*rows) if rows else ((), (), ())
    lengths = np.array([len(window) for window in items], dtype=np.int64)
    width = width or lengths.max()
    masks = masks or [[0] * length for length in lengths]
    if starts is not None:
        starts = np.array(starts, dtype=np.int64) + np.maximum(lengths - width, 0)
    cells = (pad(lists, width, 0, np.int64) for lists in (list(items), masks))
    return Rows(np.array(users).astype(str), *cells, np.array(times, dtype=np.float64), starts)


def sliding(logs, width, split_at=None):
    """(user, time, items), starts of all windows of {user: items}; the time is the place of the target."""
    rows, starts = [], []
    for user, log in logs.items():
        for end in range(min(len(log), width), len(log) + 1):
            start = max(0, end - width)
            rows.append((user, end - 1, log[start:end]))
            starts.append(start)
    return rows, starts


def random_logs(seed, users=8, n_items=40, longest=20):
    """{user: items}, drawn uniformly."""
    rng = np.random.default_rng(seed)
    return {f"u{user}": rng.integers(1, n_items + 1, size=int(rng.integers(2, longest))).tolist() for user in range(users)}


def split_by_time(rows, starts, train_share=0.7):
    """Train rows, then the others, as tuples (rows, starts)."""
    order = sorted(range(len(rows)), key=lambda row: (rows[row][1], row))
    cut = int(len(order) * train_share)
    return [([rows[row] for row in part], [starts[row] for row in part]) for part in (order[:cut], order[cut:])]


def some_windows(seed, width=5, share=0.7, n_items=15):
    """A data set of some of the windows of random logs: overlaps of all sizes, gaps, interactions that no train window holds."""
    rng = np.random.default_rng(seed)
    rows, starts = sliding(random_logs(seed, users=10, n_items=n_items, longest=14), width)
    train = rng.random(len(rows)) < share
    parts = [
        ([rows[row] for row in part], [starts[row] for row in part]) for part in (np.flatnonzero(train), np.flatnonzero(~train))
    ]
    (train_rows, train_starts), (test_rows, test_starts) = parts
    return build_data_set(
        rows_of(train_rows, train_starts, width=width), {"test": rows_of(test_rows, test_starts, width=width)}, n_items
    )


WIDTH, N_ITEMS, GROUPS = 6, 60, 4


def grouped_logs(seed, users=150, noise=0.15, length=20):
    """Users who want the items of one group, {user: items} and masks; a share of their interactions is any item."""
    rng = np.random.default_rng(seed)
    logs, masks = {}, {}
    for user in range(users):
        wanted = rng.integers(N_ITEMS // GROUPS, size=length) * GROUPS + rng.integers(GROUPS) + 1
        mask = rng.random(length) < noise
        logs[f"u{user}"] = np.where(mask, rng.integers(1, N_ITEMS + 1, size=length), wanted).tolist()
        masks[f"u{user}"] = mask.astype(int).tolist()
    return logs, masks


def grouped_data(seed=0, change_targets=False, change_truth=False, **options):
    """A data set of `grouped_logs`: train rows and, later, test rows; all targets, or all masks, exchanged where asked."""
    logs, masks = grouped_logs(seed, **options)
    rows, starts = sliding(logs, WIDTH)
    marks, _ = sliding(masks, WIDTH)
    parts = []
    for chosen, chosen_starts in split_by_time_with_masks(rows, [mark for _, _, mark in marks], starts):
        chosen_rows, chosen_marks = [row for row, _ in chosen], [mark for _, mark in chosen]
        if parts and change_targets:
            chosen_rows = [(user, time, [*items[:-1], 1 + items[-1] % N_ITEMS]) for user, time, items in chosen_rows]
        if change_truth:
            chosen_marks = [[1 - mark for mark in window] for window in chosen_marks]
        parts.append(rows_of(chosen_rows, chosen_starts, masks=chosen_marks, width=WIDTH))
    return build_data_set(parts[0], {"test": parts[1]}, N_ITEMS)


def is_noise(data, seed=0, **options):
    """(n,) bool: the noise among the interactions of `grouped_data`, which does not hold it."""
    _, masks = grouped_logs(seed, **options)
    table = data.interactions
    return np.array([masks[name][place] == 1 for name, place in zip(table.user_names[table.users], table.places)])


def split_by_time_with_masks(rows, marks, starts):
    """Train rows, then the others, by time: ([(row, its masks)], starts) each."""
    order = sorted(range(len(rows)), key=lambda row: (rows[row][1], row))
    cut = int(len(order) * 0.8)
    return [([(rows[row], marks[row]) for row in part], [starts[row] for row in part]) for part in (order[:cut], order[cut:])]


def title_vectors():
    """(n_items + 1, 6): items of one group are alike."""
    rng = np.random.default_rng(0)
    vectors = np.eye(GROUPS)[(np.arange(N_ITEMS + 1) - 1) % GROUPS]
    vectors = np.concatenate([vectors, rng.normal(size=(N_ITEMS + 1, 2))], axis=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = 0
    return vectors.astype(np.float16)


def write_grouped_folder(folder, seed=0, change_targets=False, change_truth=False, width=WIDTH, **options):
    """The folder of a data set of `grouped_logs`: train, valid_5000 and test_5000 by time; all targets of valid and test rows, or all
    masks and true items, exchanged where asked. Train items are what they are, whatever is exchanged."""
    logs, masks = grouped_logs(seed, **options)
    rows, starts = sliding(logs, width)
    marks = [mark for _, _, mark in sliding(masks, width)[0]]
    order = sorted(range(len(rows)), key=lambda row: (rows[row][1], row))
    bounds = [0, int(len(order) * 0.7), int(len(order) * 0.85), len(order)]
    folder.mkdir(parents=True)
    titles = {str(item): f"Item {item} of group {item % GROUPS}" for item in range(1, N_ITEMS + 1)}
    (folder / "id2name4Rec.json").write_text(json.dumps(titles))
    for file, first, end in zip(("train", "valid_5000", "test_5000"), bounds, bounds[1:]):
        lines = []
        for row in order[first:end]:
            user, time, items = rows[row]
            mask = list(marks[row])
            if file != "train":
                mask[-1] = 0
            true_items = [1 + item % N_ITEMS if mark else item for item, mark in zip(items, mask)]
            if change_targets and file != "train":
                items = [*items[:-1], 1 + (items[-1] + 6) % N_ITEMS]
                true_items = [*true_items[:-1], items[-1]]
            if change_truth:
                true_items = [1 + (item + 11) % N_ITEMS for item in items]
                mask = [1 - mark for mark in mask]
                if file != "train":
                    true_items[-1], mask[-1] = items[-1], 0  # a target is the true item
            line = {"user_id": user, "item_ids": items, "mask": mask, "item_titles": [], "replaced_item_titles": []}
            line |= {"timestamp": time, "start": starts[row], "true_item_ids": true_items}
            lines.append({name: json.dumps(cell) if isinstance(cell, list) else cell for name, cell in line.items()})
        pd.DataFrame(lines).to_csv(folder / f"{file}.csv", index=False)
    return folder


def write_title_vectors(folder, vectors=None):
    """title_vectors.safetensors of a denoised folder."""
    vectors = title_vectors() if vectors is None else vectors
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"vectors": np.ascontiguousarray(vectors[1:])}, folder / "title_vectors.safetensors")


def nothing_unseen(n_items: int) -> UnseenItems:
    """Planted items come from the catalogue alone."""
    return UnseenItems(n_items, np.zeros(0, dtype=np.int64), 0.0)
