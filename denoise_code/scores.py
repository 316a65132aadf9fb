"""Noise scores from a model's logits, and the figures of how well a score tells the noise.

Knows nothing of files and of how the logits came about.
"""

import numpy as np

from denoise_code.prompt import IGNORED

PERCENTILES = (0.5, 0.6, 0.7, 0.8, 0.9)  # at which precision and recall are reported


def first_token_scores(logits, labels):
    """Log-probability (B, n) with which the model starts to name each item of a held-out window.

    logits (B, K + 1, V) end with the answers; the one before an answer's first token scores the candidates (B, n).
    """
    import torch

    _, answer_length, candidates, *_ = labels
    before_answer = logits.shape[1] - answer_length - 1
    rows = torch.arange(len(logits), device=logits.device)
    log_probs = logits[rows, before_answer].float().log_softmax(-1)  # (B, V)
    return log_probs.gather(1, candidates.clamp(min=0))


def title_log_likelihoods(logits, labels):
    """log P(title | what stands before it) (B, n) of each item of a held-out window; all tokens must have labels.

    logits (B, L, V), labels[0] (B, L).
    """
    import torch

    tokens, *_, starts, ends = labels
    log_probs = token_log_probs(logits[:, :-1], tokens[:, 1:].clamp(min=0))  # (B, L - 1): nothing predicts the first token
    before = torch.nn.functional.pad(log_probs.cumsum(1), (2, 0))  # (B, L + 1): log P of what stands before each token
    return before.gather(1, ends + tokens.shape[1]) - before.gather(1, starts + tokens.shape[1])


def token_log_probs(logits, tokens):
    """log P (B, T) of tokens (B, T) under logits (B, T, V); a few rows at a time, as float32 copies are large."""
    import torch

    normaliser = torch.cat([rows.float().logsumexp(-1) for rows in logits.split(8)])
    return logits.gather(-1, tokens[..., None])[..., 0].float() - normaliser


def held_out_metrics(prediction) -> dict[str, float]:
    """Detection by the first-token scores of held-out windows, and by their likelihoods where those were computed.

    prediction: of the trainer, its labels being the tokens and then FOR_METRICS.
    """
    _, _, _, planted, popular, *_ = prediction.label_ids
    several = isinstance(prediction.predictions, tuple)
    first_token, *likelihood = prediction.predictions if several else (prediction.predictions,)
    found = detection_metrics(first_token, planted, popular)
    for values in likelihood:
        more = detection_metrics(-values, planted, popular)
        found |= {f"likelihood_{name}": value for name, value in more.items()}
    return found


def detection_metrics(scores, planted, popular) -> dict[str, float]:
    """`planted_detection` of scores (N, n) of held-out windows; planted (N, n) is IGNORED where a window has no item."""
    real = planted != IGNORED
    truths, scores = ([row[inside] for row, inside in zip(values, real)] for values in (planted, scores))
    return planted_detection(truths, scores, popular)


def planted_detection(truths: list, scores: list, popular) -> dict[str, float] | None:
    """`detection` of noise that was drawn uniformly, and auc_context, the AUC of noise drawn by popularity (popular (N,)).

    Such noise is as popular as what stands beside it, so a score that does not read the window has an auc_context of 0.5.
    """
    of = [
        detection(*([row for row, flag in zip(rows, popular) if flag == drawn] for rows in (truths, scores))) for drawn in (0, 1)
    ]
    uniform, context = of
    return uniform and uniform | ({"auc_context": context["auc"]} if context else {})


def detection(truths: list, scores: list) -> dict[str, float | None] | None:
    """How well scores (a list a window) tell the noise (1 in truths); None where there is no noise, or nothing else.

    auc and average_precision are over all positions. auc_window is the mean over the windows that have both kinds, top1 the
    share of these whose highest score is noise: both are None where no window has both, as histories of one item never do.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth, score = (np.concatenate(values) if len(values) else np.array([]) for values in (truths, scores))
    if not 0 < truth.sum() < len(truth):
        return None
    mixed = [(t, s) for t, s in zip(truths, scores) if 0 < sum(t) < len(t)]
    return {
        "share_noise": float(truth.mean()),
        "auc": float(roc_auc_score(truth, score)),
        "auc_window": float(np.mean(window_aucs(mixed))) if mixed else None,
        "average_precision": float(average_precision_score(truth, score)),
        "top1": float(np.mean([t[np.argmax(s)] for t, s in mixed])) if mixed else None,
    }


def flagging(truths: list, scores: list) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of flagging what lies above each of PERCENTILES of the scores."""
    from sklearn.metrics import precision_recall_fscore_support

    truth, score, at = np.concatenate(truths), np.concatenate(scores), {}
    for percentile in PERCENTILES:
        flagged = score > np.quantile(score, percentile)
        values = precision_recall_fscore_support(truth, flagged, average="binary", zero_division=0.0)[:3]
        at[str(percentile)] = dict(zip(("precision", "recall", "f1"), map(float, values)))
    return at


def window_aucs(windows: list[tuple]) -> np.ndarray:
    """The AUC of each of some windows (truth, scores) with both kinds, by the rank-sum; those of one length at once."""
    from scipy.stats import rankdata

    aucs = []
    for length in sorted({len(truth) for truth, _ in windows}):
        truth, score = (np.array(values) for values in zip(*(window for window in windows if len(window[0]) == length)))
        noise = truth.sum(1)
        ranks = (rankdata(score, axis=1) * truth).sum(1)
        aucs.append((ranks - noise * (noise + 1) / 2) / (noise * (length - noise)))
    return np.concatenate(aucs)


def measure(masks, noise_probs: list[list[float]], mark: int) -> dict | None:
    """How well noise_prob tells the items that `mask` marks so from all others; None where none is marked."""
    truths = [[int(value == mark) for value in mask[: len(probs)]] for mask, probs in zip(masks, noise_probs)]
    found = detection(truths, noise_probs)
    return found and found | {"at_percentile": flagging(truths, noise_probs)}
