"""The catalogue of a data set: item ids and titles."""

import json
from pathlib import Path

from denoise_code.common.errors import InputError
from denoise_code.common.files import fingerprint_of_json
from denoise_code.data_set.titles import fold_title


def read_catalogue(folder: Path, allow_untitled: bool = False) -> list[str]:
    """Titles by item id (n_items + 1,) of id2name4Rec.json, position 0 being padding.

    Raises InputError where ids are missing or, unless allow_untitled, an item has no title that could be read: language models need
    one of each item, people and recommenders do not.
    """
    path = folder / "id2name4Rec.json"
    try:
        title_of_item = {int(item): title for item, title in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; it maps every item id to its title") from None
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a JSON object of id: title ({error})") from None
    ids = range(1, len(title_of_item) + 1)
    if not title_of_item or sorted(title_of_item) != list(ids):
        first, last = min(title_of_item, default=0), max(title_of_item, default=0)
        raise InputError(f"{path}: expected the ids 1..{len(ids)}, found {first}..{last}")
    for item, title in title_of_item.items():
        if not allow_untitled and (not isinstance(title, str) or not fold_title(title)):
            raise InputError(f"{path}: item {item} has no title")
    return ["", *(title_of_item[item] for item in ids)]


def fingerprint_of_catalogue(titles: list[str]) -> str:
    """SHA-256 of the titles by item id (n_items + 1,)."""
    return fingerprint_of_json(titles)
