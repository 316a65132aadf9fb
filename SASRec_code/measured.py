"""All figures of report.py: each kind of evidence fitted, and checked where the truth is known. Knows nothing of the page."""

import numpy as np

from denoise_code.evidence.detection import bootstrap_aucs, detection_row, expected_calibration_error, interval
from denoise_code.evidence.features import collaborative_features
from denoise_code.evidence.fit import Evidence, halves
from denoise_code.neighbours import hits

THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7)


class Measured:
    """Each kind of evidence fitted, and its probabilities where they are checked."""

    def __init__(self, test, sources):
        kinds = sources.kinds()
        if {"llm", "semantic"} <= set(kinds):
            kinds.insert(-1, "collaborative+semantic")
        self.test, self.sources = test, sources
        self.fitted = {kind: Evidence(kind, sources) for kind in kinds}
        self.planted = sources.planted_by("fused", popular=True)
        self.scores, self.on_planted = (
            {"rarity": collaborative_features(split, sources.counts)[..., 2]}
            | {kind: evidence.probabilities(split) for kind, evidence in self.fitted.items()}
            for split in (test, self.planted)
        )
        if "llm" in kinds:
            self.scores = {"raw": test.noise_prob} | self.scores
            self.on_planted = {"raw": self.planted.noise_prob} | self.on_planted

    def context(self) -> dict:
        """{kind: AUC on noise as popular as the rest, with its interval}."""
        from sklearn.metrics import roc_auc_score

        intervals, scored = auc_intervals(self.planted, bootstrap_aucs(self.planted, 2, self.on_planted)), self.planted.editable
        truth = (self.planted.mask == 2)[scored]
        return {
            kind: {"auc_context": float(roc_auc_score(truth, score[scored])), "interval": intervals[kind]}
            for kind, score in self.on_planted.items()
        }

    def checks(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """{kind: (truth, probability)} on planted windows of users that the kind was not fitted on."""
        checks = {}
        for kind in self.fitted:
            fit_on, held_out = halves(self.sources.planted_by(kind))
            prob = Evidence(kind, self.sources, fit_on).probabilities(held_out)[held_out.editable]
            checks[kind] = (held_out.mask == 2)[held_out.editable], prob
        return checks

    def detection(self, mark: int) -> dict:
        """{kind: figures} of what the mask of test marks, {} where it marks nothing."""
        truth, scored = self.test.mask == mark, self.test.editable
        if not truth[scored].any():
            return {}
        return {kind: detection_row(truth, score, scored) for kind, score in self.scores.items()}


def auc_intervals(split, draws: dict[str, np.ndarray]) -> dict[str, list[float] | None]:
    """{kind: the middle 95 % of bootstrap draws (draws,)}; None where the rows are of one user."""
    has_intervals = len(np.unique(split.users)) > 1
    return {kind: interval(values) if has_intervals else None for kind, values in draws.items()}


def calibration(checks: dict) -> dict:
    from sklearn.metrics import brier_score_loss

    return {
        kind: {
            "Brier score": float(brier_score_loss(truth, prob)),
            "expected calibration error": expected_calibration_error(truth, prob),
        }
        for kind, (truth, prob) in checks.items()
    }


def threshold_rows(truth: np.ndarray, prob: np.ndarray) -> list[list]:
    """[threshold, precision, recall, share of positions flagged]; truth and prob (N,)."""
    rows = []
    for threshold in THRESHOLDS:
        flagged = prob > threshold
        right = (flagged & truth).sum()
        rows.append([threshold, right / max(flagged.sum(), 1), right / max(truth.sum(), 1), flagged.mean()])
    return rows


def figures(measured: Measured, checks: dict, replacer, compared: list[dict]) -> dict:
    """All that report.json holds; the figures of noise only where the rows have such noise."""
    test, detection = measured.test, measured.detection(1)
    result = {"calibration": calibration(checks), "auc_context": measured.context(), "runs": compared}
    result["coefficients"] = {kind: evidence.coefficients() for kind, evidence in measured.fitted.items()}
    if detection:
        drawn = bootstrap_aucs(test, 1, measured.scores)
        less = auc_intervals(test, {kind: drawn["fused"] - aucs for kind, aucs in drawn.items() if kind != "fused"})
        result |= {"detection": detection, "fused minus": less}
        if (test.clean != test.items)[test.editable].any():
            result["replacements"] = hits(replacer(), test)
    return result
