"""The page of report.py: figures, tables, windows as a person reads them. Knows nothing of where its figures come from.

Self-contained, without scripts: the filter of the windows is radio buttons and CSS. Titles are data from strangers and
escaped everywhere.
"""

import base64
import html
from pathlib import Path

import numpy as np

from denoise_code.common.files import write_atomically

COLOURS = {"rarity": "#c9ced6", "raw": "#8a8f98", "llm": "#3b6fb6", "collaborative": "#2a9d6f", "semantic": "#b7791f",
           "collaborative+semantic": "#7b5ea7", "fused": "#d1495b"}  # fmt: skip
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


def draw_curves(folder: Path, truth: np.ndarray, scores: dict[str, np.ndarray]) -> list[tuple[Path, str]]:
    """ROC and precision-recall of each kind of evidence, truth and scores (N,)."""
    import matplotlib.pyplot as plt
    from sklearn.metrics import precision_recall_curve, roc_curve

    drawn = [(folder / "report_roc.png", "ROC"), (folder / "report_precision_recall.png", "precision and recall")]
    for (path, name), labels in zip(drawn, (("false positive rate", "true positive rate"), ("recall", "precision"))):
        figure, axes = plt.subplots(figsize=(4.6, 3.6))
        for kind, score in scores.items():
            x, y = roc_curve(truth, score)[:2] if name == "ROC" else precision_recall_curve(truth, score)[1::-1]
            axes.plot(x, y, color=COLOURS[kind], label=kind, linewidth=1.8)
        if name == "ROC":
            axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        else:
            axes.axhline(truth.mean(), color="0.8", linewidth=1)
        axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(frameon=False, fontsize=8)
        save_figure(figure, path)
    return drawn


def draw_reliability(path: Path, checks: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[Path, str]:
    """Share of planted items against their mean probability, in tenths of the probability; checks: {kind: (truth, prob)}."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.6, 3.6))
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for kind, (truth, prob) in checks.items():
        cell = np.minimum((prob * 10).astype(int), 9)
        used = [c for c in range(10) if (cell == c).sum() >= 10]
        x, y = ([values[cell == c].mean() for c in used] for values in (prob, truth))
        axes.plot(x, y, marker="o", color=COLOURS[kind], label=kind)
    axes.set(xlabel="mean probability", ylabel="share planted (held out)", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
    return path, "reliability on held-out planted windows"


def draw_histograms(path: Path, truth: np.ndarray, scores: dict[str, np.ndarray]) -> tuple[Path, str]:
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, -(-len(scores) // 2), figsize=(4.6, 3.6), squeeze=False)
    for axes, (kind, score) in zip(panels.flat, scores.items()):
        edges = np.linspace(*np.percentile(score, [0.5, 99.5]), 30)
        for value, colour, label in ((False, "#b8bec7", "other"), (True, "#d1495b", "injected")):
            axes.hist(score[truth == value], edges, density=True, alpha=0.6, color=colour, label=label)
        axes.set(title=kind, yticks=[])
        axes.title.set_fontsize(9)
    for empty in panels.flat[len(scores) :]:
        empty.set_axis_off()
    panels[0, 0].legend(frameon=False, fontsize=8)
    save_figure(figure, path)
    return path, "scores of injected noise and of the rest"


def answer(facts: list[tuple[str, str]]) -> str:
    """The page's first lines: (figure, what it is) side by side."""
    return (
        '<div class="answer">'
        + "".join(f"<div><b>{html.escape(a)}</b><span>{html.escape(b)}</span></div>" for a, b in facts)
        + "</div>"
    )


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
    """A window title by title: shaded by probability, its replacement beside the flagged, injected noise marked."""
    lines, noise, scored = [], split.mask[row] == 1, ~np.isnan(prob[row])
    flagged = prob[row] > threshold
    for place in np.flatnonzero(split.items[row]):
        title, value = escape(titles[split.items[row, place]]), prob[row, place]
        if not scored[place]:
            lines.append(f'<li class="target">{title} (next item)</li>')
            continue
        instead = titles[replacement[row, place]] if replacement[row, place] and flagged[place] else ""
        instead = f' <span class="instead">→ {escape(instead)}</span>' if instead else ""
        injected = ' class="injected"' if noise[place] else ""
        shade = f"background:rgba(var(--red),{0.6 * value:.2f})"
        lines.append(f'<li style="{shade}"><span{injected}>{title}</span><span class="prob">{value:.2f}</span>{instead}</li>')
    kinds = {"injected": noise & scored, "miss": noise & scored & ~flagged, "alarm": ~noise & flagged}
    classes = " ".join(["window", *(kind for kind, places in kinds.items() if places.any())])
    user = html.escape(str(split.users[row]))
    return f'<div class="{classes}"><h3>window {number}, user {user}</h3><ol>{"".join(lines)}</ol></div>'


def choice() -> str:
    """The filter of the windows."""
    buttons = (
        f'<label><input type="radio" name="shown" id="{kind}"{" checked" if kind == "all" else ""}>{text}</label>'
        for kind, text in SHOWN.items()
    )
    return f'<div class="choice">{"".join(buttons)}</div>'


def images(drawn: list[tuple[Path, str]]) -> str:
    def image(path: Path, text: str) -> str:
        return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'

    return '<div class="figures">' + "".join(image(path, text) for path, text in drawn) + "</div>"


def page(name: str, parts: list[str]) -> str:
    name = html.escape(name)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{STYLE}</style><h1>Noise found in {name}</h1>{''.join(parts)}</html>"
    )
