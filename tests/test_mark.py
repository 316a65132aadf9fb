"""tests/benchmarks/trial_mark.py and its control: what is read by hand, padding, from whom both learn, and what stage 3 reads."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CARS, FRUIT, ROOT, write_rows, write_tiny_data

from denoise_code.language_model.loading import load_tokenizer

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import trial_mark as trial  # noqa: E402

TITLES = FRUIT + CARS[: len(FRUIT)]


def genre_vectors() -> np.ndarray:
    """Vectors (1 + items, 16) of length 1, those of a genre about the same point; zero for padding."""
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.standard_normal((2, 16)), len(FRUIT), axis=0) + rng.standard_normal((len(TITLES), 16)) / 2
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.concatenate([np.zeros((1, 16)), vectors])


@pytest.fixture(params=["titles", "vectors"])
def marker(tiny_models, request):
    torch.manual_seed(0)
    if request.param == "vectors":
        return trial.VectorMarker(genre_vectors()).eval()
    made = trial.TitleMarker(str(tiny_models["llama"]), trial.Texts(load_tokenizer(str(tiny_models["llama"])), TITLES))
    torch.nn.init.normal_(made.head.weight)  # a fresh head says 0 of all
    return made.eval()


def test_text_by_hand(tiny_models):
    """A window is listed twice; a score is read where a title ends the second time."""
    tokenizer, windows = load_tokenizer(str(tiny_models["llama"])), [[0, 5, 3], [2, 20]]
    tokens, ends, real = trial.Texts(tokenizer, TITLES)(windows)
    listed = " apple 0\n pear 2\n pear 0\n"
    assert tokenizer.decode(tokens[0]).startswith(trial.FIRST + listed + trial.AGAIN + listed)
    read = [tokenizer.decode(tokens[0, : end + 1]).rpartition("Again:\n")[2] for end in ends[0]]
    assert read == [" apple 0\n", " apple 0\n pear 2\n", listed]
    assert real.tolist() == [[True] * 3, [True, True, False]]


def test_a_window_is_scored_as_if_alone(marker):
    windows = [[8, 5, 3, 7], [2, 20], [4, 9, 11, 13, 15, 1]]
    together = marker.score(windows)
    for window, scores in zip(windows, together):
        assert len(set(scores.tolist())) == len(window)
        np.testing.assert_allclose(scores, marker.score([window])[0], atol=1e-4)


@pytest.fixture
def two_genres(tmp_path):
    """A data set of windows of fruit and windows of cars, and the folder of its title vectors; a test row has one of the other, marked."""
    from safetensors.numpy import save_file

    rng, half = np.random.default_rng(0), len(FRUIT)
    folder, denoised = (write_tiny_data(tmp_path / f"G_{kind}", TITLES, {}) for kind in ("noise_user0.1", "denoise_user0.1_0"))
    for split in ("train_5000", "valid_5000", "test_5000"):
        windows, masks = [], []
        for row in range(120):
            items = 1 + half * (row % 2) + rng.choice(half, size=rng.integers(4, 10), replace=False)
            mask = [0] * len(items)
            if split != "train_5000":
                place = rng.integers(len(items) - 1)  # never the target
                items[place], mask[place] = 1 + half * (1 - row % 2) + rng.integers(half), 1
            windows.append(items.tolist())
            masks.append(mask)
        write_rows(folder / f"{split}.csv", windows, masks)
    save_file({"vectors": genre_vectors()[1:].astype(np.float16)}, denoised / trial.VECTORS)
    return folder


@pytest.mark.parametrize("reads", ["titles", "vectors"])
def test_it_learns_what_goes_together_from_other_users(reads, two_genres, tiny_models, monkeypatch, capsys):
    from sklearn.metrics import roc_auc_score

    from denoise_code.data_set.catalogue import read_titles
    from denoise_code.data_set.padded_rows import half_of, read_split

    for kind in (trial.TitleMarker, trial.VectorMarker):
        monkeypatch.setattr(kind, "batch", 16)
        monkeypatch.setattr(kind, "learning_rate", 5e-3)
    learned, scored, learn, score = [], [], trial.learn, trial.Marker.score

    def learn_seen(marker, windows, pool, *rest):
        assert set(pool) == {item for items in windows for item in items}
        learned.append(windows)
        learn(marker, windows, pool, *rest)

    monkeypatch.setattr(trial, "learn", learn_seen)
    monkeypatch.setattr(trial.Marker, "score", lambda marker, windows: (scored.append(windows), score(marker, windows))[1])
    trial.main([str(two_genres), reads, "--epochs", "30", "--base_model", str(tiny_models["llama"])])
    train = pd.read_csv(two_genres / "train_5000.csv")
    half = half_of(train["user_id"].to_numpy())
    one, other = ([json.loads(items) for items in train["item_ids"][half == which]] for which in (0, 1))
    assert learned == [other, one] and scored[:: len(scored) // 2] == [one, other]

    made = two_genres.with_name(f"G_denoise_user0.1_{reads}")
    test = read_split(made / "test_5000.csv", read_titles(made), 10, "needed")
    assert roc_auc_score(test.mask[test.editable], test.noise_prob[test.editable]) > 0.6
    planted = read_split(made / "planted.csv", read_titles(made), 10, "needed")
    assert ((planted.mask == 2).sum(1) == 1).all() and set(planted.drawn) == {"uniform", "popularity"}
    table = capsys.readouterr().out.split("|---|---|---|---|---|\n")[1].splitlines()
    assert [row.split(" (")[0] for row in table] == ["| valid", "| test", "| planted: uniform", "| planted: popularity"]


def test_no_target_is_read(two_genres):
    def probabilities():
        made = trial.mark(two_genres, "vectors", epochs=1)
        tables = [pd.read_csv(made / f"{split}_5000.csv") for split in ("valid", "test")]
        shutil.rmtree(made)
        return [table["noise_prob"].tolist() for table in tables]

    before = probabilities()
    for split in ("valid", "test"):
        path = two_genres / f"{split}_5000.csv"
        table = pd.read_csv(path)
        table["item_ids"] = [
            json.dumps([*json.loads(items)[:-1], 1 + row % len(TITLES)]) for row, items in enumerate(table["item_ids"])
        ]
        table.to_csv(path, index=False)
    assert probabilities() == before


def test_refused_before_anything_is_learned(two_genres, capsys):
    (two_genres.with_name("G_denoise_user0.1_vectors")).mkdir()
    for reads, complaint in (("vectors", "exists"), ("titles", "title_vectors.safetensors: no such file")):
        (two_genres.with_name("G_denoise_user0.1_0") / trial.VECTORS).unlink(missing_ok=True)
        with pytest.raises(SystemExit):
            trial.main([str(two_genres), reads, "--epochs", "1"])
        assert complaint in capsys.readouterr().err
