"""The catalogue of a data set: item ids and titles."""

import json
from pathlib import Path

from denoise_code.common.errors import InputError
from denoise_code.common.files import fingerprint_of_json
from denoise_code.data_set.titles import fold_title


def read_catalogue(folder: Path) -> list[str]:
    """Titles by item id (n_items + 1,) of id2name4Rec.json, position 0 being padding: for language models.

    Raises InputError where ids are missing, or an item has no title that could be read.
    """
    path = folder / "id2name4Rec.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; it maps every item id to its title")
    try:
        title_of_item = parse_titles(path)
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a JSON object of id: title ({error})") from None
    n_items = len(title_of_item)
    if not are_consecutive(title_of_item):
        first, last = min(title_of_item, default=0), max(title_of_item, default=0)
        raise InputError(f"{path}: expected the ids 1..{n_items}, found {first}..{last}")
    for item, title in title_of_item.items():
        if not isinstance(title, str) or not fold_title(title):
            raise InputError(f"{path}: item {item} has no title")
    return by_item_id(title_of_item)


def read_titles(folder: Path) -> list[str]:
    """Titles by item id (n_items + 1,) of id2name4Rec.json, position 0 being padding: for people, empty ones allowed."""
    path = folder / "id2name4Rec.json"
    try:
        title_of_item = parse_titles(path)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a map of item ids to titles ({error})") from None
    if not are_consecutive(title_of_item):
        raise InputError(f"{path}: expected the ids 1..{len(title_of_item)}")
    return by_item_id(title_of_item)


def parse_titles(path: Path) -> dict[int, str]:
    """{item id: title} as the file has it."""
    return {int(item): title for item, title in json.loads(path.read_text(encoding="utf-8")).items()}


def are_consecutive(title_of_item: dict[int, str]) -> bool:
    """Whether the ids are 1, 2, ... without a gap, and at least one."""
    return bool(title_of_item) and sorted(title_of_item) == list(range(1, len(title_of_item) + 1))


def by_item_id(title_of_item: dict[int, str]) -> list[str]:
    return ["", *(title_of_item[item] for item in range(1, len(title_of_item) + 1))]


def fingerprint_of_catalogue(titles: list[str]) -> str:
    """SHA-256 of the titles by item id (n_items + 1,)."""
    return fingerprint_of_json(titles)
