"""./denoise.sh LOG: every record of the input is in scored.csv exactly once, cell for cell. What is said of records is made up here."""

import csv
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from denoise_code import clean_log_file
from denoise_code.cleaning import judges
from denoise_code.cleaning.flagging import flag_most_suspicious
from denoise_code.cleaning.records import JudgedRecords
from denoise_code.cleaning.self_test import JudgedCopy
from denoise_code.cleaning.written_records import DIGITS_OF_RANK, number_texts
from denoise_code.judging import FiguresOfKinds, JudgedDataSet, JudgedInteractions, Replacements

KINDS = ("collaborative", "detector", "fused")
NEW = ["noise_probability", "noise_rank", "status", "replacement_item", "replacement_title"]
NEW += [*(f"probability_{kind}" for kind in KINDS[:-1]), "flagged"]
HARD_CELLS = [
    "", " ", " padded ", "007", "7", "7.0", "a,b", 'say "hi"', "two\nlines", "two\r\nlines", "carriage\rreturn", "tab\there", "映画",
    "Ünï", "\u200b", "\ufeffmark", "NA", "nan", "null", "0", "-0", "1e5", "'", "\\", "a\x00b"[:1], "=1+1", "\u2028line", "🧸",
]  # fmt: skip


def made_up_judgement(prepared):
    """r of every interaction in a window, replacements that are other items, nothing learned."""
    table = prepared.data.interactions
    rng = np.random.default_rng(0)
    r = {kind: np.where(table.in_train, rng.normal(size=len(table)), np.nan).astype(np.float32) for kind in KINDS}
    replacements = np.where(table.in_train, table.items % prepared.data.n_items + 1, 0)
    figures = FiguresOfKinds(dict.fromkeys(KINDS, 0.3), features={}, coefficients={}, detection={"auc_context": {}})
    return JudgedDataSet(JudgedInteractions(r, {}, figures), 0.2, Replacements(replacements, {}))


@pytest.fixture
def made_up(monkeypatch):
    """Nothing is learned: what is tested is what goes in and what comes out."""
    monkeypatch.setattr(judges.JudgeByItself, "judge", lambda self, vectors: made_up_judgement(self.prepared))
    monkeypatch.setattr(judges.JudgeByItself, "read_titles", lambda self: None)
    copy = JudgedCopy(np.array([1.0, -1.0, 3.0], np.float32), np.array([True, False, True]), np.array([1, 1, 2]))
    monkeypatch.setattr(judges.JudgeByItself, "self_test", lambda *_: copy)
    monkeypatch.setattr("denoise_code.cleaning.folder.fingerprint_of_learned", lambda folder: "nothing")


def run(*arguments):
    clean_log_file.main([str(argument) for argument in arguments])


def read_csv(path, header=True, separator=","):
    """(names, rows) as Python's own reader has them."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter=separator))
    return (rows[0], rows[1:]) if header else (None, rows)


def random_records(seed, n_records=120):
    """Records of text: few users, some with one interaction, repeated items, equal times, cells that break careless code."""
    rng = np.random.default_rng(seed)
    users = [cell for cell in HARD_CELLS if cell.strip()] + [f"u{number}" for number in range(6)]
    items = [cell for cell in HARD_CELLS if cell] + [f"item {number}" for number in range(6)]
    records = [
        {
            "user": users[min(int(rng.exponential(5)), len(users) - 1)],
            "item": items[rng.integers(len(items))],
            "timestamp": str(rng.integers(1, 12)),
            "title": HARD_CELLS[rng.integers(len(HARD_CELLS))],
            "note": HARD_CELLS[rng.integers(len(HARD_CELLS))],
        }
        for _ in range(n_records)
    ]
    records.append(dict(records[3]))  # an exact repetition, and one but for its note
    records.append(records[5] | {"note": "again"})
    return records


def write_delimited(path, records, separator=",", header=True):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
        if header:
            writer.writerow(records[0])
        writer.writerows(record.values() for record in records)


def check_all_there(folder, records, names=None):
    """Every record once, in its order, cell for cell; the new columns behind them."""
    names = names or list(records[0])
    found, rows = read_csv(folder / "scored.csv")
    assert found == names + NEW
    assert [row[: len(names)] for row in rows] == [[record[name] for name in records[0]] for record in records]
    return rows


@pytest.mark.parametrize("seed", range(12))
def test_delimited_text(tmp_path, made_up, seed):
    records = random_records(seed)
    write_delimited(tmp_path / "log.csv", records)
    run(tmp_path / "log.csv", "--out", tmp_path / "out")
    rows = check_all_there(tmp_path / "out", records)
    check_status(records, rows)
    _, kept = read_csv(tmp_path / "out" / "cleaned.csv")
    assert [row[-1] == "1" for row in rows] == [row[5] != "" and float(row[5]) > 0.5 for row in rows]
    expected = [row[:5] for row in rows if row[-1] == "0"]
    assert kept == expected and 0 < len(kept) < len(records)


def check_status(records, rows):
    """Against a slow loop; nothing is told of users with one interaction."""
    triples = [(record["user"], record["item"], record["timestamp"]) for record in records]
    distinct = pd.Series([user for user, _, _ in dict.fromkeys(triples)]).value_counts()
    first = {}
    for number, (triple, row) in enumerate(zip(triples, rows)):
        probability, status = row[5], row[7]
        if distinct[triple[0]] == 1:
            assert status == "too_short" and row[5:7] + row[8:] == [""] * 6 + ["0"]
        elif first.setdefault(triple, number) != number:
            assert status == "duplicate" and row[5:7] + row[8:] == rows[first[triple]][5:7] + rows[first[triple]][8:]
        else:
            assert status == "scored" and 0 < float(probability) <= 1 and row[8]


def test_no_header_other_separator_and_order(tmp_path, made_up):
    records = random_records(1)
    write_delimited(tmp_path / "log.txt", records, "|", header=False)
    options = ["--no_header", "--separator", "|", "--quoting", "standard", "--in_order"]
    run(tmp_path / "log.txt", *options, "--user_column", 1, "--item_column", 2, "--out", tmp_path / "out")
    rows = check_all_there(tmp_path / "out", records, names=["1", "2", "3", "4", "5"])
    assert {row[7] for row in rows} <= {"scored", "too_short"}  # no two records of one place in the order
    _, kept = read_csv(tmp_path / "out" / "cleaned.csv", header=False, separator="|")  # as the log has it
    assert kept == [row[:5] for row in rows if not row[5] or float(row[5]) <= 0.5]


def test_a_separator_of_two_characters(tmp_path, made_up):
    """A cell that ends with one of them comes back as it was."""
    lines = ["user::item::timestamp::note"] + [f'u{number % 9}::i{number % 13}::{number}::"a:"' for number in range(100)]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    run(tmp_path / "log.csv", "--separator", "::", "--threshold", 0.999)
    cleaned = tmp_path / "log_cleaned" / "cleaned.csv"
    n_cleaned = len(cleaned.read_text().splitlines())
    run(cleaned, "--separator", "::", "--out", tmp_path / "again")
    _, rows = read_csv(tmp_path / "again" / "scored.csv")
    assert len(rows) == n_cleaned - 1 and {row[3] for row in rows} == {"a:"}


def test_tabs_and_quotation_marks_as_text(tmp_path, made_up):
    """cleaned.csv has the log's own lines, character for character."""
    lines = ["user\titem\ttimestamp\tnote"]
    lines += [f'u{number % 9}\t"i{number % 13}"\t{number}\tan inch is 1", {number}' for number in range(200)]
    (tmp_path / "log.tsv").write_text("\n".join(lines) + "\n")
    run(tmp_path / "log.tsv", "--separator", "tab", "--out", tmp_path / "out")
    _, rows = read_csv(tmp_path / "out" / "scored.csv")
    expected = [lines[0], *(line for line, row in zip(lines[1:], rows, strict=True) if row[-1] == "0")]
    assert (tmp_path / "out" / "cleaned.csv").read_text().splitlines() == expected and len(expected) < len(lines)


def test_json_lines(tmp_path, made_up):
    """Fields that later records bring are columns; what is neither text nor number stands as JSON."""
    records = [random_records(2)[0] | {"user": "u1", "item": "i1"}, *random_records(2)]
    del records[0]["title"]  # and the titles of the others count
    records[7]["late"] = "here"
    records[8] |= {"late": ["a", 1], "note": True}
    records[9]["note"] = None
    records[10]["timestamp"] = 3
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    run(tmp_path / "log.jsonl", "--out", tmp_path / "out")
    names, rows = read_csv(tmp_path / "out" / "scored.csv")
    assert names == ["user", "item", "timestamp", "note", "title", "late", *NEW]
    assert any(row[names.index("replacement_title")] for row in rows)
    for record, row in zip(records, rows, strict=True):
        expected = {"late": "", "title": ""} | record
        expected = {"late": '["a", 1]', "note": "true"} if record is records[8] else expected
        expected = expected | ({"note": ""} if record is records[9] else {})
        expected = expected | ({"timestamp": "3"} if record is records[10] else {})
        assert {name: cell for name, cell in zip(names, row) if name in expected} == expected


def test_parquet(tmp_path, made_up):
    records = random_records(3)
    table = {name: [record[name] for record in records] for name in records[0]}
    table["timestamp"] = [int(time) for time in table["timestamp"]]
    table["price"] = [None if number % 5 == 0 else number / 4 for number in range(len(records))]
    table["tags"] = [["a", "b"][: number % 3] for number in range(len(records))]
    pa.parquet.write_table(pa.table(table), tmp_path / "log.parquet")
    run(tmp_path / "log.parquet", "--out", tmp_path / "out")
    names, rows = read_csv(tmp_path / "out" / "scored.csv")
    assert names == [*table, *NEW]
    for number, (record, row) in enumerate(zip(records, rows, strict=True)):
        price = "" if number % 5 == 0 else repr(number / 4)
        assert row[:7] == [*record.values(), price, json.dumps(["a", "b"][: number % 3])]


def test_columns_named_like_ours(tmp_path, made_up):
    records = [
        {**record, "status": "mine", "denoised_status": "mine too", "noise_probability": "x"} for record in random_records(4)
    ]
    write_delimited(tmp_path / "log.csv", records)
    run(tmp_path / "log.csv", "--out", tmp_path / "out")
    names, rows = read_csv(tmp_path / "out" / "scored.csv")
    expected = ["denoised_noise_probability", "noise_rank", "denoised_denoised_status", *NEW[3:]]
    assert names == [*records[0], *expected]
    assert [row[:8] for row in rows] == [list(record.values()) for record in records]


def test_half_characters_are_replaced_and_counted(tmp_path, made_up, capsys):
    records = random_records(5)
    lines = [json.dumps(record) for record in records]
    lines[2] = lines[2].replace('"note": "', '"note": "\\ud83e')
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    run(tmp_path / "log.jsonl", "--out", tmp_path / "out")
    _, rows = read_csv(tmp_path / "out" / "scored.csv")
    assert rows[2][4] == "\ufffd" + records[2]["note"] and "1 cells hold half a character" in capsys.readouterr().out


def test_replacing_changes_items_and_titles_alone(tmp_path, made_up):
    records = random_records(6)
    write_delimited(tmp_path / "log.csv", records)
    run(tmp_path / "log.csv", "--out", tmp_path / "out", "--replace", "--threshold", 0.3)
    _, rows = read_csv(tmp_path / "out" / "scored.csv")
    _, cleaned = read_csv(tmp_path / "out" / "cleaned.csv")
    _, edits = read_csv(tmp_path / "out" / "edits.csv")
    changed = [number for number, row in enumerate(rows) if row[5] and float(row[5]) > 0.3]
    assert changed and len(cleaned) == len(rows)
    for number, (row, after) in enumerate(zip(rows, cleaned)):
        assert after == ([row[0], row[8], row[2], row[9], row[4]] if number in changed else row[:5])
    assert [edit[1:] for edit in edits] == [[*rows[row][:2], rows[row][3], rows[row][5], *rows[row][8:10]] for row in changed]
    assert [int(edit[0]) for edit in edits] == [first_lines(tmp_path / "log.csv")[row] for row in changed]


def first_lines(path):
    """The line at which each record of a quoted file begins: line ends stand within cells as well."""
    text, line, within, lines = path.read_bytes().decode().replace("\r\n", "\n").replace("\r", "\n"), 1, False, []
    for place, character in enumerate(text):
        within ^= character == '"'
        if character == "\n":
            line += 1
            if not within and place + 1 < len(text):
                lines.append(line)
    return lines


def test_threshold_and_drop(tmp_path, made_up):
    records = random_records(7)
    write_delimited(tmp_path / "log.csv", records)
    run(tmp_path / "log.csv", "--out", tmp_path / "out", "--drop", 0.25)
    _, rows = read_csv(tmp_path / "out" / "scored.csv")
    _, cleaned = read_csv(tmp_path / "out" / "cleaned.csv")
    n_dropped = len(rows) - len(cleaned)
    assert 0.25 * len(rows) - 3 <= n_dropped <= 0.25 * len(rows)  # repetitions go together
    ranks = sorted((float(row[6]) for row in rows if row[6]), reverse=True)
    left = [row for row in rows if not (row[6] and float(row[6]) >= ranks[n_dropped - 1])]
    assert cleaned == [row[:5] for row in left]


@pytest.mark.parametrize("separator", [",", ";"])
def test_lines_that_a_person_has_confirmed_are_left_out(tmp_path, made_up, separator):
    """Whatever is in the cells, line breaks too; a spreadsheet writes semicolons, and takes leading zeros from keys."""
    records = random_records(11)
    log, out = tmp_path / "log.csv", tmp_path / "out"
    write_delimited(log, records)
    run(log, "--out", out, "--threshold", 0.2)
    header, edits = read_csv(out / "edits.csv")
    confirmed = edits[::3]
    assert 1 < len(confirmed) < len(edits)
    with (tmp_path / "confirmed.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows(
            [header, *([line, user.lstrip("0"), *rest] for line, user, *rest in confirmed)]
        )
    run(log, "--out", out, "--confirmed", tmp_path / "confirmed.csv")
    _, left = read_csv(out / "edits.csv")
    assert left == confirmed
    _, scored = read_csv(out / "scored.csv")
    _, cleaned = read_csv(out / "cleaned.csv")
    assert [row[:5] for row in scored if row[-1] == "0"] == cleaned and len(cleaned) == len(scored) - len(confirmed)
    assert json.loads((out / "run.json").read_text())["self_test"] is None  # nobody has read the copy
    assert "the lines that you have confirmed" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda row: ["3x", *row[1:]], "confirmed.csv:2: line '3x': .*log.csv has no record that begins there"),
        (lambda row: ["1", *row[1:]], "confirmed.csv:2: line '1': "),
        (lambda row: [row[0], "somebody", *row[2:]], "confirmed.csv:2: user 'somebody' and item .*: is the list of another log?"),
    ],
)
def test_a_list_of_another_log_is_refused_before_anything_is_learned(tmp_path, made_up, capsys, edit, message):
    log, out = tmp_path / "log.csv", tmp_path / "out"
    write_delimited(log, random_records(11))
    run(log, "--out", out, "--threshold", 0.2)
    header, edits = read_csv(out / "edits.csv")
    with (tmp_path / "confirmed.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, edit(edits[0])])
    with pytest.raises(SystemExit):
        run(log, "--out", tmp_path / "other", "--confirmed", tmp_path / "confirmed.csv")
    assert re.search(message, capsys.readouterr().err) and not (tmp_path / "other").exists()


@pytest.mark.parametrize(("share", "n_records", "n_flagged"), [(0.29, 100, 29), (0.29, 99, 28), (0.07, 100, 7), (0.005, 100, 0)])
def test_as_many_lines_are_dropped_as_the_share_says(share, n_records, n_flagged):
    """0.29 * 100 is 28.999... as a float."""
    r = np.random.default_rng(0).normal(size=n_records).astype(np.float32)
    judged = JudgedRecords(r, r, np.zeros(n_records, dtype=np.uint8), np.zeros(n_records, dtype=np.int64), {}, r)
    flagged = flag_most_suspicious(judged, np.arange(n_records), share)
    assert flagged.sum() == n_flagged and (not n_flagged or r[flagged].min() > r[~flagged].max())


def test_rank_is_the_share_of_less_suspicious_records(tmp_path, made_up):
    records = random_records(8)
    write_delimited(tmp_path / "log.csv", records)
    run(tmp_path / "log.csv", "--out", tmp_path / "out")
    _, rows = read_csv(tmp_path / "out" / "scored.csv")
    judged = [(float(row[5]), float(row[6])) for row in rows if row[5]]
    at_one = [rank for probability, rank in judged if probability == 1]
    assert len(set(at_one)) > 1  # they tie in probability, not in rank
    for probability, rank in judged:
        assert probability == 1 or rank == pytest.approx(np.mean([other < probability for other, _ in judged]), abs=1e-5)


def test_ranks_tell_millions_of_records_apart():
    ranks = 1 - np.arange(1, 1000) / 5_000_000
    assert len(set(number_texts(ranks, DIGITS_OF_RANK))) == len(ranks)
    assert number_texts(np.array([np.nan, 0.5]), DIGITS_OF_RANK) == ["", "0.5"]


def test_a_full_disk_leaves_the_old_files(tmp_path, made_up, monkeypatch, capsys):
    records = random_records(9)
    write_delimited(tmp_path / "log.csv", records)
    run(tmp_path / "log.csv", "--out", tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    for name in ("written_records.csv_lines", *(f"folder.write_{what}" for what in ("report", "interactions", "keys", "json"))):
        with monkeypatch.context() as patch:
            patch.setattr(f"denoise_code.cleaning.{name}", full)
            with pytest.raises(SystemExit):
                run(tmp_path / "log.csv", "--out", tmp_path / "out", "--replace")
        assert "No space left on device" in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", 0.3, "--drop", 0.1], "--threshold and --drop"),
        (["--drop", 0.1, "--confirmed", "nowhere.csv"], "--drop and --confirmed"),
        (["--confirmed", "nowhere.csv"], "--confirmed nowhere.csv: cannot be read (No such file or directory)"),
        (["--threshold", 1.5], "1.5 is not in 0..1"),
        (["--drop", 0], "0 is not between 0 and 1"),
        (["--window", 2], "2 is below 3"),
        (["--language_model", "none", "--base_model", "x"], "contradict each other"),
        (["--like", "nowhere", "--seed", 3], "--seed and --like"),
        (["--like", "nowhere"], "--like nowhere: no run.json"),
        (["--item_column", "user"], "--user_column and --item_column name the same column, 'user'"),
        (["--user_column", "who"], "no column 'who', found 'user', 'item', 'timestamp', 'title', 'note'"),
    ],
)
def test_contradictions_are_refused(tmp_path, made_up, capsys, options, message):
    write_delimited(tmp_path / "log.csv", random_records(0))
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "log.csv", "--out", tmp_path / "out", *options)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()


def test_the_log_itself_is_not_replaced(tmp_path, made_up, capsys):
    write_delimited(tmp_path / "cleaned.csv", random_records(0))
    with pytest.raises(SystemExit):
        run(tmp_path / "cleaned.csv", "--out", tmp_path)
    assert "cleaned.csv there is the log itself" in capsys.readouterr().err


def test_the_file_of_titles_is_not_replaced(tmp_path, made_up, capsys):
    """Nor where the folder is one that this log was cleaned into."""
    write_delimited(tmp_path / "log.csv", random_records(0))
    out = tmp_path / "out"
    run(tmp_path / "log.csv", "--out", out)
    before = (out / "items.csv").read_bytes()
    with pytest.raises(SystemExit):
        run(tmp_path / "log.csv", "--out", out, "--titles", out / "items.csv", "--titles_item_column", "key")
    assert "items.csv there is the file of --titles" in capsys.readouterr().err
    assert (out / "items.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("items.csv", "item,title"),
        ("scored.csv", ""),
        ("report.html", ""),
        ("run.json", "[]"),
        ("run.json", '{"fingerprints": {}}'),  # of a data set of stage 0
        ("evidence.json", "{}"),
    ],
)
def test_files_of_others_are_not_replaced(tmp_path, made_up, capsys, name, content):
    write_delimited(tmp_path / "log.csv", random_records(0))
    (tmp_path / name).write_text(content)
    with pytest.raises(SystemExit):
        run(tmp_path / "log.csv", "--out", tmp_path)
    assert f"{name} there is of no log that ./denoise.sh cleaned" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == content and len(list(tmp_path.iterdir())) == 2


def test_a_folder_of_another_log_is_replaced_only_where_it_is_named(tmp_path, made_up, capsys):
    write_delimited(tmp_path / "log.csv", random_records(0))
    write_delimited(tmp_path / "log.txt", random_records(1))
    run(tmp_path / "log.csv")
    before = (tmp_path / "log_cleaned" / "scored.csv").read_bytes()
    with pytest.raises(SystemExit):
        run(tmp_path / "log.txt")
    assert "log_cleaned: holds the files of log.csv, which would be replaced" in capsys.readouterr().err
    assert (tmp_path / "log_cleaned" / "scored.csv").read_bytes() == before
    run(tmp_path / "log.txt", "--out", tmp_path / "log_cleaned")
    assert (tmp_path / "log_cleaned" / "scored.csv").read_bytes() != before


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ("1600000000", "1600100000", "times 2020-09-13 to 2020-09-14 (taken as seconds since 1970)"),
        ("1600000000000", "1600100000000", "times 2020-09-13 to 2020-09-14 (taken as milliseconds since 1970)"),
        ("2020-09-13", "2020-10-01 14:05", "times 2020-09-13 to 2020-10-01\n"),
        ("3", "700", "times 3 to 700\n"),
        ("1600000000", "1600100000000", "1 times are a hundred times larger or smaller than most, the first at"),
    ],
)
def test_what_was_read_is_said(tmp_path, made_up, capsys, first, last, said):
    """A wrong unit, or titles that are missing, are seen before anything is learned."""
    records = [
        record | {"timestamp": first, "item": f"i{number % 9}", "title": ""} for number, record in enumerate(random_records(0))
    ]
    records[-1]["timestamp"] = last
    records[0]["title"] = "A title"
    write_delimited(tmp_path / "log.csv", records)
    run(tmp_path / "log.csv", "--language_model", "none")
    printed = capsys.readouterr().out
    n_without = sum(record["item"] != "i0" for record in records)
    assert said in printed and f"titles from column 'title': {n_without:,} lines, of 8 items, have none" in printed


def test_a_first_run_that_was_killed_goes_on(tmp_path, made_up):
    """What was learned is there, some of the files are, run.json is not."""
    write_delimited(tmp_path / "log.csv", random_records(0))
    for name in ("learned.safetensors", "evidence.json", "items.csv"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).touch()
    run(tmp_path / "log.csv", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "run.json").exists()


def test_a_file_of_titles_has_a_form_of_its_own(tmp_path, made_up, capsys):
    """Another separator, another encoding, quotation marks that are text between tabs."""
    records = [record | {"item": f"i{number % 9}"} for number, record in enumerate(random_records(0))]
    write_delimited(tmp_path / "log.csv", records, ";")
    titles = [("id", "name"), *((f"i{number}", f'Caf\u00e9 "{number}", 2nd') for number in range(9))]
    (tmp_path / "titles.tsv").write_text("".join("\t".join(row) + "\n" for row in titles), encoding="latin-1")
    options = ["--titles", tmp_path / "titles.tsv", "--titles_item_column", "id", "--titles_title_column", "name"]
    own = ["--titles_separator", "tab", "--titles_encoding", "latin-1"]
    run(tmp_path / "log.csv", "--separator", ";", *options, *own)
    assert "titles from --titles: 0 lines" in capsys.readouterr().out
    _, edits = read_csv(tmp_path / "log_cleaned" / "edits.csv")
    assert edits and all(row[3] == f'Caf\u00e9 "{row[2][1:]}", 2nd' for row in edits)
    with pytest.raises(SystemExit):
        run(tmp_path / "log.csv", "--separator", ";", *own)
    assert "--titles_separator says how --titles is read, which is not given" in capsys.readouterr().err
    for wrong, message in (
        (own[2:], "titles.tsv: no column 'id', found 'id\\tname'; is there another separator? (--titles_separator tab)"),
        (
            [*own, "--titles_item_column", "name"],
            "titles.tsv: has no item of the log: items are called 'Caf\u00e9 \"0\", 2nd' there, 'i0' in",
        ),
    ):
        with pytest.raises(SystemExit):
            run(tmp_path / "log.csv", "--separator", ";", *options, *wrong)
        assert message in capsys.readouterr().err


def test_titles_that_were_read_in_another_encoding_are_noticed(tmp_path, made_up, capsys):
    """A file in UTF-8 beside a log in latin-1; one in latin-1 is no UTF-8."""
    records = [record | {"item": f"i{number % 9}", "title": "", "note": ""} for number, record in enumerate(random_records(0))]
    write_delimited(tmp_path / "log.csv", records)
    for encoding, is_noticed in (("utf-8", True), ("latin-1", False)):
        (tmp_path / "titles.csv").write_text(
            "item,title\n" + "".join(f"i{number},Gr\u00fcn {number}\n" for number in range(9)), encoding
        )
        run(tmp_path / "log.csv", "--encoding", "cp1252", "--titles", tmp_path / "titles.csv")
        printed = capsys.readouterr().out
        said = (
            "titles that were read as cp1252 are UTF-8, as 'Gr\u00fcn 0' in place of 'Gr\u00c3\u00bcn 0': --titles_encoding utf-8"
        )
        assert (said in printed) == is_noticed


def test_a_list_of_edits_that_was_changed_by_hand_is_kept(tmp_path, made_up, capsys):
    write_delimited(tmp_path / "log.csv", random_records(11))
    edits, kept = (tmp_path / "log_cleaned" / name for name in ("edits.csv", "edits_by_hand.csv"))
    run(tmp_path / "log.csv", "--threshold", 0.2)
    run(tmp_path / "log.csv", "--threshold", 0.3)
    assert not kept.exists()
    header, rows = read_csv(edits)
    with edits.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows[::2]])
    by_hand = edits.read_text()
    run(tmp_path / "log.csv", "--confirmed", edits)  # the new list has its lines
    assert read_csv(edits)[1] == rows[::2] and not kept.exists()
    run(tmp_path / "log.csv", "--threshold", 0.3)
    assert read_csv(kept)[1] == rows[::2] and "is kept as" in capsys.readouterr().out
    assert read_csv(edits)[1] == rows
    edits.write_text(by_hand + "\n")
    run(tmp_path / "log.csv", "--threshold", 0.3)
    assert kept.with_name("edits_by_hand1.csv").read_text() == by_hand + "\n" and read_csv(kept)[1] == rows[::2]
    run(tmp_path / "log.csv", "--threshold", 0.3)
    assert len(list(kept.parent.glob("edits_by_hand*"))) == 2


def test_titles_of_another_file_and_counts(tmp_path, made_up, capsys):
    """The log's own columns stay as they are; an item that the other file does not name has no title."""
    records = [{name: record[name] for name in ("user", "item", "timestamp")} for record in random_records(10)]
    write_delimited(tmp_path / "log.csv", records)
    items = sorted({record["item"] for record in records})
    named = {item: f"Title of {number}" for number, item in enumerate(items[:-3])}
    write_delimited(tmp_path / "items.csv", [{"id": item, "name": title} for item, title in named.items()])
    options = ["--titles", tmp_path / "items.csv", "--titles_item_column", "id", "--titles_title_column", "name"]
    run(tmp_path / "log.csv", "--out", tmp_path / "out", *options)
    rows = check_all_there(tmp_path / "out", records)
    assert all(row[7] == named.get(row[6], "") for row in rows) and any(row[7] for row in rows)
    counts = json.loads((tmp_path / "out" / "run.json").read_text())["counts"]
    assert counts["rows_read"] == len(records) and counts["items_without_title"] == 3
    assert sum(counts["status"].values()) == len(records) and counts["flagged"] == counts["left_out"] > 0
    printed = capsys.readouterr().out
    assert f"rows read {len(records):,}" in printed and f"too_short {counts['status']['too_short']}" in printed
