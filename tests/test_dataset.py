"""denoise_code/dataset.py: planted noise, disjoint rows, names of folders."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import run

from denoise_code.command_line import InputError
from denoise_code.dataset import data_fingerprint, output_name, plant, read_catalogue, read_windows, split_rows


def test_planting_is_uniform():
    from scipy.stats import chisquare

    rng, items, positions, planted = np.random.default_rng(0), [3, 1, 7, 9], np.zeros(4), np.zeros(21)
    for _ in range(20_000):
        ((position, item),) = plant(items, np.arange(1, 21), rng).items()
        positions[position] += 1
        planted[item] += 1
    assert planted[items].sum() == 0 and planted[0] == 0
    assert chisquare(positions).pvalue > 0.001 and chisquare(np.delete(planted[1:], [0, 2, 6, 8])).pvalue > 0.001
    counts = [len(plant(list(range(1, 11)), np.arange(1, 51), rng, 0.3)) for _ in range(5000)]
    assert np.mean(counts) == pytest.approx(3 + 0.7**10, abs=0.08) and min(counts) == 1


def test_sample_and_held_out_rows_are_disjoint():
    chosen, held_out = split_rows(100, 60, 30, 5)
    assert len(set(chosen) | set(held_out)) == 90
    assert (split_rows(100, 60, 30, 5)[0] == chosen).all() and (split_rows(100, 60, 30, 6)[0] != chosen).any()


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


def test_planted_rows_were_not_trained_on(tiny_adapters, data, tmp_path):
    adapter = shutil.copytree(tiny_adapters["llama"], tmp_path / "sample40" / "checkpoint-7")
    record = {"arguments": {"sample": 40, "eval_sample": 10, "seed": 1}, "data_fingerprint": data_fingerprint(data)}
    (adapter / "run.json").write_text(json.dumps(record))
    table = pd.read_csv(run(adapter, data, "--planted", 40) / "planted.csv")
    used = np.concatenate(split_rows(90, 40, 10, 1))
    assert not set(table.timestamp) & set(used) and len(table) == 40


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
