"""How well a score tells noise: AUC, average precision, calibration, intervals. Pure functions on arrays."""

from itertools import chain

import numpy as np

from denoise_code.common.statistics import precision_and_recall
from denoise_code.evidence.features import row_chunks

PERCENTILES = (0.5, 0.6, 0.7, 0.8, 0.9)  # at which precision and recall are reported
BINS = 10  # of the probability, for its calibration error: each a tenth wide
DRAWS = 300  # of users, for an interval: each weighs the whole log anew
NAMES_IN_RUN = ("share_noise", "auc", "auc_window", "average_precision", "top1")  # of `measure_detection`, as they are called
NAMES_IN_EVIDENCE = {  # of `measure_detection`: what evidence.json calls them
    "auc": "AUC",
    "average_precision": "AP",
    "auc_window": "AUC in window",
    "average_precision_window": "AP in window",
    "recall_at_half": "recall at precision 0.5",
}


def planted_detection(truths: list, scores: list, popular) -> dict[str, float] | None:
    """`detection` of noise that was drawn uniformly, and auc_context, the AUC of noise drawn by popularity (popular (N,)).

    Such noise is as popular as what stands beside it, so a score that does not read the window has an auc_context of 0.5.
    """
    uniform, context = (
        detection(*([row for row, flag in zip(rows, popular) if flag == drawn] for rows in (truths, scores))) for drawn in (0, 1)
    )
    return uniform and uniform | ({"auc_context": context["auc"]} if context else {})


def measure_detection(truth: np.ndarray, score: np.ndarray, scored: np.ndarray) -> dict[str, float | None] | None:
    """How well a score tells the noise among the scored places of windows (N, W); None where there is no noise, or nothing else.

    share_noise, auc, average_precision and recall_at_half are over all places. auc_window, average_precision_window and top1, the share of
    windows whose highest score is noise, are means over the windows that hold both: None where none does (histories of one item never do).
    """
    from sklearn.metrics import average_precision_score

    noise, values = truth[scored], score[scored]
    if noise.all() or not noise.any():
        return None
    of_windows = within_windows(truth & scored, score, scored)  # (3, M)
    auc_window, average_precision_window, top1 = of_windows.mean(1).tolist() if of_windows.size else (None, None, None)
    return {
        "share_noise": float(noise.mean()),
        "auc": auc(noise, values),
        "average_precision": float(average_precision_score(noise, values)),
        "recall_at_half": recall_at_half(noise, values),
        "auc_window": auc_window,
        "average_precision_window": average_precision_window,
        "top1": top1,
    }


def detection(truths: list, scores: list) -> dict[str, float | None] | None:
    """`measure_detection` as run.json names them, of lists of scores, one a window; 1 in truths for noise."""
    lengths = np.array([len(window) for window in scores], dtype=np.int64)
    scored = np.arange(lengths.max(initial=0)) < lengths[:, None]  # (N, W)
    truth, score = np.zeros(scored.shape, dtype=bool), np.zeros(scored.shape)
    truth[scored], score[scored] = (list(chain.from_iterable(windows)) for windows in (truths, scores))
    figures = measure_detection(truth, score, scored)
    return figures and {name: figures[name] for name in NAMES_IN_RUN}


def detection_row(truth: np.ndarray, score: np.ndarray, scored: np.ndarray) -> dict[str, float | None]:
    """`measure_detection` as evidence.json names them; None in place of a figure that does not exist."""
    figures = measure_detection(truth, score, scored)
    return {name_in_file: figures and figures[name] for name, name_in_file in NAMES_IN_EVIDENCE.items()}


def flagging(truth: np.ndarray, score: np.ndarray) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of flagging what lies above each of PERCENTILES of the scores (m,); truth (m,) bool holds noise."""
    by_percentile = {}
    for percentile in PERCENTILES:
        flagged = score > np.quantile(score, percentile)
        precision, recall = precision_and_recall(truth, flagged)
        f1 = 2 * int((truth & flagged).sum()) / int(truth.sum() + flagged.sum())
        by_percentile[str(percentile)] = {"precision": precision or 0.0, "recall": recall, "f1": f1}
    return by_percentile


def detection_of_mask(masks, noise_probs: list[list[float]], mark: int) -> dict | None:
    """How well noise_prob tells the items that `mask` marks so from all others; None where none is marked."""
    truths = [[int(value == mark) for value in mask[: len(probs)]] for mask, probs in zip(masks, noise_probs)]
    figures = detection(truths, noise_probs)
    return figures and figures | {"at_percentile": flagging(np.concatenate(truths) == 1, np.concatenate(noise_probs))}


def expected_calibration_error(truth: np.ndarray, prob: np.ndarray) -> float:
    """Mean |share of noise - mean probability| over equal-width bins of prob (N,), weighted by their sizes."""
    cell = np.minimum((prob * BINS).astype(int), BINS - 1)
    gap = np.abs(np.bincount(cell, truth, minlength=BINS) - np.bincount(cell, prob, minlength=BINS))
    return float(gap.sum() / max(len(prob), 1))


def within_windows(truth: np.ndarray, score: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """(3, M): AUC, average precision, 1 where the highest score is noise, of each window of (N, W) that holds both kinds; M may be 0."""
    mixed = np.flatnonzero(truth.any(1) & (scored & ~truth).any(1))
    figures = np.zeros((3, len(mixed)))
    for chunk in row_chunks(len(mixed), 20 * score.shape[1] ** 2):
        rows = mixed[chunk]
        figures[:, chunk] = figures_of_windows(truth[rows], score[rows], scored[rows])
    return figures


def figures_of_windows(truth: np.ndarray, score: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`within_windows` of windows (M, W) that all hold both kinds."""
    score_of_row, score_of_column = score[:, :, None], score[:, None, :]
    both = scored[:, :, None] & scored[:, None, :]  # (M, W, W)
    pairs = both & truth[:, :, None] & ~truth[:, None, :]
    won = (score_of_row > score_of_column) + (score_of_row == score_of_column) / 2
    auc = (won * pairs).sum((1, 2)) / pairs.sum((1, 2))
    reached = both & (score_of_column >= score_of_row)
    precision = (reached & truth[:, None, :]).sum(2) / np.maximum(reached.sum(2), 1)
    highest = np.where(scored, score, -np.inf).argmax(1)  # (M,)
    return auc, (precision * truth).sum(1) / truth.sum(1), truth[np.arange(len(truth)), highest]


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve of scores (m,), ties halved; truth (m,) bool holds both kinds."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, score))


def recall_at_half(truth: np.ndarray, score: np.ndarray) -> float:
    """The largest recall of flagging scores (m,) above a threshold of which the precision is at least 0.5."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, score)
    return float(recall[precision >= 0.5].max())


def bootstrap_aucs(users: np.ndarray, truth: np.ndarray, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{kind: AUC (DRAWS,)} over positions (m,): users are drawn with all their positions, the same ones for all kinds.

    Draws without noise, or with nothing else, are left out.
    """
    rng, user = np.random.default_rng(0), np.unique(users, return_inverse=True)[1]
    n_users = int(user.max()) + 1
    levels = {kind: np.unique(score, return_inverse=True)[1] for kind, score in scores.items()}
    aucs = {kind: [] for kind in scores}
    for _ in range(DRAWS):
        times_drawn = rng.multinomial(n_users, np.full(n_users, 1 / n_users))[user]  # (m,)
        if 0 < times_drawn[truth].sum() < times_drawn.sum():
            for kind, level in levels.items():
                aucs[kind].append(weighted_auc(truth, level, times_drawn))
    return {kind: np.array(values) for kind, values in aucs.items()}


def weighted_auc(truth: np.ndarray, level: np.ndarray, times: np.ndarray) -> float:
    """AUC of scores that are whole numbers from 0 (N,), each counted so many times; sklearn's sorts them anew for each draw."""
    noise, clean = (np.bincount(level, times * kind, level.max() + 1) for kind in (truth, ~truth))
    return float((noise * (clean.cumsum() - clean / 2)).sum() / (noise.sum() * clean.sum()))


def brier_score(truth: np.ndarray, prob: np.ndarray) -> float:
    """Mean (P - truth)^2 over (N,)."""
    return float(np.mean((prob - truth) ** 2))
