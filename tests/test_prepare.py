"""data/prepare_noise_data.py: sources, windows, noise, files, errors."""

import gzip
import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import prepare_noise_data as prepare
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train_denoise_model import read_catalogue, read_windows

SPLITS = ("train", "valid", "test")


def run(*arguments):
    prepare.main([str(argument) for argument in arguments])


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def clean_titles(row):
    """Titles of the row before noise was injected."""
    original = iter(json.loads(row.replaced_item_titles))
    return [next(original) if noisy else title for title, noisy in zip(json.loads(row.item_titles), row.mask)]


def test_ml_100k(tmp_path):
    started = time.perf_counter()
    run("ml-100k", "--noise", 0.1, "--output_root", tmp_path / "a")
    assert time.perf_counter() - started < 20
    run("ml-100k", "--noise", 0.1, "--output_root", tmp_path / "b")
    run("ml-100k", "--noise", 0.0, "--output_root", tmp_path / "a")
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
    run(*source, "--name", "Tiny", "--output_root", tmp_path)
    folder = tmp_path / "Tiny_noise_user0.0"
    # ids in order of first appearance in the file: b, a, c; by time c comes first, b and a keep the order of the file
    assert read_catalogue(folder) == ["", "Beta & 'Co'", "Alpha", 'The "C" Film']
    rows = pd.concat([read_windows(folder / f"{split}.csv", 3) for split in SPLITS])
    assert rows.item_ids.tolist() == [[3, 1, 2]] * 11
    assert rows.user_id.tolist() == [str(user) for user in range(1, 12)]
    assert rows.timestamp.tolist() == [str(100 * user + 5) for user in range(11)]
    assert [len(read_windows(folder / f"{split}.csv")) for split in SPLITS] == [8, 1, 2]
    assert (folder / "id2name.json").read_text() == (folder / "id2name4Rec.json").read_text()


def test_amazon_2023_uses_parent_and_milliseconds(tmp_path):
    rows = [{"user_id": f"u{u}", "parent_asin": i, "asin": "x", "timestamp": 1000 * u + 7} for u in range(12) for i in "ab"]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps({"parent_asin": i, "title": i.upper()}) for i in "ab"))
    files_23 = ["--reviews", tmp_path / "r.jsonl", "--metadata", tmp_path / "m.jsonl"]
    run("amazon", *files_23, "--k_core", 1, "--name", "New", "--output_root", tmp_path)
    rows = read_windows(tmp_path / "New_noise_user0.0" / "train.csv", 2)
    assert rows.timestamp.tolist() == [str(u) for u in range(9)] and rows.item_ids[0] == [1, 2]


def write_movielens(folder, dat):
    ratings = [(u, m, 3.5, 100 * u + m) for u in range(1, 13) for m in (1, 2, 3)]
    movies = [(1, "Postino, Il (1994)", "x"), (2, "Up: Down (2000)", "y"), (3, "Été, L' (1999)", "z")]
    folder.mkdir()
    if dat:
        (folder / "ratings.dat").write_text("\n".join("::".join(map(str, row)) for row in ratings))
        (folder / "movies.dat").write_bytes("\n".join("::".join(map(str, row)) for row in movies).encode("latin-1"))
    else:
        pd.DataFrame(ratings, columns=["userId", "movieId", "rating", "timestamp"]).to_csv(folder / "ratings.csv", index=False)
        pd.DataFrame(movies, columns=["movieId", "title", "genres"]).to_csv(folder / "movies.csv", index=False)


@pytest.mark.parametrize("dat", [True, False])
@pytest.mark.parametrize("no_year", [True, False])
def test_movielens_folder(tmp_path, dat, no_year):
    write_movielens(tmp_path / "ml", dat)
    flags = ["--no_year"] if no_year else []
    run("movielens", "--folder", tmp_path / "ml", "--name", "M", "--k_core", 2, "--output_root", tmp_path, *flags)
    titles = ["", "Il Postino (1994)", "Up: Down (2000)", "L'Été (1999)"]
    assert read_catalogue(tmp_path / "M_noise_user0.0") == [t[: -7 if no_year else None] for t in titles]


def write_log(path, rows, columns=("user", "item", "timestamp", "title")):
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return ["csv", "--interactions", path, "--name", "X", "--output_root", path.parent]


def good_rows():
    return [(u, i, 10 * u + i, f"title {i}") for u in range(12) for i in range(6)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 0.9), st.integers(2, 12), st.integers(1, 4), st.integers(1, 4))
def test_statistics(tmp_path_factory, seed, rate, window, stride, core):
    """On a random log: k-core, one user a window, time order between splits, noise rate, mask, clean targets."""
    rng = np.random.default_rng(seed)
    total, n_users, n_items = 1500, 40, 25
    log = prepare.Log(
        rng.integers(n_users, size=total), rng.integers(n_items, size=total), rng.integers(500, size=total), list(range(n_items))
    )
    log = prepare.number_and_sort(prepare.k_core(log, core))
    assert np.bincount(log.users)[1:].min() >= core and np.bincount(log.items)[1:].min() >= core
    first, last = prepare.window_bounds(log.users, window, stride)
    assert (log.users[first] == log.users[last]).all() and (last - first + 1 <= window).all() and (last > first).all()
    for user in np.unique(log.users):  # against the slow and obvious version
        place = np.flatnonzero(log.users == user)
        ends = place[window - 1 :: stride] if len(place) >= window else place[-1:] if len(place) > 1 else []
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
            assert restored == log.items[place].tolist() and not clean
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
    run(*write_log(tmp_path / "log.csv", rows))
    folder = tmp_path / "X_noise_user0.0"
    titles = read_catalogue(folder)
    assert titles[5] == titles[6] == 'title 4, "quoted" &amp; 映画 2'
    assert list(json.loads((folder / "id2name.json").read_text())) == ["1", "2", "3", "4", "5"]
    assert json.loads(pd.read_csv(folder / "train.csv").item_titles[0])[4] == titles[5]


BAD_LOGS = {
    "missing column": ([(1, 2, 3)], ("user", "item", "when"), [], "no column 'timestamp'"),
    "text for a time": (good_rows()[:5] + [(1, 2, "soon", "t")], None, [], "log.csv:7: timestamp 'soon'"),
    "fraction for a time": ([(1, 2, 3.5, "t")], None, [], "log.csv:2: timestamp '3.5'"),
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
    refused(capsys, tmp_path, [*source, *flags], message)


def refused(capsys, out, arguments, message):
    before = sorted(out.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1, error
    assert sorted(out.rglob("*")) == before, "something was written"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "the file is empty"),
        (b'{"reviewerID": "u", "asin": "a", "unixReviewTime": 1}\nnot a record\n', "r.json:2: neither a JSON object nor"),
        (b'{"reviewerID": "u", "asin": "a"}\n', "r.json:1: a review needs"),
        (b'{"reviewerID": "u", "asin": "a", "unixReviewTime": "June"}\n', "r.json:1: timestamp 'June'"),
        (b"__import__('os').system('true')\n", "r.json:1: neither a JSON object nor"),
        (b"\xff\xfe\n", "r.json: damaged"),
    ],
)
def test_bad_reviews(tmp_path, capsys, content, message):
    (tmp_path / "r.json").write_bytes(content)
    (tmp_path / "m.json").write_text('{"asin": "a", "title": "A"}')
    source = [
        "amazon",
        "--reviews",
        tmp_path / "r.json",
        "--metadata",
        tmp_path / "m.json",
        "--name",
        "Z",
        "--output_root",
        tmp_path,
    ]
    refused(capsys, tmp_path, source, message)


def test_truncated_gzip_and_other_bad_files(tmp_path, capsys):
    whole = gzip.compress(b'{"reviewerID": "u", "asin": "a", "unixReviewTime": 1}\n' * 5000)
    (tmp_path / "r.json.gz").write_bytes(whole[: len(whole) // 2])
    amazon = ["amazon", "--metadata", tmp_path / "r.json.gz", "--name", "Z", "--output_root", tmp_path, "--reviews"]
    refused(capsys, tmp_path, [*amazon, tmp_path / "r.json.gz"], "r.json.gz: damaged after line")
    refused(capsys, tmp_path, [*amazon, tmp_path / "none.json"], "none.json: no such file")
    table = ["csv", "--name", "Z", "--output_root", tmp_path, "--interactions"]
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"user,item,timestamp\n" + b"1,2,3\n" * 9000)[:40])
    refused(capsys, tmp_path, [*table, tmp_path / "t.csv.gz"], "t.csv.gz: ")
    (tmp_path / "empty.csv").write_bytes(b"")
    refused(capsys, tmp_path, [*table, tmp_path / "empty.csv"], "empty.csv: the file is empty")
    refused(capsys, tmp_path, ["movielens", "--folder", tmp_path, "--name", "M"], "neither ratings.csv nor ratings.dat")
    refused(capsys, tmp_path, ["csv", "--interactions", tmp_path / "empty.csv"], "--name is needed")


def test_existing_data_set_is_kept(tmp_path, capsys):
    source = write_log(tmp_path / "log.csv", good_rows())
    run(*source)
    folder = tmp_path / "X_noise_user0.0"
    before = files(folder)
    refused(capsys, tmp_path, source, "exists; --overwrite replaces it")
    bad = write_log(tmp_path / "log.csv", good_rows()[:8])
    refused(capsys, tmp_path, [*bad, "--overwrite", "--k_core", 1], "only 2 windows")
    assert files(folder) == before
    run(*write_log(tmp_path / "log.csv", good_rows()[:-6]), "--overwrite")
    assert files(folder) != before and [path.name for path in tmp_path.iterdir()] != []
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare, "write_titles", full_disk)
    with pytest.raises(SystemExit):
        run(*write_log(tmp_path / "log.csv", good_rows()))
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_every_option_changes_something(tmp_path):
    rows = [(u, i, 10 * u + i, f"t{i}") for u in range(30) for i in range(4 + u % 11)]
    source = write_log(tmp_path / "log.csv", rows)[:3] + ["--noise", 0.2, "--name", "B"]
    run(*source, "--output_root", tmp_path / "base")
    base = files(tmp_path / "base" / "B_noise_user0.2")
    options = {"k_core": 6, "sample_items": 9, "window": 5, "stride": 2, "seed": 1}
    for option, value in options.items():
        run(*source, f"--{option}", value, "--output_root", tmp_path / option)
        assert files(tmp_path / option / "B_noise_user0.2") != base, option


def test_reader_on_the_release(released):
    catalogue = read_catalogue(released)
    train, test = (read_windows(released / f"{name}.csv", len(catalogue) - 1) for name in ("train_5000", "test_5000"))
    assert (len(train), len(test), len(catalogue) - 1) == (5000, 4794, 11758)
    assert set(map(len, train.item_ids)) == set(range(5, 12))
    assert round(np.concatenate(train["mask"].tolist()).mean(), 4) == 0.0997


@pytest.mark.parametrize(
    "row, message",
    [
        ('1,"[]","[]",5', "row 2: 0 items"),
        ('1,"[1, 2, 3]","[0, 0]",5', "row 2: 3 items and 2 mask entries"),
        ('1,"[1, 99]","[0, 0]",5', "row 2: item ids 1..99, the catalogue has 1..3"),
        ('1,"[1, 0]","[0, 0]",5', "row 2: item ids 0..1"),
        ('1,"__import__(\'os\')","[0, 0]",5', "row 2: item_ids is"),
        ('1,"[1, 2.5]","[0, 0]",5', "row 2: item_ids is"),
    ],
)
def test_reader_names_the_row(tmp_path, row, message):
    from train_denoise_model import InputError

    (tmp_path / "train.csv").write_text(f'user_id,item_ids,mask,timestamp\n1,"[1, 2]","[0, 1]",5\n{row}\n')
    with pytest.raises(InputError, match="train.csv") as error:
        read_windows(tmp_path / "train.csv", 3)
    assert message in str(error.value)


def test_help_is_instant():
    started = time.perf_counter()
    done = subprocess.run([sys.executable, prepare.__file__, "ml-100k", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--k_core" in done.stdout and time.perf_counter() - started < 10
