"""Statistics that all stages report alike."""

import numpy as np


def interval(values: np.ndarray) -> list[float] | None:
    """The middle 95 % of bootstrap draws (draws,); None where no draw has the figure."""
    return [float(value) for value in np.percentile(values, [2.5, 97.5])] if len(values) else None
