"""Keys of users and items: numbers for them, and keys that would be one but for how they are written."""

import re

POINT_ZERO = re.compile(r"(?<=[0-9])\.0+")


class Codes(dict):
    """key -> number from 0, in the order in which keys are first asked for."""

    def __missing__(self, key):
        code = self[key] = len(self)
        return code


def plain(key: str) -> str:
    """A key without what spreadsheets and data frames add or take: blanks, case, leading zeros, a trailing ".0"."""
    key = key.strip().casefold()
    whole = POINT_ZERO.sub("", key) if POINT_ZERO.search(key) and POINT_ZERO.sub("", key).isdigit() else key
    return whole.lstrip("0") or "0" if whole.isdigit() else whole


def keys_that_nearly_meet(keys: list[str]) -> tuple[int, tuple[str, str] | None]:
    """How many keys are another one but for blanks, case, leading zeros or a trailing ".0"; and the first such two."""
    first_of: dict[str, str] = {}
    count, example = 0, None
    for key in keys:
        other = first_of.setdefault(plain(key), key)
        if other != key:
            count += 1
            example = example or (other, key)
    return count, example
