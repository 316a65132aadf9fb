"""data/prepare_noise_data.py: sources, windows, noise, files, errors."""

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import prepare_noise_data as prepare
import pytest
from conftest import SPLITS, good_rows, prepare_refused, prepare_run, write_log
from hypothesis import given, settings
from hypothesis import strategies as st

from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.rows import read_windows


def files(folder):
    """The bytes of every file but run.json, which tells when and where it was made."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}


def clean_titles(row):
    """Titles of the row before noise was injected."""
    original = iter(json.loads(row.replaced_item_titles))
    return [next(original) if noisy else title for title, noisy in zip(json.loads(row.item_titles), row.mask)]


def test_ml_100k(tmp_path):
    started = time.perf_counter()
    prepare_run("ml-100k", "--noise", 0.1, "--output_root", tmp_path / "a")
    assert time.perf_counter() - started < 20
    prepare_run("ml-100k", "--noise", 0.1, "--output_root", tmp_path / "b")
    prepare_run("ml-100k", "--noise", 0.0, "--output_root", tmp_path / "a")
    noisy, again, quiet = (
        tmp_path / name for name in ("a/ML100K_noise_user0.1", "b/ML100K_noise_user0.1", "a/ML100K_noise_user0.0")
    )
    assert files(noisy) == files(again)
    catalogue = read_catalogue(noisy)
    assert "The Hunt for Red October (1990)" in catalogue
    assert (noisy / "id2name4Rec.json").read_bytes() == (quiet / "id2name4Rec.json").read_bytes()
    users = set()
    for split in SPLITS:
        a, b = read_windows(noisy / f"{split}.csv", len(catalogue) - 1), read_windows(quiet / f"{split}.csv")
        assert (a[["user_id", "timestamp"]] == b[["user_id", "timestamp"]]).all(axis=None)
        assert list(map(clean_titles, a.itertuples())) == [[catalogue[item] for item in row] for row in b.item_ids]
        assert all(sum(mask) == 0 for mask in b["mask"])
        users |= set(a.user_id)
    assert len(users) == 943
    for name, source, size in (("train_1000", "train", 1000), ("train_5000", "train", 5000), ("test_5000", "test", 5000)):
        sample, whole = (pd.read_csv(noisy / f"{file}.csv", dtype=str) for file in (name, source))
        assert len(sample) == size and len(sample.merge(whole, how="inner").drop_duplicates()) == len(sample.drop_duplicates())


@pytest.mark.parametrize("literal", [json.dumps, repr])
def test_amazon_windows_by_hand(tmp_path, literal):
    """Eleven users of one shape: three items each, one of them reviewed twice, two at the same time."""
    reviews, products = (
        [],
        [{"asin": "nameless"}, {"asin": "a", "title": "Alpha [VHS]"}, {"asin": "b", "title": "Beta & 'Co' VHS"}],
    )
    products += [{"asin": "c", "title": 'The "C"  Film'}]
    for user in range(11):
        at = 100 * user
        for item, moment in (("b", at + 5), ("a", at + 5), ("c", at + 1), ("nameless", at), ("c", at + 9)):
            reviews.append({"reviewerID": f"u{user}", "asin": item, "unixReviewTime": moment, "reviewText": 'it\'s "fine"'})
    (tmp_path / "meta.json").write_text("\n".join(map(repr, products)))
    with gzip.open(tmp_path / "reviews.json.gz", "wt") as out:
        out.write("\n".join(map(literal, reviews)))
    source = ["amazon", "--reviews", tmp_path / "reviews.json.gz", "--metadata", tmp_path / "meta.json", "--k_core", 1]
    prepare_run(*source, "--name", "Tiny", "--output_root", tmp_path)
    folder = tmp_path / "Tiny_noise_user0.0"
    # ids in order of first appearance in the file: b, a, c; by time c comes first, b and a keep the order of the file
    assert read_catalogue(folder) == ["", "Beta & 'Co'", "Alpha", 'The "C" Film']
    rows = pd.concat([read_windows(folder / f"{split}.csv", 3) for split in SPLITS])
    assert rows.item_ids.tolist() == [[3, 1, 2]] * 11
    assert rows.user_id.tolist() == [str(user) for user in range(1, 12)]
    assert rows.timestamp.tolist() == [str(100 * user + 5) for user in range(11)]
    assert [len(read_windows(folder / f"{split}.csv")) for split in SPLITS] == [8, 1, 2]
    assert (folder / "id2name.json").read_text() == (folder / "id2name4Rec.json").read_text()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 0.9), st.integers(2, 12), st.integers(1, 4))
def test_statistics(tmp_path_factory, seed, rate, window, core):
    """On a random log: k-core, one user a window, time order between splits, noise rate, mask, clean targets."""
    rng = np.random.default_rng(seed)
    total, n_users, n_items = 1500, 40, 25
    columns = rng.integers(n_users, size=total), rng.integers(n_items, size=total), rng.integers(500, size=total)
    keys = [f"u{user}" for user in range(n_users)], [f"i{item}" for item in range(n_items)]
    log = prepare.Log(*columns, list(range(n_items)), rows=np.arange(total), user_keys=keys[0], item_keys=keys[1])
    log = prepare.number_and_sort(prepare.k_core(log, core))
    assert np.bincount(log.users)[1:].min() >= core and np.bincount(log.items)[1:].min() >= core
    first, last = prepare.window_bounds(log.users, window)
    assert (log.users[first] == log.users[last]).all() and (last - first + 1 <= window).all() and (last > first).all()
    for user in np.unique(log.users):  # against the slow and obvious version
        place = np.flatnonzero(log.users == user)
        ends = place[window - 1 :] if len(place) >= window else place[-1:] if len(place) > 1 else []
        assert list(last[log.users[last] == user]) == list(ends)
    splits = prepare.time_split(log.times[last])
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(last)))
    moments = [log.times[last[splits[split]]] for split in SPLITS]
    assert moments[0].max() <= moments[1].min() and moments[1].max() <= moments[2].min()
    noisy, mask = prepare.inject_noise(log.items, n_items, rate, np.random.default_rng(seed))
    assert abs(mask.mean() - rate) <= 3.5 * (rate * (1 - rate) / len(mask)) ** 0.5
    assert (noisy[~mask] == log.items[~mask]).all() and noisy.min() >= 1 and noisy.max() <= n_items
    folder = tmp_path_factory.mktemp("stat") / "S"
    log.titles[:] = ["", *(f"t{i}" for i in range(1, len(log.titles)))]
    prepare.write_data_set(folder, log, noisy, mask, (first, last), splits, seed)
    for split in SPLITS:
        for row, window_number in zip(read_windows(folder / f"{split}.csv", n_items).itertuples(), splits[split]):
            place = slice(first[window_number], last[window_number] + 1)
            clean = [int(t[1:]) for t in json.loads(row.replaced_item_titles)]
            restored = [clean.pop(0) if m else i for i, m in zip(row.item_ids, row.mask)]
            assert restored == log.items[place].tolist() == json.loads(row.true_item_ids) and not clean
            if split == "train":
                assert row.item_ids == noisy[place].tolist() and row.mask == mask[place].astype(int).tolist()
            else:
                assert row.item_ids[:-1] == noisy[place][:-1].tolist() and row.mask[-1] == 0


def test_noise_is_uniform_over_the_catalogue():
    from scipy.stats import chisquare

    noisy, mask = prepare.inject_noise(np.ones(200_000, dtype=np.int64), 20, 0.3, np.random.default_rng(0))
    assert chisquare(np.bincount(noisy[mask], minlength=21)[1:]).pvalue > 0.001


def test_titles_and_repeated_names(tmp_path):
    rows = [(u, i, 10 * u + i, f'title {min(i, 4)}, "quoted" &amp; 映画\n2') for u in range(12) for i in range(6)]
    prepare_run(*write_log(tmp_path / "log.csv", rows))
    folder = tmp_path / "X_noise_user0.0"
    titles = read_catalogue(folder)
    assert titles[5] == titles[6] == 'title 4, "quoted" & 映画 2'
    assert list(json.loads((folder / "id2name.json").read_text())) == ["1", "2", "3", "4", "5"]
    assert json.loads(pd.read_csv(folder / "train.csv").item_titles[0])[4] == titles[5]


BAD_LOGS = {
    "missing column": ([(1, 2, 3)], ("user", "item", "when"), [], "no column 'timestamp'"),
    "text for a time": (
        good_rows()[:5] + [(1, 2, "soon", "t")],
        None,
        [],
        "log.csv:7: timestamp 'soon' is no number, as the first one is",
    ),
    "no date": (
        [(1, 2, "2014-03-01", "t"), (1, 3, "2014-13-01", "t")],
        None,
        [],
        "log.csv:3: timestamp '2014-13-01' is neither a number nor an ISO 8601 date",
    ),
    "empty user": ([(1, 2, 3, "t"), ("", 2, 3, "t")], None, [], "log.csv:3: column 'user' is empty"),
    "no rows": ([], None, [], "no rows below the header"),
    "no title at all": ([(u, i, i, "") for u in range(9) for i in range(6)], None, [], "none of its items has a title"),
    "core too high": (good_rows(), None, ["--k_core", 50], "--k_core 50 removes every interaction"),
    "too few users": (good_rows()[:30], None, [], "only 5 windows"),
    "sample too large": (good_rows(), None, ["--sample_items", 7], "--sample_items 7: only 6 items"),
    "noise of one": (good_rows(), None, ["--noise", 1.0], "argument --noise: 1.0 is not in [0, 1)"),
    "negative noise": (good_rows(), None, ["--noise", -0.1], "argument --noise: -0.1 is not in [0, 1)"),
    "window of one": (good_rows(), None, ["--window", 1], "argument --window: 1 is below 2"),
    "option of another source": (good_rows(), None, ["--reviews", "r"], "unrecognized arguments: --reviews"),
    "bad name": (good_rows(), None, ["--name", "../up"], "--name '../up'"),
    "no titles file": (good_rows(), None, ["--titles", "absent.csv"], "absent.csv: no such file"),
}


@pytest.mark.parametrize("case", BAD_LOGS)
def test_bad_logs(tmp_path, capsys, case):
    rows, columns, flags, message = BAD_LOGS[case]
    source = write_log(tmp_path / "log.csv", rows, columns or ("user", "item", "timestamp", "title"))
    prepare_refused(capsys, tmp_path, [*source, *flags], message)


def test_existing_data_set_is_kept(tmp_path, capsys):
    source = write_log(tmp_path / "log.csv", good_rows())
    prepare_run(*source)
    folder = tmp_path / "X_noise_user0.0"
    before = files(folder)
    prepare_refused(capsys, tmp_path, source, "exists; --overwrite replaces it")
    bad = write_log(tmp_path / "log.csv", good_rows()[:8])
    prepare_refused(capsys, tmp_path, [*bad, "--overwrite", "--k_core", 1], "only 2 windows")
    assert files(folder) == before
    prepare_run(*write_log(tmp_path / "log.csv", good_rows()[:-6]), "--overwrite")
    assert files(folder) != before and [path.name for path in tmp_path.iterdir()] != []
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path):
    """No file may grow beyond 2 kB, as on a disk that is full."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); import prepare_noise_data as p; p.main()"
    )
    source = map(str, write_log(tmp_path / "log.csv", [(u, i, 10 * u + i, f"title {i}") for u in range(40) for i in range(6)]))
    environment = {**os.environ, "PYTHONPATH": str(Path(prepare.__file__).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code, *source], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "train.csv cannot be written in " in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_every_option_changes_something(tmp_path):
    rows = [(u, i, 10 * u + i, f"t{i}") for u in range(30) for i in range(4 + u % 11)]
    source = write_log(tmp_path / "log.csv", rows)[:3] + ["--noise", 0.2, "--name", "B"]
    prepare_run(*source, "--output_root", tmp_path / "base")
    base = files(tmp_path / "base" / "B_noise_user0.2")
    options = {"k_core": 6, "sample_items": 9, "window": 5, "seed": 1}
    for option, value in options.items():
        prepare_run(*source, f"--{option}", value, "--output_root", tmp_path / option)
        assert files(tmp_path / option / "B_noise_user0.2") != base, option


def test_help_is_instant():
    started = time.perf_counter()
    done = subprocess.run([sys.executable, prepare.__file__, "ml-100k", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--k_core" in done.stdout and time.perf_counter() - started < 10
