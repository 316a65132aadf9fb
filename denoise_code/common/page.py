"""The page of report.py: figures, tables, windows as a person reads them.

Self-contained, without scripts: the filter of the windows is radio buttons and CSS. Titles are data from strangers and
escaped everywhere.
"""

import html
from pathlib import Path

import numpy as np

from denoise_code.common.files import write_atomically

SHOWN = {"all": "all", "injected": "with injected noise", "miss": "with a miss", "alarm": "with a false alarm"}
STYLE = """
:root{color-scheme:light dark;--ink:#1c2330;--soft:#5b6472;--line:#dfe3e8;--page:#fff;--card:#f6f7f9;--good:#14653f;--red:209,73,91}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#a3adba;--line:#333b47;--page:#14181f;--card:#1c222c;--good:#6fd3a0}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;max-width:1060px;padding:1rem}
h1{font-size:1.4rem;line-height:1.25;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-top:2.2rem}p{max-width:46rem}
.answer{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,230px),1fr));gap:.8rem}
.answer div{background:var(--card);border-radius:10px;padding:.8rem 1rem}.answer b{display:block;font-size:1.5rem}
.answer span{color:var(--soft);font-size:.9rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:1rem}
.figures img{width:100%;height:auto;border-radius:8px;background:#fff}
.window{border:1px solid var(--line);border-radius:8px;margin:1rem 0;padding:.6rem .8rem}
.window h3{font-size:.85rem;font-weight:600;color:var(--soft);margin:0 0 .4rem}
ol{margin:0;padding-left:1.6rem}li{padding:.12rem .4rem;border-radius:4px;overflow-wrap:anywhere}
.prob{font-size:.8rem;color:var(--soft);margin-left:.5rem}.instead{color:var(--good);font-size:.9rem}
span.injected::after{content:"injected";font-size:.7rem;background:var(--ink);color:var(--page);border-radius:3px;padding:0 .35rem;margin-left:.5rem}
.target{color:var(--soft);font-style:italic}
.choice label{display:inline-block;border:1px solid var(--line);border-radius:99px;padding:.15rem .8rem;margin:.2rem .3rem .2rem 0}
.choice input{margin-right:.35rem}
"""  # noqa: E501
STYLE += "".join(f"body:has(#{kind}:checked) .window:not(.{kind}){{display:none}}" for kind in SHOWN if kind != "all")


def save_figure(figure, path: Path) -> None:
    import matplotlib.pyplot as plt

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    with write_atomically(path) as partial:
        figure.savefig(partial, dpi=160, format="png")
    plt.close(figure)


def headline(lines: list[tuple[str, str]]) -> str:
    """The page's first lines: (figure, what it is) side by side."""
    cards = (f"<div><b>{html.escape(figure)}</b><span>{html.escape(text)}</span></div>" for figure, text in lines)
    return f'<div class="answer">{"".join(cards)}</div>'


def table(header: list[str], rows: list[list]) -> str:
    """Texts, and numbers to three places; a dash for None, a figure that does not exist."""

    def cell(value):
        if value is None:
            return "–"
        return html.escape(value) if isinstance(value, str) else f"{value:.3f}"

    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def escape(title: str) -> str:
    """A title for people: what stands for a character in the data (`&amp;`) is that character, then all is escaped."""
    return html.escape(html.unescape(title))


def window(number: int, split, row: int, prob: np.ndarray, titles: list[str], replacement: np.ndarray, threshold: float) -> str:
    """A window title by title: shaded by probability, its replacement beside the flagged, injected noise marked.

    prob (N, W) float, NaN where nothing is scored; replacement (N, W) item ids, 0 where there is none.
    """
    lines, noise, scored = [], split.mask[row] == 1, ~np.isnan(prob[row])
    flagged = prob[row] > threshold
    for place in np.flatnonzero(split.items[row]):
        title = escape(titles[split.items[row, place]])
        if not scored[place]:
            lines.append(f'<li class="target">{title} (next item)</li>')
            continue
        item = replacement[row, place] if flagged[place] else 0
        lines.append(interaction(title, prob[row, place], noise[place], titles[item] if item else ""))
    kinds = {"injected": noise & scored, "miss": noise & scored & ~flagged, "alarm": ~noise & flagged}
    classes = " ".join(["window", *(kind for kind, places in kinds.items() if places.any())])
    user = html.escape(str(split.users[row]))
    return f'<div class="{classes}"><h3>window {number}, user {user}</h3><ol>{"".join(lines)}</ol></div>'


def interaction(title: str, prob: float, is_noise: bool, replacement_title: str) -> str:
    """A line of a window; title is escaped, that of the replacement is not."""
    replaced_by = f' <span class="instead">→ {escape(replacement_title)}</span>' if replacement_title else ""
    injected = ' class="injected"' if is_noise else ""
    shade = f"background:rgba(var(--red),{0.6 * prob:.2f})"
    return f'<li style="{shade}"><span{injected}>{title}</span><span class="prob">{prob:.2f}</span>{replaced_by}</li>'


def buttons() -> str:
    """The filter of the windows."""
    inputs = (
        f'<label><input type="radio" name="shown" id="{kind}"{" checked" if kind == "all" else ""}>{text}</label>'
        for kind, text in SHOWN.items()
    )
    return f'<div class="choice">{"".join(inputs)}</div>'


def page(name: str, parts: list[str]) -> str:
    name = html.escape(name)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{STYLE}</style><h1>Noise found in {name}</h1>{''.join(parts)}</html>"
    )
