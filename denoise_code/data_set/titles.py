"""Titles as a model reads them."""

import re
import unicodedata

FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and signs that are blank: Hangul fillers, the empty Braille cell


def fold_title(title: str) -> str:
    """White space and control characters folded to single spaces; halves of broken characters left out.

    Invisible characters stay within a text (some scripts need them); alone they are none.
    """
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", title)
    text = " ".join(text.encode("utf-8", "ignore").decode().split())
    return text if any(visible(character) for character in text) else ""


def visible(character: str) -> bool:
    """Whether a character shows anything: no blank, no zero-width mark, no filler."""
    return unicodedata.category(character) not in ("Cf", "Cc", "Zs", "Zl", "Zp", "Mn", "Me") and character not in FILLERS
