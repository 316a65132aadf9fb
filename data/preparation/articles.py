"""MovieLens writes "Hunt for Red October, The": the article put first."""

import re

ARTICLES = "The|A|An|La|Le|Les|L'|Il|Lo|I|Gli|El|Los|Las|Der|Die|Das|Det|Den|De|Het|O|Os|As"
TRAILING_ARTICLE = re.compile(rf"^(?P<head>.+?), (?P<article>{ARTICLES})(?P<rest>( \(.*)?)$")


def article_first(title: str) -> str:
    """'Hunt for Red October, The (1990)' -> 'The Hunt for Red October (1990)', as MovieLens does not write it."""
    found = TRAILING_ARTICLE.match(title)
    if not found:
        return title
    article = found["article"]
    return f"{article}{'' if article.endswith(chr(39)) else ' '}{found['head']}{found['rest']}"
