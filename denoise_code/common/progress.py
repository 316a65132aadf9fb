"""Progress bars with the time that is left, for whatever takes longer than two seconds."""

from collections.abc import Iterable

from tqdm import tqdm


def progress(iterable: Iterable | None, description: str, unit: str, total: int | None = None) -> tqdm:
    """A bar over `iterable`; it leaves nothing behind. iterable None: `update` counts towards `total`."""
    return tqdm(iterable, desc=description, unit=unit, total=total, delay=2, mininterval=1, leave=False)
