"""denoise_code/training/examples.py: what is planted is named, tokens and labels, TDMD of the release."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CARS, FRUIT, HARD_TITLES, tiny_args, train_refused
from transformers import AutoModelForCausalLM

import train_denoise_model as train
from denoise_code.common.errors import InputError
from denoise_code.language_model.loading import AdapterOptions, add_adapter, compile_layers, load_base_model, load_tokenizer
from denoise_code.language_model.prompt import IGNORED, Prompt, continue_tokens
from denoise_code.training import encoding
from denoise_code.training.encoding import FOR_METRICS, Collator, encode, tokenize
from denoise_code.training.examples import Example, load_examples, make_example


def test_example_names_what_was_planted():
    catalogue = ["", *FRUIT, *CARS]
    for rate in (None, 0.4):
        rng = np.random.default_rng(1)
        for _ in range(50):
            items = list(range(1, 9))
            example = make_example(items, catalogue, np.arange(1, len(catalogue)), rng, rate)
            for noise, fit in example.pairs:
                assert example.titles.index(noise) == [catalogue[item] for item in items].index(fit)
            changed = sum(title != catalogue[item] for title, item in zip(example.titles, items))
            assert changed == len(example.pairs) and (rate or changed == 1)


def test_an_item_with_the_title_of_a_planted_one_is_not_planted(tiny_models):
    """Items 1 and 4 have one title; 4 is planted into a window that holds 1. Neither a label nor the mark of the other is lost."""
    tokenizer, catalogue = load_tokenizer(str(tiny_models["llama"])), ["", *FRUIT[:3], FRUIT[0], CARS[0]]
    for seed in range(9):
        example = make_example([2, 1, 3, 5], catalogue, np.array([4]), np.random.default_rng(seed))
        (place,) = example.positions
        assert example.titles[place] == FRUIT[0] and example.pairs == [(FRUIT[0], catalogue[[2, 1, 3, 5][place]])]
        row = encode(tokenizer, Prompt(), example, 512, "unplanted")
        assert row["planted"] == [int(position == place) for position in range(4)]
        left_out = row["labels"].count(IGNORED) - 1
        assert left_out == row["title_ends"][place] - row["title_starts"][place]
        cut = encode(tokenizer, Prompt(), example, row["length"] - 1)
        oldest_unplanted = 1 if place == 0 else 0
        assert cut["planted"] == [int(position == place) for position in range(4) if position != oldest_unplanted]


def test_held_out_windows_share_no_interaction_with_trained_ones(genres):
    """Windows of a user overlap: (user, start + i) names an interaction."""
    table = pd.read_csv(genres / "train.csv")
    table = table.assign(user_id=np.arange(400) // 8, start=np.arange(400) % 8)
    table.to_csv(genres / "train.csv", index=False)
    examples = load_examples(genres, 300, 40, 1, None)
    interactions = [
        {
            (table["user_id"][row], table["start"][row] + place)
            for row in part
            for place in range(len(json.loads(table["item_ids"][row])))
        }
        for part in (examples.split.trained, examples.split.held_out)
    ]
    assert len(examples.trained) == 300 and len(examples.held_out) == 40
    assert not interactions[0] & interactions[1]
    assert [example.by_popularity for example in examples.held_out] == [False, True] * 20


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_tokens_labels_and_round_trip(tiny_models, kind):
    tokenizer, prompt = load_tokenizer(str(tiny_models[kind])), Prompt()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    for noise in HARD_TITLES:
        titles = [title for title in HARD_TITLES[:10] if title != noise] + [noise]
        example = Example.of_titles(titles, [(noise, "Heat")])
        row = encode(tokenizer, prompt, example, 512)
        text = prompt.question(titles) + prompt.answer(example.pairs)
        assert row["input_ids"] == tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
        answer = [token for token in row["labels"] if token != IGNORED]
        assert answer == row["input_ids"][-row["answer_length"] :] and row["labels"][: -len(answer)] == [IGNORED] * (
            len(row["labels"]) - len(answer)
        )
        assert tokenizer.decode(answer[:-1]) == prompt.answer(example.pairs) and answer[-1] == tokenizer.eos_token_id
        assert row["candidates"][row["planted"].index(1)] == answer[0]
        assert (row["input_ids"][0] == tokenizer.bos_token_id) == (kind == "llama")
        everything = encode(tokenizer, prompt, example, 512, "all")
        assert everything["labels"][1:] == everything["input_ids"][1:] == row["input_ids"][1:]
        unplanted = encode(tokenizer, prompt, example, 512, "unplanted")
        left_out = [place for place, label in enumerate(unplanted["labels"]) if label == IGNORED][1:]
        assert tokenizer.decode([row["input_ids"][place] for place in left_out]) == prompt.title(noise)
        assert left_out == list(range(left_out[0], left_out[-1] + 1)) and left_out[-1] < len(row["input_ids"]) - len(answer)


def test_trained_rows_carry_nothing_that_only_measuring_reads(tiny_models, monkeypatch):
    """Tokens, labels and lengths are the same; the titles are not asked for their first tokens one by one."""
    tokenizer, prompt = load_tokenizer(str(tiny_models["llama"])), Prompt()
    texts = []

    def continue_tokens_and_count(tokenizer, before, text):
        texts.append(text)
        return continue_tokens(tokenizer, before, text)

    monkeypatch.setattr(encoding, "continue_tokens", continue_tokens_and_count)
    made = [Example.of_titles(CARS[start : start + 8], [(CARS[start], "Heat")]) for start in range(4)]
    measured, trained = (tokenize(tokenizer, prompt, made, 512, "all", for_metrics) for for_metrics in (True, False))
    assert len(texts) == 4 * (1 + 8) + 4 * 1
    assert set(measured.column_names) - set(trained.column_names) == set(FOR_METRICS)
    assert all(measured[name] == trained[name] for name in trained.column_names)
    batches = [Collator(tokenizer.pad_token_id)(list(rows)) for rows in (measured, trained)]
    assert batches[0].keys() - batches[1].keys() == {"attention_mask", "position_ids", *FOR_METRICS}


def loss_and_gradients(model, batches, n_labels):
    """The sum of the losses of all labels of the batches over n_labels, as the trainer takes it, and the gradients of it."""
    model.zero_grad()
    losses = [model(**batch, num_items_in_batch=n_labels).loss for batch in batches]
    sum(losses).backward()
    return sum(losses).item(), [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("loss_on", ["answer", "all", "unplanted"])
def test_a_batch_has_the_loss_of_its_texts_alone(tiny_models, kind, loss_on):
    """Loss and gradients of texts of several lengths in one batch: of each alone, and of batches padded on the left."""
    tokenizer, prompt, rng = load_tokenizer(str(tiny_models[kind])), Prompt(), np.random.default_rng(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_models[kind]).eval()
    made = [make_example(list(range(1, 4 + 2 * number)), ["", *FRUIT, *CARS], np.arange(13, 50), rng, 0.3) for number in range(5)]
    trained, measured = (
        [encode(tokenizer, prompt, example, 512, loss_on, for_metrics) for example in made] for for_metrics in (False, True)
    )
    collate = Collator(tokenizer.pad_token_id)
    batch = collate(trained)
    n_labels = sum(label != IGNORED for row in trained for label in row["labels"][1:])
    assert batch["logits_to_keep"].sum() == len(batch["shift_labels"]) == n_labels
    alone = [
        {"input_ids": torch.tensor([row["input_ids"]]), "labels": torch.tensor([row["labels"]])} for row in trained
    ]  # the library's own shift
    padded_left = {name: values for name, values in collate(measured).items() if name not in FOR_METRICS}
    loss, gradients = loss_and_gradients(model, [batch], n_labels)
    for others in (alone, [padded_left]):
        expected_loss, expected_gradients = loss_and_gradients(model, others, n_labels)
        assert loss == pytest.approx(expected_loss, rel=1e-6)
        largest = max(gradient.abs().max() for gradient in expected_gradients)
        assert max((ours - own).abs().max() for ours, own in zip(gradients, expected_gradients)) < 2e-6 * max(1, largest)


def test_compiled_layers_have_the_same_loss_and_gradients(tiny_models):
    """Of batches of four shapes, which are traced once; the weights keep their names. Without kernels, which take a minute."""
    tokenizer, prompt, rng = load_tokenizer(str(tiny_models["llama"])), Prompt(), np.random.default_rng(0)
    options = AdapterOptions(lora_dropout=0.0)
    model = add_adapter(load_base_model(str(tiny_models["llama"]), "float32"), "llama", options)
    names = list(model.state_dict())
    batches = []
    for n_rows, n_items in ((3, 5), (4, 7), (2, 9), (5, 6)):
        made = [
            make_example(list(range(1, n_items + 1)), ["", *FRUIT, *CARS], np.arange(13, 50), rng, None) for _ in range(n_rows)
        ]
        rows = [encode(tokenizer, prompt, example, 512, for_metrics=False) for example in made]
        batches.append(Collator(tokenizer.pad_token_id)(rows))
    loss, gradients = loss_and_gradients(model, batches, 100)
    torch._dynamo.reset()
    compile_layers(model, backend="aot_eager")
    counters = torch._dynamo.utils.counters
    compiled_loss, compiled_gradients = loss_and_gradients(model, batches, 100)
    assert counters["stats"]["unique_graphs"] <= 3 and not counters["graph_break"]  # one for the first shape, one for all others
    assert compiled_loss == pytest.approx(loss, rel=1e-6)
    assert max((compiled - own).abs().max() for compiled, own in zip(compiled_gradients, gradients)) < 1e-5
    assert list(model.state_dict()) == names


def test_layers_that_cannot_be_compiled_run_as_they_are(tiny_models):
    """On a machine without a compiler."""
    model = load_base_model(str(tiny_models["llama"]), "float32").eval()
    ids, calls = torch.arange(10)[None], []
    expected = model(input_ids=ids).logits

    def no_compiler(graph, inputs):
        calls.append(graph)
        raise RuntimeError("no compiler")

    torch._dynamo.reset()
    compile_layers(model, backend=no_compiler)
    assert torch.equal(model(input_ids=ids).logits, expected) and calls


def test_cutoff_drops_the_oldest_items_and_never_the_answer(tiny_models):
    tokenizer, prompt = load_tokenizer(str(tiny_models["llama"])), Prompt()
    example = Example.of_titles(CARS[:8], [(CARS[0], "Heat")])
    whole = encode(tokenizer, prompt, example, 512)
    cut = encode(tokenizer, prompt, example, whole["length"] - 5)
    assert cut["dropped"] > 0 and cut["length"] <= whole["length"] - 5 and whole["dropped"] == 0
    answer = whole["input_ids"][-whole["answer_length"] :]
    assert cut["input_ids"][-cut["answer_length"] :] == answer
    assert prompt.question([CARS[0], *CARS[1 + cut["dropped"] : 8]]) in tokenizer.decode(cut["input_ids"])
    assert encode(tokenizer, prompt, example, 20) is None


def tdmd_rows():
    return [
        {
            "instruction": "Find the odd one out.",
            "input": 'The user has used: "apple 1", "Say ""Hi"", friend", "fig 2"',
            "output": 'Noise Items: "fig 2"\nSuggested Replacement: "plum 0"',
        }
    ] * 70


def test_tdmd_of_the_release(genres, tiny_models, tmp_path):
    (genres / "TDMD").mkdir()
    (genres / "TDMD" / "train.json").write_text(json.dumps(tdmd_rows()))
    prompt, examples, held_out, split, *_ = load_examples(genres, 48, 16, 1, None)
    assert split.by == "rows"  # 70 examples, 400 rows: nobody says whose they are
    assert prompt.instruction == "Find the odd one out." and prompt.noise_cue == Prompt().noise_cue
    assert examples[0].titles[0] == "apple 1" and examples[0].titles[-1] == "fig 2"
    assert examples[0].pairs == [("fig 2", "plum 0")] and len(held_out) == 16
    train.main(tiny_args(genres, tiny_models["llama"], tmp_path / "out", "--max_steps", 1, "--eval_steps", 1))
    with pytest.raises(InputError, match="planted already"):
        load_examples(genres, 48, 16, 1, None, "popularity")
    saved = next((tmp_path / "out").rglob("prompt.json"))
    assert json.loads(saved.read_text())["instruction"] == "Find the odd one out."


def test_tdmd_examples_are_of_the_users_of_the_rows(genres):
    """As many examples as train rows: the n-th is of the n-th row's user, and whole users are held out."""
    rows = [row | {"input": row["input"].replace("apple 1", f"apple {number}")} for number, row in enumerate(tdmd_rows())]
    (genres / "TDMD").mkdir()
    (genres / "TDMD" / "train.json").write_text(json.dumps(rows))
    table = pd.read_csv(genres / "train.csv")[:70]
    table.to_csv(genres / "train.csv", index=False)
    examples = load_examples(genres, 48, 10, 1, None)
    numbers = [[int(example.titles[0].split()[1]) for example in part] for part in (examples.trained, examples.held_out)]
    users = [set(table["user_id"][part]) for part in numbers]
    assert list(map(len, numbers)) == [48, 10] and not users[0] & users[1] and examples.split.by == "users"


@pytest.mark.parametrize(
    "row", [{"input": "a"}, "text", {"instruction": "i", "input": '"a", "b"', "output": 'Noise Items: "c" for "b"'}]
)
def test_malformed_tdmd_names_the_row(genres, tiny_models, tmp_path, capsys, row):
    (genres / "TDMD").mkdir()
    (genres / "TDMD" / "train.json").write_text(json.dumps([*tdmd_rows(), row]))
    train_refused(capsys, tiny_args(genres, tiny_models["llama"], tmp_path / "out"), "TDMD/train.json row 71")
