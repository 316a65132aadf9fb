"""Interactions that look like noise, each as a person reads it: the item between the user's other items, and what would fit."""

import html
import unicodedata
from dataclasses import dataclass

from denoise_code.common.page import isolated

AROUND = 3  # items of the user that a reader sees on either side
OPEN = 24  # suspects that show at once, the others when somebody unfolds them

STYLE = """
.filter{display:block;margin:.8rem 0}.filter input{font:inherit;width:100%;max-width:30rem;padding:.4rem .7rem;color:inherit;
background:var(--page);border:1px solid var(--soft);border-radius:8px}
.filter span{color:var(--soft);font-size:.9rem;margin-left:.5rem}
.suspects{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:.8rem}
.suspect{border:1px solid var(--line);border-radius:8px;padding:.6rem .8rem;min-width:0}
.suspect h3{display:flex;justify-content:space-between;gap:.6rem;font-size:.85rem;font-weight:400;color:var(--soft);margin:0 0 .4rem;
overflow-wrap:anywhere}
.suspect h3 b{color:var(--ink);white-space:nowrap}.suspect.flagged h3 b{color:var(--bad)}
.suspect ul{list-style:none;margin:0;padding:0;font-size:.9rem}
.suspect li{color:var(--soft);padding:.05rem .4rem;overflow-wrap:anywhere}
.suspect bdi{text-align:left}
.suspect h3 span,.suspect li bdi{display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:2;overflow:hidden}
.suspect li.item{background:var(--tint);border-radius:4px;padding:.25rem .4rem;margin:.15rem 0}
.suspect li.item>bdi{-webkit-line-clamp:6;color:var(--ink);font-weight:600;font-size:1rem}
.suspect .fits{color:var(--good);display:flex;gap:.4rem}.suspect .fits span{flex:none}
.suspect i{font-style:normal;font-size:.75rem;border:1px solid;border-radius:99px;padding:0 .45rem;white-space:nowrap}
.suspect i.noise{color:var(--bad)}
"""

# Shows the suspects that hold every word of the filter. Without scripts the field stays hidden and the list is whole.
SCRIPT = """
for (const field of document.querySelectorAll('.filter input')) {
  const section = field.closest('section'), count = field.nextElementSibling;
  const cards = [...section.querySelectorAll('.suspect')].map(card => [card, card.textContent.toLowerCase()]);
  field.parentElement.hidden = false;
  field.addEventListener('input', () => {
    const words = field.value.toLowerCase().split(/\\s+/).filter(word => word);
    let shown = 0;
    for (const [card, text] of cards) {
      card.hidden = !words.every(word => text.includes(word));
      shown += !card.hidden;
    }
    count.textContent = words.length ? shown + ' of ' + cards.length : '';
    const rest = section.querySelector('details');
    if (rest) rest.open = rest.firstChild.hidden = words.length > 0;
  });
}
"""


@dataclass(frozen=True)
class Item:
    """key: as the log names it. title: for people, empty where there is none."""

    key: str
    title: str = ""

    @property
    def name(self) -> str:
        """The title as people read it (`&` for `&amp;`), or the key where the title holds nothing to see."""
        title = html.unescape(self.title)
        return title if any(is_visible(character) for character in title) else self.key


def is_visible(character: str) -> bool:
    """No white space, and no control or formatting character as a zero-width space is."""
    return unicodedata.category(character)[0] not in "CZ"


@dataclass(frozen=True)
class SuspiciousInteraction:
    """One interaction of `user` with `item`.

    location: where the reader finds it, as "line 4711". probability: of noise, 0..1. is_flagged: whether it is edited.
    replacement: what would stand there, None where there is none. before, after: the user's items around it, oldest first, up to
    AROUND of each. is_noise: the truth, None where nobody knows it.
    """

    location: str
    user: str
    item: Item
    probability: float
    is_flagged: bool
    replacement: Item | None
    before: list[Item]
    after: list[Item]
    is_noise: bool | None = None


def suspects_section(heading: str, introduction: str, suspects: list[SuspiciousInteraction]) -> str:
    """All suspects in the order given, with a filter by text. heading and introduction are plain text."""
    elements = [f"<h2>{html.escape(heading)}</h2><p>{html.escape(introduction)}</p>"]
    if suspects:
        elements += [
            '<label class="filter" hidden>Show those that hold these words: <input type="search"><span aria-live="polite"></span></label>',
            card_grid(suspects[:OPEN]),
        ]
    if suspects[OPEN:]:
        elements.append(f"<details><summary>{len(suspects) - OPEN} more</summary>{card_grid(suspects[OPEN:])}</details>")
    return f"<section>{''.join(elements)}</section>"


def card_grid(suspects: list[SuspiciousInteraction]) -> str:
    return f'<div class="suspects">{"".join(map(suspect_card, suspects))}</div>'


def suspect_card(suspect: SuspiciousInteraction) -> str:
    """The user's items from the oldest to the newest, the suspect marked, below it what would fit."""
    lines = [
        *map(neighbour_line, suspect.before),
        f'<li class="item">{isolated(suspect.item.name)}{truth_mark(suspect.is_noise)}{what_fits(suspect.replacement)}</li>',
        *map(neighbour_line, suspect.after),
    ]
    flagged = " flagged" if suspect.is_flagged else ""
    heading = f"<span>{html.escape(suspect.location)}, user {isolated(suspect.user)}</span><b>{suspect.probability:.2f}</b>"
    return f'<article class="suspect{flagged}"><h3>{heading}</h3><ul>{"".join(lines)}</ul></article>'


def neighbour_line(item: Item) -> str:
    return f"<li>{isolated(item.name)}</li>"


def what_fits(replacement: Item | None) -> str:
    return "" if replacement is None else f'<div class="fits"><span>fits:</span>{isolated(replacement.name)}</div>'


def truth_mark(is_noise: bool | None) -> str:
    """Whether an experiment injected the item, where that is known."""
    if is_noise is None:
        return ""
    return ' <i class="noise">injected</i>' if is_noise else " <i>not injected</i>"
