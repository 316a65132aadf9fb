"""generate_denoised.py: exactness, tries, grounding, shards, crashes, contracts, errors."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CARS, FRUIT, HARD_TITLES, write_tiny_data

import generate_denoised as generate
import train_denoise_model as train
from train_denoise_model import Prompt

TITLES = HARD_TITLES + FRUIT + CARS[:30]
NAME = "Hard_denoise_user0.1_40_7"


@pytest.fixture
def data(tmp_path):
    rows = {"train": 90, "valid_5000": 23, "test_5000": 40}
    return write_tiny_data(tmp_path / "Hard_noise_user0.1", TITLES, rows, lengths=(2, 12))


def arguments(adapter, data, *extra, out=None):
    options = [
        "--denoise_model_path",
        adapter,
        "--noise_dataset_path",
        data,
        "--planted",
        20,
        "--batch_size",
        8,
        "--max_new_tokens",
        12,
    ]
    return [*map(str, options), *(["--output_root", str(out)] if out else []), *map(str, extra)]


def run(adapter, data, *extra, out=None):
    generate.main(arguments(adapter, data, *extra, out=out))
    return (out or data.parent) / NAME


def csvs(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.csv")}


def plain_model(adapter, base):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()


@torch.no_grad()
def plain_log_probs(model, tokenizer, text):
    """Next-token log-probabilities after a text: one prompt, no cache, no padding."""
    return model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1].log_softmax(-1)


def shown(row, split):
    items = json.loads(row.item_ids)
    return [TITLES[item - 1] for item in (items if split == "train" else items[:-1])]


# ---------------------------------------------------------------- exactness


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_free_mode_equals_plain_prompts(tiny_models, tiny_adapters, data, kind):
    """noise_prob against single prompts, suggestions against model.generate on the full prompt, grounding by hand."""
    folder = run(tiny_adapters[kind], data)
    model, prompt = plain_model(tiny_adapters[kind], tiny_models[kind]), Prompt()
    tokenizer = train.load_tokenizer(str(tiny_models[kind]))
    with torch.no_grad(), model.disable_adapter():
        decoder = model.get_base_model().base_model
        states = [decoder(input_ids=torch.tensor([tokenizer(title)["input_ids"]]))[0][0, -1] for title in TITLES]
    for split in ("train", "test_5000"):
        rows = list(pd.read_csv(folder / f"{split}.csv").itertuples())
        for row in rows[:12]:
            titles = shown(row, split)
            log_probs = plain_log_probs(model, tokenizer, prompt.question(titles))
            first = [tokenizer("Noise item:" + prompt.title(title), add_special_tokens=False)["input_ids"] for title in titles]
            cue = tokenizer("Noise item:", add_special_tokens=False)["input_ids"]
            expected = [log_probs[tokens[len(cue)]].item() for tokens in first]
            assert json.loads(row.noise_prob) == pytest.approx(expected, abs=1e-3)
            suspects, probs = json.loads(row.noise_items), json.loads(row.noise_items_prob)
            assert probs == sorted(probs, reverse=True) and len(set(suspects)) == len(suspects) <= 3
            for suspect, item, title in zip(suspects, json.loads(row.suggest_item_ids), json.loads(row.suggest_item_titles)):
                text = prompt.question(titles) + prompt.title(TITLES[suspect - 1]) + prompt.suggest_cue
                ids = torch.tensor([tokenizer(text)["input_ids"]])
                out = model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, pad_token_id=1
                )
                answer = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).split("\n")[0]
                answer = train.clean_title(answer)
                if answer in TITLES:
                    assert item == TITLES.index(answer) + 1
                else:
                    with torch.no_grad(), model.disable_adapter():
                        tokens = tokenizer(answer)["input_ids"]
                        query = decoder(input_ids=torch.tensor([tokens]))[0][0, -1] if tokens else None
                    if query is not None:
                        distances = [(query - state).norm().item() for state in states]
                        assert distances[item - 1] == pytest.approx(min(distances), abs=1e-3)
                assert title == TITLES[item - 1]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_title_scores_equal_the_chain_rule(tiny_models, tiny_adapters, data, kind):
    folder = run(tiny_adapters[kind], data, "--score", "title", "--suggest", "catalogue", "--top_k", 2)
    model, prompt = plain_model(tiny_adapters[kind], tiny_models[kind]), Prompt()
    tokenizer = train.load_tokenizer(str(tiny_models[kind]))

    def alone(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    cue = len(alone(prompt.noise_cue))
    ties = 0
    for row in list(pd.read_csv(folder / "train.csv").itertuples())[:12]:
        titles = shown(row, "train")
        tokens = {t: tuple(alone(prompt.noise_cue + prompt.title(t))[cue:]) for t in titles}
        question, expected = tokenizer(prompt.question(titles))["input_ids"], []
        for title in titles:
            total = 0.0
            for depth, token in enumerate(tokens[title]):  # every token, also those where nothing is left to decide
                rivals = {other[depth] for other in tokens.values() if other[:depth] == tokens[title][:depth]}
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([question + list(tokens[title][:depth])])).logits[0, -1]
                total += (logits[token] - logits[list(rivals)].logsumexp(0)).item()
            expected.append(total)
        found = json.loads(row.noise_prob)
        assert found == pytest.approx(expected, abs=1e-3)
        distinct = [prob for place, (prob, title) in enumerate(zip(found, titles)) if titles.index(title) == place]
        assert np.exp(distinct).sum() == pytest.approx(1, abs=1e-2)
        by_first = [tokens[title][0] for title in tokens]
        ties += len(by_first) - len(set(by_first))
        by_title = {title: prob for title, prob in zip(titles, found)}
        assert len(set(by_title.values())) == len(by_title), "different titles tie"
    assert ties > 0, "no window had two titles of one first token"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_likelihood_scores_equal_bayes_by_hand(tiny_models, tiny_adapters, data, kind):
    folder = run(tiny_adapters[kind], data, "--score", "likelihood", "--suggest", "catalogue")
    model, prompt = plain_model(tiny_adapters[kind], tiny_models[kind]), Prompt()
    tokenizer = train.load_tokenizer(str(tiny_models[kind]))
    for split in ("train", "test_5000"):
        for row in list(pd.read_csv(folder / f"{split}.csv").itertuples())[:12]:
            titles, expected = shown(row, split), []
            for place, title in enumerate(titles):
                before = prompt.instruction + prompt.sequence_cue + "".join(map(prompt.title, titles[:place]))
                ids = tokenizer(before + prompt.title(title))["input_ids"]
                start = len(tokenizer(before)["input_ids"])
                with torch.no_grad():
                    log_probs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
                likelihood = np.exp(sum(log_probs[at - 1, ids[at]].item() for at in range(start, len(ids))))
                belongs, noise = likelihood * (len(titles) - 1 or 1), 1 / len(TITLES)
                expected.append(np.log(noise / (noise + belongs)))
            found = json.loads(row.noise_prob)
            assert found == pytest.approx(expected, rel=1e-3) and len(set(found)) > len(set(titles)) // 2


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_catalogue_mode_equals_brute_force(tiny_models, tiny_adapters, data, kind):
    folder = run(tiny_adapters[kind], data, "--suggest", "catalogue")
    model, prompt = plain_model(tiny_adapters[kind], tiny_models[kind]), Prompt()
    tokenizer = train.load_tokenizer(str(tiny_models[kind]))
    cue = len(tokenizer(prompt.suggest_cue, add_special_tokens=False)["input_ids"])
    tokens = {
        item: tokenizer(prompt.suggest_cue + prompt.title(title), add_special_tokens=False)["input_ids"][cue:]
        for item, title in enumerate(TITLES, 1)
    }
    for split in ("train", "test_5000"):
        rows = list(pd.read_csv(folder / f"{split}.csv").itertuples())
        for row in rows:
            window = json.loads(row.item_ids)[: None if split == "train" else -1]
            assert not set(json.loads(row.suggest_item_ids)) & set(window)
            assert len(json.loads(row.suggest_item_ids)) == len(json.loads(row.noise_items)) > 0
        for row in rows[:8]:
            window = json.loads(row.item_ids)[: None if split == "train" else -1]
            for suspect, item in zip(json.loads(row.noise_items), json.loads(row.suggest_item_ids)):
                text = prompt.question(shown(row, split)) + prompt.title(TITLES[suspect - 1]) + prompt.suggest_cue
                left, prefix, ids = {i: t for i, t in tokens.items() if i not in window}, [], tokenizer(text)["input_ids"]
                while len({tuple(t) for t in left.values()}) > 1:
                    with torch.no_grad():
                        logits = model(input_ids=torch.tensor([ids + prefix])).logits[0, -1]
                    best = max({t[len(prefix)] for t in left.values()}, key=lambda token: logits[token].item())
                    prefix.append(best)
                    left = {i: t for i, t in left.items() if t[: len(prefix)] == prefix}
                assert item == min(left)


@pytest.mark.parametrize("mode", [[], ["--score", "title", "--suggest", "catalogue"], ["--score", "likelihood"]], ids=str)
def test_batches_ranks_and_merging_do_not_matter(tiny_adapters, data, tmp_path, mode):
    adapter = tiny_adapters["llama"]
    one = csvs(run(adapter, data, *mode, out=tmp_path / "one"))
    assert set(one) == {"train.csv", "valid_5000.csv", "test_5000.csv", "planted.csv"}
    for size in (1, 5, 200):
        other = run(adapter, data, *mode, "--batch_size", size, out=tmp_path / f"size{size}")
        for name in one:
            same_but_rounding(tmp_path / "one" / NAME / name, other / name)
    command = [sys.executable, generate.__file__, *arguments(adapter, data, *mode, out=tmp_path / "two")]
    ranks = [subprocess.Popen(command, env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}) for rank in range(2)]
    assert [process.wait() for process in ranks] == [0, 0]
    assert csvs(tmp_path / "two" / NAME) == one
    assert not (tmp_path / "two" / NAME / ".work").exists()


def same_but_rounding(a, b):
    """The same rows; probabilities to the last printed digit, suspects the same where they do not tie by that."""
    a, b = pd.read_csv(a), pd.read_csv(b)
    assert (a[["user_id", "item_ids", "mask"]] == b[["user_id", "item_ids", "mask"]]).all(axis=None)
    for x, y in zip(a.noise_prob, b.noise_prob):
        assert json.loads(x) == pytest.approx(json.loads(y), abs=3e-4)
    assert (a.noise_items == b.noise_items).mean() > 0.95 and (a.suggest_item_ids == b.suggest_item_ids).mean() > 0.95


def test_drafts_save_steps_and_change_nothing(tiny_adapters, data, tmp_path, monkeypatch):
    """Free text with no drafts, and with drafts from what was written then: right for some texts, wrong for others."""
    written, steps, forward = set(), [], generate.Reader.forward

    def counted(self, pieces, tails):
        steps.append(len(pieces))
        return forward(self, pieces, tails)

    def draft(self, tokens):
        rest = [other[len(tokens) :] for other in written if other[: len(tokens)] == tuple(tokens)]
        written.add(tuple(tokens))
        return list(max(rest, default=())) if drafting else []

    monkeypatch.setattr(generate.Reader, "forward", counted)
    monkeypatch.setattr(generate.Trie, "follow", draft)
    drafting = False
    plain, without = run(tiny_adapters["llama"], data, out=tmp_path / "plain"), len(steps)
    drafting = True
    drafted = run(tiny_adapters["llama"], data, out=tmp_path / "drafted")
    for name in csvs(plain):
        same_but_rounding(plain / name, drafted / name)
    assert len(steps) - without < without / 2


def test_accelerate_launch(tiny_adapters, data, tmp_path):
    adapter = tiny_adapters["gpt2"]
    one = csvs(run(adapter, data, out=tmp_path / "one"))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", generate.__file__]
    done = subprocess.run([*launch, *arguments(adapter, data, out=tmp_path / "two")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert csvs(tmp_path / "two" / NAME) == one


def test_more_ranks_than_batches(tiny_adapters, data, tmp_path):
    few = ["--denoise_data", "test_5000", "--limit", 3, "--planted", 0]
    one = csvs(run(tiny_adapters["llama"], data, *few, out=tmp_path / "one"))
    for rank in reversed(range(3)):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "3"}
        command = [sys.executable, generate.__file__, *arguments(tiny_adapters["llama"], data, *few, out=tmp_path / "three")]
        assert subprocess.run(command, env=environment).returncode == 0
    assert csvs(tmp_path / "three" / NAME) == one


def test_out_of_memory_halves_the_batch(tiny_adapters, data, tmp_path, monkeypatch):
    whole = run(tiny_adapters["llama"], data, out=tmp_path / "whole")
    plain = generate.Denoiser._run

    def small_gpu(self, windows, questions, suggest):
        if len(windows) > 3:
            self.start.copies(len(windows), 0)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        records = plain(self, windows, questions, suggest)
        assert len(self.start.spare[0][0]) <= 3  # the cache of the whole batch is given back
        return records

    monkeypatch.setattr(generate.Denoiser, "_run", small_gpu)
    halved = run(tiny_adapters["llama"], data, out=tmp_path / "halved")
    for name in csvs(whole):
        same_but_rounding(whole / name, halved / name)


# ---------------------------------------------------------------- pure parts


@pytest.mark.parametrize("kind", ["Bloom", "DeepseekV3", "Lfm2", "Mamba", "Qwen3Next", "Bart", "GPT2", "Gemma2", "Qwen3"])
def test_models_with_more_than_attention_are_refused(kind):
    import transformers

    layers = {"layer_types": ["conv", "full_attention"]} if kind == "Lfm2" else {}
    config = getattr(transformers, f"{kind}Config")(num_hidden_layers=2, **layers)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    if kind in ("GPT2", "Gemma2", "Qwen3"):
        train.check_attention("there", model)
    else:
        with pytest.raises(train.InputError, match=f"--base_model there: stage 2 cannot read with {kind}"):
            train.check_attention("there", model)


def test_a_model_that_packing_changes_is_refused(tiny_adapters, data, tmp_path, capsys, monkeypatch):
    def blind(*args, **_):
        *_, query, _, _, _ = args
        return query.transpose(1, 2) * 0, None

    monkeypatch.setattr(generate, "attend_in_rows", blind)
    refused(capsys, arguments(tiny_adapters["llama"], data, out=tmp_path), "LlamaForCausalLM: packing changes its answers")


def test_trie_by_hand():
    trie = generate.Trie({1: [5, 9], 2: [5, 7, 9], 3: [4, 9], 4: [5, 9]})
    assert trie.items == [3, 2, 1, 4] and trie.children(0, 4, 0) == {4: (0, 1), 5: (1, 4)}
    assert trie.allowed(0, 4, 0, frozenset({3})) == {5: (1, 4)} and trie.children(2, 4, 2) == {}
    assert trie.left(1, 4, frozenset({2, 1})) == [4] and trie.left(0, 4, frozenset()) == [3, 2]
    assert trie.follow([]) == trie.follow([4]) == trie.follow([5]) == trie.follow([6]) == trie.follow([5, 9, 1]) == []
    longer = generate.Trie({1: [5, 6, 7, 8, 9], 2: [5, 6, 4, 9], 3: [5, 6, 7, 8, 9]})
    assert longer.follow([5]) == [6] and longer.follow([5, 6]) == [] and longer.follow([5, 6, 7]) == [8]


def test_slices_by_hand():
    assert generate.slices([4, 4, 3, 1], 8) == [slice(0, 2), slice(2, 4)]
    assert generate.slices([9, 2, 2, 2, 2], 9) == [slice(0, 1), slice(1, 5)]
    assert generate.slices([1, 8], 8) == [slice(0, 2)] and generate.slices([3], 1) == [slice(0, 1)]
    assert generate.slices([1] * 11, 4) == [slice(0, 4), slice(4, 8), slice(8, 11)]


@pytest.mark.parametrize("kind", ["Llama", "GPT2", "Gemma2", "Gemma3Text", "GptOss", "Qwen3", "StableLm"])
def test_reading_in_slices_branching_and_keeping_change_nothing(kind):
    """Texts read piece by piece, packed, in slices, as branches, in outgrown buffers: each as if it were alone."""
    import transformers

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    config = getattr(transformers, f"{kind}Config")(vocab_size=400, **sizes)
    model, rng = transformers.AutoModelForCausalLM.from_config(config).eval(), random.Random(0)
    usual = model.config._attn_implementation
    with torch.inference_mode():
        start = generate.Reader.start(model, [5, 6, 7])
        start.copies(8, 40).read([list(range(9, 39))] * 8)  # what these wrote lies in the memory of the next
        reader, texts = start.copies(6, 0), [[5, 6, 7] for _ in range(6)]
        reader.tokens_at_once = 12
        for step in range(8):
            pieces = [[rng.randrange(2, 400) for _ in range(rng.randint(1, 9))] for _ in texts]
            texts = [text + piece for text, piece in zip(texts, pieces)]
            found = reader.read(pieces)
            for text, log_probs in zip(texts, found):
                assert torch.allclose(log_probs, model(input_ids=torch.tensor([text])).logits[0, -1].log_softmax(-1), atol=1e-4)
            if step == 1:
                reader.keep([0, 2, 3, 5])
                texts = [texts[row] for row in (0, 2, 3, 5)]
            if step == 3:
                reader.read([[9, 9, 8]] * len(texts))
                reader.forget([2, 3, 0, 1])
                texts = [[*text, *tokens] for text, tokens in zip(texts, ([9], [], [9, 9, 8], [9, 9]))]
                reader, texts = reader.branch([1, 3, 3, 3]), [texts[row] for row in (1, 3, 3, 3)]  # two rows have no text
                reader.tokens_at_once = 12
            if step == 5:
                reader.keep([0, 3])  # in rows that are no neighbours
                texts = [texts[row] for row in (0, 3)]
    with pytest.raises(IndexError):
        reader.read([[9999]] * 2)  # no such token
    assert model.config._attn_implementation == usual and transformers.AttentionInterface().get_interface("in_rows", 0) is None


def test_output_name():
    from pathlib import Path

    name = generate.output_name("Toy_noise_user0.1", Path("a/batch128_sample5000_epoch50/checkpoint-2000"), 1)
    assert name == "Toy_denoise_user0.1_5000_2000"
    assert generate.output_name("Toy_noise_user0.1", Path("a/adapter"), 70) == "Toy_denoise_user0.1_70"
    with pytest.raises(train.InputError, match="expected a folder named"):
        generate.output_name("Toy", Path("a"), 1)


def test_detection_by_hand():
    masks = [[0, 1, 0], [1, 0, 1]]  # the last item of the second row was not scored
    found = generate.detection("test", masks, [[0.1, 0.9, 0.5], [0.6, 0.2]])
    assert found["auc"] == 1.0 and found["auc_window"] == 1.0 and found["share_noise"] == 0.4
    # above the median (0.5): 0.9 and 0.6, both injected
    assert found["at_percentile"]["0.5"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert generate.detection("test", [[0, 0]], [[1.0, 2.0]]) is None
    assert generate.detection("planted", [[0, 2], [1, 2]], [[1.0, 2.0], [5.0, 3.0]])["auc"] == 0.5


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
    record = {"arguments": {"sample": 40, "eval_sample": 10, "seed": 1}, "data_fingerprint": train.data_fingerprint(data)}
    (adapter / "run.json").write_text(json.dumps(record))
    table = pd.read_csv(run(adapter, data, "--planted", 40) / "planted.csv")
    used = np.concatenate(train.split_rows(90, 40, 10, 1))
    assert not set(table.timestamp) & set(used) and len(table) == 40


def test_min_percentile_leaves_out_what_no_threshold_uses(tiny_adapters, data, tmp_path):
    everything = run(tiny_adapters["llama"], data, "--suggest", "catalogue", out=tmp_path / "all")
    some = run(tiny_adapters["llama"], data, "--suggest", "catalogue", "--min_percentile", 0.8, out=tmp_path / "some")
    a, b = pd.read_csv(everything / "train.csv"), pd.read_csv(some / "train.csv")
    probs = np.concatenate(a.noise_prob.map(json.loads).tolist())
    cut = max(p for p in probs if p <= np.quantile(probs, 0.8))
    for x, y in zip(a.itertuples(), b.itertuples()):
        keep = sum(p > cut for p in json.loads(x.noise_items_prob))
        assert x.noise_prob == y.noise_prob and abs(len(json.loads(y.noise_items)) - keep) <= 1
        kept = len(json.loads(y.noise_items))
        assert json.loads(x.noise_items)[:kept] == json.loads(y.noise_items)
        assert json.loads(x.suggest_item_ids)[:kept] == json.loads(y.suggest_item_ids)
    assert b.noise_items.map(json.loads).map(len).sum() < 0.8 * a.noise_items.map(json.loads).map(len).sum()


def test_options_change_something(tiny_adapters, data, tmp_path):
    base = csvs(run(tiny_adapters["llama"], data, out=tmp_path / "base"))
    options = (
        ["--top_k", 1],
        ["--score", "title"],
        ["--suggest", "catalogue"],
        ["--max_new_tokens", 2],
        ["--limit", 5],
        ["--planted", 3],
    )
    for option in [*options, ["--dtype", "bfloat16"], ["--denoise_data", "test_5000"]]:
        assert csvs(run(tiny_adapters["llama"], data, *option, out=tmp_path / option[0])) != base, option


def test_the_releases_embedding_is_used_when_it_fits(tiny_adapters, data, tmp_path, capsys):
    adapter = tiny_adapters["llama"]
    torch.save(torch.zeros(3, 8), data / "item_embedding.pt")
    ours = csvs(run(adapter, data, out=tmp_path / "a"))
    assert "does not fit this model and catalogue" in capsys.readouterr().out
    table = torch.full((len(TITLES) + 1, 64), 1e3)
    table[5] = 0  # so every text that is no title is nearest to item 5
    torch.save(table, data / "item_embedding.pt")
    theirs = run(adapter, data, out=tmp_path / "b")
    assert csvs(theirs) != ours
    free = pd.read_csv(theirs / "train.csv").suggest_item_ids.map(json.loads)
    share = json.loads((theirs / "run.json").read_text())["splits"]["train"]["share_grounded_by_embedding"]
    found = np.mean([item == 5 for row in free for item in row])
    assert found >= share > 0
    assert list(data.glob("item_embedding_*.safetensors"))


# ---------------------------------------------------------------- crashes and restarts


def test_killed_twenty_times(tiny_adapters, data, tmp_path):
    """SIGKILL at random moments, restarted each time: the same bytes as an undisturbed run."""
    adapter, mode = tiny_adapters["llama"], ["--batch_size", 2]
    expected = csvs(run(adapter, data, *mode, out=tmp_path / "calm"))
    command = [sys.executable, generate.__file__, *arguments(adapter, data, *mode, out=tmp_path / "killed")]
    rng, progress, kills = random.Random(0), [], 0
    work = tmp_path / "killed" / NAME / ".work"
    while kills < 20:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        size = written(work)
        for _ in range(2000):  # wait until it writes, so that each kill falls into the work, not into the imports
            if written(work) > size or process.poll() is not None:
                break
            time.sleep(0.01)
        time.sleep(rng.random() * 0.1)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        progress.append(written(work))
    assert subprocess.run(command).returncode == 0
    assert csvs(tmp_path / "killed" / NAME) == expected and kills >= 5 and progress[-1] > progress[0]


def written(work):
    return sum(path.stat().st_size for path in work.glob("*/*.jsonl"))


@pytest.mark.parametrize("tear", [b'{"batch": 1, "rec', b'{"batch": 1, "records": []}', b"\x00\x00\n"])
def test_torn_last_line(tmp_path, tear):
    path = tmp_path / "train.0.jsonl"
    path.write_bytes(b'{"batch": 0, "records": []}\n' + tear)
    shards = generate.Shards(tmp_path, 0)
    assert list(shards.read("train")) == [0]
    with shards.open("train") as file:
        file.write('{"batch": 2, "records": []}\n')
    assert list(shards.read("train")) == [0, 2]


def test_finished_and_changed_runs(tiny_adapters, data, tmp_path, capsys):
    adapter = tiny_adapters["llama"]
    folder = run(adapter, data)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    run(adapter, data)
    assert "is complete" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    refused(capsys, arguments(adapter, data, "--top_k", 2), "was made with another --top_k")
    refused(capsys, arguments(tiny_adapters["gpt2"], data), "was made with another --denoise_model_path")
    run(adapter, data, "--top_k", 2, "--overwrite")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} != before
    with (data / "test_5000.csv").open("a") as file:
        file.write('1,"[1, 2]","[0, 0]",[],[],5\n')
    refused(capsys, arguments(adapter, data, "--top_k", 2), "was made with another --noise_dataset_path")


def test_contract_with_sasrec(tiny_adapters, data, tmp_path):
    """The columns that stage 3 reads, and the input's rows and columns in the input's order."""
    import main as sasrec

    folder = run(tiny_adapters["llama"], data)
    for split in ("train", "valid_5000", "test_5000"):
        before, after = pd.read_csv(data / f"{split}.csv"), pd.read_csv(folder / f"{split}.csv")
        assert list(after.columns) == [*before.columns, *generate.NEW_COLUMNS]
        assert (after[before.columns] == before).all(axis=None)
    places = ["--dataset", NAME, "--data_root", str(data.parent), "--output_root", str(tmp_path / "sasrec")]
    result = sasrec.main([*places, "--denoise_category", "all", "--train_noise_filter_threshold", "0.6", "--num_epochs", "1"])
    assert result["rows"] == {"train": 90, "valid": 23, "test": 40}
    titles = json.loads(pd.read_csv(folder / "train.csv").suggest_item_titles[0])
    assert all(title in TITLES for title in titles)


def test_progress_and_figures_are_kept(tiny_adapters, data, capsys):
    folder = run(tiny_adapters["llama"], data)
    out = capsys.readouterr().out
    assert "windows/s" in out and "detection of the" in out and "went to the nearest one" in out
    test = json.loads((folder / "run.json").read_text())["splits"]["test_5000"]
    assert test["tokens"]["score"] > 0 and test["seconds"].keys() == {"score", "suggest"} and test["detection"]["share_noise"] > 0


# ---------------------------------------------------------------- errors


def refused(capsys, args, message):
    with pytest.raises(SystemExit) as stopped:
        generate.main(args)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error.strip().splitlines()[-1], error


def test_bad_rows_and_options(tiny_adapters, data, tmp_path, capsys):
    adapter, row = tiny_adapters["llama"], '{user},"{items}","{mask}",[],[],5\n'
    original = (data / "test_5000.csv").read_text()
    for items, mask, message in (
        ("[1, 999]", "[0, 0]", "test_5000.csv row 41: item ids 1..999"),
        ("[]", "[]", "test_5000.csv row 41: 0 items"),
        ("__import__('os')", "[0]", "test_5000.csv row 41: item_ids is"),
    ):
        (data / "test_5000.csv").write_text(original + row.format(user=1, items=items, mask=mask))
        refused(capsys, arguments(adapter, data), message)
    (data / "test_5000.csv").write_text(original)
    refused(capsys, arguments(adapter, data, "--denoise_data", "absent"), "absent.csv: no such file")
    refused(capsys, arguments(adapter, data, "--planted", 91), "--planted 91:")
    refused(capsys, arguments(adapter, data, "--batch_size", "many"), "--batch_size many")
    refused(capsys, arguments(adapter, data, "--min_percentile", 2), "2 is not between 0 and 1")
    refused(capsys, arguments(adapter, data, "--base_model", "gpt2"), "belongs to")
    (tmp_path / "file").write_text("")
    refused(capsys, arguments(adapter, data, out=tmp_path / "file"), "cannot write")
    (data / "id2name4Rec.json").unlink()
    refused(capsys, arguments(adapter, data), "id2name4Rec.json: no such file")
    assert not (data.parent / NAME / "run.json").exists()


def test_bad_adapters(tiny_models, tiny_adapters, data, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    def spoiled(name, change):
        folder = shutil.copytree(tiny_adapters["llama"], tmp_path / name / "sample40")
        change(folder)
        return arguments(folder, data)

    def tensors(edit):
        def change(folder):
            found = load_file(folder / "adapter_model.safetensors")
            edit(found)
            save_file(found, folder / "adapter_model.safetensors", metadata={"format": "pt"})

        return change

    def zero(found):
        found.update({name: torch.zeros_like(tensor) for name, tensor in found.items()})

    def other_base(folder):
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(tiny_models["gpt2"])
        (folder / "adapter_config.json").write_text(json.dumps(config))

    refused(capsys, arguments(tmp_path / "none", data), "no adapter_config.json")
    refused(capsys, spoiled("prompt", lambda folder: (folder / "prompt.json").unlink()), "no prompt.json")
    refused(capsys, spoiled("lost", tensors(lambda found: found.pop(min(found)))), "1 tensors are missing or not wanted")
    refused(capsys, spoiled("zero", tensors(zero)), "all zero")
    refused(capsys, spoiled("base", other_base), "does not fit")
    refused(capsys, spoiled("torn", lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"junk")), "does not fit")
