"""denoise_code/data_set: planted noise, disjoint rows, names of folders."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TITLES, run, write_tiny_data

from denoise_code.common.errors import InputError
from denoise_code.data_set.adapter_record import AdapterRecord
from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.folder import data_fingerprint, output_name
from denoise_code.data_set.held_out import split_rows
from denoise_code.data_set.planted_rows import planted_rows
from denoise_code.data_set.planting import draw_planted
from denoise_code.data_set.rows import read_windows


def test_planting_is_uniform():
    from scipy.stats import chisquare

    rng, items, positions, planted = np.random.default_rng(0), [3, 1, 7, 9], np.zeros(4), np.zeros(21)
    for _ in range(20_000):
        ((position, item),) = draw_planted(items, np.arange(1, 21), rng).items()
        positions[position] += 1
        planted[item] += 1
    assert planted[items].sum() == 0 and planted[0] == 0
    assert chisquare(positions).pvalue > 0.001 and chisquare(np.delete(planted[1:], [0, 2, 6, 8])).pvalue > 0.001
    counts = [len(draw_planted(list(range(1, 11)), np.arange(1, 51), rng, 0.3)) for _ in range(5000)]
    assert np.mean(counts) == pytest.approx(3 + 0.7**10, abs=0.08) and min(counts) == 1


def users_with_rows(seed=0, n_users=60):
    """(n_rows,) str: between 1 and 12 rows a user, in random order."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.repeat([f"user {number}" for number in range(n_users)], rng.integers(1, 13, n_users)))


def test_no_user_is_trained_on_and_held_out():
    for seed in range(20):
        users = users_with_rows(seed)
        trained, held_out, by = split_rows(users, 100, 30, seed)
        assert by == "users" and len(set(trained)) == 100 and len(set(held_out)) == 30
        assert not set(users[trained]) & set(users[held_out])
        assert max(np.unique(users[held_out], return_counts=True)[1]) <= 12
    again, other = split_rows(users, 100, 30, seed), split_rows(users, 100, 30, seed + 1)
    assert (again.trained == trained).all() and (again.held_out == held_out).all() and (other.trained != trained).any()
    renamed = np.array([user.replace("user", "person")[::-1] for user in users])  # the same rows by other names
    assert (split_rows(renamed, 100, 30, seed).trained == trained).all()


def test_held_out_windows_are_of_many_users():
    """200 users, one of them with half of all rows: a fifth is held out, and each gives one window before any gives two."""
    users = np.concatenate([np.repeat(np.arange(1, 200), 20), np.repeat(0, 3980)])
    for seed in range(10):
        _, held_out, _ = split_rows(users, 1000, 60, seed)
        counts = np.unique(users[held_out], return_counts=True)[1]
        assert len(counts) == 40 and sorted(set(counts)) == [1, 2]


def test_a_sample_that_leaves_too_few_users_is_said_to_be_smaller():
    users = np.repeat(np.arange(10), 10)
    assert [len(part) for part in split_rows(users, 90, 10, 1)[:2]] == [90, 10]
    trained, held_out, by = split_rows(users, 95, 10, 1)  # 5 rows are no user: one is taken from the sample
    assert (len(trained), len(held_out), by) == (90, 10, "users") and not set(users[trained]) & set(users[held_out])
    trained, held_out, by = split_rows(np.zeros(100), 60, 30, 1)  # one user
    assert (len(trained), len(held_out), by) == (60, 30, "rows") and len(set(trained) | set(held_out)) == 90
    with pytest.raises(InputError, match="--sample 80 and --eval_sample 30 need 110 rows, there are 100"):
        split_rows(np.zeros(100), 80, 30, 1)
    with pytest.raises(InputError, match="--sample 101 needs 101 rows, there are 100"):
        split_rows(users, 101, 0, 1)


def test_output_name():

    name = output_name("Toy_noise_user0.1", Path("a/batch128_sample5000_epoch50/checkpoint-2000"), 1)
    assert name == "Toy_denoise_user0.1_5000_2000"
    assert output_name("Toy_noise_user0.1", Path("a/adapter"), 70) == "Toy_denoise_user0.1_70"
    with pytest.raises(InputError, match="expected a folder named"):
        output_name("Toy", Path("a"), 1)


def test_planted_rows(tiny_adapters, data, tmp_path):
    folder = run(tiny_adapters["llama"], data, out=tmp_path / "out")
    planted, original = pd.read_csv(folder / "planted.csv"), pd.read_csv(data / "train.csv")
    assert len(planted) == 20
    for row in planted.itertuples():
        items, mask = json.loads(row.item_ids), json.loads(row.mask)
        before = json.loads(original[original.timestamp == row.timestamp].item_ids.iloc[0])
        differ = [place for place, (a, b) in enumerate(zip(items, before)) if a != b]
        assert len(differ) == 1 and mask[differ[0]] == 2 and items[differ[0]] not in before
        assert len(json.loads(row.noise_prob)) == len(items)
    assert json.loads((folder / "run.json").read_text())["splits"]["planted"]["detection"]["auc"] > 0


def test_planted_rows_share_no_user_with_trained_ones(tmp_path):
    folder = write_tiny_data(tmp_path / "Hard_noise_user0.1", TITLES, {"train": 400})
    table = pd.read_csv(folder / "train.csv", dtype=str).assign(user_id=users_with_rows(n_users=80)[:400])
    table.to_csv(folder / "train.csv", index=False)
    arguments = {"sample": 100, "eval_sample": 10, "seed": 1}
    run_of_adapter = {"arguments": arguments, "data_fingerprint": data_fingerprint(folder), "held_out": "users"}
    record = AdapterRecord.of_run(run_of_adapter, "llama")
    trained, held_out, _ = split_rows(table["user_id"], 100, 10, 1)
    planted = planted_rows(folder, read_catalogue(folder), 40, record)
    assert len(planted) == 40 and not set(planted["train_row"]) & set(held_out)
    assert not set(planted["user_id"]) & set(table["user_id"][trained])
    with pytest.raises(InputError, match="--planted 390: .* rows that fine-tuning did not use, nor any other of the same user"):
        planted_rows(folder, read_catalogue(folder), 390, record)


def test_adapters_of_before_keep_their_split_by_rows(tiny_adapters, data, tmp_path, capsys):
    """The rows of run.json without `held_out`: a permutation of all of them, first the sample, then what is held out."""
    adapter = shutil.copytree(tiny_adapters["llama"], tmp_path / "sample40" / "checkpoint-7")
    record = {"arguments": {"sample": 40, "eval_sample": 10, "seed": 1}, "data_fingerprint": data_fingerprint(data)}
    (adapter / "run.json").write_text(json.dumps(record))
    table = pd.read_csv(run(adapter, data, "--planted", 40) / "planted.csv")
    used = np.random.default_rng([1, 0]).permutation(90)[:50]
    assert not set(table.timestamp) & set(used) and len(table) == 40
    assert "but on the same users" in capsys.readouterr().out


def test_a_record_that_says_nothing_leaves_any_row_to_be_planted(data, capsys):
    """Without options of the training, its rows are not known, though it was of this data set."""
    assert AdapterRecord.of_run({}, "llama") == AdapterRecord("llama", held_out="rows", sample=0, seed=0)
    record = AdapterRecord.of_run({"data_fingerprint": data_fingerprint(data)}, "llama")
    assert len(planted_rows(data, read_catalogue(data), 90, record)) == 90
    assert "not known which rows the adapter was trained on" in capsys.readouterr().out


def test_fingerprint_is_of_what_is_learned_from(data):
    before, path = data_fingerprint(data), data / "train.csv"
    rows = pd.read_csv(path, dtype=str)
    rows.drop(columns="item_titles").to_csv(path, index=False)
    assert data_fingerprint(data) == before
    rows.loc[3, "item_ids"] = json.dumps(json.loads(rows.item_ids[3])[::-1])
    rows.to_csv(path, index=False)
    assert data_fingerprint(data) != before


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
    (tmp_path / "train.csv").write_text(f'user_id,item_ids,mask,timestamp\n1,"[1, 2]","[0, 1]",5\n{row}\n')
    with pytest.raises(InputError, match="train.csv") as error:
        read_windows(tmp_path / "train.csv", 3)
    assert message in str(error.value)


def test_untitled_items_are_refused_or_allowed(tmp_path):
    (tmp_path / "id2name4Rec.json").write_text('{"2": " ", "1": "a"}')
    assert read_catalogue(tmp_path, allow_untitled=True) == ["", "a", " "]
    with pytest.raises(InputError, match="id2name4Rec.json: item 2 has no title"):
        read_catalogue(tmp_path)
    (tmp_path / "id2name4Rec.json").write_text('["a", "b"]')
    with pytest.raises(InputError, match="id2name4Rec.json: not a JSON object of id: title"):
        read_catalogue(tmp_path, allow_untitled=True)


def test_reader_joins_no_broken_cells(tmp_path):
    """Cells are parsed all at once: two that are no lists are refused though, joined by a comma, they are two lists."""
    (tmp_path / "train.csv").write_text('user_id,item_ids,mask,timestamp\n1,"[1","[0, 1]",5\n1,"2],[1, 3]","[0, 0]",5\n')
    with pytest.raises(InputError, match=r"train.csv row 1: item_ids is '\[1', expected a list of whole numbers"):
        read_windows(tmp_path / "train.csv", 3)
