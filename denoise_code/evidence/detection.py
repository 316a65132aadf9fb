"""How well a score tells noise: AUC, average precision, calibration, intervals. Pure functions on arrays."""

import numpy as np

from denoise_code.evidence.features import row_chunks

PERCENTILES = (0.5, 0.6, 0.7, 0.8, 0.9)  # at which precision and recall are reported


def planted_detection(truths: list, scores: list, popular) -> dict[str, float] | None:
    """`detection` of noise that was drawn uniformly, and auc_context, the AUC of noise drawn by popularity (popular (N,)).

    Such noise is as popular as what stands beside it, so a score that does not read the window has an auc_context of 0.5.
    """
    uniform, context = (
        detection(*([row for row, flag in zip(rows, popular) if flag == drawn] for rows in (truths, scores))) for drawn in (0, 1)
    )
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
    mixed = [(window, of_window) for window, of_window in zip(truths, scores) if 0 < sum(window) < len(window)]
    return {
        "share_noise": float(truth.mean()),
        "auc": float(roc_auc_score(truth, score)),
        "auc_window": float(np.mean(window_aucs(mixed))) if mixed else None,
        "average_precision": float(average_precision_score(truth, score)),
        "top1": float(np.mean([window[np.argmax(of_window)] for window, of_window in mixed])) if mixed else None,
    }


def flagging(truths: list, scores: list) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of flagging what lies above each of PERCENTILES of the scores."""
    from sklearn.metrics import precision_recall_fscore_support

    truth, score, by_percentile = np.concatenate(truths), np.concatenate(scores), {}
    for percentile in PERCENTILES:
        flagged = score > np.quantile(score, percentile)
        values = precision_recall_fscore_support(truth, flagged, average="binary", zero_division=0.0)[:3]
        by_percentile[str(percentile)] = dict(zip(("precision", "recall", "f1"), map(float, values)))
    return by_percentile


def window_aucs(windows: list[tuple]) -> np.ndarray:
    """The AUC (M,) of M windows (truth, scores) with both kinds; those of one length at once."""
    aucs = []
    for length in sorted({len(truth) for truth, _ in windows}):
        truth, score = (np.array(values) for values in zip(*(window for window in windows if len(window[0]) == length)))
        aucs.append(within_windows(truth == 1, score, np.ones(truth.shape, dtype=bool))[0])
    return np.concatenate(aucs)


def detection_of_mask(masks, noise_probs: list[list[float]], mark: int) -> dict | None:
    """How well noise_prob tells the items that `mask` marks so from all others; None where none is marked."""
    truths = [[int(value == mark) for value in mask[: len(probs)]] for mask, probs in zip(masks, noise_probs)]
    figures = detection(truths, noise_probs)
    return figures and figures | {"at_percentile": flagging(truths, noise_probs)}


def expected_calibration_error(truth: np.ndarray, prob: np.ndarray, bins: int = 10) -> float:
    """Mean |share of noise - mean probability| over equal-width bins of prob (N,), weighted by their sizes."""
    cell = np.minimum((prob * bins).astype(int), bins - 1)
    size = np.bincount(cell, minlength=bins)
    gap = np.abs(np.bincount(cell, truth, minlength=bins) - np.bincount(cell, prob, minlength=bins))
    return float(gap.sum() / max(size.sum(), 1))


def detection_row(truth: np.ndarray, score: np.ndarray, scored: np.ndarray) -> dict[str, float | None]:
    """AUC and average precision over the scored positions of (N, W), their means over windows, and recall where precision is 0.5.

    None in place of a figure that does not exist: all of them where the scored positions are all noise or none is, those in
    windows where no window holds both (a history of one item never does).
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    names = ("AUC", "AP", "AUC in window", "AP in window", "recall at precision 0.5")
    noise, values = truth[scored], score[scored]
    if noise.all() or not noise.any():
        return dict.fromkeys(names)
    precision, recall, _ = precision_recall_curve(noise, values)
    in_windows, ap_in_windows = within_windows(truth & scored, score, scored)
    figures = (
        float(roc_auc_score(noise, values)),
        float(average_precision_score(noise, values)),
        float(in_windows.mean()) if len(in_windows) else None,
        float(ap_in_windows.mean()) if len(ap_in_windows) else None,
        float(recall[precision >= 0.5].max()),
    )
    return dict(zip(names, figures, strict=True))


def within_windows(truth: np.ndarray, score: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC and average precision (M,) of each window of (N, W) that holds both kinds; M may be 0."""
    mixed = np.flatnonzero(truth.any(1) & (scored & ~truth).any(1))
    aucs, precisions = np.zeros(len(mixed)), np.zeros(len(mixed))
    for chunk in row_chunks(len(mixed), 20 * score.shape[1] ** 2):
        rows = mixed[chunk]
        aucs[chunk], precisions[chunk] = auc_and_ap_of_windows(truth[rows], score[rows], scored[rows])
    return aucs, precisions


def auc_and_ap_of_windows(truth: np.ndarray, score: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC and average precision (M,) of windows (M, W) that all hold both kinds."""
    score_of_row, score_of_column = score[:, :, None], score[:, None, :]
    both = scored[:, :, None] & scored[:, None, :]  # (M, W, W)
    pairs = both & truth[:, :, None] & ~truth[:, None, :]
    won = (score_of_row > score_of_column) + (score_of_row == score_of_column) / 2
    auc = (won * pairs).sum((1, 2)) / pairs.sum((1, 2))
    reached = both & (score_of_column >= score_of_row)
    precision = (reached & truth[:, None, :]).sum(2) / np.maximum(reached.sum(2), 1)
    return auc, (precision * truth).sum(1) / truth.sum(1)


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve of scores (m,), ties halved; truth (m,) bool holds both kinds."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, score))


def bootstrap_aucs(
    users: np.ndarray, truth: np.ndarray, scores: dict[str, np.ndarray], draws: int = 300
) -> dict[str, np.ndarray]:
    """{kind: AUC (draws,)} over positions (m,): users are drawn with all their positions, the same ones for all kinds.

    Draws without noise, or with nothing else, are left out.
    """
    rng, user = np.random.default_rng(0), np.unique(users, return_inverse=True)[1]
    n_users = int(user.max()) + 1
    levels = {kind: np.unique(score, return_inverse=True)[1] for kind, score in scores.items()}
    aucs = {kind: [] for kind in scores}
    for _ in range(draws):
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


def precision_and_recall(truth: np.ndarray, flagged: np.ndarray) -> tuple[float | None, float | None]:
    """Of flagged (N,) bool the share that is noise, and of the noise the share that is flagged; None where there is none."""
    hits = int((truth & flagged).sum())
    return tuple(hits / int(total) if total else None for total in (flagged.sum(), truth.sum()))
