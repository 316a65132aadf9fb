"""How well the model in training tells planted items of held-out windows."""

from typing import NamedTuple

from denoise_code.evidence.detection import planted_detection
from denoise_code.language_model.noise_scores import first_token_log_probs, title_log_likelihoods
from denoise_code.language_model.prompt import IGNORED
from denoise_code.training.encoding import HeldOutLabels


class HeldOutScores(NamedTuple):
    """Scores of held-out windows, whose order the trainer keeps: it collects them as a plain tuple."""

    first_token: object  # (B, n) log-probability of naming each item
    likelihood: object = None  # (B, n) log-likelihood of each title; None where the model does not learn it


def score_held_out(logits, labels: HeldOutLabels, with_likelihood: bool) -> HeldOutScores:
    """Scores (B, n) of a batch from its logits (B, K + 1, V); likelihoods need labels on all tokens."""
    first_token = first_token_log_probs(logits, labels.answer_length, labels.candidates)
    if not with_likelihood:
        return HeldOutScores(first_token)
    return HeldOutScores(first_token, title_log_likelihoods(logits, labels.labels, labels.title_starts, labels.title_ends))


def held_out_metrics(prediction) -> dict[str, float]:
    """Detection by the first-token scores of held-out windows, and by their likelihoods where those were computed.

    prediction: of the trainer; its label_ids are HeldOutLabels, its predictions HeldOutScores as a plain tuple, or the
    first-token scores alone.
    """
    labels = HeldOutLabels(*prediction.label_ids)
    several = isinstance(prediction.predictions, tuple)
    scores = HeldOutScores(*prediction.predictions) if several else HeldOutScores(prediction.predictions)
    metrics = detection_metrics(scores.first_token, labels.planted, labels.popular)
    if scores.likelihood is not None:  # an unlikely title is suspicious
        by_likelihood = detection_metrics(-scores.likelihood, labels.planted, labels.popular)
        metrics |= {f"likelihood_{name}": value for name, value in by_likelihood.items()}
    return metrics


def detection_metrics(scores, planted, popular) -> dict[str, float]:
    """`planted_detection` of scores (N, n) of held-out windows; planted (N, n) is IGNORED where a window has no item."""
    is_item = planted != IGNORED  # (N, n)
    truths = [row[inside] for row, inside in zip(planted, is_item)]
    scores_of_items = [row[inside] for row, inside in zip(scores, is_item)]
    return planted_detection(truths, scores_of_items, popular)
