"""Progress bars with the time that is left, for whatever takes longer than two seconds."""

from collections.abc import Iterable

from tqdm import tqdm


def progress(parts: Iterable | None, what: str, unit: str, total: int | None = None) -> tqdm:
    """A bar over `parts`; it leaves nothing behind. parts None: `update` counts towards `total`."""
    return tqdm(parts, desc=what, unit=unit, total=total, delay=2, mininterval=1, leave=False)
