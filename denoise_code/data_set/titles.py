"""Titles as a model reads them."""

import re


def fold_title(title: str) -> str:
    """White space, line ends and control characters folded to single spaces."""
    without_controls = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", title)
    return " ".join(without_controls.split())
