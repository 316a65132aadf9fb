"""Titles as text a model can read. Knows nothing of where they came from."""

import html
import re
from dataclasses import replace

from preparation.log import Log

ARTICLES = "The|A|An|La|Le|Les|L'|Il|Lo|I|Gli|El|Los|Las|Der|Die|Das|Det|Den|De|Het|O|Os|As"
TRAILING_ARTICLE = re.compile(rf"^(?P<head>.+?), (?P<article>{ARTICLES})(?P<rest>( \(.*)?)$")
TAGS = "a|abbr|b|big|body|br|button|center|div|em|font|form|h[1-6]|head|hr|html|i|iframe|img|input|label|li|link|meta|noscript|ol"
TAGS += "|p|s|script|small|span|strike|strong|style|sub|sup|svg|table|tbody|td|th|title|tr|tt|u|ul"
TAG = re.compile(rf"<(script|style)\b.*?(</\1\s*>|$)|<!--.*?(-->|$)|</?({TAGS})(\s[^<>]*)?/?>", re.IGNORECASE | re.DOTALL)
# Some titles of Amazon's 2018 metadata are the page's own script, untagged
PAGE_CODE = re.compile(
    r"(\bvar\s+[\w$]+\s*=|\bfunction\s*\w*\s*\([\w\s,]*\)\s*\{|\bwindow\.\w+\s*=|\.getTime\s*\(\)).*", re.DOTALL
)


def article_first(title: str) -> str:
    """'Hunt for Red October, The (1990)' -> 'The Hunt for Red October (1990)', as MovieLens does not write it."""
    found = TRAILING_ARTICLE.match(title)
    if not found:
        return title
    article = found["article"]
    return f"{article}{'' if article.endswith(chr(39)) else ' '}{found['head']}{found['rest']}"


def clean_titles(log: Log, words: int = 0) -> tuple[Log, str]:
    """The log with titles as text, untitled items None, and what was done in a line. words: keep the first so many; 0: all."""
    folded = [title if title is None else fold(title) for title in log.titles]
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
    return fold(PAGE_CODE.sub("", TAG.sub(" ", title)))


def fold(title: str) -> str:
    """White space and control characters folded to single spaces; halves of broken characters left out."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", title)
    return " ".join(text.encode("utf-8", "ignore").decode().split())
