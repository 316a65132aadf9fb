"""What the page of report.py says, a function a section. Knows nothing of how its figures are measured, nor of files of data."""

import html

import numpy as np
from comparison import METRICS_OF_TABLES, ComparedRun, cell, sentence
from findings import Findings, least_suspicious_noise, most_suspicious, threshold_rows

from denoise_code.common import page, suspects
from denoise_code.common.statistics import precision_and_recall
from denoise_code.data_set.evidence_files import BOUND_CONFIDENCE

MOST_MISSED = 24  # that are shown
WHAT_THE_KINDS_ARE = (
    "<b>rarity</b> is how few other users have an item, <b>collaborative</b> the co-occurrence of items in train, <b>semantic</b> how "
    "alike titles are, <b>detector</b> a small network that learned to mark planted items, <b>llm</b> the fine-tuned language "
    "model's noise probability, <b>fused</b> all there are."
)
CONTEXT = (
    "<b>auc_context</b> is the AUC of planted items that are as popular as the log's own: a score that does not read the window has "
    "0.5 there."
)


def page_of(name: str, findings: Findings, titles: list[str], n_suspects: int, threshold: float) -> str:
    """report.html: what was found and what it is worth, the suspects, then the figures. titles by item id."""
    elements = [
        page.cards(headlines(findings, threshold)),
        *worth(findings.compared),
        *suspects_sections(findings, titles, n_suspects, threshold),
        *thresholds(findings),
        page.details("More figures", [*noise_at_most(findings), *injected_noise(findings), *probabilities(findings)]),
    ]
    return page.page(f"Noise found in {name}", elements, suspects.STYLE, suspects.SCRIPT)


def describe(interval: list[float] | None) -> str:
    """An interval in words; a dash where there is none."""
    return "–" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"


def headlines(findings: Findings, threshold: float) -> list[tuple[str, str]]:
    """The answer, (figure, what it is): how much noise there is at most, how much is found, what it is worth."""
    bound = findings.record["share_bound"]["fused"]
    prob, noise = findings.prob[findings.scored], findings.is_injected[findings.scored]
    flagged = prob > threshold
    lines = [
        (
            f"{page.percent(bound)} at most",
            f"of the interactions are noise of the kind that is looked for ({BOUND_CONFIDENCE:.0%} confidence)",
        ),
        (page.percent(flagged.mean()), f"of {len(prob):,} history places have a probability above {threshold}"),
    ]
    if noise.any():
        precision, recall = precision_and_recall(noise, flagged)
        lost = precision_and_recall(~noise, flagged)[1]
        of_all = f"{page.percent(noise.mean())} of {len(prob):,} places"
        lines = [
            (f"{page.percent(recall)} found", f"of the injected noise ({of_all}), above a probability of {threshold}"),
            (f"{page.percent(lost or 0)} lost", "of the items that belong, flagged with it"),
            (f"{page.percent(precision or 0)} right", "of what is flagged is injected noise"),
            lines[0],
        ]
    for run in findings.compared[1:]:
        text = f"{describe(run.difference['interval_95'])}: {sentence(run, findings.compared[0])}"
        lines.append((f"{run.difference['mean']:+.4f}", text))
    return lines


def worth(compared: list[ComparedRun]) -> list[str]:
    """Metrics of the recommenders that were trained on these rows; nothing where none are given."""
    if not compared:
        return []
    rows = [[run.rows, *(cell(run.metrics[name], name) for name in METRICS_OF_TABLES)] for run in compared]
    return ["<h2>What it is worth to the recommender</h2>", page.table(["rows", *METRICS_OF_TABLES], rows)]


def suspects_sections(findings: Findings, titles: list[str], n_suspects: int, threshold: float) -> list[str]:
    """The most suspicious history places, and the injected noise that is least suspicious where there is any."""
    listed = most_suspicious(findings, titles, threshold, n_suspects)
    text = (
        f"The first {len(listed):,} history places of {findings.test.path.name}, each between the {suspects.AROUND} items before it and "
        "after it, with the probability of noise and with the item that would fit better. A user's item stands here once, "
        "whatever rows hold it."
    )
    elements = [suspects.suspects_section("The most suspicious interactions", text, listed)]
    missed = least_suspicious_noise(findings, titles, threshold, MOST_MISSED)
    if missed:
        elements.append(page.details("The injected noise that is least suspicious", [suspects.card_grid(missed)]))
    return elements


def thresholds(findings: Findings) -> list[str]:
    """What thresholds do; nothing where no noise was injected."""
    if not findings.is_injected.any():
        return []
    header = ["threshold", "precision", "recall", "share flagged"]
    return ["<h2>What a threshold on the probability does</h2>", page.table(header, threshold_rows(findings))]


def noise_at_most(findings: Findings) -> list[str]:
    """How much noise each kind of evidence allows."""
    record = findings.record
    context = record["detection"]["auc_context"]
    rows = [[kind, record["share_bound"][kind], context[kind]["auc"] if kind in context else None] for kind in record["kinds"]]
    return [
        "<h2>How much noise there can be</h2><p>The largest share of noise that each kind of evidence allows, with "
        f"{BOUND_CONFIDENCE:.0%} confidence. "
        f"Probabilities take a share of {record['noise_share']:.3f}. {WHAT_THE_KINDS_ARE} {CONTEXT}</p>",
        page.table(["evidence", "noise at most", "auc_context"], rows),
    ]


def injected_noise(findings: Findings) -> list[str]:
    """How well each kind of evidence finds the injected noise."""
    injected = findings.record["detection"]["injected"]
    if injected is None or not findings.is_injected.any():
        return []
    by_kind = injected["by kind"]
    names = list(by_kind["fused"])
    rows = [[kind, *(row[name] for name in names)] for kind, row in by_kind.items()]
    differences = ", ".join(f"{kind} {describe(interval)}" for kind, interval in injected["fused minus"].items())
    return [
        f"<h2>Finding the injected noise</h2><p>{injected['share']:.1%} of {injected['positions']:,} history places of "
        f"{html.escape(injected['file'])}.csv, of {len(np.unique(findings.test.users)):,} users, are injected noise.</p>",
        page.table(["evidence", *names], rows),
        f"<p>AUC of fused less that of the others, 95% intervals (bootstrap over users): {differences}.</p>",
    ]


def probabilities(findings: Findings) -> list[str]:
    """Whether the probabilities agree with the injected noise."""
    injected = findings.record["detection"]["injected"]
    if injected is None:
        return []
    figures_by_share = injected["probability"]  # {"with the share taken": {figure: value}, ...}
    figures = next(iter(figures_by_share.values()))
    rows = [[figure, *(values[figure] for values in figures_by_share.values())] for figure in figures]
    return ["<h2>Are the probabilities right?</h2>", page.table(["", *figures_by_share], rows)]
