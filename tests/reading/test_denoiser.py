"""denoise_code/reading/denoiser.py, scoring.py, suggesting.py: scores and suggestions against plain prompts."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TITLES, arguments, csvs, refused, run, same_but_rounding

from denoise_code.common.errors import InputError
from denoise_code.data_set.titles import fold_title as clean_title
from denoise_code.language_model.loading import Precision, check_adapter, load_adapter_tokenizer, load_model, load_tokenizer
from denoise_code.language_model.prompt import Prompt, Question, Titles
from denoise_code.language_model.title_trie import Trie
from denoise_code.reading import packed_reader
from denoise_code.reading.denoiser import Denoiser
from denoise_code.reading.packed_reader import Reader
from denoise_code.reading.scoring import Scorer


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_free_mode_equals_plain_prompts(tiny_models, tiny_adapters, data, kind):
    """noise_prob against single prompts, suggestions against model.generate on the full prompt, grounding by hand."""
    folder = run(tiny_adapters[kind], data)
    model, prompt = plain_model(tiny_adapters[kind], tiny_models[kind]), Prompt()
    tokenizer = load_tokenizer(str(tiny_models[kind]))
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
                answer = clean_title(answer)
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
def test_likelihood_scores_equal_bayes_by_hand(tiny_models, tiny_adapters, data, kind):
    folder = run(tiny_adapters[kind], data, "--score", "likelihood", "--suggest", "catalogue")
    model, prompt = plain_model(tiny_adapters[kind], tiny_models[kind]), Prompt()
    tokenizer = load_tokenizer(str(tiny_models[kind]))
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
    tokenizer = load_tokenizer(str(tiny_models[kind]))
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


def test_drafts_save_steps_and_change_nothing(tiny_adapters, data, tmp_path, monkeypatch):
    """Free text with no drafts, and with drafts from what was written then: right for some texts, wrong for others."""
    written, steps, forward = set(), [], Reader.forward

    def counted(self, pieces, tails):
        steps.append(len(pieces))
        return forward(self, pieces, tails)

    def draft(self, tokens):
        rest = [other[len(tokens) :] for other in written if other[: len(tokens)] == tuple(tokens)]
        written.add(tuple(tokens))
        return list(max(rest, default=())) if drafting else []

    monkeypatch.setattr(Reader, "forward", counted)
    monkeypatch.setattr(Trie, "common_continuation", draft)
    drafting = False
    plain, without = run(tiny_adapters["llama"], data, out=tmp_path / "plain"), len(steps)
    drafting = True
    drafted = run(tiny_adapters["llama"], data, out=tmp_path / "drafted")
    for name in csvs(plain):
        same_but_rounding(plain / name, drafted / name)
    assert len(steps) - without < without / 2


def test_out_of_memory_halves_the_batch(tiny_adapters, data, tmp_path, monkeypatch):
    whole = run(tiny_adapters["llama"], data, out=tmp_path / "whole")
    plain = Denoiser.run_at_once

    refused = []

    def small_gpu(self, stretches, threshold):
        if len(stretches) > 3:
            refused.append(len(stretches))
            self.scorer.start.copies(len(stretches), 0)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        records = plain(self, stretches, threshold)
        assert len(self.scorer.start.copy_buffers[0][0]) <= 3  # the cache of the whole batch is given back
        return records

    monkeypatch.setattr(Denoiser, "run_at_once", small_gpu)
    halved = run(tiny_adapters["llama"], data, out=tmp_path / "halved")
    for name in csvs(whole):
        same_but_rounding(whole / name, halved / name)
    assert refused == [8, 4]  # what does not fit is tried once, not in each batch


def test_a_prompt_read_differently_is_refused(tiny_adapters, data, tmp_path, capsys, monkeypatch):
    """The instruction is read once for all windows: one whose tokens differ there cannot be read after it."""
    plain = Titles.questions

    def differently(self, windows):
        found = plain(self, windows)
        in_batch = len(windows) > 2 and len(windows[0]) > 1
        return [Question([ids[0] + 1, *ids[1:]], spans) for ids, spans in found] if in_batch else found

    monkeypatch.setattr(Titles, "questions", differently)
    refused(
        capsys, arguments(tiny_adapters["llama"], data, out=tmp_path), "reads the instruction differently before some windows"
    )


def test_a_model_that_packing_changes_is_refused(tiny_adapters, data, tmp_path, capsys, monkeypatch):
    def blind(module, query, *_, **__):
        return query.transpose(1, 2) * 0, None

    monkeypatch.setattr(packed_reader, "attend_in_rows", blind)
    packed_reader.in_rows.cache_clear()
    monkeypatch.setattr(packed_reader, "in_rows", packed_reader.in_rows.__wrapped__)  # registered anew, here and after
    refused(capsys, arguments(tiny_adapters["llama"], data, out=tmp_path), "LlamaForCausalLM: packing changes its answers")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("hidden", range(10))
def test_hiding_one_title_of_ten_is_refused(tiny_adapters, monkeypatch, kind, hidden):
    """Packed reading in which later tokens do not see one title of the first question; the right one passes.

    The random model's logits are divided by ten: so it minds a lost title about as little as a trained one does.
    """
    adapter = tiny_adapters[kind]
    base_model = check_adapter(adapter, None).base_model
    titles = Titles(load_adapter_tokenizer(adapter), Prompt(), TITLES)
    model = load_model(adapter, base_model, Precision("float32"))
    model.get_output_embeddings().register_forward_hook(lambda module, inputs, logits: logits / 10)
    scorer = Scorer(model, titles, by_likelihood=False, load_in_8bit=False, tokens=Counter())
    windows = [tuple(range(1, 11)), tuple(range(20, 26))]
    scorer.begin(windows)

    start, end = titles.questions(windows)[0].spans[hidden]
    read_packed = packed_reader.read_packed

    def blind(model, tokens, row, column, seen, buffers, wanted):
        seen = seen.clone()  # (n, T) the columns that each token sees
        seen[(column >= end) & (row == 0), start:end] = False
        return read_packed(model, tokens, row, column, seen, buffers, wanted)

    monkeypatch.setattr(packed_reader, "read_packed", blind)
    with pytest.raises(InputError, match="packing changes its answers"):
        scorer.begin(windows)


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
