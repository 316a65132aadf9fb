"""What sweep.py runs: arms, each with its grid of settings, chosen on valid and then ranked once on test.

An arm is a way to edit rows: a kind of evidence with an edit, the same at random places, the oracle, none at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, product

import numpy as np
import torch
from comparison import AT_RANDOM
from filter import Edits, edit_or_keep, selection_windows, shuffle_probabilities
from options import NO_CAP, EditLimits, FilterOptions
from ranking import ndcg_per_row, rank_targets
from rows import LoadedRows
from torch import Tensor
from training import Trainer

NO_EDITS = EditLimits(1.0, 0)
EVERY_MARKED_ITEM = EditLimits(0.5, NO_CAP)  # the oracle's probabilities are 0 and 1
Probabilities = dict[str, np.ndarray]  # {split: how strongly each position (N, W) is suspected}


@dataclass(frozen=True)
class Setting:
    """The limits of train rows and of histories of valid and test rows."""

    train: EditLimits
    test: EditLimits

    def as_options(self) -> dict[str, float | int]:
        """By the names of main.py's options."""
        limits = {"train": self.train, "test": self.test}
        result = {}
        for part, of_part in limits.items():
            result[f"{part}_noise_filter_threshold"] = of_part.threshold
            result[f"{part}_max_denoise_num"] = of_part.max_edits
        return result


@dataclass(frozen=True)
class Grids:
    """The limits that are tried, of train rows and of histories; the first of each edits nothing."""

    train: list[EditLimits]
    test: list[EditLimits]


def grid(thresholds: list[float], caps: list[int]) -> list[EditLimits]:
    """Limits to try for one part; the first edits nothing."""
    return [NO_EDITS, *(EditLimits(threshold, cap) for threshold, cap in product(thresholds, caps))]


@dataclass(frozen=True)
class Arm:
    """A way to edit rows. draws: the probabilities of each seed, or one for all seeds."""

    name: str
    filtering: FilterOptions
    draws: list[Probabilities]


@dataclass(frozen=True)
class Choice:
    """What valid says of an arm: a record a setting, with its NDCG@20 on valid; the best setting; its edited train rows by draw."""

    records: list[dict]
    setting: Setting
    train_edits: list[Edits]


@dataclass(frozen=True)
class Tested:
    """An arm at one setting. ranks (S, N, 2) of test; edits: for each draw {split: how much was edited}."""

    ranks: np.ndarray
    edits: list[dict[str, dict[str, int]]]


class Bench:
    """Rows, and a trainer for them: chooses the setting of any arm on valid, and ranks test at one setting.

    probabilities: {kind of evidence: its probabilities}, with `oracle` where noise is marked.
    """

    def __init__(
        self,
        rows: LoadedRows,
        trainer: Trainer,
        seeds: range,
        grids: Grids,
        probabilities: dict[str, Probabilities],
    ):
        self.rows, self.trainer, self.seeds = rows, trainer, seeds
        self.grids, self.probabilities = grids, probabilities

    def windows(self, split: str, arm: Arm, limits: EditLimits) -> list[Tensor]:
        """Windows (N, L + 1) of one split, edited within these limits, for each draw of the arm."""
        return self.to_device(self.edits(split, arm, limits))

    def edits(self, split: str, arm: Arm, limits: EditLimits) -> list[Edits]:
        """The same, with how much was edited."""
        filtering = replace(arm.filtering, train=limits, test=limits)
        return [edit_or_keep(self.rows, split, probabilities, filtering) for probabilities in arm.draws]

    def to_device(self, edits: list[Edits]) -> list[Tensor]:
        """The windows (N, L + 1) of each draw."""
        return [torch.from_numpy(of_draw.windows).to(self.trainer.device) for of_draw in edits]

    def selection(self, arm: Arm) -> Tensor:
        """The windows (M, L + 1) that choose the epoch: those of valid, as they are."""
        windows = selection_windows(self.rows.splits, {}, "valid", arm.filtering.clean)
        return torch.from_numpy(windows).to(self.trainer.device)

    def ranks(self, train: Tensor, selection: Tensor, evaluated: list[Tensor], seed: int) -> list[np.ndarray]:
        """Ranks (N, 2) for each of some windows, by a model trained on `train`, its epoch chosen by `selection`."""
        model = self.trainer.train(train, selection, seed).model
        return [rank_targets(model, windows[:, :-1], windows[:, -1]) for windows in evaluated]

    def test(self, arm: Arm, setting: Setting, train_edits: list[Edits] | None = None) -> Tested:
        """Test at one setting. train_edits: the edited train rows of each draw, where `choose` has made them."""
        train_edits = train_edits or self.edits("train", arm, setting.train)
        test_edits = self.edits("test", arm, setting.test)
        train_windows, test_windows = self.to_device(train_edits), self.to_device(test_edits)
        selection = self.selection(arm)
        ranks = []
        for seed, train, test in zip(self.seeds, cycle(train_windows), cycle(test_windows)):  # one draw serves all seeds
            ranks += self.ranks(train, selection, [test], seed)
        counts = [{"train": train.counts(), "test": test.counts()} for train, test in zip(train_edits, test_edits)]
        return Tested(np.stack(ranks), counts)

    def choose(self, arm: Arm) -> Choice:
        """The setting with the highest mean NDCG@20 over seeds on valid; the first of equals."""
        selection, best_ndcg, records = self.selection(arm), -1.0, []
        valid_windows = [self.windows("valid", arm, limits) for limits in self.grids.test]  # [setting][draw]
        valid_by_draw = list(zip(*valid_windows))  # [draw][setting]
        for train_limits in self.grids.train:
            train_edits = self.edits("train", arm, train_limits)  # [draw]
            by_seed = zip(self.seeds, cycle(self.to_device(train_edits)), cycle(valid_by_draw))
            ranks = [self.ranks(train, selection, valid, seed) for seed, train, valid in by_seed]  # [seed][setting] (N, 2)
            for number, test_limits in enumerate(self.grids.test):
                setting = Setting(train_limits, test_limits)
                ndcg = float(np.mean([ndcg_per_row(of_seed[number]).mean() for of_seed in ranks]))
                records.append({**setting.as_options(), "valid NDCG@20": ndcg})
                if ndcg > best_ndcg:
                    best_ndcg, best_setting, best_train_edits = ndcg, setting, train_edits
        return Choice(records, best_setting, best_train_edits)

    def arm(self, filtering: FilterOptions, evidence: str, edit: str) -> Arm:
        return Arm(f"{evidence}, {edit}", replace(filtering, evidence=evidence, edit=edit), [self.probabilities[evidence]])

    def arms_to_choose(self, filtering: FilterOptions, evidence: list[str], edits: list[str]) -> Iterator[Arm]:
        """Every kind of evidence with every edit, each followed by its control: what edits alone are worth."""
        for kind, edit in product(evidence, edits):
            arm = self.arm(filtering, kind, edit)
            yield arm
            if self.has_random_control(arm.filtering):
                yield self.at_random(arm)

    def has_random_control(self, filtering: FilterOptions) -> bool:
        """Whether other places can be edited in the same way: the language model lists its suspects, and has replacements for
        these alone; stage 2 has replacements for all places, in a large log for probable noise alone."""
        if filtering.evidence == "raw":
            return False
        return filtering.edit == "delete" or self.rows.replaces_all_places

    def at_random(self, arm: Arm) -> Arm:
        """The arm's control: the same probabilities at random places, drawn anew for each seed."""
        (probabilities,) = arm.draws
        draws = []
        for draw in range(len(self.seeds)):
            draws.append({name: shuffle_probabilities(self.rows, name, prob, draw) for name, prob in probabilities.items()})
        return Arm(arm.name + AT_RANDOM, arm.filtering, draws)


@dataclass(frozen=True)
class Results:
    """What all arms gave: records of `choose`, {arm: its setting}, {arm: ranks (S, N, 2) of test}, {arm: how much it edited, by draw}."""

    records: list[dict]
    settings: dict[str, Setting]
    runs: dict[str, np.ndarray]
    edits: dict[str, list[dict]]


def run_arms(bench: Bench, filtering: FilterOptions, evidence: list[str], edits: list[str]) -> Results:
    """Noisy rows; all arms, each at the setting that valid chose; where noise is marked, the oracle and clean rows."""
    untouched = Setting(NO_EDITS, NO_EDITS)
    results = Results([], {}, {"noisy": bench.test(Arm("noisy", filtering, [{}]), untouched).ranks}, {})
    for arm in bench.arms_to_choose(filtering, evidence, edits):
        choice = bench.choose(arm)
        results.records.extend({"rows": arm.name} | record for record in choice.records)
        results.settings[arm.name] = choice.setting
        tested = bench.test(arm, choice.setting, choice.train_edits)
        results.runs[arm.name], results.edits[arm.name] = tested.ranks, tested.edits
    if "oracle" not in bench.probabilities:
        return results
    for edit in edits:
        oracle = bench.arm(filtering, "oracle", edit)
        if edit == "replace" and not bench.rows.replaces_all_places:
            print(f"{oracle.name}: left out, as not every place has a replacement")
            continue
        tested = bench.test(oracle, Setting(EVERY_MARKED_ITEM, EVERY_MARKED_ITEM))
        results.runs[oracle.name], results.edits[oracle.name] = tested.ranks, tested.edits
    clean = Arm("clean", replace(filtering, clean=True), [{}])
    results.runs["clean"] = bench.test(clean, untouched).ranks
    return results
