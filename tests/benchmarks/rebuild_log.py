"""A log put together from windows that the paper's authors published: the "Toy log" and the "Movie log" of the tables.

    python tests/benchmarks/rebuild_log.py data/Toy_noise_user0.0 toy_log.csv
    python tests/benchmarks/rebuild_log.py data/Movie_noise_user0.0 movie_log.csv

The folder is one of the release with nothing injected: samples of train windows, and those of valid and test. Windows of a user overlap, so
they are joined where one begins with what another ends with. The log has about half of the data set's interactions: what stands in no
published window is missing, and where windows do not overlap nobody knows how much lies between. Only the target of a window has a time;
the other items take that of the next target. Of an item that a user has several times the first counts.

`denoise_code.data_set.interactions` joins windows, too. Of windows of one time that have no item in common it puts another one first: 13
of the 8,407 users of the Toy log would have another order than the one that was measured.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

FILES = ("train_1000", "train_5000", "train_10000", "train", "valid_5000", "valid", "test_5000", "test")

Window = tuple[list[int], int]  # items, oldest first; time of the last one


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of the release, <Name>_noise_user0.0")
    parser.add_argument("out", type=Path, help="the log: user,item,timestamp,title")
    args = parser.parse_args(argv)
    titles = json.loads((args.folder / "id2name4Rec.json").read_text(encoding="utf-8"))
    records = [
        (f"U{user:06d}", f"T{item:05d}", time, titles[str(item)])
        for user, windows in read_windows(args.folder).items()
        for item, time in join(windows)
    ]
    log = pd.DataFrame(records, columns=["user", "item", "timestamp", "title"])
    log.to_csv(args.out, index=False)
    print(f"{len(log):,} interactions of {log['user'].nunique():,} users with {log['item'].nunique():,} items in {args.out}")


def read_windows(folder: Path) -> dict[int, list[Window]]:
    """{user: windows in the order of their times}; users in the order in which the files name them."""
    files = [folder / f"{name}.csv" for name in FILES if (folder / f"{name}.csv").exists()]
    rows = pd.concat([pd.read_csv(file, usecols=["user_id", "item_ids", "mask", "timestamp"]) for file in files])
    if rows["mask"].str.contains("1").any():
        raise SystemExit(f"{folder} has injected noise; take the folder that ends in user0.0")
    rows = rows.drop_duplicates(["user_id", "item_ids", "timestamp"])
    windows: dict[int, list[Window]] = {}
    for user, items, time in zip(rows["user_id"], rows["item_ids"], rows["timestamp"]):
        windows.setdefault(int(user), []).append((json.loads(items), int(time)))
    return {user: sorted(of_user, key=lambda window: window[1]) for user, of_user in windows.items()}


def join(windows: list[Window]) -> list[tuple[int, int]]:
    """(item, time) of a user's interactions, oldest first; of an item the first. windows: in the order of their times."""
    left, items = list(windows), []
    times: dict[int, int] = {}  # of targets, by place
    while left:
        window, time = next_window(left, items)
        left.remove((window, time))
        items += window[overlap(items, window) :]
        times[len(items) - 1] = time
    places = range(len(items))
    following = pd.Series(times).reindex(places).bfill().astype(int)  # of the next target
    first = {item: place for place, item in reversed(list(zip(places, items)))}
    return [(items[place], int(following[place])) for place in sorted(first.values())]


def next_window(left: list[Window], items: list[int]) -> Window:
    """Of the earliest windows the one that continues the items best, and whose beginning no other one ends with."""
    earliest = [window for window in left if window[1] == left[0][1]]

    def comes_later(window: Window) -> int:
        begins_with_end_of = [overlap(other[0], window[0]) for other in earliest if other is not window]
        return max(begins_with_end_of, default=0) - overlap(items, window[0])

    return min(earliest, key=comes_later)


def overlap(before: list[int], after: list[int]) -> int:
    """How many items at the end of one list are the beginning of the other."""
    longest = min(len(before), len(after))
    return next(count for count in range(longest, -1, -1) if before[len(before) - count :] == after[:count])


if __name__ == "__main__":
    main()
