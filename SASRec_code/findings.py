"""What report.py has to say of a data set: evidence on its test rows, figures of it, suspects."""

from dataclasses import dataclass

import numpy as np
from comparison import ComparedRun

from denoise_code.common.statistics import precision_and_recall
from denoise_code.common.suspects import AROUND, Item, SuspiciousInteraction
from denoise_code.data_set.padded_rows import Split
from denoise_code.data_set.planting import INJECTED

THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Findings:
    """test: the rows; prob (N, W) P(noise) of `fused`, NaN where nothing is scored; replacements (N, W) item ids, 0 for none;
    record: evidence.json; compared: runs that were trained on these rows, the noisy one first."""

    test: Split
    prob: np.ndarray
    replacements: np.ndarray
    record: dict
    compared: list[ComparedRun]

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
        rows.append([threshold, *precision_and_recall(truth, flagged), float(flagged.mean())])
    return rows


def share_of_true_items(findings: Findings) -> float | None:
    """The share of injected items of which the replacement is what stood there; None where that is not known."""
    places = findings.is_injected & (findings.test.clean != findings.test.items) & (findings.replacements != 0)
    if not places.any():
        return None
    return float((findings.replacements[places] == findings.test.clean[places]).mean())


def most_suspicious(findings: Findings, titles: list[str], threshold: float, count: int) -> list[SuspiciousInteraction]:
    """Up to `count` history places by P(noise), highest first. titles by item id."""
    return suspects_at(findings, titles, threshold, findings.scored, -findings.prob, count)


def least_suspicious_noise(findings: Findings, titles: list[str], threshold: float, count: int) -> list[SuspiciousInteraction]:
    """Up to `count` injected items that the threshold misses, by P(noise), lowest first."""
    missed = findings.is_injected & (findings.prob <= threshold)
    return suspects_at(findings, titles, threshold, missed, findings.prob, count)


def suspects_at(
    findings: Findings, titles: list[str], threshold: float, places: np.ndarray, key: np.ndarray, count: int
) -> list[SuspiciousInteraction]:
    """The history places (N, W) bool in ascending order of key (N, W), each user with an item once, whatever rows hold them."""
    test = findings.test
    rows, columns = np.nonzero(places)
    order = np.argsort(key[rows, columns], kind="stable")
    place_of_interaction = {}  # {(user, item): (row, column)}, in that order
    for row, column in zip(rows[order].tolist(), columns[order].tolist()):
        if len(place_of_interaction) == count:
            break
        place_of_interaction.setdefault((test.users[row], test.items[row, column]), (row, column))
    return [suspect_at(findings, titles, threshold, row, column) for row, column in place_of_interaction.values()]


def suspect_at(findings: Findings, titles: list[str], threshold: float, row: int, column: int) -> SuspiciousInteraction:
    test, prob = findings.test, float(findings.prob[row, column])
    window, replacement = test.items[row], int(findings.replacements[row, column])

    def as_items(item_ids) -> list[Item]:
        return [Item(str(item), titles[item]) for item in item_ids if item]  # 0 is padding

    return SuspiciousInteraction(
        location=f"row {row + 1}",
        user=str(test.users[row]),
        item=Item(str(window[column]), titles[window[column]]),
        probability=prob,
        is_flagged=prob > threshold,
        replacement=Item(str(replacement), titles[replacement]) if replacement else None,
        before=as_items(window[max(column - AROUND, 0) : column].tolist()),
        after=as_items(window[column + 1 : column + 1 + AROUND].tolist()),
        is_noise=bool(findings.is_injected[row, column]) if findings.is_injected.any() else None,
    )


def figures(findings: Findings) -> dict:
    """All that report.json holds."""
    record = findings.record
    names = ("kinds", "noise_share", "share_bound", "features", "coefficients", "detection", "replacements")
    result = {name: record[name] for name in names} | {"runs": [run.as_row() for run in findings.compared]}
    if findings.is_injected.any():
        header = ("threshold", "precision", "recall", "share flagged")
        result["thresholds"] = [dict(zip(header, row)) for row in threshold_rows(findings)]
        result["injected items whose replacement is the true item"] = share_of_true_items(findings)
    return result
