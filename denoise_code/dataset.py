"""A data set folder: its catalogue, its windows, planted noise, fingerprints, and the names of folders.

Knows nothing of tokens and models.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from denoise_code.command_line import InputError
from denoise_code.prompt import clean_title

PLANTED = "planted"
DRAWN = ("uniform", "popularity")  # how what is planted is drawn, in turn where both are measured
MOST_DRAWS = 10_000  # before planting gives up
HELD_OUT_SHARE = 0.2  # of the users, where the sample leaves so many: for the held-out windows and for planted.csv


def read_catalogue(folder: Path) -> list[str]:
    """Titles by item id (n_items + 1,) of id2name4Rec.json; position 0 is the padding item."""
    path = folder / "id2name4Rec.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; it maps every item id to its title")
    try:
        titles = {int(item): title for item, title in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a JSON object of id: title ({error})") from None
    if sorted(titles) != list(range(1, len(titles) + 1)) or not titles:
        raise InputError(f"{path}: expected the ids 1..{len(titles)}, found {min(titles, default=0)}..{max(titles, default=0)}")
    bad = next((item for item, title in titles.items() if not isinstance(title, str) or not clean_title(title)), None)
    if bad is not None:
        raise InputError(f"{path}: item {bad} has no title")
    return ["", *(titles[item] for item in range(1, len(titles) + 1))]


def read_windows(path: Path, n_items: int | None = None) -> pd.DataFrame:
    """Rows of a split with `item_ids` and `mask` as lists of ints; all other columns as they are written (str).

    Raises InputError naming the row (1 is the first below the header) that is empty, ragged or has an unknown id.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    missing = {"user_id", "item_ids", "mask", "timestamp"} - set(table.columns)
    if missing:
        raise InputError(f"{path}: no column {sorted(missing)[0]!r}, found {', '.join(table.columns)}")
    if table.empty:
        raise InputError(f"{path}: no rows below the header")
    for column in ("item_ids", "mask"):
        table[column] = [parse_ints(path, row, column, text) for row, text in enumerate(table[column], 1)]
    for row, (items, mask) in enumerate(zip(table["item_ids"], table["mask"]), 1):
        if len(items) < 2 or len(items) != len(mask):
            raise InputError(f"{path} row {row}: {len(items)} items and {len(mask)} mask entries, expected 2 or more of each")
        if min(items) < 1 or (n_items is not None and max(items) > n_items):
            raise InputError(f"{path} row {row}: item ids {min(items)}..{max(items)}, the catalogue has 1..{n_items}")
    return table


def parse_ints(path: Path, row: int, column: str, text: str) -> list[int]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise InputError(f"{path} row {row}: {column} is {text[:60]!r}, expected a list of whole numbers")
    return values


def find_train_file(folder: Path) -> Path:
    """train.csv, or the largest of the samples where a folder carries only samples."""
    if (folder / "train.csv").exists():
        return folder / "train.csv"
    samples = sorted(folder.glob("train_*.csv"), key=lambda path: path.stat().st_size)
    if not samples:
        raise InputError(f"{folder}: no train.csv")
    return samples[-1]


class Split(NamedTuple):
    """Which train rows are learned from, and which are held out to measure detection; the two are disjoint."""

    trained: np.ndarray  # (n_trained,) int64 row numbers
    held_out: np.ndarray  # (n_held_out,) int64 row numbers
    by: str  # "users": no user of a held-out row has a trained row; "rows": the rows differ, the users may not


def split_rows(users, sample: int, eval_sample: int, seed: int) -> Split:
    """Hold out whole users, then draw `sample` rows to train on from all others; the same for the same arguments.

    users (n_rows,): whose row it is. What the users are called does not matter, only which rows are of the same one.
    `sample` rows are trained on wherever that many and `eval_sample` rows of other users exist. Where they do not, users are
    held out of the sample too, which then has fewer rows, but at least half. Where even that is not enough (all rows are of one
    user), the split is one by rows. Raises InputError where there are fewer than sample + eval_sample rows for that.
    """
    user_of_row, _ = pd.factorize(np.asarray(users))  # (n_rows,) int64: 0, 1, ... in the order of first appearance
    n_rows, rows_of_user = len(user_of_row), np.bincount(user_of_row)
    if sample > n_rows:
        raise InputError(f"--sample {sample} needs {sample} rows, there are {n_rows}")
    rng = np.random.default_rng([seed, 4])
    is_held_out = choose_held_out_users(rows_of_user, sample, eval_sample, rng)  # (n_users,) bool
    candidates = np.flatnonzero(is_held_out[user_of_row])
    if len(candidates) < eval_sample:
        if sample + eval_sample > n_rows:
            raise InputError(
                f"--sample {sample} and --eval_sample {eval_sample} need {sample + eval_sample} rows, there are {n_rows}, and too "
                "few users to hold whole ones out of the sample"
            )
        return split_single_rows(n_rows, sample, eval_sample, seed)
    order = rng.permutation(n_rows)
    trained = order[~is_held_out[user_of_row[order]]][:sample]
    return Split(trained, spread_over_users(candidates, user_of_row, eval_sample, rng), "users")


def choose_held_out_users(rows_of_user: np.ndarray, sample: int, eval_sample: int, rng: np.random.Generator) -> np.ndarray:
    """(n_users,) bool: users in random order until they are a fifth of all and have `eval_sample` rows.

    The first pass takes only what `sample` leaves over. The second, where these rows were too few, takes users whose rows
    leave at least half of the sample. rows_of_user (n_users,) int64.
    """
    is_held_out = np.zeros(len(rows_of_user), dtype=bool)
    n_left, n_held_out_users, n_held_out_rows = int(rows_of_user.sum()), 0, 0
    order = rng.permutation(len(rows_of_user))
    for needed_users, needed_left in ((HELD_OUT_SHARE * len(rows_of_user), sample), (0, (sample + 1) // 2)):
        for user in order:
            if n_held_out_users >= needed_users and n_held_out_rows >= eval_sample:
                break
            if not is_held_out[user] and n_left - rows_of_user[user] >= needed_left:
                is_held_out[user] = True
                n_left -= int(rows_of_user[user])
                n_held_out_rows += int(rows_of_user[user])
                n_held_out_users += 1
    return is_held_out


def spread_over_users(rows: np.ndarray, user_of_row: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the rows (n,), drawn so that no user gives a second one before every other has given the first, and so on."""
    shuffled = rng.permutation(rows)
    turn = pd.Series(user_of_row[shuffled]).groupby(user_of_row[shuffled]).cumcount().to_numpy()  # (n,) 0: the user's first
    return shuffled[np.lexsort((rng.random(len(shuffled)), turn))[:count]]


def split_single_rows(n_rows: int, sample: int, eval_sample: int, seed: int) -> Split:
    """The split by rows: of adapters made before whole users were held out, and of rows of which nobody says whose they are."""
    if sample + eval_sample > n_rows:
        raise InputError(
            f"--sample {sample} and --eval_sample {eval_sample} need {sample + eval_sample} rows, there are {n_rows}"
        )
    order = np.random.default_rng([seed, 0]).permutation(n_rows)
    return Split(order[:sample], order[sample : sample + eval_sample], "rows")


def noise_pools(windows: list[list[int]], n_items: int) -> dict[str, np.ndarray]:
    """{how planted items are drawn: items (P,) of which each is as likely as any other}.

    uniform: the catalogue, as the paper plants. popularity: all positions of the windows, so that a planted item is as
    popular as what stands there; then only its context tells it, and a score that knows popularity alone has an AUC of 0.5.
    """
    return dict(zip(DRAWN, (np.arange(1, n_items + 1), np.concatenate(windows))))


def plant(items: list[int], pool: np.ndarray, rng: np.random.Generator, rate: float | None = None) -> dict[int, int]:
    """{position: random item} to put into a window: one position, or each with probability `rate` (at least one).

    Positions are uniform; the random items are uniform over `pool` (P,) less the items of the window, since an item that is
    there already could not be told from itself.
    """
    n_planted = 1 if rate is None else max(1, rng.binomial(len(items), rate))
    positions = rng.choice(len(items), size=n_planted, replace=False)  # in random order
    planted, taken = {}, set(items)
    for _ in range(MOST_DRAWS):
        item = int(pool[rng.integers(len(pool))])
        if item not in taken:
            taken.add(item)
            planted[int(positions[len(planted)])] = item
            if len(planted) == n_planted:
                return planted
    raise InputError(f"too few items to plant random ones in windows of {len(items)}: the catalogue has hardly any others")


def put(items: list[int], planted: dict[int, int]) -> list[int]:
    """A window with the planted items in their places."""
    return [planted.get(place, item) for place, item in enumerate(items)]


class Window(NamedTuple):
    """A row as the model sees it: the scored items, oldest first. The target of a valid or test row is not among them."""

    row: int
    items: tuple[int, ...]


def read_split(folder: Path, split: str, catalogue: list[str], limit: int | None, planted: int, adapter_run: dict):
    """(table, windows) of a split; the table's rows are those that will be written, in the order of the input.

    `--limit` keeps that many rows, evenly spaced.
    """
    if split == PLANTED:
        table = planted_rows(folder, catalogue, planted, adapter_run)
    else:
        table = read_windows(folder / f"{split}.csv", len(catalogue) - 1)
    if limit is not None and limit < len(table) and split != PLANTED:
        table = table.iloc[np.linspace(0, len(table) - 1, limit).astype(int)].reset_index(drop=True)
    hidden = 0 if split.startswith("train") or split == PLANTED else 1
    return table, [Window(row, tuple(items[: len(items) - hidden])) for row, items in enumerate(table["item_ids"])]


def keep_users(splits: dict, count: int) -> dict:
    """{split: (table, windows)} with the rows of so many users only, evenly spaced among those there are."""
    users = list(dict.fromkeys(user for table, _ in splits.values() for user in table["user_id"]))
    kept = {users[place] for place in np.linspace(0, len(users) - 1, count).astype(int)}
    result = {}
    for split, (table, windows) in splits.items():
        rows = np.flatnonzero(table["user_id"].isin(kept))
        if not len(rows):
            raise InputError(f"--users {count}: none of them has a row in {split}.csv")
        result[split] = table.iloc[rows].reset_index(drop=True), [windows[row]._replace(row=n) for n, row in enumerate(rows)]
    return result


def planted_rows(folder: Path, catalogue: list[str], count: int, adapter_run: dict) -> pd.DataFrame:
    """`count` train rows of users that fine-tuning did not see, one random item put into each, with mask 2 at its place.

    The items of every other row are drawn by popularity, those of the rest uniformly (column `drawn`). `train_row` counts from 0.
    """
    path, n_items = find_train_file(folder), len(catalogue) - 1
    table = read_windows(path, n_items)
    unseen, seed = unseen_rows(folder, path, table, adapter_run), adapter_run.get("arguments", {}).get("seed", 0)
    if count > len(unseen):
        raise InputError(
            f"--planted {count}: {path} has {len(unseen)} rows that fine-tuning did not use, nor any other of the same user; "
            f"--planted {len(unseen)} takes these, fine-tuning with a smaller --sample leaves more"
        )
    rng, pools = np.random.default_rng([seed, 3]), noise_pools(table["item_ids"].tolist(), n_items)
    return plant_rows(table, np.sort(rng.choice(unseen, size=count, replace=False)), catalogue, pools, rng)


def unseen_rows(folder: Path, path: Path, table: pd.DataFrame, adapter_run: dict) -> np.ndarray:
    """Numbers (n,) int64 of the train rows of users that the adapter never saw, less the held-out rows that chose its checkpoint.

    Adapters whose run.json does not say that whole users were held out saw other rows than these, of the same users.
    """
    tdmd = folder / "TDMD" / "train.json"  # the release made it of all its train rows, in their order
    n_examples = len(json.loads(tdmd.read_text(encoding="utf-8"))) if tdmd.exists() else len(table)
    if adapter_run.get("data_fingerprint") != data_fingerprint(folder, table) or n_examples != len(table):
        print(f"{path}: not known which rows the adapter was trained on, planted ones may be among them")
        return np.arange(len(table))
    arguments = [adapter_run["arguments"][name] for name in ("sample", "eval_sample", "seed")]
    if adapter_run.get("held_out") != "users":
        print(
            f"{path}: the adapter was trained on other rows than the planted ones, but on the same users; their figures flatter it"
        )
        split = split_single_rows(len(table), *arguments)
        return np.setdiff1d(np.arange(len(table)), np.concatenate([split.trained, split.held_out]))
    users = table["user_id"].to_numpy()  # (n_rows,) str
    split = split_rows(users, *arguments)
    is_of_trained_user = np.isin(users.astype(str), np.unique(users[split.trained].astype(str)))  # (n_rows,) bool
    return np.setdiff1d(np.flatnonzero(~is_of_trained_user), split.held_out)


def plant_rows(table: pd.DataFrame, chosen: np.ndarray, catalogue: list[str], pools: dict, rng) -> pd.DataFrame:
    """The chosen rows (numbers), one item planted into each: uniformly and by popularity in turn."""
    table = table.iloc[chosen].reset_index(drop=True).assign(train_row=chosen)
    table["drawn"] = [DRAWN[row % 2] for row in range(len(table))]
    for row in range(len(table)):
        planted = plant(table.at[row, "item_ids"], pools[table.at[row, "drawn"]], rng)
        table.at[row, "item_ids"] = put(table.at[row, "item_ids"], planted)
        table.at[row, "mask"] = put(table.at[row, "mask"], dict.fromkeys(planted, 2))
    if "item_titles" in table:
        table["item_titles"] = [
            json.dumps([catalogue[item] for item in items], ensure_ascii=False) for items in table["item_ids"]
        ]
    return table


def fingerprint(paths: list[Path]) -> str:
    """SHA-256 over the contents of files that exist."""
    digest = hashlib.sha256()
    for path in paths:
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def data_fingerprint(folder: Path, table: pd.DataFrame | None = None) -> str:
    """SHA-256 of what an adapter learns from: the items of the train rows, the titles, the examples of the release.

    table: the train rows, where they were read before.
    """
    items = read_windows(find_train_file(folder))["item_ids"] if table is None else table["item_ids"]
    others = fingerprint([folder / "id2name4Rec.json", folder / "TDMD" / "train.json"])
    return hashlib.sha256(f"{json.dumps(items.tolist())}{others}".encode()).hexdigest()


def output_name(dataset: str, model_path: Path | None, sample: int) -> str:
    """The output-folder rule: Toy_noise_user0.1 + …sample5000…/checkpoint-2000 -> Toy_denoise_user0.1_5000_2000.

    Without an adapter: Toy_denoise_user0.1_0.
    """
    if "_noise_" not in dataset:
        raise InputError(f"--noise_dataset_path {dataset}: expected a folder named <Name>_noise_user<rate>")
    folder, name = model_path.parts[-2:] if model_path else ("", "")
    named = re.search(r"sample(\d+)", f"{folder}/{name}")
    step = re.search(r"checkpoint-(\d+)", name)
    parts = [dataset.replace("_noise_", "_denoise_"), named[1] if named else str(sample), *([step[1]] if step else [])]
    return "_".join(parts)
