"""Titles as text that a model can read, and which of several titles an item has. Knows nothing of where they came from."""

import html
import re
from dataclasses import replace

import numpy as np

from denoise_code.data_set.log.keys import Codes
from denoise_code.data_set.log.log import Log
from denoise_code.data_set.titles import fold_title

TAGS = "a|abbr|b|big|body|br|button|center|div|em|font|form|h[1-6]|head|hr|html|i|iframe|img|input|label|li|link|meta|noscript|ol"
TAGS += "|p|s|script|small|span|strike|strong|style|sub|sup|svg|table|tbody|td|th|title|tr|tt|u|ul"
TAG = re.compile(rf"<(script|style)\b.*?(</\1\s*>|$)|<!--.*?(-->|$)|</?({TAGS})(\s[^<>]*)?/?>", re.IGNORECASE | re.DOTALL)
# Some titles of Amazon's 2018 metadata are the page's own script, untagged
PAGE_CODE = re.compile(
    r"(\bvar\s+[\w$]+\s*=|\bfunction\s*\w*\s*\([\w\s,]*\)\s*\{|\bwindow\.\w+\s*=|\.getTime\s*\(\)).*", re.DOTALL
)


class TitleVotes:
    """The titles that records give to items: of several titles of an item the most frequent counts, of these the latest.

    A record without a title, or with one of which no text remains, takes nothing away.
    """

    def __init__(self):
        self.codes = Codes()  # title -> number
        self.items: list[np.ndarray] = []
        self.titles: list[np.ndarray] = []

    def add(self, items: np.ndarray, titles: list[str]) -> None:
        """Records in file order: items (n,) int64 and their titles as they are written."""
        numbers = np.fromiter(map(self.codes.__getitem__, titles), dtype=np.int64, count=len(titles))
        self.items.append(items)
        self.titles.append(numbers)

    def choose(self, n_items: int) -> tuple[list[str | None], int]:
        """(title of each item or None, how many items have several titles)."""
        texts = list(self.codes)
        chosen: list[str | None] = [None] * n_items
        if not texts:
            return chosen, 0
        pairs = np.concatenate(self.items) * len(texts) + np.concatenate(self.titles)  # (M,) one number for an item with a title
        distinct, from_end, votes = np.unique(pairs[::-1], return_index=True, return_counts=True)
        item_of, title_of = np.divmod(distinct, len(texts))
        has_several = np.bincount(item_of, minlength=n_items)[item_of] > 1
        for place in np.flatnonzero(has_several):
            if not clean_title(texts[title_of[place]]):
                votes[place], has_several[place] = 0, False
        # the best of each item comes last: most votes, of these the one that stands furthest down (smallest from_end)
        order = np.lexsort((-from_end, votes, item_of))
        item_of, title_of = item_of[order], title_of[order]
        is_best = np.r_[item_of[1:] != item_of[:-1], True]
        for item, title in zip(item_of[is_best].tolist(), title_of[is_best].tolist()):
            chosen[item] = texts[title]
        titles_with_text = np.bincount(distinct[has_several] // len(texts), minlength=n_items)
        return chosen, int((titles_with_text > 1).sum())


def clean_titles(log: Log, words: int = 0) -> tuple[Log, str]:
    """The log with titles as text, untitled items None, and what was done in a line. words: keep the first so many; 0: all."""
    folded = [title if title is None else fold_title(title) for title in log.titles]
    clean = [clean_title(title) or None if title else None for title in folded]
    cut = [title and " ".join(title.split()[: words or None]) for title in clean]
    emptied = sum(bool(before) and not after for before, after in zip(folded, clean))
    changed = sum(before != after for before, after in zip(folded, clean) if after)
    said = f"{changed:,} titles cleaned, {emptied:,} without text"
    if words:
        lost = len(set(filter(None, clean))) - len(set(filter(None, cut)))
        shorter = sum(before != after for before, after in zip(clean, cut))
        said += f"; {shorter:,} cut to {words} words, {lost:,} of them coincide with another since"
    return replace(log, titles=cut), said


def clean_title(title: str) -> str:
    """Entities decoded (also those encoded again and again), tags and the page's own code left out, white space folded."""
    while (decoded := html.unescape(title)) != title:
        title = decoded
    return fold_title(PAGE_CODE.sub("", TAG.sub(" ", title)))
