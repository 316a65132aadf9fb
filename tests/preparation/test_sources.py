"""data/: files in the shapes that people really have, titles as text, errors that name file and line."""

import gzip
import json

import numpy as np
import pandas as pd
import prepare_noise_data as prepare
import pytest
from conftest import SPLITS, good_rows, prepare_refused, prepare_run, write_log

from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.log import titles
from denoise_code.data_set.rows import read_windows


def rows_of(folder):
    return pd.concat([read_windows(folder / f"{split}.csv") for split in SPLITS], ignore_index=True)


def prepared(tmp_path, *arguments, name="X", noise="0.0"):
    prepare_run(*arguments, "--name", name, "--output_root", tmp_path / "out", "--k_core", 1)
    return tmp_path / "out" / f"{name}_noise_user{noise}"


TITLES = {
    "Munch &amp; Crunch": "Munch & Crunch",
    "&amp;quot;Twice&amp;quot; &amp;amp; more": '"Twice" & more',
    "Screws &#39;n Bolts &#x27;s": "Screws 'n Bolts 's",
    '<span id="productTitle" class="a-size-large">  Drill Bits </span>': "Drill Bits",
    "&lt;b&gt;Bold&lt;/b&gt; move": "Bold move",
    "one<br/>two<BR >three": "one two three",
    "<!-- ad -->Lamp<script>var x = 1;</script>": "Lamp",
    "Kit var aPageStart = (new Date()).getTime();": "Kit",
    "var aPageStart = (new Date()).getTime();": "",
    "<style>.a { color: red }</style>": "",
    # what looks like code and is none
    "I <3 You": "I <3 You",
    "A < B and C > D": "A < B and C > D",
    "<Untitled>": "<Untitled>",
    "Multi-function (4 in 1) tool": "Multi-function (4 in 1) tool",
    "AT&T phone & case": "AT&T phone & case",
    "Important document.pdf (2 pack)": "Important document.pdf (2 pack)",
    "映画の夜\n2\x00": "映画の夜 2",
}


@pytest.mark.parametrize("title", TITLES)
def test_titles_become_text(title):
    assert titles.clean_title(title) == TITLES[title]
    assert titles.clean_title(titles.clean_title(title)) == TITLES[title]


def test_titles_are_counted_and_cut():
    log = prepare.Log(*(np.zeros(1, dtype=np.int64),) * 3, ["a  b", "<b>a b c</b>", "<br>", None, "a b d"])
    clean, said = titles.clean_titles(log)
    assert clean.titles == ["a b", "a b c", None, None, "a b d"] and said == "1 titles cleaned, 1 without text"
    cut, said = titles.clean_titles(log, 2)
    assert cut.titles == ["a b", "a b", None, None, "a b"]
    assert said.endswith("2 cut to 2 words, 2 of them coincide with another since")


def write_movielens(folder, kind):
    ratings = [(u, m, 3 + m % 2, 100 * u + m) for u in range(1, 13) for m in (1, 2, 3)]
    movies = [(1, "Postino, Il (1994)", "x"), (2, "Up: Down (2000)", "y"), (3, "Été, L' (1999)", "z")]
    folder.mkdir()
    if kind == "csv":
        pd.DataFrame(ratings, columns=["userId", "movieId", "rating", "timestamp"]).to_csv(folder / "ratings.csv", index=False)
        pd.DataFrame(movies, columns=["movieId", "title", "genres"]).to_csv(folder / "movies.csv", index=False)
        return folder
    names, separators = (("ratings.dat", "movies.dat"), ("::", "::")) if kind == "dat" else (("u.data", "u.item"), ("\t", "|"))
    for name, separator, rows in zip(names, separators, (ratings, movies)):
        (folder / name).write_bytes("\n".join(separator.join(map(str, row)) for row in rows).encode("latin-1"))
    return folder


@pytest.mark.parametrize("kind", ["csv", "dat", "100k"])
@pytest.mark.parametrize("no_year", [True, False])
def test_movielens_folders(tmp_path, kind, no_year):
    source = ["movielens", "--folder", write_movielens(tmp_path / "ml", kind), "--min_rating", 3]
    folder = prepared(tmp_path, *source, *(["--no_year"] if no_year else []))
    titles = ["", "Il Postino (1994)", "Up: Down (2000)", "L'Été (1999)"]
    assert read_catalogue(folder) == [t[: -7 if no_year else None] for t in titles]
    rows = rows_of(folder)
    assert rows.item_ids.tolist() == [[1, 2, 3]] * 12
    assert len(rows_of(prepared(tmp_path, *source[:3], "--min_rating", 4, name="Y")).item_ids[0]) == 2


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_recbole_atomic_files(tmp_path, separator):
    folder = tmp_path / "shop"
    folder.mkdir()
    inter = [["rating:float", "user_id:token", "timestamp:float", "item_id:token"]]
    inter += [[str(3 + i), f"u{u}", f"{100 * u + 9 - i}.0", f"b{i}"] for u in range(12) for i in range(3)]
    items = [
        ["item_id:token", "price:float", "product_name:token_seq"],
        ["b0", "1", "A <i>&</i> B"],
        ["b1", "2", "C"],
        ["b2", "", "D"],
    ]
    for name, rows in (("shop.inter", inter), ("shop.item", items)):
        (folder / name).write_text("\n".join(map(separator.join, rows)))
    out = prepared(tmp_path, "recbole", "--folder", folder)
    assert read_catalogue(out) == ["", "A & B", "C", "D"]
    assert rows_of(out).item_ids.tolist() == [[3, 2, 1]] * 12
    assert set(rows_of(out).timestamp) == {str(100 * u + 9) for u in range(12)}


def test_a_quotation_mark_between_tabs_is_text(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *(f"u{u}\tb{i}\t{i}" for u in range(12) for i in range(2))]
    (folder / "d.inter").write_text("\n".join(lines))
    (folder / "d.item").write_text('item_id:token\ttitle:token_seq\nb0\t"Deluxe" Kit\nb1\t5" pipe\n')
    assert read_catalogue(prepared(tmp_path, "recbole", "--folder", folder)) == ["", '"Deluxe" Kit', '5" pipe']


TIMES = {  # of three interactions whose order is 1, 3, 2, and what is written for the last one in time
    "whole": (["5", "9", "7"], "9"),
    "nanoseconds": (["1400000000000000005", "1400000000000000009", "1400000000000000007"], "1400000000000000009"),
    "fractions": (["1400000000.530001", "1400000000.530003", "1400000000.530002"], "1400000000.530003"),
    "mixed": (["1", "1.75", "1.5"], "1.75"),
    "before 1970": (["-2.5", "-0.25", "-1.125"], "-0.250"),
    "exponents": (["1.4e9", "1.4000000002e9", "1.4000000001e9"], "1400000000.2"),
    "dates": (["2014-03-01", "2014-03-03", "2014-03-02"], "1393804800"),
    "date and time": (["2014-03-01 12:00:00", "2014-03-01 12:00:00.5", "2014-03-01T12:00:00.25"], "1393675200.50"),
    "zones": (["2014-03-01T12:00:00+02:00", "2014-03-01T11:00:00Z", "2014-03-01T10:30:00"], "1393671600"),
}


@pytest.mark.parametrize("case", TIMES)
def test_times_in_full_precision(tmp_path, case):
    moments, last = TIMES[case]
    rows = [(u, i, moment, f"title {i}") for u in range(12) for i, moment in enumerate(moments)]
    folder = prepared(tmp_path, *write_log(tmp_path / "log.csv", rows)[:3])
    assert rows_of(folder).item_ids.tolist() == [[1, 3, 2]] * 12 and set(rows_of(folder).timestamp) == {last}


def test_amazon_2023_is_ordered_by_milliseconds(tmp_path):
    rows = [
        {"user_id": f"u{u}", "parent_asin": i, "asin": "x", "timestamp": 1000 * u + ms, "rating": r}
        for u in range(12) for i, ms, r in (("a", 7, 1.0), ("b", 3, 5.0))
    ]  # fmt: skip
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps({"parent_asin": i, "title": i.upper()}) for i in "ab"))
    folder = prepared(tmp_path, "amazon", "--reviews", tmp_path / "r.jsonl", "--metadata", tmp_path / "m.jsonl")
    rows = rows_of(folder)
    assert rows.timestamp.tolist() == [f"{u}.007" for u in range(12)] and rows.item_ids.tolist() == [[2, 1]] * 12


def test_csv_separator_and_encoding(tmp_path, capsys):
    text = "user;item;timestamp;title;stars\n" + "\n".join(f'{u};{i};{i};"Café; {i}";{i}' for u in range(12) for i in range(3))
    (tmp_path / "log.csv").write_bytes(text.encode("latin-1"))
    source = ["csv", "--interactions", tmp_path / "log.csv", "--separator", ";"]
    prepare_refused(
        capsys,
        tmp_path,
        [*source, "--name", "X", "--output_root", tmp_path],
        "save it as UTF-8 or, of a table of columns, name its encoding (--encoding",
    )
    source += ["--encoding", "latin-1", "--rating_column", "stars", "--min_rating", 1]
    assert read_catalogue(prepared(tmp_path, *source)) == ["", "Café; 1", "Café; 2"]
    (tmp_path / "tabs.csv").write_text(
        "user\titem\ttimestamp\n" + "\n".join(f"{u}\tthing {i}\t{i}" for u in range(12) for i in (0, 1))
    )
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "tabs.csv", "--separator", "tab", name="T")
    assert read_catalogue(folder) == ["", "thing 0", "thing 1"]
    (tmp_path / "colons.csv").write_text(
        "user::item::timestamp\n" + "\n".join(f"{u}::t{i}::{i}" for u in range(12) for i in (0, 1))
    )
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "colons.csv", "--separator", "::", name="C")
    assert read_catalogue(folder) == ["", "t0", "t1"]


def test_a_row_may_leave_out_the_title_of_its_item(tmp_path):
    rows = good_rows()
    rows[-6:] = [(*row[:3], "") for row in rows[-6:]]
    folder = prepared(tmp_path, *write_log(tmp_path / "log.csv", rows)[:3])
    assert read_catalogue(folder) == ["", *(f"title {i}" for i in range(6))] and len(rows_of(folder)) == 12


def test_ratings_that_are_not_there(tmp_path, capsys):
    source = write_log(tmp_path / "log.csv", good_rows())
    prepare_refused(capsys, tmp_path, [*source, "--min_rating", 2], "--min_rating: this source has no ratings")
    rated = write_log(
        tmp_path / "log.csv", [(*row, "good") for row in good_rows()], ("user", "item", "timestamp", "title", "rating")
    )
    prepare_refused(capsys, tmp_path, [*rated, "--min_rating", 2], "log.csv:2: rating 'good' is not a number")
    prepare_run(*rated)  # a column that nobody asked for harms nobody


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "the file is empty"),
        (b'{"reviewerID": "u", "asin": "a", "unixReviewTime": 1}\nnot a record\n', "r.json:2: neither a JSON object nor"),
        (b'{"reviewerID": "u", "asin": "a"}\n', "r.json:1: a review needs"),
        (b'{"reviewerID": "u", "asin": "a", "unixReviewTime": "June"}\n', "r.json:1: timestamp 'June'"),
        (b'{"reviewerID": "u", "asin": "a", "unixReviewTime": 1, "overall": "five"}\n', "r.json:1: rating 'five'"),
        (b"__import__('os').system('true')\n", "r.json:1: neither a JSON object nor"),
        (b"\xff\xfe\n", "r.json:1: is not utf-16 (truncated data)"),
        (b'{"reviewerID": "u", "asin": "a", "unixReviewTime": 1}\n{"reviewerID": "\xff"}\n', "r.json:2: is not utf-8"),
        (b'{"reviewerID": true, "asin": "a", "unixReviewTime": 1}\n', "r.json:1: a review needs"),
        (b'[{"reviewerID": "u"}]\n', "r.json: one JSON list of all records"),
        (b"{[]: 1}\n", "r.json:1: neither a JSON object nor"),
    ],
)
def test_bad_reviews(tmp_path, capsys, content, message):
    (tmp_path / "r.json").write_bytes(content)
    (tmp_path / "m.json").write_text('{"asin": "a", "title": "A"}')
    source = ["amazon", "--reviews", tmp_path / "r.json", "--metadata", tmp_path / "m.json", "--name", "Z"]
    prepare_refused(capsys, tmp_path, [*source, "--output_root", tmp_path], message)


BAD_TIMES = [
    ("2020-01-01", "9999-12-31", "not between 1677-09-22 and 2262-04-11"),
    ("2020-01-01", "1665-03-06", "not between 1677-09-22 and 2262-04-11"),
    ("2020-01-01", "1583020800", "a number, where the first one is a date"),
    ("5", "1e22", "beyond the whole numbers of 64 bits"),
    ("5", "9223372036854775808", "beyond the whole numbers of 64 bits"),
    ("5", "2020-01-01", "a date, where the first one is a number"),
    ("5", "", "empty"),
    ("5", "1_0", "no number, as the first one is"),
    ("5", "inf", "no number, as the first one is"),
    ("2020-01-01", "", "empty"),
]


@pytest.mark.parametrize("moments", BAD_TIMES)
def test_times_that_are_none(tmp_path, capsys, moments):
    *moments, message = moments
    write_log(tmp_path / "log.csv", [("u", "i", moment, "A") for moment in moments])
    source = ["csv", "--interactions", tmp_path / "log.csv", "--name", "Z", "--output_root", tmp_path]
    prepare_refused(capsys, tmp_path, source, f"log.csv:3: timestamp {moments[1]!r} is {message}")


def test_options_that_read_nothing(tmp_path, capsys):
    write_log(tmp_path / "log.csv", [("u", "i", 1, "A")])
    source = ["csv", "--interactions", tmp_path / "log.csv", "--name", "Z", "--output_root", tmp_path]
    for name in ("nosuch", "rot13"):
        prepare_refused(capsys, tmp_path, [*source, "--encoding", name], f"--encoding {name}: no encoding of text")
    prepare_refused(capsys, tmp_path, [*source, "--encoding", "utf-16"], "log.csv: is not utf-16")
    prepare_refused(capsys, tmp_path, [*source, "--title_column", "prodct"], "log.csv: no column 'prodct', found 'user'")
    prepare_refused(capsys, tmp_path, [*source, "--rating_column", "stars"], "--rating_column needs --min_rating")
    starz = ["--rating_column", "starz", "--min_rating", 1]
    prepare_refused(capsys, tmp_path, [*source, *starz], "log.csv: no column 'starz', found 'user'")
    prepare_refused(capsys, tmp_path, [*source, "--separator", ""], "--separator is empty")


def test_bad_atomic_files(tmp_path, capsys):
    folder = tmp_path / "shop"
    folder.mkdir()
    source = ["recbole", "--folder", folder, "--name", "Z", "--output_root", tmp_path]
    prepare_refused(capsys, tmp_path, source, "shop.inter: no such file")
    (folder / "shop.inter").write_text("user,item\n1,2\n")
    prepare_refused(capsys, tmp_path, source, "shop.inter:1: expected a header of field:type")
    (folder / "shop.inter").write_text("user_id:token\titem_id:token\n1\t2\n")
    prepare_refused(capsys, tmp_path, source, "shop.inter:1: no field 'timestamp'")
    (folder / "shop.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n1\t2\t3\n")
    (folder / "shop.item").write_text("item_id:token\tprice:float\n2\t5\n")
    prepare_refused(capsys, tmp_path, source, "shop.item:1: no field 'with titles'")
    prepare_refused(capsys, tmp_path, [*source, "--title_column", "label"], "shop.item:1: no field 'label'")


def test_truncated_gzip_and_other_bad_files(tmp_path, capsys):
    whole = gzip.compress(b'{"reviewerID": "u", "asin": "a", "unixReviewTime": 1}\n' * 5000)
    (tmp_path / "r.json.gz").write_bytes(whole[: len(whole) // 2])
    amazon = ["amazon", "--metadata", tmp_path / "r.json.gz", "--name", "Z", "--output_root", tmp_path, "--reviews"]
    prepare_refused(capsys, tmp_path, [*amazon, tmp_path / "r.json.gz"], "r.json.gz: damaged after line")
    prepare_refused(capsys, tmp_path, [*amazon, tmp_path / "none.json"], "none.json: no such file")
    table = ["csv", "--name", "Z", "--output_root", tmp_path, "--interactions"]
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"user,item,timestamp\n" + b"1,2,3\n" * 9000)[:40])
    prepare_refused(capsys, tmp_path, [*table, tmp_path / "t.csv.gz"], "t.csv.gz: ")
    (tmp_path / "empty.csv").write_bytes(b"")
    prepare_refused(capsys, tmp_path, [*table, tmp_path / "empty.csv"], "empty.csv: the file is empty")
    prepare_refused(
        capsys, tmp_path, ["movielens", "--folder", tmp_path, "--name", "M"], "neither ratings.csv nor ratings.dat nor"
    )
    (tmp_path / "ml").mkdir()
    (tmp_path / "ml" / "u.data").write_text("1\t2\t3\t4\n")
    (tmp_path / "ml" / "u.item").write_text("no bars here\n")
    prepare_refused(capsys, tmp_path, ["movielens", "--folder", tmp_path / "ml", "--name", "M"], "u.item:1: expected id|title")
    prepare_refused(capsys, tmp_path, ["csv", "--interactions", tmp_path / "empty.csv"], "--name is needed")


@pytest.mark.parametrize("case", ["amazon_2018", "ml-100k", "recbole/shop", "fractional_seconds.csv", "iso_times.csv"])
def test_the_cases_that_people_report(cases, tmp_path, case):
    """The files beside this checkout: 60 users of 12 interactions, 30 items."""
    path = cases / case
    sources_of = {
        "amazon_2018": ["amazon", "--reviews", path / "reviews.json", "--metadata", path / "meta.json"],
        "ml-100k": ["movielens", "--folder", path],
        "recbole/shop": ["recbole", "--folder", path],
    }
    folder = prepared(tmp_path, *sources_of.get(case, ["csv", "--interactions", path]))
    catalogue, rows = read_catalogue(folder), rows_of(folder)
    assert len(catalogue) == 31 and rows.user_id.nunique() == 60 and len(rows) == 120
    assert not any("&" in title and ";" in title or "<" in title for title in catalogue)
    if case == "amazon_2018":
        assert {'"Deluxe" Wash & Wear Kit', "Drill Bits", "Screws 'n Bolts", "Café Mühle", "工具 箱"} <= set(catalogue)
    if case == "ml-100k":
        assert "The Café 1 (1995)" in catalogue
