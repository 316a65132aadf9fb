"""How well evidence tells noise: planted noise, of any log, and injected noise, where an experiment knows the truth.

Beside every figure stands rarity, how few other users have an item: what a score reaches that does not read the window.
"""

import numpy as np

from denoise_code.common.statistics import interval, precision_and_recall
from denoise_code.data_set.evidence_files import FUSED, noise_probability
from denoise_code.data_set.interactions import DataSet
from denoise_code.data_set.planting import INJECTED
from denoise_code.evidence.detection import (
    auc,
    bootstrap_aucs,
    brier_score,
    detection_row,
    expected_calibration_error,
)
from denoise_code.evidence.fit import Evidence

RARITY = "rarity"
BOOTSTRAPPED_AT_MOST = 100_000  # of the log's interactions, for an interval: all of ten million take a quarter of an hour


def detection_figures(data: DataSet, evidence: Evidence) -> dict:
    """What stands in evidence.json; only evaluation reads masks, and only here.

    planted: AUC of planted interactions against the log's own that nothing was fitted on. auc_context: the same of items planted
    as popular as the log's. injected: of test histories, where noise was injected, else None.
    """
    test = test_file(data)
    return {
        "planted": aucs_of_planted(data, evidence, by_popularity=False),
        "auc_context": aucs_of_planted(data, evidence, by_popularity=True),
        "injected": None if test is None else injected_noise(data, evidence, test),
    }


def test_file(data: DataSet) -> str | None:
    """The file of test rows, whose histories figures of injected noise are of."""
    return next((file for file in data.evaluated if file.startswith("test")), None)


def aucs_of_planted(data: DataSet, evidence: Evidence, by_popularity: bool) -> dict[str, dict]:
    """{kind: AUC and 95 % interval} of planted interactions, on which nothing was fitted, against the log's own; users are drawn.

    by_popularity: of items planted as popular as the log's, else of those drawn uniformly. A kind without such planted interactions
    has no entry. The AUC is of all of the log's interactions, the interval of BOOTSTRAPPED_AT_MOST, so that of a longer log it is a
    little too wide: by 5 % beside 10,000 planted ones, whose number decides how wide it is.
    """
    table = data.interactions
    unfitted = table.in_train & ~evidence.log_to_fit
    figures = {}
    for kind, result in evidence.kinds.items():
        planted = ~np.isnan(result.planted) & (evidence.planted.by_popularity == by_popularity) & ~evidence.planted.to_fit
        log = unfitted & ~np.isnan(result.train_as_planted)
        if not planted.any() or not log.any():
            continue
        users = np.r_[table.users[evidence.planted.planted.rows[planted]], table.users[log]]
        truth = np.arange(len(users)) < planted.sum()
        score = np.r_[result.planted[planted], result.train_as_planted[log]]
        bootstrapped = truth | few_of(~truth, BOOTSTRAPPED_AT_MOST)
        draws = bootstrap_aucs(users[bootstrapped], truth[bootstrapped], {kind: score[bootstrapped]})
        figures[kind] = {"auc": auc(truth, score), "interval_95": interval(draws[kind])}
    return figures


def few_of(mask: np.ndarray, most: int) -> np.ndarray:
    """(m,) bool: `most` of the places where mask (m,) is set, drawn at random, or all of them where there are fewer."""
    places = np.flatnonzero(mask)
    few = np.zeros(len(mask), dtype=bool)
    few[np.random.default_rng(0).permutation(places)[:most]] = True
    return few


def injected_noise(data: DataSet, evidence: Evidence, file: str) -> dict | None:
    """Figures of the injected noise in the histories of a file; None where there is none."""
    rows = data.evaluated[file]
    scored = rows.histories != 0  # (N, H)
    truth = rows.history_masks == INJECTED
    if not truth[scored].any():
        return None
    users = np.broadcast_to(rows.users[:, None], scored.shape)
    scores = {RARITY: -evidence.counts.items_of_others(users, rows.histories).astype(np.float64)}
    scores |= {kind: result.histories[file] for kind, result in evidence.kinds.items()}
    draws = bootstrap_aucs(users[scored], truth[scored], {kind: score[scored] for kind, score in scores.items()})
    return {
        "file": file,
        "positions": int(scored.sum()),
        "share": float(truth[scored].mean()),
        "by kind": {kind: detection_row(truth, score, scored) for kind, score in scores.items()},
        "fused minus": {kind: interval(draws[FUSED] - aucs) for kind, aucs in draws.items() if kind != FUSED},
    }


def injected_probabilities(data: DataSet, histories: dict[str, dict[str, np.ndarray]], share: float) -> dict:
    """`probability_figures` of the injected noise in the histories of the test file, where there is some.

    histories {file: {kind: r (N, H)}}; share: of noise that P(noise) takes.
    """
    file = test_file(data)
    rows = data.evaluated[file]
    scored = rows.histories != 0  # (N, H)
    return probability_figures(rows.history_masks[scored] == INJECTED, histories[file][FUSED][scored], share)


def probability_figures(truth: np.ndarray, r: np.ndarray, share: float) -> dict:
    """Of P(noise) with the share of noise that was taken, and with the true one; truth (m,) bool, r (m,) of `fused`."""
    figures = {}
    for name, taken in (("with the share taken", share), ("with the true share", float(truth.mean()))):
        prob = noise_probability(r, taken)
        precision, recall = precision_and_recall(truth, prob > 0.5)
        figures[name] = {
            "share": taken,
            "Brier score": brier_score(truth, prob),
            "Brier score of the constant share": brier_score(truth, np.full(len(truth), taken)),
            "expected calibration error": expected_calibration_error(truth, prob),
            "precision above 0.5": precision,
            "recall above 0.5": recall,
        }
    return figures
