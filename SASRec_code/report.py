"""Show people how well the noise of a data set is found, and what would be replaced by what.

Reads   data/<dataset>/, a folder that generate_denoised.py made (planted.csv included)
Writes  data/<dataset>/report.html, self-contained, and its figures report_*.png

    python report.py --dataset ML100K_denoise_user0.1_2400_600
    python report.py --dataset Toy_denoise_user0.1_5000_2000 --windows 50
"""

import argparse
import base64
import html
import json
from pathlib import Path

import numpy as np
from options import ROOT, Parser, input_errors, partial_path, ranged

SPLITS = ("train", "test")
THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7)
COLOURS = {"raw": "#8a8f98", "llm": "#3b6fb6", "collaborative": "#2a9d6f", "semantic": "#b7791f",
           "collaborative+semantic": "#7b5ea7", "fused": "#d1495b"}  # fmt: skip
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1c2330;background:#fff;margin:0 auto;max-width:1060px;padding:1rem}
h1{font-size:1.5rem;line-height:1.25;overflow-wrap:anywhere}h2{font-size:1.15rem;margin-top:2.2rem}
p{max-width:44rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid #e3e6ea;white-space:nowrap}
th:first-child,td:first-child{text-align:left}.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:1rem}
.figures img{width:100%;height:auto}.window{border:1px solid #e3e6ea;border-radius:8px;margin:1rem 0;padding:.6rem .8rem}
.window h3{font-size:.85rem;font-weight:600;color:#5b6472;margin:0 0 .4rem}
ol{margin:0;padding-left:1.6rem}li{padding:.12rem .4rem;border-radius:4px;overflow-wrap:anywhere}
.prob{font-size:.8rem;color:#3c4452;margin-left:.5rem}.injected::after{content:"injected";font-size:.7rem;background:#1c2330;color:#fff;
border-radius:3px;padding:0 .35rem;margin-left:.5rem}.instead{color:#14653f;font-size:.9rem}.target{color:#5b6472;font-style:italic}
"""  # noqa: E501


def describe(found: list[float]) -> str:
    return f"{found[0]:+.4f} to {found[1]:+.4f}"


def save_figure(figure, path: Path) -> None:
    import matplotlib.pyplot as plt

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=160)
    plt.close(figure)


def draw_curves(folder: Path, truth: np.ndarray, scores: dict[str, np.ndarray]) -> list[Path]:
    """ROC and precision-recall of each kind of evidence, truth and scores (N,)."""
    import matplotlib.pyplot as plt
    from sklearn.metrics import precision_recall_curve, roc_curve

    paths = [folder / "report_roc.png", folder / "report_precision_recall.png"]
    for path, labels in zip(paths, (("false positive rate", "true positive rate"), ("recall", "precision"))):
        figure, axes = plt.subplots(figsize=(4.6, 3.6))
        for kind, score in scores.items():
            x, y, _ = roc_curve(truth, score) if "roc" in path.name else precision_recall_curve(truth, score)[1::-1] + (None,)
            axes.plot(x, y, color=COLOURS[kind], label=kind, linewidth=1.8)
        if "roc" in path.name:
            axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        else:
            axes.axhline(truth.mean(), color="0.8", linewidth=1)
        axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(frameon=False, fontsize=8)
        save_figure(figure, path)
    return paths


def draw_reliability(path: Path, checks: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
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


def draw_histograms(path: Path, truth: np.ndarray, scores: dict[str, np.ndarray]) -> None:
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(4.6, 3.6))
    for axes, (kind, score) in zip(panels.flat, scores.items()):
        edges = np.linspace(*np.percentile(score, [0.5, 99.5]), 30)
        for value, colour, label in ((False, "#b8bec7", "other"), (True, "#d1495b", "injected")):
            axes.hist(score[truth == value], edges, density=True, alpha=0.6, color=colour, label=label)
        axes.set(title=kind, yticks=[])
        axes.title.set_fontsize(9)
    panels[0, 0].legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def threshold_rows(truth: np.ndarray, prob: np.ndarray) -> list[list]:
    """[threshold, precision, recall, share of positions flagged]; truth and prob (N,)."""
    rows = []
    for threshold in THRESHOLDS:
        flagged = prob > threshold
        hits = (flagged & truth).sum()
        rows.append([threshold, hits / max(flagged.sum(), 1), hits / max(truth.sum(), 1), flagged.mean()])
    return rows


def html_table(header: list[str], rows: list[list]) -> str:
    def cell(value):
        return html.escape(value) if isinstance(value, str) else f"{value:.3f}"

    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def html_window(number: int, split, row: int, prob: np.ndarray, titles: list[str], replacement: np.ndarray) -> str:
    """A window title by title: shaded by probability, its replacement beside the suspects, injected noise marked."""
    lines = []
    for place in np.flatnonzero(split.items[row]):
        title, value = html.escape(titles[split.items[row, place]]), prob[row, place]
        if np.isnan(value):
            lines.append(f'<li class="target">{title} (next item)</li>')
            continue
        instead = titles[replacement[row, place]] if replacement[row, place] and value > THRESHOLDS[0] else ""
        instead = f' <span class="instead">→ {html.escape(instead)}</span>' if instead else ""
        injected = ' class="injected"' if split.mask[row, place] == 1 else ""
        shade = f"background:rgba(209,73,91,{0.75 * value:.2f})"
        lines.append(f'<li style="{shade}"><span{injected}>{title}</span><span class="prob">{value:.2f}</span>{instead}</li>')
    user = html.escape(str(split.users[row]))
    return f'<div class="window"><h3>window {number}, user {user}</h3><ol>{"".join(lines)}</ol></div>'


def html_image(path: Path, text: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{data}">'


def build(folder: Path, test, sources, titles: list[str], windows: int) -> dict:
    """Writes the figures and report.html into the folder; returns the figures of the report."""
    import matplotlib

    matplotlib.use("Agg")
    from evidence import Evidence, bootstrap_aucs, detection_row, expected_calibration_error, groups_of, halves, interval
    from filter import replacements
    from sklearn.metrics import brier_score_loss, roc_auc_score

    kinds = sources.kinds()
    if {"llm", "semantic"} <= set(kinds):
        kinds.insert(-1, "collaborative+semantic")
    fitted = {kind: Evidence(kind, sources) for kind in kinds}
    scores = {kind: evidence.probabilities(test) for kind, evidence in fitted.items()}
    checks, calibration = {}, {}
    for kind in kinds:
        fit_on, held_out = halves(sources.planted_by(kind))
        prob = Evidence(kind, sources, fit_on).probabilities(held_out)[held_out.editable]
        truth = (held_out.mask == 2)[held_out.editable]
        checks[kind] = truth, prob
        calibration[kind] = {
            "Brier score": float(brier_score_loss(truth, prob)),
            "expected calibration error": expected_calibration_error(truth, prob),
        }
    draw_reliability(folder / "report_reliability.png", checks)

    context = sources.planted_by("fused", popular=True)
    on_context = {kind: evidence.probabilities(context) for kind, evidence in fitted.items()}
    if "llm" in kinds:
        scores, on_context = {"raw": test.noise_prob} | scores, {"raw": context.noise_prob} | on_context
    truth, scored, result = test.mask == 1, test.editable, {"calibration": calibration}
    drawn = bootstrap_aucs(context, 2, on_context)
    planted_there = (context.mask == 2)[context.editable]
    result["auc_context"] = {
        kind: {"auc_context": float(roc_auc_score(planted_there, score[context.editable])), "interval": interval(drawn[kind])}
        for kind, score in on_context.items()
    }
    result["coefficients"] = {kind: evidence.coefficients() for kind, evidence in fitted.items()}
    figures, parts = [("report_reliability.png", "reliability on held-out planted windows")], []
    if truth[scored].any():
        flat = {kind: score[scored] for kind, score in scores.items()}
        result["detection"] = {
            kind: detection_row(truth[scored], flat[kind], groups_of(truth, scores[kind], scored)) for kind in scores
        }
        drawn = bootstrap_aucs(test, 1, scores)
        result["fused minus"] = {kind: interval(drawn["fused"] - values) for kind, values in drawn.items() if kind != "fused"}
        draw_curves(folder, truth[scored], flat)
        draw_histograms(folder / "report_scores.png", truth[scored], flat)
        figures = [("report_roc.png", "ROC"), ("report_precision_recall.png", "precision and recall"), *figures]
        figures.append(("report_scores.png", "scores of injected noise and of the rest"))
        rows = [[kind, row["AUC"], result["auc_context"][kind]["auc_context"], *list(row.values())[1:]] for kind, row in
                result["detection"].items()]  # fmt: skip
        parts += [
            f"<h2>Finding the injected noise</h2><p>{len(test.items):,} test windows, {truth[scored].mean():.1%} of the history "
            "positions are injected noise. <b>raw</b> is the language model's noise probability, <b>llm</b> the same calibrated, "
            "<b>collaborative</b> the co-occurrence of items in train, <b>semantic</b> how alike titles are to the language "
            "model, <b>fused</b> all there are. <b>auc_context</b> is the AUC on train windows in which the noise is as popular "
            "as the rest: a score that does not read the window has 0.5 there.</p>",
            html_table(["evidence", "AUC", "auc_context", *list(result["detection"]["fused"])[1:]], rows),
            "<p>AUC of fused less that of the others, 95 % intervals (bootstrap over users): "
            + ", ".join(f"{kind} {describe(found)}" for kind, found in result["fused minus"].items())
            + ".</p>",
        ]
        rows = threshold_rows(truth[scored], flat["fused"])
        parts.append("<h2>What a threshold on the fused probability does</h2>")
        parts.append(html_table(["threshold", "precision", "recall", "share flagged"], rows))
    natural = test.mask == 3
    if natural[scored].any():
        found = {
            kind: detection_row(natural[scored], score[scored], groups_of(natural, score, scored))
            for kind, score in scores.items()
        }
        result["detection_natural"] = found
        parts += [
            f"<h2>Finding natural noise</h2><p>{natural[scored].mean():.1%} of the history positions were rated low.</p>",
            html_table(["evidence", *found["fused"]], [[kind, *row.values()] for kind, row in found.items()]),
        ]
    parts.append(
        "<h2>Are the probabilities right?</h2><p>Fitted on one half of the users of planted.csv, checked on the other.</p>"
    )
    parts.append(html_table(["evidence", *calibration["fused"]], [[kind, *row.values()] for kind, row in calibration.items()]))
    weights = [[f"{kind}: {name}", value] for kind, named in result["coefficients"].items() for name, value in named.items()]
    parts.append("<h2>What the evidence rests on</h2><p>Weights of the standardised features in the log-odds.</p>")
    parts.append(html_table(["feature", "weight"], weights))
    parts.append('<h2>Figures</h2><div class="figures">' + "".join(html_image(folder / n, t) for n, t in figures) + "</div>")
    parts.append(
        "<h2>Windows as a person reads them</h2><p>Shaded by the fused probability; a suspect's replacement in green.</p>"
    )
    replacement = replacements(test)
    chosen = np.linspace(0, len(test.items) - 1, min(windows, len(test.items))).astype(int)
    parts += [html_window(n, test, row, scores["fused"], titles, replacement) for n, row in enumerate(chosen, 1)]
    name = html.escape(folder.name)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{STYLE}</style><h1>Noise found in {name}</h1>{''.join(parts)}</html>"
    )
    partial = partial_path(folder / "report.html")
    partial.write_text(page, encoding="utf-8")
    partial.replace(folder / "report.html")
    return result


def main(argv=None) -> dict:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--dataset", required=True, help="denoised folder below --data_root")
    parser.add_argument("--data_root", type=Path, default=ROOT.parent / "data")
    parser.add_argument("--windows", type=ranged(int, 1), default=20, help="windows to show, evenly spaced")
    args = parser.parse_args(argv)
    from dataloader import find_split, read_split, read_titles, scored
    from filter import read_sources

    with input_errors(__file__):
        folder = args.data_root / args.dataset
        paths = {split: find_split(args.data_root, args.dataset, split, split == "test" and scored(folder)) for split in SPLITS}
        titles = read_titles(paths["test"].parent)
        train = read_split(paths["train"], titles, 10, "ignored")
        test = read_split(paths["test"], titles, 10, "needed" if scored(folder) else "ignored")
        result = build(folder, test, read_sources(folder, train, len(titles) - 1, 10), titles, args.windows)
    print(json.dumps(result, indent=1))
    print(f"wrote {folder / 'report.html'}")
    return result


if __name__ == "__main__":
    main()
