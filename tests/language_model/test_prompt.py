"""denoise_code/language_model/prompt.py: the wording, its tokens, where its titles stand."""

import pytest
from conftest import HARD_TITLES

from denoise_code.common.errors import InputError
from denoise_code.language_model.loading import load_tokenizer
from denoise_code.language_model.prompt import Prompt, continue_tokens, tokenize_questions


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
