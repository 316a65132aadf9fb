"""noise_scores.py, held_out_metrics.py, detection.py: scores of padded batches against single texts, figures by hand."""

import numpy as np
import pytest
import torch
from conftest import CARS, FRUIT

from denoise_code.data_set.planting import draw_planted, noise_pools
from denoise_code.evidence.detection import detection_of_mask, planted_detection, within_windows
from denoise_code.language_model.loading import load_tokenizer
from denoise_code.language_model.noise_scores import first_token_log_probs, title_log_likelihoods
from denoise_code.language_model.prompt import IGNORED, Prompt
from denoise_code.training.encoding import FOR_METRICS, Collator, encode
from denoise_code.training.examples import Example
from denoise_code.training.held_out_metrics import detection_metrics


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("loss_on", ["answer", "all"])
def test_batched_loss_equals_single_loss(tiny_models, kind, loss_on):
    """Left padding and fewer logits change neither the loss nor the scores."""
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(str(tiny_models[kind]))
    model = AutoModelForCausalLM.from_pretrained(tiny_models[kind]).eval()
    examples = [Example.of_titles(FRUIT[: 3 + n] + [CARS[n]], [(CARS[n], FRUIT[9])]) for n in range(4)]
    rows = [encode(tokenizer, Prompt(), example, 512, loss_on) for example in examples]
    batch = Collator(tokenizer.pad_token_id)(rows)
    extra = {key: batch.pop(key) for key in FOR_METRICS}
    assert batch["labels"].shape[1] == batch["logits_to_keep"] < 40 or loss_on == "all"
    out = model(**batch)
    total, count = 0.0, 0
    scores = first_token_log_probs(out.logits, extra["answer_length"], extra["candidates"])
    for row, score in zip(rows, scores):
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
        labels = torch.tensor(row["labels"])[1:]
        picked = logits[:-1].gather(1, labels.clamp(min=0)[:, None])[:, 0]
        total, count = total - picked[labels != IGNORED].sum().item(), count + (labels != IGNORED).sum().item()
        first = logits[len(row["input_ids"]) - row["answer_length"] - 1, row["candidates"]]
        assert torch.allclose(score[-len(first) :], first, atol=1e-4)
    if loss_on == "all":
        likelihoods = title_log_likelihoods(out.logits, batch["labels"], extra["title_starts"], extra["title_ends"])
        for example, likelihood in zip(examples, likelihoods):
            before, titles = Prompt().instruction + Prompt().sequence_cue, example.titles
            for title, found in zip(titles, likelihood[-len(titles) :].tolist()):
                start = len(tokenizer(before)["input_ids"])
                before += Prompt().title(title)
                ids = torch.tensor(tokenizer(before)["input_ids"])
                logits = model(input_ids=ids[None]).logits[0].log_softmax(-1)
                assert found == pytest.approx(logits[range(start - 1, len(ids) - 1), ids[start:]].sum().item(), abs=1e-3)
    assert out.loss.item() == pytest.approx(total / count, abs=1e-4)


def test_detection_metrics_by_hand():
    scores, planted = np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]]), np.array([[1, 0, 0], [IGNORED, 0, 1]])
    # positives 3, 4; negatives 1, 2, 5: pairs won 2 + 2 of 6; windows: 1 and 0; highest of the second is no noise
    expected = {"share_noise": 0.4, "auc": 4 / 6, "auc_window": 0.5, "average_precision": (1 / 2 + 2 / 3) / 2, "top1": 0.5}
    assert detection_metrics(scores, planted, np.array([0, 0])) == pytest.approx(expected)
    both = detection_metrics(np.tile(scores, (2, 1)), np.tile(planted, (2, 1)), np.array([0, 0, 1, 1]))
    assert both == pytest.approx(expected | {"auc_context": 4 / 6})
    apart = detection_metrics(scores, planted, np.array([0, 1]))
    assert (apart["auc"], apart["auc_context"]) == (1.0, 0.0)


def test_popularity_alone_tells_nothing_of_the_context():
    """A score that knows how popular each item is, and never reads a window, finds uniform noise and has 0.5 otherwise."""
    rng, n_items = np.random.default_rng(0), 400
    weights = 1 / (20 + np.arange(n_items))  # no item so popular that most windows hold it: those cannot be planted there
    windows = [rng.choice(n_items, size=10, replace=False, p=weights / weights.sum()) + 1 for _ in range(6000)]
    counts = np.bincount(np.concatenate(windows), minlength=n_items + 1)
    pools, truths, scores = noise_pools(windows, n_items), [], []
    for number, window in enumerate(windows):
        planted = draw_planted(window.tolist(), list(pools.values())[number % 2], rng)
        truths.append([int(place in planted) for place in range(10)])
        scores.append([-counts[planted.get(place, item)] for place, item in enumerate(window)])
    figures = planted_detection(truths, scores, np.arange(len(windows)) % 2)
    assert figures["auc"] > 0.7 and figures["auc_context"] == pytest.approx(0.5, abs=0.03)


def test_measure_by_hand():
    masks = [[0, 1, 0], [1, 0, 1]]  # the last item of the second row was not scored
    found = detection_of_mask(masks, [[0.1, 0.9, 0.5], [0.6, 0.2]], 1)
    assert found["auc"] == 1.0 and found["auc_window"] == 1.0 and found["share_noise"] == 0.4
    # above the median (0.5): 0.9 and 0.6, both injected
    assert found["at_percentile"]["0.5"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert detection_of_mask([[0, 0]], [[1.0, 2.0]], 1) is None
    assert detection_of_mask([], [], 1) is None
    assert detection_of_mask([[0, 2], [1, 2]], [[1.0, 2.0], [5.0, 3.0]], 2)["auc"] == 0.5
    assert detection_of_mask([[0, 3], [1, 3]], [[1.0, 2.0], [5.0, 3.0]], 3)["auc"] == 0.5


def test_no_figure_where_no_window_holds_both_kinds():
    """Histories of one item, as windows of two items have: an AUC over all positions there is, one within windows there is not."""
    found = detection_of_mask([[1], [0], [0]], [[-1.0], [-3.0], [-0.5]], 1)  # the noise lies between the two others
    assert found["auc"] == 0.5 and found["average_precision"] == 0.5 and found["share_noise"] == pytest.approx(1 / 3)
    assert found["auc_window"] is None and found["top1"] is None
    assert found["at_percentile"]["0.5"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_figures_within_long_windows_take_little_memory():
    """Pairs of places grow with the square of the length: 5,000 windows of 200 places would take 2 GiB at once."""
    import tracemalloc

    rng = np.random.default_rng(0)
    truth, score = rng.random((600, 200)) < 0.1, rng.random((600, 200))
    scored = np.ones_like(truth)
    scored[:, :20] = truth[:, :20] = False
    tracemalloc.start()
    in_chunks = within_windows(*(np.tile(cells, (4, 1)) for cells in (truth, score, scored)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400 * 2**20
    of_first = within_windows(truth, score, scored)
    assert all(np.array_equal(figures, np.tile(first, 4)) for figures, first in zip(in_chunks, of_first))
    assert [len(figures) for figures in within_windows(truth & False, score, scored)] == [0, 0, 0]
