"""What the page of report.py says, a function a section. Knows nothing of how its figures are measured, nor of files of data."""

import html
from pathlib import Path

import numpy as np
import page
from comparison import METRICS_OF_TABLES, sentence
from filter import suggested_replacements
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


def headlines(measured: Measured, threshold: float, compared: list[dict]) -> list[tuple[str, str]]:
    """The answer, (figure, what it is): how much noise is found, what it costs, what is won."""
    scored, prob = measured.test.editable, measured.scores["fused"]
    noise, flagged = (measured.test.mask == 1)[scored], prob[scored] > threshold
    lines = [(f"{flagged.mean():.1%}", f"of {scored.sum():,} history positions have a probability above {threshold}")]
    if noise.any():
        n_found, n_noise, n_clean = (flagged & noise).sum(), noise.sum(), (~noise).sum()
        of_all = f"{noise.mean():.1%} of {scored.sum():,} positions"
        lines = [
            (f"{n_found / n_noise:.0%} found", f"of the injected noise ({of_all}), above a probability of {threshold}"),
            (f"{(flagged & ~noise).sum() / max(n_clean, 1):.1%} lost", "of the items that belong, flagged with it"),
            (f"{n_found / max(flagged.sum(), 1):.0%} right", "of what is flagged is injected noise"),
        ]
    for row in compared[1:]:
        difference = row["difference"]
        text = f"{describe(difference['interval_95'])}: {sentence(row, compared[0])}"
        lines.append((f"{difference['mean']:+.4f}", text))
    return lines


def draw(folder: Path, checks: dict) -> list[tuple[Path, str]]:
    """Writes the figure; [(file, what it shows)]."""
    import matplotlib

    matplotlib.use("Agg")
    return [page.draw_reliability(folder / "report_reliability.png", checks)]


def worth(compared: list[dict]) -> list[str]:
    """Metrics of the recommenders that were trained on these rows; nothing where none are given."""
    if not compared:
        return []
    rows = [
        [row["rows"], *(f"{row[name]['mean']:.4f} ± {row[name]['std']:.4f}" for name in METRICS_OF_TABLES)] for row in compared
    ]
    return ["<h2>What it is worth to the recommender</h2>", page.table(["rows", *METRICS_OF_TABLES], rows)]


def injected_noise(measured: Measured, result: dict) -> list[str]:
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
        f"<h2>Finding the injected noise</h2><p>{len(measured.test.items):,} test windows of "
        f"{len(np.unique(measured.test.users)):,} users, {truth.mean():.1%} of the history "
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


def windows(measured: Measured, titles: list[str], replacer, n_windows: int, threshold: float) -> list[str]:
    """Evenly spaced windows title by title, with what would stand in the place of what is flagged."""
    test, prob = measured.test, measured.scores["fused"]
    n_rows = len(test.items)
    rows = np.linspace(0, n_rows - 1, min(n_windows, n_rows)).astype(int)
    flagged = np.nan_to_num(prob) > threshold
    if test.suspects is not None:
        replacement = suggested_replacements(test)
    else:
        replacement = replacer().replacements(test, flagged)
    cards = (page.window(n, test, row, prob, titles, replacement, threshold) for n, row in enumerate(rows, 1))
    return [
        "<h2>Windows as a person reads them</h2><p>Shaded by the fused probability; above "
        f"{html.escape(str(threshold))} an item is flagged, and what would stand in its place is green. A miss is injected noise "
        "that is not flagged, a false alarm the other way round.</p>",
        page.buttons(),
        *cards,
    ]
