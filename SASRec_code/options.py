"""The options that the scripts of stage 3 share, and the small dataclasses in which they travel.

A script parses its options once and makes of them the dataclasses that it hands on; what reads each stands in its docstring.
Most of their fields are options, with help and default (denoise_code/common/options.py).
"""

import argparse
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from denoise_code.common.errors import Parser
from denoise_code.common.files import write_atomically
from denoise_code.common.options import Options, needed, option, positive, ranged, switch

ROOT = Path(__file__).resolve().parent
KINDS = ("raw", "llm", "collaborative", "semantic", "detector", "fused", "random", "oracle")
CONTROLS = ("random", "oracle")  # kinds that sweep.py adds by itself
EDITS = ("replace", "delete")
FILTERED_SPLITS = {  # --denoise_category
    "none": (),
    "train": ("train",),
    "test": ("valid", "test"),
    "all": ("train", "valid", "test"),
}
WHERE_IT_RAN = ("data_root", "output_root", "device", "cuda", "where")  # options that shape no result
# The options that say which rows a run has: what compare.py expects to differ between runs.
OPTIONS_OF_ROWS = (
    "dataset",
    "denoise_category",
    "train_noise_filter_threshold",
    "test_noise_filter_threshold",
    "train_max_denoise_num",
    "test_max_denoise_num",
    "threshold_from",
    "evidence",
    "noise_share",
    "edit",
    "clean",
)
WHAT_IS_SUSPICIOUS = (
    "what makes an item suspicious: raw, noise_prob itself (default, paper: raw); or P(noise) by what stage 2 made, fused by all that the "
    "folder has"
)
NO_CAP = 10**6  # edits in a row
# What is edited where nothing is given: of raw evidence as in the release, of calibrated evidence what is rather noise than not.
RAW_LIMITS, CALIBRATED_LIMITS = (0.9, 3), (0.5, NO_CAP)  # (threshold, most edits in a row)


def stored_kind(evidence: str) -> str:
    """The kind of evidence.safetensors that a calibrated kind of --evidence reads: `random` permutes what `fused` says."""
    return "fused" if evidence == "random" else evidence


@dataclass(frozen=True)
class RowsOptions(Options):
    """Which files are read, and how much of their rows: rows.py."""

    dataset: str = needed("folder below --data_root (needed)")
    data_root: Path = option(ROOT.parent / "data", "where data sets lie (default: data/ of the project)", type=Path)
    maxlen: int | None = option(
        None,
        "longest history, of a longer one the latest items (default: that of the data set's rows; 10 in the release)",
        type=positive,
    )
    evidence: tuple[str, ...] = ("raw",)  # kinds that will weigh the rows
    filtered: tuple[str, ...] = ()  # splits whose rows will be filtered
    edits: tuple[str, ...] = ("replace",)
    whole_splits: bool = False  # never a sample of a split's rows

    def reads_noise_prob(self, split: str) -> bool:
        """Whether the columns of this split that an adapter's scores stand in are read."""
        return "raw" in self.evidence and split in self.filtered

    @property
    def stored_kinds(self) -> list[str]:
        """Kinds of evidence.safetensors whose probabilities are needed: `random` permutes those of `fused`."""
        return list(dict.fromkeys(stored_kind(kind) for kind in self.evidence if kind not in ("raw", "oracle")))

    @property
    def reads_evidence(self) -> bool:
        """Whether evidence.safetensors is read: the oracle takes its replacements alone."""
        oracle_replaces = "oracle" in self.evidence and "replace" in self.edits
        return bool(self.filtered) and bool(self.stored_kinds or oracle_replaces)

    @property
    def folder(self) -> Path:
        return self.data_root / self.dataset

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> Self:
        kinds = (args.evidence,) if isinstance(args.evidence, str) else tuple(args.evidence)
        edits = (args.edit,) if isinstance(args.edit, str) else tuple(args.edit)
        filtered, whole_splits = FILTERED_SPLITS[args.denoise_category], getattr(args, "rows", "sample") == "all"  # of export.py
        return cls(args.dataset, args.data_root, args.maxlen, kinds, filtered, edits, whole_splits)


@dataclass(frozen=True)
class EditLimits:
    """What is edited in the rows of a part, train or test (valid and test): filter.py, bench.py.

    threshold: of `raw` the share of positions below it, of other evidence a probability. max_edits: most edits in a row.
    """

    threshold: float = RAW_LIMITS[0]
    max_edits: int = RAW_LIMITS[1]


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Of train rows, and of the histories of valid and test rows; those that are not given are set by `with_limits`."""
    add, number, share = parser.add_argument_group("what is edited").add_argument, ranged(int, 0), ranged(float, 0, 1)
    add(
        "--train_noise_filter_threshold",
        type=share,
        help="threshold of train rows; raw: the share of positions below it (default: 0.9; release, in its command: 0.6); other "
        "evidence: the P(noise) above which an item is edited (default: 0.5)",
    )
    add(
        "--test_noise_filter_threshold",
        type=share,
        help="the same for the histories of valid and test rows (defaults as for train rows; release, in its command: 0.9)",
    )
    add(
        "--train_max_denoise_num",
        type=number,
        help="most edits in a train row (default: raw 3, as in the release, in whose command 2; other evidence no limit)",
    )
    add(
        "--test_max_denoise_num",
        type=number,
        help="most edits in a history of valid or test (defaults as for train rows; release, in its command: 1)",
    )


@dataclass(frozen=True)
class FilterOptions(Options):
    """What the threshold filter does: filter.py, bench.py."""

    denoise_category: str = option(
        "none",
        "rows to filter; test: the histories of valid too (default, release: none)",
        choices=[*FILTERED_SPLITS],
    )
    train: EditLimits = EditLimits()
    test: EditLimits = EditLimits()  # of histories of valid and test rows
    threshold_from: str = option(
        "valid",
        "raw: rows whose percentile is taken for test (default: valid; release: split, each its own)",
        choices=["valid", "split"],
    )
    evidence: str = option(
        "raw",
        f"{WHAT_IS_SUSPICIOUS}; random: the same at random places; oracle: the injected noise itself",
        choices=[*KINDS],
    )
    noise_share: float | None = option(
        None,
        "share of noise that P(noise) takes (default: that of the evidence); replacements stay as they are",
        type=ranged(float, 1e-9, 1),
    )
    edit: str = option(
        "replace",
        "what is done to a flagged item; one without a replacement is deleted either way (default, paper: replace)",
        choices=EDITS,
    )
    clean: bool = switch("take the rows before noise was injected: the upper bound of denoising (default: as they are)")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits whose rows are filtered."""
        return FILTERED_SPLITS[self.denoise_category]

    def limits_of(self, split: str) -> EditLimits:
        return self.train if split == "train" else self.test

    @classmethod
    def from_arguments(cls, args: argparse.Namespace, **instead) -> Self:
        """instead: such as one of several kinds of evidence."""
        train = EditLimits(args.train_noise_filter_threshold, args.train_max_denoise_num)
        test = EditLimits(args.test_noise_filter_threshold, args.test_max_denoise_num)
        return super().from_arguments(args, train=train, test=test, **instead)


# What sweep.py, which compares several, is told otherwise.
SEVERAL_FILTERS = {
    "evidence": {
        "choices": [kind for kind in KINDS if kind not in CONTROLS],
        "default": ["raw"],
        "nargs": "+",
        "help": WHAT_IS_SUSPICIOUS,
    },
    "edit": {"default": ["replace"], "nargs": "+"},
}
SEVERAL_MODELS = {"model": {"default": ["SASRec"], "nargs": "+"}}

PAPER = {  # width, blocks, heads and dropout of each model's paper; SASRec as in the release
    "SASRec": {"hidden_units": 64, "num_blocks": 2, "num_heads": 1, "dropout_rate": 0.5},
    "GRU4Rec": {"hidden_units": 100, "num_blocks": 1, "num_heads": 1, "dropout_rate": 0.5},
    "BERT4Rec": {"hidden_units": 64, "num_blocks": 2, "num_heads": 2, "dropout_rate": 0.2},
}
LOSSES = {"BERT4Rec": ("ce",)}  # of models that do not learn by all: it predicts masked items over the whole catalogue


def of_papers(option: str) -> str:
    """The values that each model's paper or, of SASRec, the release sets: for help."""
    papers = ", ".join(f"{values[option]} for {model}" for model, values in PAPER.items() if model != "SASRec")
    return f"release: {PAPER['SASRec'][option]} for SASRec; paper: {papers}"


@dataclass(frozen=True)
class RecommenderOptions(Options):
    """The network: training.make_model. A size that is not given is that of the model's paper: `of_model`."""

    model: str = option("SASRec", "recommender (default, release: SASRec)", choices=[*PAPER])
    maxlen: int = 10
    hidden_units: int = option(64, f"width of the network (default, {of_papers('hidden_units')})", type=positive, default=None)
    num_blocks: int = option(2, f"layers of the network (default, {of_papers('num_blocks')})", type=positive, default=None)
    num_heads: int = option(1, f"heads of attention (default, {of_papers('num_heads')})", type=positive, default=None)
    dropout_rate: float = option(
        0.5,
        f"share of activations that are dropped in training (default, {of_papers('dropout_rate')})",
        type=ranged(float, 0, 0.99),
        default=None,
    )

    @classmethod
    def from_arguments(cls, args: argparse.Namespace, model: str) -> Self:
        """With what the model's paper sets where nothing is given."""
        return super().from_arguments(of_model(args, model))


@dataclass(frozen=True)
class TrainingOptions(Options):
    """How it learns: training.train_epoch, training.fit."""

    batchsize: int = option(256, "windows a step (default, release: 256)", type=positive)
    lr: float = option(0.001, "Adam's learning rate (default, release: 0.001)", type=ranged(float, 1e-9))
    num_epochs: int = option(201, "most epochs (default, release: 201)", type=positive)
    weight_decay: float = option(0.0, "Adam's weight decay (default, release: 0)", type=ranged(float, 0))
    loss: str = option(
        "bce",
        "bce: one negative item a position; ce: the whole catalogue (default, release: bce)",
        choices=["bce", "ce"],
    )
    patience: int = option(10, "epochs without a better NDCG@20 before stopping (default, release: 10)", type=positive)
    select_on: str = option(
        "valid", "split whose NDCG@20 picks the epoch (default: valid; release: test)", choices=["valid", "test"]
    )


def add_run_options(parser: argparse.ArgumentParser, n_seeds: int) -> None:
    """What the scripts themselves read. n_seeds: the default of --seeds."""
    add, number = parser.add_argument_group("runs").add_argument, ranged(int, 0)
    add("--seed", type=number, default=2024, help="seed of weights, order, negatives and dropout (default, release: 2024)")
    add(
        "--seeds",
        type=positive,
        default=n_seeds,
        help=f"runs of consecutive seeds; mean and spread are reported (default: {n_seeds})",
    )
    add("--state_dict_path", type=Path, help="evaluate these weights, train nothing (default: train)")
    add("--device", help="cpu, cuda, cuda:1, … (default: the GPU --cuda where there is one)")
    add("--cuda", type=number, default=0, help="number of the GPU (default: 0)")


def filter_parser(description: str, several: bool = False) -> argparse.ArgumentParser:
    """Which rows, and what the filter makes of them: the options of export.py, and a part of everyone else's.

    several: of what sweep.py compares.
    """
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    RowsOptions.add_to(parser, "rows")
    FilterOptions.add_to(parser, "filter", **(SEVERAL_FILTERS if several else {}))
    add_limits(parser)
    parser.add_argument(
        "--output_root", type=Path, default=ROOT / "output", help="where results go (default: SASRec_code/output)"
    )
    return parser


def make_parser(description: str, several: bool = False) -> argparse.ArgumentParser:
    """The same, and how the recommender is trained: the options of main.py and sweep.py."""
    parser = filter_parser(description, several)
    RecommenderOptions.add_to(parser, "recommender", **(SEVERAL_MODELS if several else {}))
    TrainingOptions.add_to(parser, "training")
    add_run_options(parser, n_seeds=5 if several else 1)
    return parser


def check_filter(parser, args: argparse.Namespace) -> argparse.Namespace:
    """Refuse what contradicts itself, or changes nothing, before anything is read."""
    if args.clean and args.denoise_category != "none":
        parser.error("--clean has nothing to denoise: use it with --denoise_category none")
    for name, reason in without_effect(args).items():
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} changes nothing with {reason}")
    return with_limits(args) if isinstance(args.evidence, str) else args


def without_effect(args: argparse.Namespace) -> dict[str, str]:
    """{option of the filter: the option, with its value, that leaves it without effect}."""
    kinds = [args.evidence] if isinstance(args.evidence, str) else args.evidence
    category, evidence = f"--denoise_category {args.denoise_category}", f"--evidence {' '.join(kinds)}"
    reasons = {}
    if set(kinds) <= {"raw", "oracle"}:
        reasons["noise_share"] = evidence
    if "raw" not in kinds:
        reasons["threshold_from"] = evidence
    filtered = FILTERED_SPLITS[args.denoise_category]
    if "train" not in filtered:
        reasons |= dict.fromkeys(("train_noise_filter_threshold", "train_max_denoise_num"), category)
    if "test" not in filtered:
        reasons |= dict.fromkeys(("test_noise_filter_threshold", "test_max_denoise_num", "threshold_from"), category)
    if not filtered:
        reasons |= dict.fromkeys(("evidence", "noise_share", "edit"), category)
    return reasons


def with_limits(args: argparse.Namespace) -> argparse.Namespace:
    """With the thresholds and caps of this kind of evidence where none are given."""
    limits = RAW_LIMITS if args.evidence == "raw" else CALIBRATED_LIMITS
    names = ("noise_filter_threshold", "max_denoise_num")
    missing = {}
    for part in ("train", "test"):
        for name, value in zip(names, limits):
            if getattr(args, f"{part}_{name}") is None:
                missing[f"{part}_{name}"] = value
    return with_settings(args, **missing)


def with_settings(args: argparse.Namespace, **changed) -> argparse.Namespace:
    return argparse.Namespace(**(vars(args) | changed))


def of_model(args: argparse.Namespace, model: str) -> argparse.Namespace:
    """The arguments for this model, with what its paper sets where nothing is given."""
    of_paper = {option: value for option, value in PAPER[model].items() if getattr(args, option) is None}
    return with_settings(args, model=model, **of_paper)


def check_args(parser, args: argparse.Namespace) -> argparse.Namespace:
    """The same for one model, with what its paper sets."""
    args = of_model(args, args.model)
    if args.loss not in LOSSES.get(args.model, (args.loss,)):
        parser.error(f"--model {args.model} does not learn by --loss {args.loss}: use --loss {' or '.join(LOSSES[args.model])}")
    if args.hidden_units % args.num_heads:
        parser.error(f"--hidden_units {args.hidden_units} is not a multiple of --num_heads {args.num_heads}")
    if args.state_dict_path and not args.state_dict_path.is_file():
        parser.error(f"--state_dict_path {args.state_dict_path}: no such file")
    if args.state_dict_path and args.seeds > 1:
        parser.error(f"--seeds {args.seeds} changes nothing with --state_dict_path: weights that are given are ranked once")
    return check_filter(parser, args)


def settings(args: argparse.Namespace) -> dict:
    """The arguments that shape the result, as run.json keeps them."""
    shaping = {option: value for option, value in vars(args).items() if option not in WHERE_IT_RAN}
    return {option: str(value) if isinstance(value, Path) else value for option, value in shaping.items()}


def output_folder(args: argparse.Namespace, data_fingerprint: str, prefix: str) -> Path:
    """A folder for these settings on these rows: the same command writes the same results to the same place."""
    identity = json.dumps([settings(args), data_fingerprint], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
    return args.output_root / args.dataset / f"{prefix}{'clean' if args.clean else args.denoise_category}_{digest}"


def models_folder(args: argparse.Namespace) -> Path:
    """Where trained models of a data set are kept, for all scripts."""
    return args.output_root / args.dataset / "models"


def link_or_copy(source: Path, target: Path) -> None:
    """`source` under a second name, which takes no space; a copy where the file system has no hard links.

    Both stay whole if one is removed, and neither is ever written to: files are made beside their name and renamed.
    """
    with write_atomically(target) as partial:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
