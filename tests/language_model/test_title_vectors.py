"""denoise_code/language_model/title_vectors.py: against a plain loop, layers that are not run, the layer that is chosen, what is kept."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CARS, FRUIT, HARD_TITLES, TITLES, run
from safetensors.torch import load_file

import generate_denoised as generate
from denoise_code.data_set.titles import fold_title
from denoise_code.language_model import title_vectors
from denoise_code.language_model.loading import decoder_of, load_tokenizer


def models(path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path).eval(), load_tokenizer(str(path))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_mean_states_equal_a_plain_loop(tiny_models, kind):
    """Batches of padded titles give what each title alone gives; a title of one token is that token's state."""
    model, tokenizer = models(tiny_models[kind])
    titles = [*HARD_TITLES[:12], "a"]
    found = title_vectors.read_title_states(model, tokenizer, titles, [1, 2], title_vectors.mean_over_title)
    for number, title in enumerate(titles):
        ids = torch.tensor([tokenizer(fold_title(title))["input_ids"]])
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states[1][0]  # after the first layer, not normalised
        expected = states[1:].mean(0) if len(states) > 1 else states[0]
        torch.testing.assert_close(found[0, number], expected, atol=1e-4, rtol=1e-4)
    assert found.shape == (2, len(titles), 64) and not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_later_layers_are_not_run(tiny_models, kind):
    model, tokenizer = models(tiny_models[kind])
    whole = title_vectors.read_title_states(model, tokenizer, FRUIT, [1], title_vectors.mean_over_title)
    with torch.no_grad():
        for parameter in (decoder_of(model).layers if kind == "llama" else decoder_of(model).h)[1].parameters():
            parameter.fill_(torch.nan)
    assert torch.equal(title_vectors.read_title_states(model, tokenizer, FRUIT, [1], title_vectors.mean_over_title), whole)
    assert title_vectors.read_title_states(model, tokenizer, FRUIT, [2], title_vectors.mean_over_title).isnan().any(), (
        "put back, it is run again"
    )


def test_similarities_by_hand():
    vectors = torch.tensor([[1.0, 0], [0.6, 0.8], [0, 1]])
    windows = torch.tensor([[0, 1, 2], [-1, 0, 2]])
    similar = title_vectors.similarities(vectors, windows)
    inf = torch.inf
    assert similar[0].tolist() == [pytest.approx(row) for row in ([-inf, 0.6, 0], [0.6, -inf, 0.8], [0, 0.8, -inf])]
    assert similar[1].tolist() == [[-inf] * 3, [-inf, -inf, 0], [-inf, 0, -inf]]
    assert title_vectors.strangeness(vectors, windows)[0].tolist() == pytest.approx([-0.9, -1.5, -1.2])


def test_the_layer_is_the_one_that_tells(tiny_models, monkeypatch):
    """A model whose second layer was made to forget what it read: the first is chosen, by windows of one kind of title."""
    model, tokenizer = models(tiny_models["llama"])
    catalogue, rng = ["", *FRUIT, *CARS[: len(FRUIT)]], np.random.default_rng(0)
    kinds = [list(range(1, len(FRUIT) + 1)), list(range(len(FRUIT) + 1, 2 * len(FRUIT) + 1))]
    windows = [rng.choice(kinds[row % 2], size=6, replace=False).tolist() for row in range(300)]
    found = title_vectors.choose_layer(model, tokenizer, catalogue, windows, np.random.default_rng(1))
    assert found["auc_context"].keys() == {1, 2} and max(found["auc_context"].values()) == found["auc_context"][found["layer"]]
    assert found["auc_context"][found["layer"]] > 0.6  # fruit and cars share no word, so even random weights tell them
    with monkeypatch.context() as patch:  # little memory: a layer at a time
        patch.setattr(title_vectors, "STATES_BYTES", 1)
        assert title_vectors.choose_layer(model, tokenizer, catalogue, windows, np.random.default_rng(1)) == found
    model.model.layers[1].register_forward_hook(lambda module, inputs, output: torch.randn_like(output))
    assert title_vectors.choose_layer(model, tokenizer, catalogue, windows, np.random.default_rng(1))["layer"] == 1


def test_stage_2_writes_them_and_keeps_them(tiny_adapters, data, tmp_path, monkeypatch):
    folder = run(tiny_adapters["llama"], data, out=tmp_path / "a")
    vectors, made = load_file(folder / "title_vectors.safetensors")["vectors"], json.loads((folder / "run.json").read_text())
    assert vectors.shape == (len(TITLES), 64) and vectors.dtype == torch.float16
    torch.testing.assert_close(vectors.float().norm(dim=1), torch.ones(len(TITLES)), atol=2e-3, rtol=0)
    assert made["title_vectors"]["layer"] in (1, 2) and 0 < made["auc_context"] < 1
    assert len(list(data.glob("title_vectors_*.safetensors"))) == 1
    monkeypatch.setattr(title_vectors, "read_title_states", lambda *_: pytest.fail("read again"))
    again = run(tiny_adapters["llama"], data, "--suggest", "catalogue", out=tmp_path / "b")
    assert torch.equal(load_file(again / "title_vectors.safetensors")["vectors"], vectors)


def test_without_an_adapter(tiny_models, data, tmp_path, quick_evidence):
    """Vectors and evidence alone: no rows are written, stage 3 reads the noisy ones and filters by what titles say."""
    import main as sasrec

    model = str(tiny_models["llama"])
    generate.main(["--noise_dataset_path", str(data), "--base_model", model])
    folder = data.parent / "Hard_denoise_user0.1_0"
    made = {path.name for path in folder.iterdir() if path.is_file()}
    evidence = {"evidence.safetensors", "evidence.json"}
    assert made == {"title_vectors.safetensors", "id2name4Rec.json", "id2name.json", "run.json"} | evidence
    generate.main(["--noise_dataset_path", str(data), "--base_model", model])  # is complete
    options = ["--dataset", folder.name, "--data_root", str(data.parent), "--output_root", str(tmp_path), "--num_epochs", "1"]
    for kind in ("semantic", "fused"):
        sasrec.main([*options, "--denoise_category", "all", "--evidence", kind, "--edit", "delete"])
    with pytest.raises(SystemExit):
        sasrec.main([*options, "--denoise_category", "all", "--evidence", "llm"])


def test_drawn_by_popularity(tiny_adapters, data):
    table = pd.read_csv(run(tiny_adapters["llama"], data) / "planted.csv")
    assert table.drawn.value_counts().to_dict() == {"uniform": 10, "popularity": 10}
