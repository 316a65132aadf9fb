"""Pieces of a page for people: cards of figures, tables, details to unfold, and the file that holds them all.

A page is one file that asks the network for nothing. A content security policy lets a browser run its own style and script and no
others, so that titles, which are data from strangers, stay text. They are escaped all the same.
"""

import base64
import hashlib
import html
from numbers import Integral
from pathlib import Path

from denoise_code.common.files import write_atomically

STYLE = """
:root{color-scheme:light dark;--ink:#1c2330;--soft:#5b6472;--line:#dfe3e8;--page:#fff;--card:#f6f7f9;--good:#14653f;--bad:#a3243b;
--tint:#fbe3e6;--warn:#8a5a00}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#a3adba;--line:#333b47;--page:#14181f;--card:#1c222c;--good:#6fd3a0;
--bad:#ff8fa0;--tint:#4a2029;--warn:#f0c060}}
*{box-sizing:border-box}[hidden]{display:none!important}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;max-width:1060px;padding:1rem}
h1{font-size:1.4rem;line-height:1.25;margin:.5rem 0;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:2.2rem 0 .5rem}
p,ul{max-width:46rem;overflow-wrap:anywhere}p{margin:.5rem 0}ul{padding-left:1.3rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,220px),1fr));gap:.8rem;margin:1rem 0}
.cards div{background:var(--card);border-radius:10px;padding:.8rem 1rem}.cards b{display:block;font-size:1.5rem}
.cards span{color:var(--soft);font-size:.9rem}
.verdict{border-left:5px solid var(--warn);background:var(--card);border-radius:0 10px 10px 0;padding:.5rem 1rem;margin:1rem 0}
.verdict.good{border-color:var(--good)}.verdict.bad{border-color:var(--bad)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .35rem .3rem 1rem;text-align:right;border-bottom:1px solid var(--line);vertical-align:bottom}
@media(max-width:480px){th,td{padding-left:.5rem}}
th:first-child,td:first-child{text-align:left;padding-left:0}
details{margin:1rem 0}summary{cursor:pointer;padding:.3rem 0}
"""


def isolated(text: str) -> str:
    """A text of strangers, escaped. Isolated too: one that is written from right to left does not turn the text around it."""
    return f"<bdi>{html.escape(text)}</bdi>"


def percent(share: float) -> str:
    """`28%`, below a tenth with one digit more, `1.9%`; a share that is small and not 0 never reads as 0."""
    if 0 < share < 0.0005:
        return "less than 0.1%"
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def cards(figures: list[tuple[str, str]]) -> str:
    """Figures that a page opens with, (figure, what it is) side by side."""
    boxes = (f"<div><b>{html.escape(figure)}</b><span>{html.escape(text)}</span></div>" for figure, text in figures)
    return f'<div class="cards">{"".join(boxes)}</div>'


def table(header: list[str], rows: list[list]) -> str:
    """Texts, counts, and other numbers to three places; a dash for None, a figure that does not exist."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def cell(value: str | int | float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return html.escape(value)
    return f"{value:,}" if isinstance(value, Integral) else f"{value:.3f}"


def details(summary: str, elements: list[str]) -> str:
    """Elements that show when somebody opens them; nothing where there are none."""
    return f"<details><summary>{html.escape(summary)}</summary>{''.join(elements)}</details>" if elements else ""


def page(heading: str, elements: list[str], style: str = "", script: str = "") -> str:
    """The whole file. heading is plain text; elements, style and script are as the browser reads them."""
    heading, style = html.escape(heading), STYLE + style
    policy = f"default-src 'none'; style-src {source_hash(style)}; script-src {source_hash(script)}"
    end = f"<script>{script}</script>" if script else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{heading}</title><style>{style}</style></head><body><h1>{heading}</h1>{''.join(elements)}{end}</body></html>"
    )


def write_page(path: Path, text: str) -> None:
    """The file, whole or absent. Half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark."""
    with write_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def source_hash(source: str) -> str:
    """What a content security policy calls a style or script that is allowed."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
