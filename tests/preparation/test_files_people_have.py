"""Stage 0: files in the shapes that people report trouble with, what must come out, and what is said about it."""

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import threading
import zipfile

import pandas as pd
import prepare_noise_data as prepare
import pytest
from conftest import SPLITS, prepare_refused, prepare_run
from hypothesis import given, settings
from hypothesis import strategies as st

FRUIT = ["Apple, red", "Pear", "Plum", "Fig"]
LOG = "user,item,timestamp,title\n" + "".join(f'u{n % 2},i{n % 4},{1000 + n},"{FRUIT[n % 4]}"\n' for n in range(16))


def source(tmp_path, *arguments, name="X"):
    return [*arguments, "--k_core", 1, "--window", 2, "--name", name, "--output_root", tmp_path / "out"]


def prepared(tmp_path, *arguments, name="X", rate="0.0"):
    prepare_run(*source(tmp_path, *arguments, name=name))
    return tmp_path / "out" / f"{name}_noise_user{rate}"


def table(folder, name):
    return pd.read_csv(folder / name, dtype=str, keep_default_na=False)


def log_of(folder):
    """(user key, item key, time, title) of each interaction, in the order of the input."""
    interactions = table(folder, "interactions.csv").astype({"log_row": int}).sort_values("log_row")
    users, items = table(folder, "users.csv").set_index("user_id"), table(folder, "items.csv").set_index("item_id")
    columns = (
        interactions.user_id.map(users["key"]),
        interactions.true_item_id.map(items["key"]),
        interactions.timestamp,
        interactions.true_item_id.map(items["title"]),
    )
    return list(zip(*columns))


def run_of(folder):
    return json.loads((folder / "run.json").read_text())


EXPECTED = [(f"u{n % 2}", f"i{n % 4}", str(1000 + n), FRUIT[n % 4]) for n in range(16)]


def test_the_fixture_itself(tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv")
    assert log_of(folder) == EXPECTED
    assert run_of(folder)["counts"]["rows_read"] == 16 and run_of(folder)["window"] == 2


# 1. Rows that do not fit the header, quotation marks, blank lines


REFUSED = {
    "a comma without quotation marks": (
        "user,timestamp,title,item\nu1,1,Heat (1995),i1\nu1,2,Net, The (1995),i2\n",
        "log.csv:3: expected 4 fields, as the header has, found 5",
    ),
    "a short row": ("user,item,timestamp\nu,i,1\nu,i\n", "log.csv:3: expected 3 fields, as the header has, found 2"),
    "one row without the last separator": (
        "user,item,timestamp\nu,i,1,\nu,i,2\n",
        "log.csv:3: expected 3 fields, as the header has and an empty one behind them, as the rows before have, found 3",
    ),
    "one row with a separator more": (
        "user,item,timestamp\nu,i,1\nu,i,2,\n",
        "log.csv:3: expected 3 fields, as the header has, found 4",
    ),
    "a blank line between records": ("user,item,timestamp\nu,i,1\n\nu,i,2\n", "log.csv:3: a blank line between records"),
    "a quotation mark that closes in another title": (
        'user,item,timestamp,title\nu,i,1,Low\nu,j,2,"Heroes\nu,k,3,Lodger\nu,j,4,"Heroes\nu,k,5,Lodger\n',
        "log.csv:3: the quotation mark that opens here is not closed",
    ),
    "a quotation mark that never closes": (
        'user,item,timestamp,title\nu,i,1,"two\nlines"\nu,j,2,"Heroes\nu,k,3,Lodger\n',
        "log.csv:4: the quotation mark that opens here is not closed",
    ),
    "text behind a closing quotation mark": ('user,item,timestamp,title\nu,i,1,"a"b\n', "log.csv:2: the quotation mark"),
    "a column twice": ("user,item,item,timestamp\nu,i,i,1\n", "log.csv: 2 columns are called 'item'"),
    "a header alone": ("user,item,timestamp\n", "log.csv: no rows below the header"),
    "a header and a blank line": ("user,item,timestamp\n\n", "log.csv: no rows below the header"),
    "a blank header": ("\nuser,item,timestamp\nu,i,1\n", "log.csv:1: a blank line before the first record"),
    "an empty user in a record of several lines": (
        'user,item,timestamp,title\nu,i,1,"a\nb\r\nc\rd"\n,i,2,e\n',
        "log.csv:6: column 'user' is empty",
    ),
    "a JSON list": ('[{"user": "u", "item": "i", "timestamp": 1}]', "log.csv: one JSON list of all records"),
    "a record without a user": (
        '{"user": "u", "item": "i", "timestamp": 1}\n{"item": "i", "timestamp": 1}\n',
        "log.csv:2: column 'user'",
    ),
    "two records in a line": (
        '{"user": "u", "item": "i", "timestamp": 1} {"user": "u"}\n',
        "log.csv:1: neither a JSON object nor",
    ),
    "half a character": ('{"user": "u\\ud800", "item": "i", "timestamp": 1}\n', "holds half a character"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_line(tmp_path, capsys, case):
    content, message = REFUSED[case]
    (tmp_path / "log.csv").write_bytes(content.encode())
    prepare_refused(capsys, tmp_path, source(tmp_path, "csv", "--interactions", tmp_path / "log.csv"), message)


def test_quotation_marks_as_text(tmp_path):
    text = LOG.replace('"', "").replace("Apple, red", '"Apple').replace("Fig", '"Fig"')
    (tmp_path / "log.csv").write_text(text)
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv", "--quoting", "none")
    assert [title for *_, title in log_of(folder)[:4]] == ['"Apple', "Pear", "Plum", '"Fig"']
    (tmp_path / "tabs.tsv").write_text(LOG.replace("Apple, red", "Apple").replace(",", "\t"))
    tabs = ["csv", "--interactions", tmp_path / "tabs.tsv", "--separator", "tab"]
    assert log_of(prepared(tmp_path, *tabs, name="T"))[0][3] == '"Apple"'
    assert log_of(prepared(tmp_path, *tabs, "--quoting", "standard", name="Q"))[0][3] == "Apple"


READ = {
    "plain": LOG.encode(),
    "CRLF": LOG.replace("\n", "\r\n").encode(),
    "CR": LOG.replace("\n", "\r").encode(),
    "blank last lines": (LOG + "\n  \n\r\n").encode(),
    "no last line end": LOG.rstrip().encode(),
    "UTF-8 with its mark": b"\xef\xbb\xbf" + LOG.encode(),
    "UTF-8 with its mark, the first name in quotation marks": b"\xef\xbb\xbf" + LOG.replace("user,", '"user",').encode(),
    "UTF-16, little end first": LOG.encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + LOG.encode("utf-16-be"),
    "UTF-32": LOG.encode("utf-32"),
    "gzip": gzip.compress(LOG.encode()),
    "gzip, two members": gzip.compress(LOG[:50].encode()) + gzip.compress(LOG[50:].encode()),
    "bzip2": bz2.compress(LOG.encode()),
    "xz": lzma.compress(LOG.encode()),
    "gzip of UTF-16": gzip.compress(LOG.encode("utf-16")),
    "an empty last field in every row": LOG.replace('"\n', '",\n').encode(),
    "an empty last field in the header too": LOG.replace("\n", ",\n").encode(),
    "blanks behind separators": LOG.replace("Apple, red", "AppleCOMMAred").replace(",", ", ").replace("COMMA", ", ").encode(),
    "JSON lines": "\n".join(
        json.dumps(dict(zip(("user", "item", "timestamp", "title"), (u, i, int(time), title)))) for u, i, time, title in EXPECTED
    ).encode(),
    "JSON lines with blanks around": "".join(
        f' {{"user": "{u}", "item": "{i}", "x": null, "timestamp": {time}, "title": "{title}"}} \n'
        for u, i, time, title in EXPECTED
    ).encode(),
    "Python dicts": "\n".join(
        repr(dict(zip(("user", "item", "timestamp", "title"), (u, i, int(time), title)))) for u, i, time, title in EXPECTED
    ).encode(),
}


@pytest.mark.parametrize("case", READ)
def test_read_whatever_the_file_is(tmp_path, case):
    (tmp_path / "log.csv").write_bytes(READ[case])
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv")
    assert log_of(folder) == EXPECTED
    notes = " ".join(run_of(folder)["notes"])
    assert ("the empty field behind it was left out" in notes) == (case == "an empty last field in every row")
    assert ("blanks behind the separators were left out" in notes) == (case == "blanks behind separators")


def archive(kind, files) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as out:
            for name, content in files.items():
                out.writestr(name, content)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as out:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_the_one_data_file_of_an_archive(tmp_path, capsys, kind):
    mac = {"__MACOSX/._log.csv": b"\x00\x05", ".DS_Store": b"\x00", "data/._log.csv": b"\x00"}
    path = tmp_path / "log"
    path.write_bytes(archive(kind, {"data/log.csv": LOG.encode(), **mac}))
    assert log_of(prepared(tmp_path, "csv", "--interactions", path)) == EXPECTED
    path.write_bytes(archive(kind, {"data/log.csv.gz": gzip.compress(LOG.encode()), **mac}))
    assert log_of(prepared(tmp_path, "csv", "--interactions", path, name="G")) == EXPECTED
    path.write_bytes(archive(kind, {"a.csv": LOG.encode(), "b.csv": LOG.encode()}))
    arguments = source(tmp_path, "csv", "--interactions", path, name="Z")
    prepare_refused(capsys, tmp_path, arguments, "log: an archive of 2 data files (a.csv, b.csv): unpack it, or keep one")
    path.write_bytes(archive(kind, mac))
    prepare_refused(capsys, tmp_path, arguments, "log: an archive of 0 data files")


def test_zstandard_where_this_python_has_it(tmp_path, capsys):
    pa = pytest.importorskip("pyarrow")
    (tmp_path / "log.csv").write_bytes(pa.Codec("zstd").compress(LOG.encode(), asbytes=True))
    arguments = source(tmp_path, "csv", "--interactions", tmp_path / "log.csv")
    if sys.version_info < (3, 14):
        prepare_refused(
            capsys, tmp_path, arguments, "log.csv: zstandard data, which this Python cannot read: decompress it first"
        )
    else:
        assert log_of(prepared(tmp_path, *arguments)) == EXPECTED


@pytest.mark.parametrize("times", ["numbers", "timestamps"])
def test_parquet(tmp_path, capsys, times):
    import pyarrow as pa
    import pyarrow.parquet

    users, items, moments, titles = zip(*EXPECTED)
    moments = [int(moment) for moment in moments]
    columns = {"user": pa.array(users).dictionary_encode(), "item": items, "timestamp": moments, "title": titles}
    if times == "timestamps":
        columns["timestamp"] = pa.array([moment * 1000 + 7 for moment in moments], type=pa.timestamp("ms"))
    pa.parquet.write_table(pa.table(columns), tmp_path / "log.csv")
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv")
    ending = "" if times == "numbers" else ".007"
    assert log_of(folder) == [(user, item, time + ending, title) for user, item, time, title in EXPECTED]
    pa.parquet.write_table(pa.table(columns | {"item": pa.array([None, *items[1:]])}), tmp_path / "log.csv")
    refused = source(tmp_path, "csv", "--interactions", tmp_path / "log.csv", name="Y")
    prepare_refused(capsys, tmp_path, refused, "log.csv, row 1: column 'item' is empty")
    (tmp_path / "log.csv").write_bytes((tmp_path / "log.csv").read_bytes()[:-30])
    prepare_refused(capsys, tmp_path, refused, "log.csv: damaged, or no Parquet that can be read")


def test_line_breaks_within_quotation_marks_are_told(tmp_path):
    (tmp_path / "log.csv").write_text(LOG.replace("Apple, red", "Apple,\nred"))
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv")
    assert log_of(folder) == EXPECTED  # white space in titles is folded
    assert run_of(folder)["notes"] == ["log.csv: 4 records have a line break within quotation marks, the first in line 2"]


def test_only_cr_lf_and_crlf_end_a_line(tmp_path):
    strange = "a\x85b\u2028c\x0bd\x1ce\x00f"
    (tmp_path / "log.csv").write_text(LOG.replace("i2", f"i{strange}"))
    assert log_of(prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv"))[2][1] == f"i{strange}"
    ml = tmp_path / "ml"
    ml.mkdir()
    (ml / "ratings.dat").write_text("".join(f"{n % 2}::{n % 4}::5::{n}\n" for n in range(16)) + "\n")
    (ml / "movies.dat").write_text("".join(f"{n}::Film\x85 {n} (1999)::Drama\n" for n in range(4)) + "\n")
    folder = prepared(tmp_path, "movielens", "--folder", ml, name="M")
    assert [title for *_, title in log_of(folder)[:4]] == [f"Film {n} (1999)" for n in range(4)]


# 2. No traceback: folders, missing files, pipes, damaged files


def test_folders_and_pipes(tmp_path, capsys):
    refused = [*source(tmp_path, "csv"), "--interactions"]
    prepare_refused(capsys, tmp_path, [*refused, tmp_path], "a folder, where a file is wanted")
    prepare_refused(capsys, tmp_path, [*refused, tmp_path / "none"], "none: no such file")
    for content, message in (
        (archive("zip", {"a": b""}), "an archive cannot be read from a pipe"),
        (b"PAR1", "Parquet cannot be read"),
    ):
        feed(tmp_path / "pipe", content)
        prepare_refused(capsys, tmp_path / "out", [*refused, tmp_path / "pipe"], message)
    for name, content in {"plain": LOG.encode(), "gzip": gzip.compress(LOG.encode()), "json": READ["JSON lines"]}.items():
        feed(tmp_path / "pipe", content)
        assert log_of(prepared(tmp_path, "csv", "--interactions", tmp_path / "pipe", name=name)) == EXPECTED
    twice = [*refused, tmp_path / "pipe", "--titles", tmp_path / "pipe"]
    prepare_refused(capsys, tmp_path / "out", twice, "a pipe is read once, for the interactions")


def feed(path, content):
    """A named pipe that somebody writes to."""
    (path.parent / "out").mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(content,), daemon=True).start()


def test_standard_input(tmp_path):
    arguments = map(str, source(tmp_path, "csv", "--interactions", "/dev/stdin"))
    done = subprocess.run([sys.executable, prepare.__file__, *arguments], input=LOG, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert log_of(tmp_path / "out" / "X_noise_user0.0") == EXPECTED


# 3. What the source csv can be told


def test_no_header_with_positions(tmp_path, capsys):
    (tmp_path / "r.csv").write_text("".join(f"u{n % 2},i{n % 4},{n % 5}.0,{1000 + n}\n" for n in range(16)))
    options = ["csv", "--interactions", tmp_path / "r.csv", "--no_header", "--user_column", 1, "--item_column", 2]
    folder = prepared(tmp_path, *options, "--time_column", 4)
    assert log_of(folder) == [(user, item, time, item) for user, item, time, _ in EXPECTED]
    assert any("no column of titles" in note for note in run_of(folder)["notes"])
    rated = prepared(tmp_path, *options, "--time_column", 4, "--rating_column", 3, "--min_rating", 1, name="R")
    assert run_of(rated)["counts"]["rated_below_min_rating"] == 4
    refused = source(tmp_path, *options, name="Z")
    prepare_refused(capsys, tmp_path, refused, "--no_header: --time_column is needed, a position from 1")
    prepare_refused(capsys, tmp_path, [*refused, "--time_column", "when"], "--no_header: --time_column when: a position from 1")
    prepare_refused(capsys, tmp_path, [*refused, "--time_column", "5"], "r.csv: no column '5', found 4 columns")
    (tmp_path / "r.csv").write_bytes(READ["JSON lines"])
    prepare_refused(capsys, tmp_path, [*refused, "--time_column", "4"], "--no_header: the columns of this file have names")


def test_other_names_in_the_titles(tmp_path, capsys):
    (tmp_path / "plays.dat").write_text(
        "userID\tartistID\twhen\n" + "".join(f"u{n % 2}\ti{n % 4}\t{1000 + n}\n" for n in range(16))
    )
    (tmp_path / "artists.dat").write_text("id\tname\turl\n" + "".join(f"i{n}\t{name}\t\n" for n, name in enumerate(FRUIT)))
    options = ["csv", "--interactions", tmp_path / "plays.dat", "--titles", tmp_path / "artists.dat", "--separator", "tab"]
    options += ["--user_column", "userID", "--item_column", "artistID", "--time_column", "when"]
    refused = source(tmp_path, *options)
    prepare_refused(capsys, tmp_path, refused, "artists.dat: no column 'artistID', found 'id', 'name', 'url'")
    prepare_refused(capsys, tmp_path, [*refused, "--titles_item_column", "id"], "artists.dat: no column 'title'")
    named = ["--titles_item_column", "id", "--titles_title_column", "name"]
    assert log_of(prepared(tmp_path, *options, *named)) == EXPECTED
    (tmp_path / "log.csv").write_text(LOG)
    alone = source(tmp_path, "csv", "--interactions", tmp_path / "log.csv", *named, name="Z")
    prepare_refused(capsys, tmp_path, alone, "says how --titles is read, which is not given")


def test_titles_as_json_lines(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,parent_asin,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t, _ in EXPECTED))
    lines = [json.dumps({"main_category": "x", "title": title, "parent_asin": f"i{n}"}) for n, title in enumerate(FRUIT)]
    (tmp_path / "meta.jsonl").write_text("\n".join(lines))
    options = ["csv", "--interactions", tmp_path / "log.csv", "--titles", tmp_path / "meta.jsonl"]
    assert log_of(prepared(tmp_path, *options, "--user_column", "user_id", "--item_column", "parent_asin")) == EXPECTED


def test_the_order_of_the_file_where_there_are_no_times(tmp_path, capsys):
    (tmp_path / "log.csv").write_text("user,item\n" + "".join(f"u{n % 2},i{n % 4}\n" for n in range(16)))
    options = ["csv", "--interactions", tmp_path / "log.csv"]
    prepare_refused(capsys, tmp_path, source(tmp_path, *options), "log.csv: no column 'timestamp'")
    both = source(tmp_path, *options, "--in_order", "--time_column", "when")
    prepare_refused(capsys, tmp_path, both, "--in_order and --time_column")
    assert log_of(prepared(tmp_path, *options, "--in_order")) == [(u, i, str(n), i) for n, (u, i, *_) in enumerate(EXPECTED)]


# 4. Nothing is lost silently


def test_what_was_lost_is_said_where_nothing_comes_out(tmp_path, capsys):
    (tmp_path / "log.csv").write_text(LOG)
    with pytest.raises(SystemExit):
        prepare_run(
            "csv", "--interactions", tmp_path / "log.csv", "--name", "X", "--k_core", 1, "--window", 16, "--output_root", tmp_path
        )
    said = capsys.readouterr()
    assert "rows read 16" in said.out and "only 2 windows" in said.err


def test_every_loss_is_counted(tmp_path, capsys):
    rows = [(f"u{n % 2}", f"i{n % 4}", 1000 + n, 5) for n in range(24)]  # what stays
    rows += [("u0", "i0", 1000, 5)]  # a line twice
    rows += [("u0", "i1", 2000, 1), ("u1", "i2", 2001, 2)]  # rated low
    rows += [("u0", "nameless", 2002, 5)] * 3
    rows += [("u7", "i3", 2003, 5)]  # a user below the k-core
    pd.DataFrame(rows, columns=["user", "item", "timestamp", "rating"]).to_csv(tmp_path / "log.csv", index=False)
    (tmp_path / "titles.csv").write_text(
        "item,title\n" + "".join(f"i{n},{name}\n" for n, name in enumerate("abcd")) + "nameless,\u200b\n"
    )
    options = ["csv", "--interactions", tmp_path / "log.csv", "--titles", tmp_path / "titles.csv", "--min_rating", 3]
    prepare_run(*options, "--name", "X", "--k_core", 2, "--window", 2, "--output_root", tmp_path / "out")
    said = capsys.readouterr().out
    counts = run_of(tmp_path / "out" / "X_noise_user0.0")["counts"]
    assert counts["rows_read"] == 31 and counts["left"] == 25
    assert counts["duplicate_lines"] == 3 and counts["rated_below_min_rating"] == 2
    assert counts["without_title"] == 3 and counts["below_k_core"] == 1
    assert counts["single_interactions"] == 0
    assert "duplicate lines 3 (9.68%): kept" in said and "single interactions 0 (0.00%): kept, in no window" in said
    assert "without title 3 (9.68%)" in said and "rated below min rating 2 (6.45%)" in said
    single = prepared(tmp_path, *options[:5], name="S")
    assert run_of(single)["counts"]["single_interactions"] == 1
    assert "u7" in table(single, "users.csv")["key"].tolist()


def test_a_k_core_that_takes_more_than_half_is_said_loudly(tmp_path, capsys):
    rows = [(f"a{n % 3}", f"i{n % 4}", n) for n in range(36)] + [(f"b{n}", f"j{n}", n) for n in range(40)]
    pd.DataFrame(rows, columns=["user", "item", "timestamp"]).to_csv(tmp_path / "log.csv", index=False)
    options = ["csv", "--interactions", tmp_path / "log.csv", "--window", 2, "--name", "X", "--output_root", tmp_path]
    prepare_run(*options)
    assert "WARNING: --k_core 5 drops 53% of the log" in capsys.readouterr().out
    prepare_run(*options, "--k_core", 1, "--overwrite")
    assert "WARNING" not in capsys.readouterr().out


@pytest.mark.parametrize("key, in_titles", [("0108", "108"), ("B1 ", "B1"), ("b1", "B1"), ("12", "12.0"), ("000", "0")])
def test_keys_that_would_meet_are_pointed_out(tmp_path, key, in_titles):
    rows = [("u", key if n % 4 == 1 else f"i{n % 4}", n) for n in range(16)]
    pd.DataFrame(rows, columns=["user", "item", "timestamp"]).to_csv(tmp_path / "log.csv", index=False)
    (tmp_path / "titles.csv").write_text("item,title\ni0,a\ni2,b\ni3,c\n" + f"{in_titles},d\n")
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv", "--titles", tmp_path / "titles.csv")
    run = run_of(folder)
    assert run["counts"]["without_title"] == 4 and run["counts"]["keys_that_nearly_meet"] == {"users": 0, "items": 0, "titles": 1}
    assert any(f"{key!r} in the log and {in_titles!r} in titles.csv" in note for note in run["notes"])
    rows += [("u", in_titles, 99)]
    pd.DataFrame(rows, columns=["user", "item", "timestamp"]).to_csv(tmp_path / "log.csv", index=False)
    run = run_of(prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv", name="Y"))
    assert run["counts"]["keys_that_nearly_meet"]["items"] == 1
    assert any(f"e.g. {key!r} and {in_titles!r}" in note for note in run["notes"])


# 5. Titles, times, keys


def test_an_empty_later_record_takes_nothing_away(tmp_path):
    reviews = [{"user_id": "u", "parent_asin": f"B{n:02}", "rating": 5.0, "timestamp": 1588687728923 + n} for n in range(13)]
    products = [{"parent_asin": f"B{n:02}", "title": f"Mug {n}"} for n in range(13)] + [{"parent_asin": "B01", "title": ""}]
    products += [{"parent_asin": "B02", "title": None}, {"parent_asin": "B03"}, {"parent_asin": "B04", "title": "<br>"}]
    products += [{"parent_asin": "B05", "title": "\u200b\ufeff\u2060"}, {"parent_asin": "elsewhere", "title": "not of this log"}]
    for name, records in (("reviews", reviews), ("meta", products)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    folder = prepared(tmp_path, "amazon", "--reviews", tmp_path / "reviews.jsonl", "--metadata", tmp_path / "meta.jsonl")
    assert table(folder, "items.csv").title.tolist() == [f"Mug {n}" for n in range(13)]
    assert run_of(folder)["counts"]["items_with_several_titles"] == 0


def test_of_several_titles_the_most_frequent_counts_then_the_latest(tmp_path):
    titles = {
        "i0": ["a", "b", "a"],
        "i1": ["a", "b"],
        "i2": ["a", "b", "b", "a"],
        "i3": ["", "c", " "],
        "i4": ["\u200b", "\u3164"],
    }
    rows = [("u", item, n, title) for item, of_item in titles.items() for n, title in enumerate(of_item)]
    pd.DataFrame(rows, columns=["user", "item", "timestamp", "title"]).to_csv(tmp_path / "log.csv", index=False)
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv")
    items = table(folder, "items.csv")
    assert dict(zip(items["key"], items["title"])) == {"i0": "a", "i1": "b", "i2": "a", "i3": "c"}
    assert run_of(folder)["counts"]["items_with_several_titles"] == 3 and run_of(folder)["counts"]["without_title"] == 2


def test_nanoseconds_order_by_their_ninth_decimal(tmp_path):
    moments = ["1609342800.123456789", "1609342800.123456788", *(f"1609342801.00000000{n}" for n in range(1, 9)), "1609342801.5"]
    (tmp_path / "log.csv").write_text("user,item,timestamp\n" + "".join(f"u,i{n},{moment}\n" for n, moment in enumerate(moments)))
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv")
    interactions = table(folder, "interactions.csv")
    assert interactions.log_row.tolist()[:3] == ["1", "0", "2"]
    assert interactions.timestamp.tolist()[:2] == ["1609342800.123456788", "1609342800.123456789"]
    assert interactions.timestamp.tolist()[-1] == "1609342801.500000000"
    (tmp_path / "log.csv").write_text("user,item,timestamp\n" + "".join(f"u,i,{2**63 - 12 + n}\n" for n in range(12)))
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv", name="L")
    assert table(folder, "interactions.csv").timestamp.tolist() == [str(2**63 - 12 + n) for n in range(12)]
    (tmp_path / "log.csv").write_text(
        "user,item,timestamp\n" + "".join(f"u,i,{n}.0000000000000000000{n}\n" for n in range(1, 13))
    )
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv", name="C")
    assert any("12 times have more digits than 64 bits hold" in note for note in run_of(folder)["notes"])


def test_true_items_stand_in_the_rows(tmp_path):
    rows = [("a" if n % 3 else "b", f"i{n % 5}", n, "Gift Card" if n % 5 in (1, 3) else f"title {n % 5}") for n in range(60)]
    pd.DataFrame(rows, columns=["user", "item", "timestamp", "title"]).to_csv(tmp_path / "log.csv", index=False)
    options = ["csv", "--interactions", tmp_path / "log.csv"]
    noisy = prepared(tmp_path, *options, "--noise", 0.5, rate="0.5")
    quiet = prepared(tmp_path, *options)
    for split in SPLITS:
        injected, clean = table(noisy, f"{split}.csv"), table(quiet, f"{split}.csv")
        assert injected.true_item_ids.tolist() == clean.item_ids.tolist() == clean.true_item_ids.tolist()
        assert injected.item_ids.tolist() != clean.item_ids.tolist()
        for items, true, mask in zip(*(injected[name].map(json.loads) for name in ("item_ids", "true_item_ids", "mask"))):
            assert all(marked or item == original for item, original, marked in zip(items, true, mask))
            assert split == "train" or items[-1] == true[-1]
    interactions = table(noisy, "interactions.csv")
    assert list(interactions.columns) == ["user_id", "place", "item_id", "timestamp", "mask", "true_item_id", "log_row"]
    assert interactions.true_item_id.tolist() == table(quiet, "interactions.csv").item_id.tolist()
    by_place = {(row.user_id, int(row.place)): row for row in interactions.itertuples()}
    for row in table(noisy, "train.csv").itertuples():
        for place, (item, mask) in enumerate(zip(json.loads(row.item_ids), json.loads(row.mask)), int(row.start)):
            interaction = by_place[row.user_id, place]
            assert (interaction.item_id, interaction.mask) == (str(item), str(mask))


def test_keys_are_kept_as_they_are(tmp_path):
    keys = ["007", " 7", "NA", "null", 'say "hi"', "a,b", "x\ny", "x\ry", "Ünï", "1e5", "-0"]
    rows = [(key, keys[-place], place, f"t{place}") for place, key in enumerate(keys)] * 2
    pd.DataFrame(rows, columns=["user", "item", "timestamp", "title"]).to_csv(
        tmp_path / "log.csv", index=False, lineterminator="\r\n", quoting=1
    )
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv")
    assert table(folder, "users.csv")["key"].tolist() == keys
    assert set(table(folder, "items.csv")["key"]) == set(keys)
    assert [user for user, *_ in log_of(folder)] == keys * 2


def test_run_json_is_strict_and_tells_the_command(tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    folder = prepared(tmp_path, "csv", "--interactions", tmp_path / "log.csv")

    def refuse(constant):
        raise AssertionError(constant)

    run = json.loads((folder / "run.json").read_text(), parse_constant=refuse)
    assert run["command"].startswith("prepare_noise_data.py csv --interactions ") and run["options"]["k_core"] == 1
    assert set(run["fingerprints"]) == {"interactions.csv", "items.csv", "users.csv"}


# 6. One damaged byte in any file of any source


def files_of_sources(folder):
    """{source: (options, its files)}, small and valid."""
    (folder / "ml").mkdir()
    (folder / "shop").mkdir()
    contents = {
        "log.csv": LOG.encode(),
        "titles.csv.gz": gzip.compress(b"item,title\n" + b"".join(b"i%d,Film %d\n" % (n, n) for n in range(4))),
        "reviews.json": "\n".join(
            json.dumps({"reviewerID": f"u{n % 2}", "asin": f"i{n}", "unixReviewTime": n, "overall": 4.0}) for n in range(16)
        ).encode(),
        "meta.json": "\n".join(repr({"asin": f"i{n}", "title": f"Film {n}"}) for n in range(16)).encode(),
        "ml/ratings.dat": "".join(f"{n % 2}::{n % 4}::5::{n}\n" for n in range(16)).encode(),
        "ml/movies.dat": "".join(f"{n}::Film {n} (1999)::Drama\n" for n in range(4)).encode(),
        "shop/shop.inter": b"user_id:token\titem_id:token\ttimestamp:float\n"
        + "".join(f"{user}\t{item}\t{time}\n" for user, item, time, _ in EXPECTED).encode(),
        "shop/shop.item": b"item_id:token\ttitle:token_seq\n" + "".join(f"i{n}\tFilm {n}\n" for n in range(4)).encode(),
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    options = {
        "csv": (["--interactions", folder / "log.csv", "--titles", folder / "titles.csv.gz"], ["log.csv", "titles.csv.gz"]),
        "amazon": (["--reviews", folder / "reviews.json", "--metadata", folder / "meta.json"], ["reviews.json", "meta.json"]),
        "movielens": (["--folder", folder / "ml"], ["ml/ratings.dat", "ml/movies.dat"]),
        "recbole": (["--folder", folder / "shop"], ["shop/shop.inter", "shop/shop.item"]),
    }
    return options, contents


@pytest.mark.parametrize("kind", ["csv", "amazon", "movielens", "recbole"])
def test_one_damaged_byte_is_no_traceback(tmp_path, capsys, kind):
    options, contents = files_of_sources(tmp_path)
    flags, names = options[kind]
    prepare_run(*source(tmp_path, kind, *flags))

    @settings(max_examples=40, deadline=None)
    @given(st.data())
    def damage(data):
        name = data.draw(st.sampled_from(names))
        content = bytearray(contents[name])
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        (tmp_path / name).write_bytes(content)
        capsys.readouterr()
        try:
            prepare_run(*source(tmp_path, kind, *flags), "--overwrite")
        except SystemExit as stopped:
            error = capsys.readouterr().err
            assert stopped.code == 2 and error.count("\n") == 1, error
        else:
            counts = run_of(tmp_path / "out" / "X_noise_user0.0")["counts"]
            steps = ("repeated_reviews", "without_title", "below_k_core", "left")
            assert counts["rows_read"] == 16 == sum(counts.get(step, 0) for step in steps)
        finally:
            (tmp_path / name).write_bytes(contents[name])

    damage()
