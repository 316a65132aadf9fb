"""denoise_code/reading/plan.py: each interaction once, by the rule, and nothing of a target; against slow versions and models."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import DENOISED, HARD_TITLES, TITLES, arguments, csvs, run, same_but_rounding
from hypothesis import given, settings
from hypothesis import strategies as st

from denoise_code.common.errors import InputError
from denoise_code.data_set.adapter_record import AdapterRecord
from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.data_set.rows import read_windows
from denoise_code.data_set.windows import ScoredSplit, Window
from denoise_code.data_set.windows import read_scored_windows as read_split
from denoise_code.language_model.loading import load_tokenizer
from denoise_code.language_model.prompt import Prompt
from denoise_code.reading.plan import PlacedRow, Text, plan_interactions, plan_parts, plan_rows, planted_histories
from denoise_code.reading.scoring import Scorer

SPLITS = ("train", "valid_5000", "test_5000")


def sliding_rows(logs, width, rng=None):
    """{split: rows} of (user, start, items): a window ending at each interaction, in thirds of a user's time; some are left out."""
    rows = {split: [] for split in SPLITS}
    for user, log in logs.items():
        ends = list(range(min(width, len(log)), len(log) + 1))
        for number, end in enumerate(ends):
            if rng is None or rng.random() < 0.7:
                split = SPLITS[min(2, int(rng.random() * 0.6 + 2.2 * number / len(ends)) if rng else 3 * number // len(ends))]
                rows[split].append((user, max(0, end - width), log[max(0, end - width) : end]))
    for split in (SPLITS[1], SPLITS[2]):  # time order: no train row of a user ends behind a valid or test row
        first = {user: min((start + len(items) for u, start, items in rows[split] if u == user), default=10**9) for user in logs}
        for earlier in SPLITS[: SPLITS.index(split)]:
            rows[earlier] = [row for row in rows[earlier] if row[1] + len(row[2]) < first[row[0]]]
    return rows


def write_sliding(folder, logs, width=5, rng=None):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("id2name4Rec.json", "id2name.json"):
        (folder / name).write_text(json.dumps({str(item): title for item, title in enumerate(TITLES, 1)}, ensure_ascii=False))
    for split, rows in sliding_rows(logs, width, rng).items():
        table = [
            {"user_id": user, "item_ids": json.dumps(items), "mask": json.dumps([0] * len(items)), "item_titles": "[]",
             "replaced_item_titles": "[]", "timestamp": start + len(items), "start": start}
            for user, start, items in rows
        ]  # fmt: skip
        pd.DataFrame(table).to_csv(folder / f"{split}.csv", index=False)
    return folder


def random_logs(seed, users=6, longest=30):
    rng = np.random.default_rng(seed)
    return {user: rng.integers(1, len(TITLES) + 1, size=int(rng.integers(3, longest))).tolist() for user in range(users)}


@pytest.fixture
def sliding(tmp_path):
    return write_sliding(tmp_path / "Hard_noise_user0.1", random_logs(3))


def splits_of(rows):
    result = {}
    for split, found in rows.items():
        if found:
            hidden = 0 if split == "train" else 1
            table = pd.DataFrame({"user_id": [str(u) for u, _, _ in found], "start": [str(s) for _, s, _ in found]})
            table["timestamp"] = [str(s + len(items)) for _, s, items in found]
            windows = [Window(row, tuple(items[: len(items) - hidden])) for row, (_, _, items) in enumerate(found)]
            result[split] = ScoredSplit(table, windows)
    return result


def without_starts(splits):
    return {split: ScoredSplit(scored.table.drop(columns="start"), scored.windows) for split, scored in splits.items()}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(2, 8),
    st.sampled_from([0.01, 0.3, 0.5, 0.9]),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
)
def test_the_rule(seed, width, overlap, span, causal, thinned):
    """Every scored position of every row takes the reading that has the most before it; none knows of a target."""
    rng = np.random.default_rng(seed) if thinned else None
    logs = random_logs(seed)
    rows = sliding_rows(logs, width, rng)
    splits = splits_of(rows)
    if not splits:
        return
    stretches = plan_interactions(splits, causal, overlap, span)
    window = max(len(w.items) for scored in splits.values() for w in scored.windows)
    length = span * window if causal else window
    least, seen = min(int(np.ceil(overlap * window)), length - 1), set()
    for stretch in stretches:
        sequence = [interaction.item for interaction in stretch.interactions]
        scored_by_texts = [place for text in stretch.texts for place in range(text.first_scored, text.stop)]
        assert scored_by_texts == list(range(len(sequence)))  # each once
        for text in stretch.texts:
            assert list(text.items) == sequence[text.start : text.stop] and len(text.items) <= length
        for row in stretch.rows:
            user, start, items = rows[row.split][row.row]
            scored = items if row.split == "train" else items[:-1]
            assert sequence[row.start : row.stop] == scored
            seen.add((row.split, row.row))
            for place in range(row.start, row.start + row.length):
                text, limit = stretch.texts[stretch.text_number(place)], stretch.interactions[place].first_unknowable
                first, stop = text.start, text.stop
                assert first <= text.first_scored <= place < stop <= len(sequence)
                assert all(not (t.start <= place < t.stop) or first <= t.start for t in stretch.texts)  # the most before it
                assert place - first >= min(least, place)
                target = row.start + row.length if row.split != "train" else None
                train_end = max((r.start + r.length for r in stretch.rows if r.split == "train"), default=0)
                assert limit > place
                if target is not None:
                    assert limit <= target
                elif all(r.split == "train" or r.start + r.length >= train_end for r in stretch.rows):
                    assert limit <= train_end
                assert causal or stop <= limit
                around = [r for r in stretch.rows if r.start <= place < r.start + r.length]
                knowable = {sequence[p] for r in around for p in range(r.start, r.start + r.length) if p < limit}
                assert knowable <= stretch.items_not_to_suggest(place)
    assert seen == {(split, row) for split, found in rows.items() for row in range(len(found))}


def places(stretch):
    """(start, first scored place, stop) of each text."""
    return [(text.start, text.first_scored, text.stop) for text in stretch.texts]


def test_texts_by_hand():
    """A user of 12 interactions, windows of 4: train rows end at 4..9, then a valid and two test rows."""
    log = list(range(1, 13))
    rows = {"train": [("u", e - 4, log[e - 4 : e]) for e in range(4, 10)], "valid_5000": [("u", 6, log[6:10])]}
    rows["test_5000"] = [("u", 7, log[7:11]), ("u", 8, log[8:12])]
    splits = splits_of(rows)
    (stretch,) = plan_interactions(splits, causal=False, least_history=0.5)
    assert [interaction.item for interaction in stretch.interactions] == log[:11]  # the last item is only a target
    assert [interaction.first_unknowable for interaction in stretch.interactions] == [9] * 9 + [10, 11]
    assert places(stretch) == [(0, 0, 4), (2, 4, 6), (4, 6, 8), (5, 8, 9), (6, 9, 10), (7, 10, 11)]
    assert [stretch.text_number(place) for place in range(11)] == [0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5]
    (stretch,) = plan_interactions(splits, causal=True, least_history=0.5, windows_a_causal_text=2)
    first, second = stretch.texts
    assert second == Text(tuple(log[6:11]), start=6, n_only_read=2, window=4)
    assert places(stretch) == [(0, 0, 8), (6, 8, 11)] and first.size + second.size == 4
    near = stretch.items_not_to_suggest
    assert near(8) == frozenset(log[5:9]) and near(9) == frozenset(log[6:10]) and near(1) == frozenset(log[:5])


def test_parts_of_the_job(tmp_path):
    """By window a part for each split; by interaction one for all of them, and the planted rows apart."""
    rows = {"train": [("u", 0, [1, 2, 3])], "test_5000": [("u", 1, [2, 3, 4])]}
    splits = splits_of(rows)
    splits["planted"] = ScoredSplit(pd.DataFrame({"user_id": ["u"], "train_row": [0]}), [Window(0, (1, 9, 3))])
    by_window = plan_parts(splits, by_interaction=False, causal=False, data_set=tmp_path)
    assert list(by_window) == ["train", "test_5000", "planted"]
    assert [(text.items, text.n_only_read) for s in by_window["test_5000"] for text in s.texts] == [((2, 3), 0)]
    by_interaction = plan_parts(splits, by_interaction=True, causal=False, data_set=tmp_path)
    assert list(by_interaction) == ["interactions", "planted"]
    assert [[i.item for i in s.interactions] for s in by_interaction["interactions"]] == [[1, 2, 3]]
    assert by_interaction["planted"] == by_window["planted"]


@pytest.mark.parametrize("seed", range(4))
def test_overlaps_are_found_where_no_start_is_given(seed):
    logs = {user: np.random.default_rng([seed, user]).permutation(40)[: 9 + 3 * user].tolist() for user in range(5)}
    splits = splits_of(sliding_rows(logs, 5))
    told = plan_interactions(splits, True, 0.5, 2)
    found = plan_interactions(without_starts(splits), True, 0.5, 2)
    assert sorted(map(repr, told)) == sorted(map(repr, found))


def test_rows_apart_stay_apart():
    rows = {"train": [("u", 0, [1, 2, 3, 4]), ("u", 9, [5, 6, 1, 2])]}
    for splits in (splits_of(rows), without_starts(splits_of(rows))):
        stretches = plan_interactions(splits, True, 0.5, 2)
        assert [[i.item for i in stretch.interactions] for stretch in stretches] == [[1, 2, 3, 4], [5, 6, 1, 2]]


def test_starts_that_disagree_are_refused():
    rows = {"train": [("u", 0, [1, 2, 3, 4]), ("u", 1, [2, 3, 5, 6])]}
    with pytest.raises(InputError, match="train.csv row 2: start 1 of user u disagrees"):
        plan_interactions(splits_of(rows), True, 0.5, 2)
    train = splits_of({"train": [("u", 0, [1, 2])]})["train"]
    with pytest.raises(InputError, match="train.csv row 1: start is '-3'"):
        plan_interactions({"train": ScoredSplit(train.table.assign(start="-3"), train.windows)}, True, 0.5, 2)


def test_planted_rows_have_the_history_of_their_place():
    """With or without `start`, and whatever else is read."""
    log = list(range(1, 25))
    rows = [("w", 0, [1, 2]), *(("u", end - 4, log[end - 4 : end]) for end in range(4, 25)), ("v", 0, [3, 4, 5])]
    train = splits_of({"train": rows})["train"]
    train.table["item_ids"] = [list(window.items) for window in train.windows]
    stretch, _, _ = plan_interactions({"train": train}, causal=True)
    assert places(stretch) == [(0, 0, 16), (14, 16, 24)]
    planted = pd.DataFrame({"user_id": ["u", "u", "u", "u", "v"], "train_row": [4, 1, 17, 18, 22]})
    for told in (train.table, train.table.drop(columns="start")):
        assert planted_histories(planted, told) == [(1, 2, 3), (), (15, 16), (15, 16, 17), ()]
    (stretch,) = plan_rows("planted", [Window(0, (40, 5, 6, 7))], [(1, 2, 3)])
    assert stretch.rows == [PlacedRow("planted", 0, start=3, length=4)] and stretch.window == 4
    assert stretch.texts == [Text((1, 2, 3, 40, 5, 6, 7), start=0, n_only_read=3, window=4)]  # its history is read, not scored


@torch.no_grad()
def plain_values(model, tokenizer, score, titles, place):
    """The score of one item after a text of titles, by plain prompts."""
    prompt = Prompt()
    if score == "first_token":
        log_probs = model(input_ids=torch.tensor([tokenizer(prompt.question(titles))["input_ids"]])).logits[0, -1].log_softmax(-1)
        cue = len(tokenizer(prompt.noise_cue, add_special_tokens=False)["input_ids"])
        return log_probs[
            tokenizer(prompt.noise_cue + prompt.title(titles[place]), add_special_tokens=False)["input_ids"][cue]
        ].item()
    before = prompt.instruction + prompt.sequence_cue + "".join(map(prompt.title, titles[:place]))
    ids, start = tokenizer(before + prompt.title(titles[place]))["input_ids"], len(tokenizer(before)["input_ids"])
    log_probs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    likelihood = np.exp(sum(log_probs[at - 1, ids[at]].item() for at in range(start, len(ids))))
    return np.log(1 / len(TITLES) / (1 / len(TITLES) + likelihood * (min(len(titles), 5) - 1 or 1)))


@pytest.mark.parametrize("score", ["first_token", "likelihood"])
def test_every_row_has_the_value_of_its_reading(tiny_models, tiny_adapters, sliding, score):
    """The columns of all rows against plain prompts of the readings that the rule names; one value an interaction."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = run(tiny_adapters["llama"], sliding, "--unit", "interaction", "--score", score, "--suggest", "catalogue")
    tokenizer = load_tokenizer(str(tiny_models["llama"]))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_models["llama"]), tiny_adapters["llama"]).eval()
    catalogue = read_catalogue(sliding)
    splits = {split: read_split(sliding, split, catalogue, None, 0, AdapterRecord("llama")) for split in SPLITS}
    stretches = plan_interactions(splits, causal=score == "likelihood")
    assert max(len(stretch.texts) for stretch in stretches) > 1
    written = {split: pd.read_csv(folder / f"{split}.csv") for split in SPLITS}
    replaced, checked = {}, 0
    for number, stretch in enumerate(stretches):
        values = {}
        for row in stretch.rows:
            found = written[row.split].loc[row.row]
            for place, prob in enumerate(json.loads(found.noise_prob), row.start):
                values.setdefault(place, prob)
                assert values[place] == prob  # the same in every row
            items = json.loads(found.item_ids)
            for item, suggestion in zip(json.loads(found.noise_items), json.loads(found.suggest_item_ids)):
                at = [place for place in range(row.start, row.start + row.length) if stretch.interactions[place].item == item]
                best = max(at, key=lambda place: values[place])
                assert replaced.setdefault((number, best), suggestion) == suggestion
                assert suggestion not in items[: len(items) - (row.split != "train")] or row.split != "train"
        for place, prob in values.items():
            text = stretch.texts[stretch.text_number(place)]
            titles = [catalogue[item] for item in text.items]
            expected = plain_values(model, tokenizer, score, titles, place - text.start)
            assert prob == pytest.approx(expected, rel=1e-3, abs=1e-3)
            checked += 1
    assert checked > 60


@pytest.mark.parametrize("mode", [["--score", "first_token"], ["--score", "likelihood"]], ids=str)
@pytest.mark.parametrize("suggest", ["free", "catalogue"])
def test_nothing_of_a_row_depends_on_its_target(tiny_adapters, tmp_path, mode, suggest):
    """Another last interaction of a user, wherever rows hold it, leaves all columns of the row that predicts it alone."""
    logs = random_logs(3)
    options = ["--unit", "interaction", "--suggest", suggest, "--planted", 0, *mode]
    before = write_sliding(tmp_path / "a" / "Hard_noise_user0.1", logs)
    tables = {split: pd.read_csv(before / f"{split}.csv") for split in SPLITS}
    for split in ("valid_5000", "test_5000"):
        target = {(row.user_id, row.start + len(json.loads(row.item_ids)) - 1) for row in tables[split].itertuples()}
        user, place = sorted(target)[len(target) // 2]
        changed = {
            u: [*log[:place], 1 + log[place] % len(TITLES), *log[place + 1 :]] if u == user else log for u, log in logs.items()
        }
        after = write_sliding(tmp_path / split / "Hard_noise_user0.1", changed)
        folders = [run(tiny_adapters["llama"], data, *options, out=data.parent / "out") for data in (before, after)]
        here, there = (pd.read_csv(folder / f"{split}.csv") for folder in folders)
        ends = here.start + here.item_ids.map(json.loads).map(len) - 1
        (row,) = np.flatnonzero((here.user_id == user) & (ends == place))
        assert here.item_ids[row] != there.item_ids[row]
        columns = ["noise_prob", "noise_items", "noise_items_prob", "suggest_item_titles", "suggest_item_ids"]
        numbers = [json.loads(table.noise_prob[row]) for table in (here, there)]
        assert numbers[0] == pytest.approx(numbers[1], abs=3e-4)  # batches may differ, and with them the last digit
        assert (here.loc[row, [columns[1], *columns[3:]]] == there.loc[row, [columns[1], *columns[3:]]]).all()
        later = (here.user_id == user) & (here.start <= place) & (ends > place)
        assert not later.any() or (here.noise_prob[later] != there.noise_prob[later]).any()  # those that hold it do change


def test_large_users_are_read_in_parts(tiny_adapters, tmp_path, monkeypatch):
    data = write_sliding(tmp_path / "Hard_noise_user0.1", {1: random_logs(5, longest=31)[0] * 6, 2: [1, 2, 3, 4, 5, 6, 7]})
    options = ["--unit", "interaction", "--score", "likelihood", "--suggest", "catalogue", "--planted", 0]
    read_at_once, read = [], Scorer.read

    def counted(self, texts):
        read_at_once.append(sum(text.size for text in texts))
        return read(self, texts)

    monkeypatch.setattr(Scorer, "read", counted)
    whole = run(tiny_adapters["llama"], data, *options, "--batch_size", 500, out=tmp_path / "whole")
    assert len(read_at_once) == 1 and read_at_once[0] > 8
    read_at_once.clear()
    parts = run(tiny_adapters["llama"], data, *options, "--batch_size", 1, out=tmp_path / "parts")
    assert len(read_at_once) > 3  # a user's texts in parts, and these again for the replacements
    for name in csvs(whole):
        same_but_rounding(whole / name, parts / name)


def test_the_unit_changes_something(tiny_adapters, sliding, tmp_path):
    shared = ["--score", "likelihood", "--suggest", "catalogue"]
    by_window, by_interaction = (
        csvs(run(tiny_adapters["llama"], sliding, *shared, "--unit", unit, out=tmp_path / unit))
        for unit in ("window", "interaction")
    )
    assert by_window != by_interaction


def test_users_are_kept_whole(tiny_adapters, sliding, tmp_path, capsys):
    import generate_denoised as generate

    options = ["--unit", "interaction", "--score", "likelihood", "--suggest", "catalogue", "--planted", 3]
    everyone, some = (run(tiny_adapters["llama"], sliding, *options, *extra, out=tmp_path / name)
                      for name, extra in (("all", []), ("some", ["--users", 3])))  # fmt: skip
    for split in SPLITS:
        whole, part = (pd.read_csv(folder / f"{split}.csv") for folder in (everyone, some))
        assert 0 < part.user_id.nunique() <= 3 and len(part) == whole.user_id.isin(part.user_id).sum() < len(whole)
        same = whole[whole.user_id.isin(part.user_id)].reset_index(drop=True)
        assert (same[["user_id", "item_ids", "start", "noise_items", "suggest_item_ids"]] == part[same.columns.intersection(
            ["user_id", "item_ids", "start", "noise_items", "suggest_item_ids"], sort=False)]).all(axis=None)  # fmt: skip
    lonely = pd.read_csv(sliding / "train.csv")
    lonely.assign(user_id=99).to_csv(sliding / "train.csv", index=False)
    with pytest.raises(SystemExit):
        generate.main(arguments(tiny_adapters["llama"], sliding, "--users", 1, "--denoise_data", "test_5000", "train"))
    assert "--users 1: none of them has a row in train.csv" in capsys.readouterr().err


def test_unit_is_part_of_the_job(tiny_adapters, sliding, capsys):
    import generate_denoised as generate

    run(tiny_adapters["llama"], sliding, "--unit", "interaction")
    with pytest.raises(SystemExit):
        generate.main(arguments(tiny_adapters["llama"], sliding))
    assert "was made with another --" in capsys.readouterr().err
    assert HARD_TITLES and (sliding.parent / DENOISED / "run.json").exists() and len(read_windows(sliding / "train.csv")) > 10
