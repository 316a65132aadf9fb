"""Show people how well the noise of a data set is found, what would be replaced by what, and what it is worth.

Reads   data/<dataset>/, a folder that generate_denoised.py made; --runs: folders of main.py
Writes  data/<dataset>/report.html, self-contained, report.json and the figures report_*.png

    python report.py --dataset ML100K_denoise_user0.1_2400_600
    python report.py --dataset Toy_denoise_user0.1_0 --windows 200 --runs output/X/none_1a2b3c4d5e output/X/all_6f7a8b9c0d
"""

import argparse
import html
from functools import cache
from pathlib import Path

import numpy as np
from options import ROOT, Parser, input_errors, partial_path, ranged, write_json

THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7)
KINDS = (
    "<b>raw</b> is the language model's noise probability, <b>llm</b> the same calibrated, <b>collaborative</b> the co-occurrence "
    "of items in train, <b>semantic</b> how alike titles are, <b>fused</b> all there are."
)
CONTEXT = (
    "<b>auc_context</b> is the AUC on train windows in which the noise is as popular as the rest: a score that does not read "
    "the window has 0.5 there."
)


def describe(found: list[float]) -> str:
    return f"{found[0]:+.4f} to {found[1]:+.4f}"


class Measured:
    """Each kind of evidence fitted, and its probabilities where they are checked."""

    def __init__(self, test, sources):
        from evidence import Evidence

        kinds = sources.kinds()
        if {"llm", "semantic"} <= set(kinds):
            kinds.insert(-1, "collaborative+semantic")
        self.test, self.sources = test, sources
        self.fitted = {kind: Evidence(kind, sources) for kind in kinds}
        self.scores = {kind: evidence.probabilities(test) for kind, evidence in self.fitted.items()}
        self.planted = sources.planted_by("fused", popular=True)
        self.on_planted = {kind: evidence.probabilities(self.planted) for kind, evidence in self.fitted.items()}
        if "llm" in kinds:
            self.scores = {"raw": test.noise_prob} | self.scores
            self.on_planted = {"raw": self.planted.noise_prob} | self.on_planted

    def context(self) -> dict:
        """{kind: AUC on noise as popular as the rest, with its interval}."""
        from evidence import bootstrap_aucs, interval
        from sklearn.metrics import roc_auc_score

        drawn, scored = bootstrap_aucs(self.planted, 2, self.on_planted), self.planted.editable
        truth = (self.planted.mask == 2)[scored]
        return {
            kind: {"auc_context": float(roc_auc_score(truth, score[scored])), "interval": interval(drawn[kind])}
            for kind, score in self.on_planted.items()
        }

    def checks(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """{kind: (truth, probability)} on planted windows of users that the kind was not fitted on."""
        from evidence import Evidence, halves

        checks = {}
        for kind in self.fitted:
            fit_on, held_out = halves(self.sources.planted_by(kind))
            prob = Evidence(kind, self.sources, fit_on).probabilities(held_out)[held_out.editable]
            checks[kind] = (held_out.mask == 2)[held_out.editable], prob
        return checks

    def detection(self, mark: int) -> dict:
        """{kind: figures} of what the mask of test marks, {} where it marks nothing."""
        from evidence import detection_row

        truth, scored = self.test.mask == mark, self.test.editable
        if not truth[scored].any():
            return {}
        return {kind: detection_row(truth, score, scored) for kind, score in self.scores.items()}


def calibration(checks: dict) -> dict:
    from evidence import expected_calibration_error
    from sklearn.metrics import brier_score_loss

    return {
        kind: {
            "Brier score": float(brier_score_loss(truth, prob)),
            "expected calibration error": expected_calibration_error(truth, prob),
        }
        for kind, (truth, prob) in checks.items()
    }


def threshold_rows(truth: np.ndarray, prob: np.ndarray) -> list[list]:
    """[threshold, precision, recall, share of positions flagged]; truth and prob (N,)."""
    rows = []
    for threshold in THRESHOLDS:
        flagged = prob > threshold
        hits = (flagged & truth).sum()
        rows.append([threshold, hits / max(flagged.sum(), 1), hits / max(truth.sum(), 1), flagged.mean()])
    return rows


def facts(measured: Measured, threshold: float, compared: list[dict]) -> list[tuple[str, str]]:
    """The answer: how much noise is found, what it costs, what is won."""
    from evaluate import sentence

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


def build(folder: Path, measured: Measured, titles: list[str], replacer, args, compared: list[dict]) -> dict:
    """Writes the figures and report.html into the folder; returns the figures of the report. replacer: () -> Replacer."""
    import matplotlib

    matplotlib.use("Agg")
    import page
    from evaluate import MEASURED
    from evidence import bootstrap_aucs, interval
    from filter import replacements
    from replacement import hits

    test, scored, checks = measured.test, measured.test.editable, measured.checks()
    result = {"calibration": calibration(checks), "auc_context": measured.context(), "runs": compared}
    result["coefficients"] = {kind: evidence.coefficients() for kind, evidence in measured.fitted.items()}
    drawn = [page.draw_reliability(folder / "report_reliability.png", checks)]
    parts = [page.answer(facts(measured, args.threshold, compared))]
    if compared:
        rows = [[row["rows"], *(f"{row[name]['mean']:.4f} ± {row[name]['std']:.4f}" for name in MEASURED)] for row in compared]
        parts += ["<h2>What it is worth to the recommender</h2>", page.table(["rows", *MEASURED], rows)]

    # injected noise
    detection = measured.detection(1)
    if detection:
        truth, flat = (test.mask == 1)[scored], {kind: score[scored] for kind, score in measured.scores.items()}
        draws = bootstrap_aucs(test, 1, measured.scores)
        result |= {
            "detection": detection,
            "fused minus": {k: interval(draws["fused"] - v) for k, v in draws.items() if k != "fused"},
        }
        drawn = [*page.draw_curves(folder, truth, flat), *drawn]
        drawn.append(page.draw_histograms(folder / "report_scores.png", truth, flat))
        rows = [
            [kind, figures["AUC"], result["auc_context"][kind]["auc_context"], *list(figures.values())[1:]]
            for kind, figures in detection.items()
        ]
        differences = ", ".join(f"{kind} {describe(found)}" for kind, found in result["fused minus"].items())
        parts += [
            f"<h2>Finding the injected noise</h2><p>{len(test.items):,} test windows, {truth.mean():.1%} of the history "
            f"positions are injected noise. {KINDS} {CONTEXT}</p>",
            page.table(["evidence", "AUC", "auc_context", *list(detection["fused"])[1:]], rows),
            f"<p>AUC of fused less that of the others, 95 % intervals (bootstrap over users): {differences}.</p>",
            "<h2>What a threshold on the fused probability does</h2>",
            page.table(["threshold", "precision", "recall", "share flagged"], threshold_rows(truth, flat["fused"])),
        ]
    if detection and (test.clean != test.items)[scored].any():
        result["replacements"] = hits(replacer(), test)
        rows = [[kind, *found.values()] for kind, found in result["replacements"].items()]
        parts += [
            "<h2>Finding what stood there</h2><p>For how many of the injected items the true one comes first, or among ten, by "
            "the rest of the history.</p>",
            page.table(["ranking", "first", "among ten"], rows),
        ]
    natural = measured.detection(3)
    if natural:
        result["detection_natural"], share = natural, (test.mask == 3)[scored].mean()
        parts += [
            f"<h2>Finding natural noise</h2><p>{share:.1%} of the history positions were rated low.</p>",
            page.table(["evidence", *natural["fused"]], [[kind, *row.values()] for kind, row in natural.items()]),
        ]

    # what it rests on, and what it does
    weights = [[f"{kind}: {name}", value] for kind, named in result["coefficients"].items() for name, value in named.items()]
    header, rows = ["evidence", *result["calibration"]["fused"]], [[k, *row.values()] for k, row in result["calibration"].items()]
    chosen = np.linspace(0, len(test.items) - 1, min(args.windows, len(test.items))).astype(int)
    prob = measured.scores["fused"]
    flagged = np.nan_to_num(prob) > args.threshold
    replacement = replacements(test) if test.suspects is not None else replacer().replacements(test, flagged)
    parts += [
        "<h2>Are the probabilities right?</h2><p>Fitted on one half of the users of planted windows, checked on the other.</p>",
        page.table(header, rows),
        "<h2>What the evidence rests on</h2><p>Weights of the standardised features in the log-odds.</p>",
        page.table(["feature", "weight"], weights),
        "<h2>Figures</h2>" + page.images(drawn),
        "<h2>Windows as a person reads them</h2><p>Shaded by the fused probability; above "
        f"{html.escape(str(args.threshold))} an item is flagged, and what would stand in its place is green. A miss is injected noise "
        "that is not flagged, a false alarm the other way round.</p>",
        page.choice(),
        *(page.window(n, test, row, prob, titles, replacement, args.threshold) for n, row in enumerate(chosen, 1)),
    ]
    partial = partial_path(folder / "report.html")
    partial.write_text(page.page(folder.name, parts), encoding="utf-8")
    partial.replace(folder / "report.html")
    return result


def main(argv=None) -> dict:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--dataset", required=True, help="denoised folder below --data_root")
    parser.add_argument("--data_root", type=Path, default=ROOT.parent / "data")
    parser.add_argument("--windows", type=ranged(int, 1), default=60, help="windows to show, evenly spaced")
    parser.add_argument(
        "--threshold", type=ranged(float, 0, 1), default=0.3, help="of the fused probability, in words and windows"
    )
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of main.py, the noisy one first")
    args = parser.parse_args(argv)
    from dataloader import find_split, read_split, read_titles, scored
    from evaluate import compare, read_runs
    from filter import read_sources
    from replacement import Replacer

    with input_errors(__file__):
        folder = args.data_root / args.dataset
        titles, with_llm = read_titles(folder), scored(folder)
        n_items, columns = len(titles) - 1, {True: "needed", False: "ignored"}
        train, test = (
            read_split(find_split(args.data_root, args.dataset, split, needed), titles, 10, columns[needed])
            for split, needed in (("train", False), ("test", with_llm))
        )
        measured = Measured(test, read_sources(folder, train, n_items, 10))
        replacer = cache(lambda: Replacer(train, n_items, measured.sources.vectors))
        compared = compare(*read_runs(args.runs)) if args.runs else []
        result = build(folder, measured, titles, replacer, args, compared)
    write_json(folder / "report.json", result)
    for figure, text in facts(measured, args.threshold, compared)[:3]:
        print(f"{figure:>10s} {text}")
    print(f"wrote {folder / 'report.html'}")
    return result


if __name__ == "__main__":
    main()
