"""A log cleaned with evidence that is learned: what is judged how, what is kept, what --like does, the same from Python."""

import json
import subprocess
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_up_logs import GROUPS, N_ITEMS, grouped_logs

from denoise_code import clean_log_file, judging
from denoise_code.cleaning import clean_log, records
from denoise_code.common.errors import InputError
from denoise_code.data_set.log.log import Account
from denoise_code.data_set.log.tables import Columns, read_log
from denoise_code.data_set.log.whole_tables import PandasTable
from denoise_code.evidence.options import EvidenceOptions
from denoise_code.language_model import kept_titles
from denoise_code.replacement import Fitted

pytestmark = pytest.mark.usefixtures("quick_evidence")
judged_before = {}


@pytest.fixture(autouse=True)
def evidence_once(monkeypatch):
    """The same log is learned from once in all tests of this file."""
    judge_interactions = records.judge_interactions

    def judge(data, vectors, scores, halvings, seed):
        arrays = [data.train, data.interactions.items, halvings, *([] if vectors is None else [vectors])]
        key = (seed, *(array.tobytes() for array in arrays))
        if key not in judged_before:
            judged_before[key] = judge_interactions(data, vectors, scores, halvings, seed)
        return judged_before[key]

    monkeypatch.setattr(records, "judge_interactions", judge)


FILES = ("scored.csv", "cleaned.csv", "edits.csv", "report.html")


def run(*arguments):
    clean_log_file.main([str(argument) for argument in arguments])


def grouped_table(seed=0, users=150, noise=0.15, length=20):
    """A log of users who want the items of one group, some of their items being noise: column `noise`."""
    logs, masks = grouped_logs(seed, users, noise, length)
    records = [
        (user, f"i{item:03}", place, f"Item {item} of group {item % GROUPS}", mask)
        for user, items in logs.items()
        for place, (item, mask) in enumerate(zip(items, masks[user]))
    ]
    table = pd.DataFrame(records, columns=["user", "item", "timestamp", "title", "noise"])
    return table.sample(frac=1, random_state=0).reset_index(drop=True)


def write_log(path, table):
    table.to_csv(path, index=False)
    return path


def scored(folder):
    return pd.read_csv(folder / "scored.csv", dtype={"user": str}, keep_default_na=False, na_values={"noise_probability": [""]})


def contents(folder, names=FILES):
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path / "log.csv", grouped_table())


def test_noise_has_a_higher_probability(log):
    run(log, "--language_model", "none")
    table = scored(log.with_name("log_cleaned"))
    noise = table["noise"] == 1
    assert table.loc[noise, "noise_probability"].mean() > 3 * table.loc[~noise, "noise_probability"].mean()
    flagged = table["noise_probability"] > 0.5
    assert flagged.sum() > 100 and table.loc[flagged, "noise"].mean() > 0.6
    run_record = json.loads((log.with_name("log_cleaned") / "run.json").read_text())
    test = run_record["self_test"]
    assert test["n_planted_flagged"] / test["n_planted"] > 3 * test["n_others_flagged"] / test["n_others"]
    assert run_record["counts"]["flagged"] == run_record["counts"]["left_out"] == flagged.sum()
    assert test["found_interval"][0] < test["n_planted_flagged"] / test["n_planted"] < test["found_interval"][1]
    replaced = table.loc[flagged & noise]  # by an item of the user's own group more often than by chance
    group_of_user = table[~noise].groupby("user")["title"].agg(lambda titles: titles.str[-1].mode()[0])
    fits = replaced["replacement_title"].str[-1].to_numpy() == group_of_user[replaced["user"]].to_numpy()
    assert fits.mean() > 0.6


def test_a_second_run_learns_nothing(log, monkeypatch):
    out = log.with_name("log_cleaned")
    run(log, "--language_model", "none")
    first, before, at_half = contents(out), contents(out, ["run.json"]), scored(out)

    def learns(*_):
        raise AssertionError("something is learned again")

    with monkeypatch.context() as patch:
        for name in ("judge_interactions", "replace_what_is_noise"):
            patch.setattr(f"denoise_code.cleaning.records.{name}", learns)
        patch.setattr("denoise_code.cleaning.judges.judge_copy", learns)
        run(log, "--language_model", "none")
        assert contents(out) == first
        run(log, "--language_model", "none", "--threshold", 0.9)
        assert contents(out)["cleaned.csv"] != first["cleaned.csv"]
        again = scored(out)
        assert again.drop(columns="flagged").equals(at_half.drop(columns="flagged"))
        assert (again["flagged"] == (again["noise_probability"] > 0.9)).all()
        high, promised = (json.loads(content["run.json"]) for content in (contents(out, ["run.json"]), before))
        row = next(row for row in promised["thresholds"] if row["threshold"] == 0.9)
        assert row["n_flagged"] == high["counts"]["flagged"] > 0
        assert row["found"] == high["self_test"]["n_planted_flagged"] / high["self_test"]["n_planted"]
    with monkeypatch.context() as patch:  # another share: replacements anew, r is kept
        patch.setattr("denoise_code.cleaning.records.judge_interactions", learns)
        run(log, "--language_model", "none", "--noise_share", 0.2)
    double = scored(out)["noise_probability"]
    assert json.loads((out / "run.json").read_text())["noise_share"] == 0.2
    run(log, "--language_model", "none", "--noise_share", 0.1)
    assert np.allclose(double, np.minimum(2 * scored(out)["noise_probability"], 1), atol=1e-5)


@pytest.mark.parametrize("options", [["--window", 5], ["--seed", 1]])
def test_options_change_what_is_learned(log, options):
    out = log.with_name("log_cleaned")
    run(log, "--language_model", "none", "--noise_share", 0.1)
    before = scored(out)["noise_probability"]
    run(log, "--language_model", "none", "--noise_share", 0.1, *options)
    after = scored(out)["noise_probability"]
    assert not np.allclose(before, after, atol=1e-3) and np.corrcoef(before, after)[0, 1] > 0.5


def test_from_python(log, tmp_path):
    """The same columns for a pandas table, with its index, its order and its types."""
    table = grouped_table()
    run(log, "--language_model", "none")
    expected = scored(log.with_name("log_cleaned"))
    numbered = table.assign(user=table["user"].str[1:].astype(int), item=table["item"].str[1:].astype(int), status="mine")
    numbered.index = np.arange(len(table))[::-1] * 7
    moments = pd.Timestamp("2020-01-01") + pd.to_timedelta(numbered["timestamp"], unit="D")
    result = clean_log(numbered.assign(timestamp=moments), language_model="none")
    assert (result.index == numbered.index).all() and (result["status"] == "mine").all()
    assert (result["denoised_status"] == "scored").all() and result["noise_rank"].between(0, 1).all()
    assert pd.api.types.is_numeric_dtype(result["replacement_item"])
    replaced = result[result["replacement_item"].notna()]
    item = replaced["replacement_item"].astype(int)
    titles = [f"Item {number} of group {number % GROUPS}" for number in item]
    # Users here have a good part of the items of their groups, and are given none of these.
    assert len(replaced) > 2500 and replaced["replacement_title"].tolist() == titles
    same = clean_log(table, language_model="none")
    for column in ("noise_probability", "noise_rank", "probability_collaborative", "probability_detector"):
        assert np.allclose(same[column], expected[column].astype(float), rtol=1e-4), column
    assert (same["replacement_item"].fillna("") == expected["replacement_item"]).all()


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "Int64", "object", "float64"])
def test_replacements_are_the_very_keys(dtype):
    """Whole numbers beyond 2^53 as well; missing where there is none."""
    keys = [2**53 + 1, 2**53 + 3, 2**53 + 5] if dtype not in ("int32", "float64") else [1, 3, 5]
    table = pd.DataFrame({"user": [1, 1, 1], "item": pd.Series(keys, dtype=dtype), "timestamp": [1, 2, 3]})
    log = read_log(PandasTable(table), Columns("user", "item", "timestamp"), Account())
    result = records.replacement_keys(records.prepare_log(log, 3), np.array([2, 0, 3]), table["item"])
    assert result.isna().tolist() == [False, True, False]
    assert [int(key) for key in result.dropna()] == [keys[1], keys[2]]
    expected = {"int64": "Int64", "int32": "Int64", "uint64": "UInt64"}
    assert result.dtype == expected.get(dtype, dtype)


@pytest.mark.parametrize("reads_titles", [False, True])
def test_an_item_without_a_title_is_replaced_by_the_probability_that_is_shown(monkeypatch, reads_titles):
    """By co-occurrence alone where titles are read: in a large log, what is shown as noise gets a replacement."""
    table = pd.DataFrame({"user": [1, 1, 1], "item": [1, 2, 3], "timestamp": [1, 2, 3], "title": ["A", "", "C"]})
    log = read_log(PandasTable(table), Columns("user", "item", "timestamp", title="title"), Account())
    prepared, probabilities = records.prepare_log(log, 3), []
    r_by_kind = {"collaborative": np.array([0.0, 1, 2]), "fused": np.array([-5.0, -6, -7])}
    monkeypatch.setattr(judging, "fit_ranker", lambda *_: Fitted(SimpleNamespace(weights=np.zeros(4)), {}, {}))
    monkeypatch.setattr(
        judging,
        "replace_interactions",
        lambda data, ranker, p_noise, least, new_to_user: probabilities.append(p_noise) or np.zeros(3, int),
    )
    vectors = np.zeros((4, 2)) if reads_titles else None
    judged = records.with_replacements(
        prepared, judging.JudgedInteractions(r_by_kind, {}, figures=None), vectors, EvidenceOptions(0.1)
    )
    assert np.allclose(probabilities, 0.1 * np.exp([-5, 1, -7] if reads_titles else [-5, -6, -7]))
    shown = records.spread_over_records(prepared, judged, reads_titles)
    assert np.allclose(shown.probability, probabilities)


def test_too_small_a_log_is_one_clear_error(tmp_path, capsys):
    log = write_log(tmp_path / "log.csv", grouped_table(users=4))
    with pytest.raises(SystemExit):
        run(log, "--language_model", "none")
    error = capsys.readouterr().err
    assert "too small to learn from: 80 interactions" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"user": [], "item": [], "timestamp": []}), "no rows"),
        (pd.DataFrame({"user": ["a"], "thing": ["x"], "timestamp": [1]}), "no column 'item', found 'user', 'thing', 'timestamp'"),
        (
            pd.DataFrame({"user": ["a", None], "item": ["x", "y"], "timestamp": [1, 2]}),
            "row 1 of the table: column 'user' is empty",
        ),
        (pd.DataFrame({"user": ["a"], "item": ["x"], "timestamp": ["soon"]}), "'soon' is neither a number nor an ISO 8601 date"),
    ],
)
def test_tables_that_are_no_log(table, message):
    with pytest.raises(InputError, match=message):
        clean_log(table)


# ---------------------------------------------------------------- titles


@pytest.fixture
def titled(log, tiny_models, monkeypatch):
    """(log, options): titles read by a tiny model. Items of odd numbers have no title."""
    table = grouped_table()
    table.loc[table["item"].str[-1].isin(list("13579")) & (table["item"] > "i030"), "title"] = " "
    write_log(log, table)
    return log, ["--base_model", tiny_models["llama"]]


def test_items_without_a_title_are_judged_by_co_occurrence_alone(titled):
    log, options = titled
    run(log, *options)
    table = scored(log.with_name("log_cleaned"))
    untitled = table["title"] == " "
    assert untitled.sum() > 300 and (table.loc[untitled, "status"] == "no_title").all()
    assert (table.loc[~untitled, "status"] == "scored").all()
    assert (table.loc[untitled, "probability_semantic"] == "").all()
    collaborative = table["probability_collaborative"].astype(float)
    assert np.allclose(table.loc[untitled, "noise_probability"], collaborative[untitled])
    assert not np.allclose(table.loc[~untitled, "noise_probability"], collaborative[~untitled])


def test_titles_are_kept_by_title(titled, monkeypatch):
    log, options = titled
    out, read = log.with_name("log_cleaned"), []
    title_batches = kept_titles.title_batches
    monkeypatch.setattr(kept_titles, "title_batches", lambda *a: read.extend(a[2]) or title_batches(*a))
    run(log, *options)
    first = contents(out)
    assert len(read) == len(set(read)) == 45  # 60 items, 15 of them without a title
    run(log, *options)
    assert len(read) == 45 and contents(out) == first
    table = pd.read_csv(log)
    table.loc[table["item"] == "i002", "title"] = "Something new"
    write_log(log, table)
    run(log, *options)
    assert read[45:] == ["Something new"] and contents(out)["scored.csv"] != first["scored.csv"]


def test_title_vectors_are_those_of_stage_2(tiny_models):
    """Standardised over the catalogue, of length 1; nothing for padding and for an item without a title."""
    from denoise_code.language_model.loading import Precision, load_model, load_tokenizer
    from denoise_code.language_model.title_vectors import mean_over_title, read_title_states, standardise

    titles = ["", *(f"Item {item} of group {item % GROUPS}" for item in range(1, N_ITEMS)), None]
    windows = np.array([[0, 1, 5, 9], [2, 6, 10, N_ITEMS], [3, 7, 11, 15]] * 10)
    result = kept_titles.vectors_of_catalogue(titles, windows, str(tiny_models["llama"]), None)
    model, tokenizer = load_model(None, str(tiny_models["llama"]), Precision()), load_tokenizer(str(tiny_models["llama"]))
    (states,) = read_title_states(model, tokenizer, titles[1:-1], [result.title_states.layer], mean_over_title)
    expected = standardise(states, states.mean(0), states.std(0)).numpy()
    assert not result.vectors[[0, N_ITEMS]].any()
    assert np.allclose(result.vectors[1:N_ITEMS], expected, atol=2e-3)


def test_reading_titles_goes_on_after_a_kill(titled, monkeypatch, tmp_path):
    """What was read is never read again, and all is as if nothing had happened."""
    log, options = titled
    run(log, *options, "--out", tmp_path / "whole")
    monkeypatch.setattr(kept_titles, "SECONDS_BETWEEN_PARTS", 0)
    monkeypatch.setattr("denoise_code.language_model.title_vectors.TOKENS_AT_ONCE", 60)
    run(log, *options, "--out", tmp_path / "small batches")
    read, killed_after = [], 5
    states_of_batches = kept_titles.states_of_batches

    def counted(model, tokenizer, batches, runs, layers, pool):
        for states in states_of_batches(model, tokenizer, batches, runs, layers, pool):
            if len(read) == killed_after:
                raise KeyboardInterrupt
            read.append(len(states[0]))
            yield states

    monkeypatch.setattr(kept_titles, "states_of_batches", counted)
    with pytest.raises(KeyboardInterrupt):
        run(log, *options, "--out", tmp_path / "killed")
    killed_after = 1000
    run(log, *options, "--out", tmp_path / "killed")
    assert sum(read) == 45 and len(read) == 10
    names = (*FILES, "title_vectors.safetensors", "evidence.safetensors")
    assert contents(tmp_path / "killed", names) == contents(tmp_path / "small batches", names)
    assert not (tmp_path / "killed" / kept_titles.PARTS).exists()


# ---------------------------------------------------------------- --like


@pytest.fixture
def old_and_new(tmp_path):
    """A log up to a day, and the lines after it: of old users, of new ones, with a new item."""
    table = grouped_table()
    new = (table["timestamp"] >= 17) | (table["user"].isin(["u7", "u8"]) & (table["timestamp"] >= 3))
    new |= table["user"] == "u9"
    old, new = table[~new], table[new].copy()
    new.loc[new["user"].eq("u9") & new["timestamp"].eq(4), ["item", "title"]] = ["brand new", "Item 5 of a new kind"]
    return write_log(tmp_path / "old.csv", old), write_log(tmp_path / "new.csv", new)


def test_new_lines_in_the_context_of_an_old_log(old_and_new, monkeypatch):
    old, new = old_and_new
    run(old, "--language_model", "none")
    before = {path.name: path.read_bytes() for path in old.with_name("old_cleaned").iterdir()}

    def learns(*_):
        raise AssertionError("something is learned")

    monkeypatch.setattr(judging, "learn_models", learns)
    run(new, "--like", old.with_name("old_cleaned"))
    table, given = scored(new.with_name("new_cleaned")), pd.read_csv(new)
    assert (table[["user", "item", "timestamp", "title"]] == given[["user", "item", "timestamp", "title"]]).all(axis=None)
    assert (table["status"] == "scored").all()
    noise = table["noise"] == 1
    assert table.loc[noise, "noise_probability"].mean() > 2.5 * table.loc[~noise, "noise_probability"].mean()
    assert {path.name: path.read_bytes() for path in old.with_name("old_cleaned").iterdir()} == before
    page = (new.with_name("new_cleaned") / "report.html").read_text()
    assert f"{len(given):,} lines of {given['user'].nunique():,} users and {given['item'].nunique():,} items" in page


def test_lines_are_judged_between_old_and_new_ones(old_and_new, tmp_path):
    """A user's one new line: the same probability as where it stands among all lines of a log that teaches the same."""
    old, new = old_and_new
    run(old, "--language_model", "none")
    table = pd.read_csv(new)
    one = table[(table["user"] == "u3") & (table["timestamp"] == 17)]
    run(write_log(tmp_path / "one.csv", one), "--like", old.with_name("old_cleaned"))
    several = table[(table["user"] == "u3") & (table["timestamp"] <= 18)]
    run(write_log(tmp_path / "several.csv", several), "--like", old.with_name("old_cleaned"))
    of_one, of_several = scored(tmp_path / "one_cleaned"), scored(tmp_path / "several_cleaned")
    assert len(of_one) == 1 and of_one["status"].tolist() == ["scored"]
    first = of_several[of_several["timestamp"] == 17]["noise_probability"].item()
    assert (
        0 < of_one["noise_probability"].item() <= 1 and first != of_one["noise_probability"].item()
    )  # its windows are other ones


def test_new_lines_are_read_as_the_old_log_was(old_and_new, capsys):
    """The names of columns and what separates them need not be said again."""
    old, new = old_and_new
    named = {"user": "who", "item": "what", "timestamp": "when", "title": "name"}
    for path in (old, new):
        pd.read_csv(path).rename(columns=named).to_csv(path, sep=";", index=False)
    columns = "--separator ; --user_column who --item_column what --time_column when --title_column name".split()
    run(old, "--language_model", "none", *columns)
    run(new, "--like", old.with_name("old_cleaned"))
    assert len((new.with_name("new_cleaned") / "scored.csv").read_text().splitlines()) == len(new.read_text().splitlines())
    with pytest.raises(SystemExit):  # what is said is taken
        run(new, "--like", old.with_name("old_cleaned"), "--user_column", "customer")
    assert "customer" in capsys.readouterr().err
    commas = new.with_name("commas.csv")  # a separator that is the default is taken, too
    pd.read_csv(new, sep=";").to_csv(commas, index=False)
    run(commas, "--like", old.with_name("old_cleaned"), "--separator", ",")
    assert scored(new.with_name("commas_cleaned"))["noise_probability"].equals(
        scored(new.with_name("new_cleaned"))["noise_probability"]
    )
    with pytest.raises(SystemExit):
        run(old, "--like", new.with_name("new_cleaned"))
    assert "was itself made with --like" in capsys.readouterr().err


def test_a_line_that_the_old_log_has_is_refused(old_and_new, capsys):
    old, new = old_and_new
    run(old, "--language_model", "none")
    table = pd.concat([pd.read_csv(new), pd.read_csv(old).iloc[[3]]])
    write_log(new, table)
    with pytest.raises(SystemExit):
        run(new, "--like", old.with_name("old_cleaned"))
    error = capsys.readouterr().err
    assert f"new.csv:{len(table) + 1}: the log that is continued has this user, item and time already" in error


def test_like_with_titles(old_and_new, tiny_models, monkeypatch):
    """New titles alone are read, by the layer and with the mean and deviation of the old log."""
    old, new = old_and_new
    run(old, "--base_model", tiny_models["llama"])
    read = []
    title_batches = kept_titles.title_batches
    monkeypatch.setattr(kept_titles, "title_batches", lambda *a: read.extend(a[2]) or title_batches(*a))
    run(new, "--like", old.with_name("old_cleaned"))
    assert read == ["Item 5 of a new kind"]
    table = scored(new.with_name("new_cleaned"))
    assert (table["status"] == "scored").all() and (table["probability_semantic"] != "").all()
    run(new, "--like", old.with_name("old_cleaned"))
    assert read == ["Item 5 of a new kind"]


def test_a_title_that_only_new_lines_have_is_read(old_and_new, tiny_models):
    old, new = old_and_new
    table, later = pd.read_csv(old), pd.read_csv(new)
    item = next(item for item in later["item"] if item in set(table["item"]))
    table.loc[table["item"] == item, "title"] = ""
    write_log(old, table)
    run(old, "--base_model", tiny_models["llama"])
    before = scored(old.with_name("old_cleaned"))
    assert set(before.loc[before["item"] == item, "status"]) == {"no_title"}
    run(new, "--like", old.with_name("old_cleaned"))
    assert (scored(new.with_name("new_cleaned"))["status"] == "scored").all()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--in_order"], "without --in_order, and so must this be"), (["--window", 7], "--window and --like")],
)
def test_what_contradicts_the_old_log_is_refused(old_and_new, capsys, options, message):
    old, new = old_and_new
    run(old, "--language_model", "none")
    with pytest.raises(SystemExit):
        run(new, "--like", old.with_name("old_cleaned"), *options)
    assert message in capsys.readouterr().err


def test_times_of_another_kind_are_refused(old_and_new, capsys):
    old, new = old_and_new
    run(old, "--language_model", "none")
    table = pd.read_csv(new)
    write_log(new, table.assign(timestamp=[f"2020-01-{day + 1:02}" for day in table["timestamp"]]))
    with pytest.raises(SystemExit):
        run(new, "--like", old.with_name("old_cleaned"))
    assert "the times there are numbers, here they are dates" in capsys.readouterr().err


# ---------------------------------------------------------------- interrupted


def test_a_run_that_dies_at_any_file_goes_on(log, tmp_path, monkeypatch):
    kept = ("interactions.csv", "users.csv", "items.csv", "evidence.safetensors", "learned.safetensors", "self_test.safetensors")
    die_at_each_file(monkeypatch, tmp_path, (*FILES, *kept), log, "--language_model", "none")


def test_a_run_on_new_lines_that_dies_at_any_file_goes_on(old_and_new, tmp_path, monkeypatch):
    old, new = old_and_new
    run(old, "--language_model", "none")
    die_at_each_file(monkeypatch, tmp_path, FILES, new, "--like", old.with_name("old_cleaned"))


def die_at_each_file(monkeypatch, folder, names, *command):
    """Dies at each renaming in turn, the second run's files are those of one that was left in peace."""
    run(*command, "--out", folder / "whole")
    expected = contents(folder / "whole", names)
    rename, n_renames = Path.replace, 0
    died = True
    while died:
        n_renames, died, count = n_renames + 1, False, 0

        def replace(path, target, limit=n_renames):
            nonlocal count, died
            count += 1
            if count == limit:
                died = True
                raise KeyboardInterrupt
            return rename(path, target)

        out = folder / f"out {n_renames}"
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(Path, "replace", replace)
            run(*command, "--out", out)
        run(*command, "--out", out)
        assert contents(out, names) == expected
        assert not list(out.glob(".*"))
    assert n_renames > 5


def test_denoise_sh_tells_a_log_from_folders(root, log, tmp_path):
    """A file is a log; a folder, or a file with a folder behind it, is what generate_denoised.py reads."""
    done = subprocess.run(["bash", root / "denoise.sh", log, "--threshold", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "denoise.sh: error" in done.stderr and "2 is not in 0..1" in done.stderr
    for options in ([], ["--separator", ";"], ["--like", tmp_path], ["--help"]):
        done = subprocess.run(
            ["bash", root / "denoise.sh", tmp_path / "no.csv", *options], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2 and done.stderr == f"denoise.sh: {tmp_path}/no.csv: no such file or folder\n"
    for words, said in ((["--drop", "0.1", log], "the log comes first"), ([tmp_path], "a data set folder comes behind it")):
        done = subprocess.run(["bash", root / "denoise.sh", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and said in done.stderr and "./denoise.sh LOG" in done.stderr
