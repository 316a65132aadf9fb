"""The catalogue of a data set: item ids and titles."""

import json
from pathlib import Path

from denoise_code.common.errors import InputError
from denoise_code.data_set.titles import fold_title


def read_catalogue(folder: Path) -> list[str]:
    """Titles by item id (n_items + 1,) of id2name4Rec.json; position 0 is the padding item."""
    path = folder / "id2name4Rec.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; it maps every item id to its title")
    try:
        titles = {int(item): title for item, title in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a JSON object of id: title ({error})") from None
    if sorted(titles) != list(range(1, len(titles) + 1)) or not titles:
        raise InputError(f"{path}: expected the ids 1..{len(titles)}, found {min(titles, default=0)}..{max(titles, default=0)}")
    bad = next((item for item, title in titles.items() if not isinstance(title, str) or not fold_title(title)), None)
    if bad is not None:
        raise InputError(f"{path}: item {bad} has no title")
    return ["", *(titles[item] for item in range(1, len(titles) + 1))]


def read_titles(folder: Path) -> list[str]:
    """Titles by item id (n_items + 1,), 0 being padding."""
    path = folder / "id2name4Rec.json"
    try:
        titles = {int(item): title for item, title in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a map of item ids to titles ({error})") from None
    if not titles or sorted(titles) != list(range(1, len(titles) + 1)):
        raise InputError(f"{path}: expected the ids 1..{len(titles)}")
    return ["", *(titles[item] for item in range(1, len(titles) + 1))]
