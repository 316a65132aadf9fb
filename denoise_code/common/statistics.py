"""Statistics that all stages report alike."""

import numpy as np


def precision_and_recall(truth: np.ndarray, flagged: np.ndarray) -> tuple[float | None, float | None]:
    """Of what is flagged the share that is noise, and of the noise the share that is flagged; None where there is none of it.

    truth, flagged: bool, of one shape.
    """
    n_hits = int((truth & flagged).sum())
    precision, recall = (n_hits / int(total) if total else None for total in (flagged.sum(), truth.sum()))
    return precision, recall


def interval(values: np.ndarray) -> list[float] | None:
    """The middle 95 % of bootstrap draws (draws,); None where no draw has the figure."""
    return [float(value) for value in np.percentile(values, [2.5, 97.5])] if len(values) else None
