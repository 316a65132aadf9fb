"""What report.py has to say of a data set: evidence on its test rows, and figures of it. Knows nothing of the page."""

from dataclasses import dataclass

import numpy as np

from denoise_code.data_set.padded_rows import Split
from denoise_code.data_set.planting import INJECTED

THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Findings:
    """test: the rows; prob (N, W) P(noise) of `fused`, NaN where nothing is scored; replacements (N, W) item ids, 0 for none;
    record: evidence.json; compared: rows of comparison.compare."""

    test: Split
    prob: np.ndarray
    replacements: np.ndarray
    record: dict
    compared: list[dict]

    @property
    def scored(self) -> np.ndarray:
        """(N, W) bool: history places."""
        return ~np.isnan(self.prob)

    @property
    def is_injected(self) -> np.ndarray:
        """(N, W) bool: where an experiment injected noise."""
        return (self.test.mask == INJECTED) & self.scored


def threshold_rows(findings: Findings) -> list[list]:
    """[threshold, precision, recall, share of places flagged] of P(noise) on the injected noise; None where nothing is flagged."""
    truth, prob = findings.is_injected[findings.scored], findings.prob[findings.scored]
    rows = []
    for threshold in THRESHOLDS:
        flagged = prob > threshold
        n_right = int((flagged & truth).sum())
        precision = n_right / int(flagged.sum()) if flagged.any() else None
        rows.append([threshold, precision, n_right / int(truth.sum()), float(flagged.mean())])
    return rows


def true_items_found(findings: Findings) -> float | None:
    """For how many injected items the replacement is what stood there; None where that is not known."""
    places = findings.is_injected & (findings.test.clean != findings.test.items) & (findings.replacements != 0)
    if not places.any():
        return None
    return float((findings.replacements[places] == findings.test.clean[places]).mean())


def figures(findings: Findings) -> dict:
    """All that report.json holds."""
    record = findings.record
    names = ("kinds", "noise_share", "share_bound", "features", "coefficients", "detection", "replacements")
    result = {name: record[name] for name in names} | {"runs": findings.compared}
    if findings.is_injected.any():
        header = ("threshold", "precision", "recall", "share flagged")
        result["thresholds"] = [dict(zip(header, row)) for row in threshold_rows(findings)]
        result["injected items whose replacement is the true item"] = true_items_found(findings)
    return result
