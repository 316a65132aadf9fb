"""What the page of report.py says, a function a section. Knows nothing of how its figures are measured, nor of files of data."""

import html

import numpy as np
import page
from comparison import METRICS_OF_TABLES, sentence
from findings import Findings, threshold_rows

KINDS = (
    "<b>rarity</b> is how few other users have an item, <b>collaborative</b> the co-occurrence of items in train, <b>semantic</b> how "
    "alike titles are, <b>detector</b> a small network that learned to mark planted items, <b>llm</b> the fine-tuned language "
    "model's noise probability, <b>fused</b> all there are."
)
CONTEXT = (
    "<b>auc_context</b> is the AUC of planted items that are as popular as the log's own: a score that does not read the window has "
    "0.5 there."
)


def describe(interval: list[float] | None) -> str:
    """An interval in words; a dash where there is none."""
    return "–" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"


def headlines(findings: Findings, threshold: float) -> list[tuple[str, str]]:
    """The answer, (figure, what it is): how much noise there is at most, how much is found, what it is worth."""
    bound = findings.record["share_bound"]["fused"]
    prob, noise = findings.prob[findings.scored], findings.is_injected[findings.scored]
    flagged = prob > threshold
    lines = [
        (f"{bound:.1%} at most", "of the interactions are noise of the kind that is looked for (90 % confidence)"),
        (f"{flagged.mean():.1%}", f"of {len(prob):,} history places have a probability above {threshold}"),
    ]
    if noise.any():
        n_found, n_noise, n_clean = int((flagged & noise).sum()), int(noise.sum()), int((~noise).sum())
        of_all = f"{noise.mean():.1%} of {len(prob):,} places"
        lines = [
            (f"{n_found / n_noise:.0%} found", f"of the injected noise ({of_all}), above a probability of {threshold}"),
            (f"{int((flagged & ~noise).sum()) / max(n_clean, 1):.1%} lost", "of the items that belong, flagged with it"),
            (f"{n_found / max(int(flagged.sum()), 1):.0%} right", "of what is flagged is injected noise"),
            lines[0],
        ]
    for row in findings.compared[1:]:
        difference = row["difference"]
        text = f"{describe(difference['interval_95'])}: {sentence(row, findings.compared[0])}"
        lines.append((f"{difference['mean']:+.4f}", text))
    return lines


def worth(compared: list[dict]) -> list[str]:
    """Metrics of the recommenders that were trained on these rows; nothing where none are given."""
    if not compared:
        return []
    rows = [
        [row["rows"], *(f"{row[name]['mean']:.4f} ± {row[name]['std']:.4f}" for name in METRICS_OF_TABLES)] for row in compared
    ]
    return ["<h2>What it is worth to the recommender</h2>", page.table(["rows", *METRICS_OF_TABLES], rows)]


def injected_noise(findings: Findings) -> list[str]:
    """How well the injected noise is found, and what thresholds do."""
    injected = findings.record["detection"]["injected"]
    if injected is None or not findings.is_injected.any():
        return []
    context = findings.record["detection"]["auc_context"]
    by_kind = injected["by kind"]
    names = list(by_kind["fused"])
    rows = [
        [kind, *(row[name] for name in names), context[kind]["auc"] if kind in context else None] for kind, row in by_kind.items()
    ]
    differences = ", ".join(f"{kind} {describe(interval)}" for kind, interval in injected["fused minus"].items())
    return [
        f"<h2>Finding the injected noise</h2><p>{injected['share']:.1%} of {injected['positions']:,} history places of "
        f"{html.escape(injected['file'])}.csv, of {len(np.unique(findings.test.users)):,} users, are injected noise. {KINDS} {CONTEXT}</p>",
        page.table(["evidence", *names, "auc_context"], rows),
        f"<p>AUC of fused less that of the others, 95 % intervals (bootstrap over users): {differences}.</p>",
        "<h2>What a threshold on the probability does</h2>",
        page.table(["threshold", "precision", "recall", "share flagged"], threshold_rows(findings)),
    ]


def foundations(findings: Findings) -> list[str]:
    """How much noise there can be, whether the probabilities are right, and what they rest on."""
    record = findings.record
    context = record["detection"]["auc_context"]
    rows = [[kind, record["share_bound"][kind], context[kind]["auc"] if kind in context else None] for kind in record["kinds"]]
    parts = [
        "<h2>How much noise there can be</h2><p>The largest share of noise that each kind of evidence allows, with 90 % confidence. "
        f"Probabilities take a share of {record['noise_share']:.3f}. {CONTEXT}</p>",
        page.table(["evidence", "noise at most", "auc_context"], rows),
    ]
    injected = record["detection"]["injected"]
    if injected is not None:
        columns = list(next(iter(injected["probability"].values())))
        rows = [[name, *values.values()] for name, values in injected["probability"].items()]
        parts += ["<h2>Are the probabilities right?</h2>", page.table(["", *columns], rows)]
    weights = [[name, value] for name, value in record["coefficients"]["fused"].items()]
    parts += [
        "<h2>What the evidence rests on</h2><p>Weights in the log-odds of standardised features, and of products of two.</p>",
        page.table(["feature", "weight"], weights),
    ]
    return parts


def windows(findings: Findings, titles: list[str], n_windows: int, threshold: float) -> list[str]:
    """Evenly spaced windows title by title, with what would stand in the place of what is flagged."""
    test = findings.test
    n_rows = len(test.items)
    rows = np.linspace(0, n_rows - 1, min(n_windows, n_rows)).astype(int)
    cards = (page.window(n, test, row, findings.prob, titles, findings.replacements, threshold) for n, row in enumerate(rows, 1))
    return [
        "<h2>Windows as a person reads them</h2><p>Shaded by the probability of noise; above "
        f"{html.escape(str(threshold))} an item is flagged, and what would stand in its place is green. A miss is injected noise "
        "that is not flagged, a false alarm the other way round.</p>",
        page.buttons(),
        *cards,
    ]
