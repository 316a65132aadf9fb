"""denoise_code/reading/packed_reader.py: packed, sliced, branched reading equals each text read alone."""

import random

import pytest
import torch

from denoise_code.language_model.batches import slices
from denoise_code.reading.packed_reader import Reader


def test_slices_by_hand():
    assert slices([4, 4, 3, 1], 8) == [slice(0, 2), slice(2, 4)]
    assert slices([9, 2, 2, 2, 2], 9) == [slice(0, 1), slice(1, 5)]
    assert slices([1, 8], 8) == [slice(0, 2)] and slices([3], 1) == [slice(0, 1)]
    assert slices([1] * 11, 4) == [slice(0, 4), slice(4, 8), slice(8, 11)]


def read(reader: Reader, pieces: list[list[int]]) -> torch.Tensor:
    """The next token's log-probabilities (N, V) after one more piece of each text."""
    return torch.cat(list(reader.forward(pieces, [1] * len(pieces)))).log_softmax(-1)


@pytest.mark.parametrize("kind", ["Llama", "GPT2", "Gemma2", "Gemma3Text", "GptOss", "Qwen3", "StableLm"])
def test_reading_in_slices_branching_and_keeping_change_nothing(kind):
    """Texts read piece by piece, packed, in slices, as branches, in outgrown buffers: each as if it were alone."""
    import transformers

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    config = getattr(transformers, f"{kind}Config")(vocab_size=400, **sizes)
    model, rng = transformers.AutoModelForCausalLM.from_config(config).eval(), random.Random(0)
    usual = model.config._attn_implementation
    with torch.inference_mode():
        start = Reader.start(model, [5, 6, 7])
        read(start.copies(8, 40), [list(range(9, 39))] * 8)  # what these wrote lies in the memory of the next
        reader, texts = start.copies(6, 0), [[5, 6, 7] for _ in range(6)]
        reader.tokens_at_once = 12
        for step in range(8):
            pieces = [[rng.randrange(2, 400) for _ in range(rng.randint(1, 9))] for _ in texts]
            texts = [text + piece for text, piece in zip(texts, pieces)]
            found = read(reader, pieces)
            for text, log_probs in zip(texts, found):
                assert torch.allclose(log_probs, model(input_ids=torch.tensor([text])).logits[0, -1].log_softmax(-1), atol=1e-4)
            if step == 1:
                reader.keep([0, 2, 3, 5])
                texts = [texts[row] for row in (0, 2, 3, 5)]
            if step == 3:
                read(reader, [[9, 9, 8]] * len(texts))
                reader.forget([2, 3, 0, 1])
                texts = [[*text, *tokens] for text, tokens in zip(texts, ([9], [], [9, 9, 8], [9, 9]))]
                reader, texts = reader.branch([1, 3, 3, 3]), [texts[row] for row in (1, 3, 3, 3)]  # two rows have no text
                reader.tokens_at_once = 12
            if step == 5:
                reader.keep([0, 3])  # in rows that are no neighbours
                texts = [texts[row] for row in (0, 3)]
    with pytest.raises(IndexError):
        read(reader, [[9999]] * 2)  # no such token
    assert model.config._attn_implementation == usual
