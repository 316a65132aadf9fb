"""SASRec_code: ranking metrics, model, filter, training, options, errors."""

import ast
import copy
import json
import subprocess
import sys
import time

import dataloader
import evaluate
import main as sasrec
import numpy as np
import pandas as pd
import pytest
import sweep
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model import SASRec, bce_loss, ce_loss, sample_negatives

# ---------------------------------------------------------------- a small data set, denoised by hand


def write_data_set(root, name="Z_denoise_user0.1_8_1", n_items=30, rows=(120, 40, 40), seed=0, denoised=True):
    """Windows of a noisy cycle (item i is followed by i + 1) with injected noise and suspects that mostly hit it."""
    rng, folder = np.random.default_rng(seed), root / name
    folder.mkdir(parents=True)
    titles = {str(item): f"Item {item}" for item in range(1, n_items + 1)}
    (folder / "id2name4Rec.json").write_text(json.dumps(titles))
    for split, count in zip(("train", "valid_5000", "test_5000"), rows):
        records = []
        for row in range(count):
            length = int(rng.integers(4, 12))
            clean = (rng.integers(n_items) + np.arange(length)) % n_items + 1
            mask = rng.random(length) < 0.2
            if not split.startswith("train"):
                mask[-1] = False
            noisy = np.where(mask, rng.integers(1, n_items + 1, size=length), clean)
            scored = length if split.startswith("train") else length - 1
            base = -6 if split.startswith("test") else -5  # so that the percentiles of valid and test differ
            prob = np.round(base + 3 * mask[:scored] + rng.normal(size=scored), 3)
            top = np.argsort(-prob, kind="stable")[:3]
            record = {
                "user_id": row % 7,
                "item_ids": json.dumps(noisy.tolist()),
                "mask": json.dumps(mask.astype(int).tolist()),
                "item_titles": json.dumps([titles[str(item)] for item in noisy]),
                "replaced_item_titles": json.dumps([titles[str(item)] for item in clean[mask]]),
                "timestamp": row,
            }
            if denoised:
                record |= {
                    "noise_prob": json.dumps(prob.tolist()),
                    "noise_items": json.dumps(noisy[top].tolist()),
                    "noise_items_prob": json.dumps(prob[top].tolist()),
                    "suggest_item_titles": json.dumps([titles[str(item)] for item in clean[top]]),
                    "suggest_item_ids": json.dumps(clean[top].tolist()),
                }
            records.append(record)
        pd.DataFrame(records).to_csv(folder / f"{split}.csv", index=False)
    return folder


def command(root, *extra, name="Z_denoise_user0.1_8_1", epochs=2):
    places = ["--dataset", name, "--data_root", str(root), "--output_root", str(root / "out"), "--num_epochs", str(epochs)]
    return [*places, *map(str, extra)]


def arguments(root, *extra):
    return sasrec.parse_args(command(root, *extra))


# ---------------------------------------------------------------- metrics


def test_ranks_by_hand():
    scores = torch.tensor([[-torch.inf, 3.0, 2.0, 2.0, 2.0, 1.0], [-torch.inf, 1.0, 1.0, 1.0, 1.0, 1.0]])
    for target, ranks in ((1, [0, 2]), (2, [2, 2]), (5, [4, 2])):
        assert evaluate.ranks_of(scores, torch.tensor([[target], [target]])).tolist() == ranks
    result = evaluate.metrics(np.array([0.0, 4.0, 5.0, 30.0]))
    assert result["HR@1"] == 0.25 and result["HR@5"] == 0.5 and result["HR@10"] == 0.75 and result["HR@50"] == 1
    assert result["NDCG@5"] == pytest.approx((1 + 1 / np.log2(6)) / 4)
    assert result["MRR"] == pytest.approx((1 + 1 / 5 + 1 / 6 + 1 / 31) / 4)
    assert evaluate.metrics(np.array([0.5]))["NDCG@1"] == pytest.approx(1 / np.log2(2.5))  # a tie for first place


class Fixed(torch.nn.Module):
    """A model whose scores are a table by the last item of the history."""

    def __init__(self, table):
        super().__init__()
        self.items, self.table = torch.nn.Embedding(table.shape[1], 1), table

    def scores(self, history):
        return self.table[history[:, -1]].clone()


@pytest.mark.parametrize("exclude", [False, True])
def test_rank_targets_against_a_slow_version(exclude):
    rng = np.random.default_rng(0)
    table = torch.from_numpy(rng.integers(0, 6, size=(20, 20))).float()  # many ties
    table[:, 0] = -torch.inf
    histories, targets = torch.from_numpy(rng.integers(1, 20, size=(300, 5))), torch.from_numpy(rng.integers(1, 20, size=300))
    histories[:100, :2] = 0
    expected = []
    for history, target in zip(histories.tolist(), targets.tolist()):
        scores = table[history[-1]].tolist()
        others = [s for item, s in enumerate(scores) if item and item != target and not (exclude and item in history)]
        expected.append(sum(s > scores[target] for s in others) + sum(s == scores[target] for s in others) / 2)
    at_once, evaluate.SCORES_AT_ONCE = evaluate.SCORES_AT_ONCE, 20 * 7
    try:
        assert evaluate.rank_targets(Fixed(table), histories, targets, exclude).tolist() == expected
    finally:
        evaluate.SCORES_AT_ONCE = at_once


def test_bootstrap_draws_whole_users():
    users = np.repeat(np.arange(50), 4)
    before, after = np.zeros(200), np.repeat(np.random.default_rng(0).normal(0.1, 1, 50), 4)
    mean, low, high = evaluate.paired_bootstrap(users, before, after)
    assert mean == pytest.approx(after.mean()) and low < mean < high
    spread = after[::4].std() / 50**0.5  # four equal rows a user carry the information of one
    assert (high - low) / (2 * 1.96) == pytest.approx(spread, rel=0.1)


# ---------------------------------------------------------------- model


def small_model(**options):
    torch.manual_seed(0)
    return SASRec(**({"n_items": 30, "maxlen": 10, "hidden_units": 16, "num_heads": 2} | options))


def test_attention_against_a_loop():
    model = small_model().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
        model.items.weight[0] = 0
        history = torch.tensor([[0, 0, 0, 5, 9, 2, 2, 30, 1, 4]])
        x = model.items(history[0]) * 4 + model.positions.weight
        x[:3] = 0
        for block in model.blocks:
            query = block.attention_norm(x)
            q, kv, mixed = block.attention.query(query), block.attention.key_value(x), torch.zeros(10, 16)
            for row in range(10):
                seen = [column for column in range(row + 1) if history[0, column] or column == row]
                for head in (slice(0, 8), slice(8, 16)):
                    weights = torch.stack([q[row, head] @ kv[column, :16][head] for column in seen]) / 8**0.5
                    values = torch.stack([kv[column, 16:][head] for column in seen])
                    mixed[row, head] = weights.softmax(0) @ values
            x = block.forward_norm(query + block.attention.output(mixed))
            x = x + block.outer(torch.relu(block.inner(x)))
            x[:3] = 0
        assert torch.allclose(model(history)[0], model.last_norm(x), atol=1e-5)


def test_left_padding_changes_nothing_and_padding_is_zero():
    model = small_model().eval()
    history = torch.tensor([[3, 7, 1]])
    padded = torch.cat([torch.zeros(1, 6, dtype=torch.long), history], 1)
    assert torch.allclose(model(history)[0, -3:], model(padded)[0, -3:], atol=1e-6)
    assert model.items.weight[0].abs().sum() == 0 and model.scores(history)[0, 0] == -torch.inf
    model.train()
    bce_loss(model, torch.tensor([[0, 3, 7, 1]]), torch.tensor([[9, 9, 9]])).backward()
    assert model.items.weight.grad[0].abs().sum() == 0
    fresh = SASRec(2000)
    assert fresh.items.weight[1:].std().item() == pytest.approx(0.02, rel=0.05) and fresh.blocks[0].inner.bias.abs().sum() == 0


def test_losses_against_a_loop():
    model = small_model(dropout_rate=0.0)
    windows, negatives = torch.tensor([[0, 0, 4, 8, 2], [1, 2, 3, 4, 5]]), torch.randint(6, 30, (2, 4))
    hidden = model(windows[:, :-1])
    positive, negative, full = [], [], []
    for row in range(2):
        for place in range(4):
            if windows[row, place]:
                dot = model.items.weight @ hidden[row, place]
                positive.append(-torch.log(torch.sigmoid(dot[windows[row, place + 1]])))
                negative.append(-torch.log(1 - torch.sigmoid(dot[negatives[row, place]])))
                full.append(-dot[1:].log_softmax(0)[windows[row, place + 1] - 1])
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    assert bce_loss(model, windows, negatives).item() == pytest.approx((mean(positive) + mean(negative)).item(), rel=1e-5)
    assert ce_loss(model, windows).item() == pytest.approx(mean(full).item(), rel=1e-5)


def test_dropout_keeps_the_share_and_the_mean():
    from model import Dropout

    torch.manual_seed(0)
    for rate in (0.1, 0.5, 0.9):
        out = Dropout(rate)(torch.ones(1001, 333))
        assert (out == 0).float().mean().item() == pytest.approx(rate, abs=0.005)
        assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(Dropout(0.5).eval()(torch.ones(5)), torch.ones(5))


def test_negatives_are_uniform_and_never_of_the_window():
    from scipy.stats import chisquare

    windows = torch.tensor([[0, 1, 2, 3]]).repeat(20_000, 1)
    negatives = sample_negatives(windows, 12, torch.Generator().manual_seed(0))
    counts = np.bincount(negatives.flatten(), minlength=13)
    assert counts[:4].sum() == 0 and chisquare(counts[4:]).pvalue > 0.001


def test_learns_a_cycle(tmp_path):
    """bce never contrasts a history with its own items (they are no negatives), so they are left out of its ranking."""
    n_items = 40
    windows = torch.tensor([[(start + step) % n_items + 1 for step in range(11)] for start in range(n_items)]).repeat(30, 1)
    quick = "--num_epochs 40 --patience 40 --dropout_rate 0.1 --batchsize 64 --lr 0.005".split()
    for loss in ("bce", "ce"):
        args = arguments(tmp_path, "--loss", loss, *quick)
        model = sasrec.make_model(n_items, args, 0, "cpu")
        sasrec.fit(model, {"train": windows, "valid": windows[:n_items]}, args, 0)
        ranks = evaluate.rank_targets(model, windows[:n_items, :-1], windows[:n_items, -1], exclude_history=loss == "bce")
        assert evaluate.metrics(ranks)["HR@1"] > 0.99, loss


# ---------------------------------------------------------------- the threshold filter


def slow_filter(split, threshold, most):
    """The filter of the paper, one row and one suspect at a time."""
    edited = split.items.copy()
    for row in range(len(edited)):
        places = [p for p in range(edited.shape[1]) if split.items[row, p]]
        places = places if split.path.name.startswith("train") else places[:-1]
        done = set()
        for k, (item, prob) in enumerate(zip(split.suspects[row], split.suspect_prob[row])):
            if k < most and item and prob > threshold and item not in done:
                done.add(item)
                for place in places:
                    if split.items[row, place] == item:
                        edited[row, place] = split.suggestions[row, k]
    return edited


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(0, 4), st.booleans(), st.integers(4, 12))
def test_filter_against_a_slow_version(tmp_path_factory, seed, share, most, train, maxlen):
    file = "train.csv" if train else "test_5000.csv"
    folder = write_data_set(tmp_path_factory.mktemp("filter"), n_items=12, rows=(25, 25, 25), seed=seed)
    split = dataloader.read_split(folder / file, dataloader.read_titles(folder), maxlen, "needed")
    threshold = dataloader.percentile(split, share)
    flagged = dataloader.flag_suspects(split, threshold, most)
    edited = dataloader.apply_edits(split.items, flagged, dataloader.replacements(split), split.noise_prob)
    assert (edited == slow_filter(split, threshold, most)).all()
    if not train:
        assert (edited[:, -1] == split.items[:, -1]).all()


def test_a_test_target_in_the_history_is_not_edited(tmp_path):
    folder = tmp_path / "T_denoise_user0.1_8_1"
    folder.mkdir()
    (folder / "id2name4Rec.json").write_text('{"1": "a", "2": "b", "3": "c"}')
    header = "user_id,item_ids,mask,noise_prob,noise_items,noise_items_prob,suggest_item_ids\n"
    row = '1,"[2, 1, 2]","[0, 0, 0]","[-1.0, -5.0]","[2]","[-1.0]","[3]"\n'
    (folder / "test.csv").write_text(header + row)
    split = dataloader.read_split(folder / "test.csv", ["", "a", "b", "c"], 10, "needed")
    flagged = dataloader.flag_suspects(split, -2.0, 3)
    edited = dataloader.apply_edits(split.items, flagged, dataloader.replacements(split), split.noise_prob)
    assert edited[0, -3:].tolist() == [3, 1, 2]


def test_noisy_targets_of_valid_are_restored(tmp_path):
    folder = write_data_set(tmp_path, rows=(5, 5, 5))
    table = pd.read_csv(folder / "valid_5000.csv")
    table.loc[0, ["item_ids", "mask", "replaced_item_titles"]] = "[1, 2, 3, 9]", "[0, 1, 0, 1]", "['Item 7', \"Item 4\"]"
    table.loc[0, "noise_prob"] = "[-1, -2, -3]"
    table.to_csv(folder / "valid_5000.csv", index=False)
    split = dataloader.read_split(folder / "valid_5000.csv", dataloader.read_titles(folder), 10, "needed")
    assert split.items[0, -4:].tolist() == [1, 2, 3, 4] and split.clean[0, -4:].tolist() == [1, 7, 3, 4]


# ---------------------------------------------------------------- the command line


def test_the_commands_of_the_release(tmp_path, root):
    write_data_set(tmp_path, "Toy_noise_user0.1", denoised=False)
    write_data_set(tmp_path, "Toy_denoise_user0.1_5000_2000")
    none = ["--dataset", "Toy_denoise_user0.1", "--denoise_category", "none"]
    full = (
        "--dataset Toy_denoise_user0.1_5000_2000 --denoise_category all --train_noise_filter_threshold 0.6 "
        "--test_noise_filter_threshold 0.9 --train_max_denoise_num 2 --test_max_denoise_num 1"
    ).split()
    places = ["--data_root", str(tmp_path), "--output_root", str(tmp_path / "out"), "--num_epochs", "1"]
    for folder, script in ((root / "SASRec_code", "main.py"), (root, "SASRec_code/main.py")):
        for options in (none, full):
            done = subprocess.run([sys.executable, script, *options, *places], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert ("reading Toy_noise_user0.1" in done.stdout) == (options is none)
            assert ("positions flagged" in done.stdout) == (options is full)


def test_runs_repeat_and_weights_reload(tmp_path):
    write_data_set(tmp_path)
    options = command(tmp_path, "--denoise_category", "all", "--seeds", 2)
    first, again = sasrec.main(options), sasrec.main(options)
    assert first["per_seed"] == again["per_seed"] and first["metrics"]["test"]["MRR"]["std"] > 0
    folder = next((tmp_path / "out").rglob("run.json")).parent
    assert json.loads((folder / "run.json").read_text()) == again
    assert list(folder.glob("tensorboard_seed2024/events*"))
    loaded = sasrec.main([*options, "--state_dict_path", str(folder / "seed2024.safetensors")])
    assert loaded["per_seed"]["test"] == [first["per_seed"]["test"][0]]


OPTIONS = {
    "--batchsize": 32, "--lr": 0.01, "--hidden_units": 32, "--num_blocks": 1, "--num_heads": 2, "--num_epochs": 3,
    "--dropout_rate": 0.1, "--weight_decay": 0.1, "--maxlen": 4, "--seed": 7, "--loss": "ce", "--exclude_history": None,
    "--denoise_category": "train", "--train_noise_filter_threshold": 0.5, "--test_noise_filter_threshold": 0.5,
    "--train_max_denoise_num": 1, "--test_max_denoise_num": 1, "--threshold_from": "split", "--evidence": "collaborative",
    "--edit": "delete",
}  # fmt: skip


@pytest.fixture(scope="module")
def option_base(tmp_path_factory):
    root = tmp_path_factory.mktemp("options")
    write_data_set(root, rows=(300, 60, 90))
    base = [
        "--denoise_category",
        "all",
        "--train_noise_filter_threshold",
        0.6,
        "--test_noise_filter_threshold",
        0.7,
        "--lr",
        0.005,
    ]
    return root, base, sasrec.main(command(root, *base))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_something(option_base, option):
    root, base, before = option_base
    given = [option] if OPTIONS[option] is None else [option, OPTIONS[option]]
    after = sasrec.main(command(root, *base, *given))
    assert after["per_seed"] != before["per_seed"] or after["fits"][0]["epochs"] != before["fits"][0]["epochs"]


def test_patience_selection_and_clean(option_base):
    root, _, _ = option_base
    short = sasrec.main(command(root, "--patience", 1, "--lr", 0.05, epochs=60))
    assert short["fits"][0]["epochs"] == short["fits"][0]["best_epoch"] + 1 < 60
    plain, by_test = sasrec.main(command(root)), sasrec.main(command(root, "--select_on", "test"))
    curve = by_test["fits"][0]["selection_NDCG@20"]
    assert curve != plain["fits"][0]["selection_NDCG@20"]
    assert max(curve) == pytest.approx(by_test["metrics"]["test"]["NDCG@20"]["mean"])
    clean = sasrec.main(command(root, "--clean"))
    assert clean["per_seed"] != sasrec.main(command(root))["per_seed"]


def test_selection_never_reads_test(tmp_path):
    write_data_set(tmp_path)
    splits, n_items = sasrec.load(arguments(tmp_path))
    tensors = {name: torch.from_numpy(split.items) for name, split in splits.items() if name != "test"}
    args = arguments(tmp_path)
    sasrec.fit(sasrec.make_model(n_items, args, 0, "cpu"), tensors, args, 0)


def test_sweep(tmp_path):
    write_data_set(tmp_path, rows=(200, 60, 60))
    grids = ["--train_thresholds", 0.8, "--test_thresholds", 0.5, 0.8, "--train_caps", 2, "--test_caps", 1, "--seeds", 2]
    result = sweep.main(command(tmp_path, *grids, epochs=3))
    folder = tmp_path / "out" / "Z_denoise_user0.1_8_1" / "sweep_raw_replace"
    table = pd.read_csv(folder / "sweep.csv")
    assert len(table) == 2 * 3 and (folder / "thresholds.png").stat().st_size > 10_000
    best = table.loc[table["valid NDCG@20"].idxmax()]
    assert result["chosen"] == {key: best[key] for key in result["chosen"]}
    assert [row["rows"] for row in result["report"]] == ["noisy", "denoised", "clean"]
    noisy = sasrec.main(command(tmp_path, "--seeds", 2, epochs=3))
    assert result["report"][0]["NDCG@20"] == noisy["metrics"]["test"]["NDCG@20"]
    assert result["report"][0]["NDCG@20 difference"] == 0
    table_before = (folder / "sweep.csv").read_bytes()
    models = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("models/*")}
    assert sweep.main(command(tmp_path, *grids, epochs=3)) == result and len(models) == 6  # noisy, edited, clean; 2 seeds
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("models/*")} == models
    test_rows = tmp_path / "Z_denoise_user0.1_8_1" / "test_5000.csv"
    changed = pd.read_csv(test_rows)
    changed["item_ids"] = changed["item_ids"].map(lambda text: json.dumps([*json.loads(text)[:-1], 1]))
    changed.to_csv(test_rows, index=False)
    other = sweep.main(command(tmp_path, *grids, epochs=3))
    assert (folder / "sweep.csv").read_bytes() == table_before and other["report"] != result["report"]  # test chose nothing


def break_cell(folder, file, row, column, text):
    table = pd.read_csv(folder / file, dtype=str)
    if row is None:
        table = table.drop(columns=column)
    else:
        table.loc[row, column] = text
    table.to_csv(folder / file, index=False)


@pytest.mark.parametrize(
    "file, row, column, text, message",
    [
        ("train.csv", None, "noise_items", "", "train.csv: no column 'noise_items'"),
        ("train.csv", 3, "item_ids", "[99, 1, 2, 3]", "train.csv row 4: "),
        ("train.csv", 0, "item_ids", "[]", "train.csv row 1: 0 items"),
        ("train.csv", 0, "item_ids", "[1, 2, 3]", "train.csv row 1: 3 items and"),
        ("train.csv", 0, "item_ids", "__import__('os').getcwd()", "train.csv row 1: item_ids is"),
        ("train.csv", 5, "noise_prob", "[NaN, 1.0]", "train.csv row 6: noise_prob"),
        ("test_5000.csv", 1, "noise_prob", "[1.0]", "test_5000.csv row 2: noise_prob has 1 values"),
        ("train.csv", 2, "noise_items", "[1, 2]", "train.csv row 3: noise_items, noise_items_prob"),
        ("train.csv", 2, "noise_items", json.dumps([1] * 12), "train.csv row 3: 12 noise_items for"),
        ("train.csv", 2, "suggest_item_ids", "[1, 2, 77]", "train.csv row 3: noise_items or suggest_item_ids outside"),
        ("valid_5000.csv", 0, "noise_items_prob", "[NaN, -1.0, -2.0]", "valid_5000.csv row 1: noise_prob or"),
    ],
)
def test_bad_rows(tmp_path, capsys, file, row, column, text, message):
    break_cell(write_data_set(tmp_path, rows=(20, 20, 20)), file, row, column, text)
    refused(capsys, command(tmp_path, "--denoise_category", "all"), message)


def refused(capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        sasrec.main(options)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1, error


def test_bad_options(tmp_path, capsys):
    write_data_set(tmp_path, rows=(20, 20, 20))
    refused(capsys, command(tmp_path, name="Absent"), "there are: Z_denoise_user0.1_8_1")
    write_data_set(tmp_path, "Y_noise_user0.1", denoised=False, rows=(20, 20, 20))
    refused(capsys, command(tmp_path, "--denoise_category", "all", name="Y_denoise_user0.1"), "no train.csv in")
    refused(capsys, command(tmp_path, "--denoise_category", "all", name="Y_noise_user0.1"), "no column 'noise_prob'")
    refused(capsys, command(tmp_path, "--clean", "--denoise_category", "all"), "--clean has nothing to denoise")
    refused(capsys, command(tmp_path, "--num_heads", 3), "--hidden_units 64 is not a multiple")
    refused(capsys, command(tmp_path, "--test_noise_filter_threshold", 1.5), "1.5 is not in 0..1")
    refused(capsys, command(tmp_path, "--state_dict_path", "absent.safetensors"), "no such file")
    (tmp_path / "w.safetensors").write_bytes(b"junk")
    refused(capsys, command(tmp_path, "--state_dict_path", tmp_path / "w.safetensors"), "does not fit this model")
    with pytest.raises(SystemExit):
        sweep.main(command(tmp_path, "--clean"))
    assert "--clean: sweep.py decides it" in capsys.readouterr().err


def test_the_authors_files(released, tmp_path):
    """Training and evaluation run on the release's rows as they are, beyond what guessing would give."""
    run = sasrec.main(
        [
            "--dataset",
            "Toy_denoise_user0.1",
            "--data_root",
            str(released.parent),
            "--output_root",
            str(tmp_path),
            "--num_epochs",
            "2",
        ]
    )
    assert run["rows"] == {"train": 5000, "valid": 4793, "test": 4794} and run["n_items"] == 11758
    split = dataloader.read_split(released / "valid_5000.csv", dataloader.read_titles(released), 10, "ignored")
    noisy, raw = np.flatnonzero(split.mask[:, -1] == 1), pd.read_csv(released / "valid_5000.csv")
    titles = dataloader.read_titles(released)
    assert 0.08 < len(noisy) / len(raw) < 0.12
    for row in noisy:
        assert titles[split.items[row, -1]] == ast.literal_eval(raw.replaced_item_titles[row])[-1]
        assert json.loads(raw.item_ids[row])[:-1][-10:] == split.items[row, -11:-1][split.items[row, -11:-1] != 0].tolist()


def test_million_items_stay_in_memory(monkeypatch):
    """Evaluation holds a bounded batch of scores whatever the catalogue."""
    model, sizes, scores = SASRec(1_000_000, hidden_units=4).eval(), [], SASRec.scores
    monkeypatch.setattr(SASRec, "scores", lambda self, history: sizes.append(len(history)) or scores(self, history))
    histories, targets = torch.randint(1, 10**6, (40, 10)), torch.randint(1, 10**6, (40,))
    assert evaluate.rank_targets(model, histories, targets).shape == (40,) and max(sizes) <= 16


def test_weights_that_are_no_numbers_lose():
    scores = torch.full((1, 4), torch.nan)
    assert evaluate.ranks_of(scores, torch.tensor([[2]])).item() > 0
    with pytest.raises(dataloader.InputError, match="smaller --lr"):
        windows = torch.randint(1, 30, (64, 11))
        args = sasrec.parse_args(["--dataset", "none", "--lr", "1e30"])
        sasrec.fit(sasrec.make_model(30, args, 0, "cpu"), {"train": windows, "valid": windows}, args, 0)


@pytest.mark.parametrize("reference", ["valid", "split"])
def test_thresholds_come_from_the_right_rows(tmp_path, reference):
    """Train from train; test from valid, or from itself as in the release."""
    write_data_set(tmp_path, rows=(60, 60, 60))
    shares = ["--train_noise_filter_threshold", 0.6, "--test_noise_filter_threshold", 0.7, "--denoise_category", "all"]
    args = arguments(tmp_path, *shares, "--threshold_from", reference)
    splits, n_items = sasrec.load(args)
    edited = sasrec.denoise(splits, sasrec.weigh(splits, n_items, args), args)
    by = {"train": splits["train"], "valid": splits["valid"], "test": splits["valid" if reference == "valid" else "test"]}
    for name, share in (("train", 0.6), ("valid", 0.7), ("test", 0.7)):
        assert (edited[name] == slow_filter(splits[name], np.nanquantile(by[name].noise_prob, share), 3)).all()


def test_help_is_instant(root):
    started = time.perf_counter()
    done = subprocess.run([sys.executable, root / "SASRec_code/main.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--denoise_category" in done.stdout and time.perf_counter() - started < 10


def test_settings_are_copied_not_shared(tmp_path):
    args = arguments(tmp_path)
    before = copy.copy(vars(args))
    sweep.with_settings(args, seed=1, clean=True)
    assert vars(args) == before
