"""What the page of report.py says, a function a section. Knows nothing of how its figures are measured, nor of files of data."""

import html
from pathlib import Path

import numpy as np
import page
from comparison import MEASURED, sentence
from filter import replacements
from measured import Measured, threshold_rows

KINDS = (
    "<b>rarity</b> is how few other users have an item, <b>raw</b> the language model's noise probability, <b>llm</b> the same "
    "calibrated, <b>collaborative</b> the co-occurrence "
    "of items in train, <b>semantic</b> how alike titles are, <b>fused</b> all there are."
)
CONTEXT = (
    "<b>auc_context</b> is the AUC on train windows in which the noise is as popular as the rest: a score that does not read "
    "the window has 0.5 there."
)


def describe(interval: list[float] | None) -> str:
    """An interval in words; a dash where there is none."""
    return "–" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"


def facts(measured: Measured, threshold: float, compared: list[dict]) -> list[tuple[str, str]]:
    """The answer: how much noise is found, what it costs, what is won."""
    scored, prob = measured.test.editable, measured.scores["fused"]
    noise, flagged = (measured.test.mask == 1)[scored], prob[scored] > threshold
    found = [(f"{flagged.mean():.1%}", f"of {scored.sum():,} history positions have a probability above {threshold}")]
    if noise.any():
        hits, there = (flagged & noise).sum(), f"{noise.mean():.1%} of {scored.sum():,} positions"
        found = [
            (f"{hits / noise.sum():.0%} found", f"of the injected noise ({there}), above a probability of {threshold}"),
            (f"{(flagged & ~noise).sum() / max((~noise).sum(), 1):.1%} lost", "of the items that belong, flagged with it"),
            (f"{hits / max(flagged.sum(), 1):.0%} right", "of what is flagged is injected noise"),
        ]
    for row in compared[1:]:
        found.append(
            (f"{row['difference']['mean']:+.4f}", f"{describe(row['difference']['interval_95'])}: {sentence(row, compared[0])}")
        )
    return found


def draw(folder: Path, measured: Measured, checks: dict) -> list[tuple[Path, str]]:
    """Writes the figures; [(file, what it shows)]."""
    import matplotlib

    matplotlib.use("Agg")
    scored = measured.test.editable
    truth, flat = (measured.test.mask == 1)[scored], {kind: score[scored] for kind, score in measured.scores.items()}
    reliability = page.draw_reliability(folder / "report_reliability.png", checks)
    if not truth.any():
        return [reliability]
    histograms = page.draw_histograms(folder / "report_scores.png", truth, flat)
    return [*page.draw_curves(folder, truth, flat), reliability, histograms]


def worth(compared: list[dict]) -> list[str]:
    rows = [[row["rows"], *(f"{row[name]['mean']:.4f} ± {row[name]['std']:.4f}" for name in MEASURED)] for row in compared]
    return ["<h2>What it is worth to the recommender</h2>", page.table(["rows", *MEASURED], rows)] if compared else []


def injected(measured: Measured, result: dict) -> list[str]:
    """How well the injected noise is found, what thresholds do, and how often what stood there is."""
    if "detection" not in result:
        return []
    scored, context = measured.test.editable, result["auc_context"]
    truth, prob = (measured.test.mask == 1)[scored], measured.scores["fused"][scored]
    names = list(result["detection"]["fused"])[1:]
    rows = [
        [kind, row["AUC"], context[kind]["auc_context"], *(row[name] for name in names)]
        for kind, row in result["detection"].items()
    ]
    differences = ", ".join(f"{kind} {describe(found)}" for kind, found in result["fused minus"].items())
    parts = [
        f"<h2>Finding the injected noise</h2><p>{len(measured.test.items):,} test windows, {truth.mean():.1%} of the history "
        f"positions are injected noise. {KINDS} {CONTEXT}</p>",
        page.table(["evidence", "AUC", "auc_context", *names], rows),
        f"<p>AUC of fused less that of the others, 95 % intervals (bootstrap over users): {differences}.</p>",
        "<h2>What a threshold on the fused probability does</h2>",
        page.table(["threshold", "precision", "recall", "share flagged"], threshold_rows(truth, prob)),
    ]
    if "replacements" in result:
        rows = [[kind, *found.values()] for kind, found in result["replacements"].items()]
        parts += [
            "<h2>Finding what stood there</h2><p>For how many of the injected items the true one comes first, or among ten, by "
            "the rest of the history; the last row: for items of train windows, of users that the counts did not know.</p>",
            page.table(["ranking", "first", "among ten"], rows),
        ]
    return parts


def natural(measured: Measured, result: dict) -> list[str]:
    if "detection_natural" not in result:
        return []
    share, found = (measured.test.mask == 3)[measured.test.editable].mean(), result["detection_natural"]
    return [
        f"<h2>Finding natural noise</h2><p>{share:.1%} of the history positions were rated low.</p>",
        page.table(["evidence", *found["fused"]], [[kind, *row.values()] for kind, row in found.items()]),
    ]


def foundations(result: dict) -> list[str]:
    """Whether the probabilities are right, and what they rest on."""
    errors, named = result["calibration"], result["coefficients"]
    weights = [[f"{kind}: {name}", value] for kind, features in named.items() for name, value in features.items()]
    return [
        "<h2>Are the probabilities right?</h2><p>Fitted on one half of the users of planted windows, checked on the other.</p>",
        page.table(["evidence", *errors["fused"]], [[kind, *row.values()] for kind, row in errors.items()]),
        "<h2>What the evidence rests on</h2><p>Weights of the standardised features in the log-odds.</p>",
        page.table(["feature", "weight"], weights),
    ]


def windows(measured: Measured, titles: list[str], replacer, args) -> list[str]:
    """Evenly spaced windows title by title, with what would stand in the place of what is flagged."""
    test, prob = measured.test, measured.scores["fused"]
    chosen = np.linspace(0, len(test.items) - 1, min(args.windows, len(test.items))).astype(int)
    flagged = np.nan_to_num(prob) > args.threshold
    instead = replacements(test) if test.suspects is not None else replacer().replacements(test, flagged)
    return [
        "<h2>Windows as a person reads them</h2><p>Shaded by the fused probability; above "
        f"{html.escape(str(args.threshold))} an item is flagged, and what would stand in its place is green. A miss is injected noise "
        "that is not flagged, a false alarm the other way round.</p>",
        page.choice(),
        *(page.window(n, test, row, prob, titles, instead, args.threshold) for n, row in enumerate(chosen, 1)),
    ]
