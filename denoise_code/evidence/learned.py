"""What evidence learns from a log, and how it judges the interactions of the same log or of another one. Kept in one file.

Maps of titles, detectors and regressions are learned; counts are not, they are counted in a table of interactions.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from denoise_code.common.errors import InputError, one_line
from denoise_code.common.files import save_tensors
from denoise_code.data_set.evidence_files import FUSED
from denoise_code.data_set.interactions import DataSet
from denoise_code.evidence import detector
from denoise_code.evidence.calibration import LogRatio
from denoise_code.evidence.cooccurrence import Collaborative, Cooccurrence
from denoise_code.evidence.detector import Detector, DetectorSettings, detector_kind, learn_detectors
from denoise_code.evidence.features import FeatureKind, Planted
from denoise_code.evidence.title_similarity import Semantic, TitleMap, learn_title_maps

VERSION = 4  # of the file
ARRAYS_OF_LOG_RATIO = tuple(column.name for column in fields(LogRatio))


@dataclass(frozen=True)
class Models:
    """What is used for the users of a half was learned without them.

    title_maps [half] of the first halving, None without titles; detectors [halving][half].
    """

    title_maps: list[TitleMap] | None
    detectors: list[list[Detector]]

    def kinds(self, counts: Cooccurrence, vectors: np.ndarray | None, halvings: np.ndarray) -> dict[str, FeatureKind]:
        """The kinds of evidence by name: co-occurrence by these counts, what was learned by these models.

        vectors (n_items + 1, D): title vectors, padding zero, None where the models were learned without; halvings (2, U) of the users.
        The catalogue may go on behind the items that the models were learned from.
        """
        import torch

        kinds: dict[str, FeatureKind] = {"collaborative": Collaborative(counts)}
        if self.title_maps is not None:
            kinds["semantic"] = Semantic(np.stack([title_map.of(vectors) for title_map in self.title_maps]), halvings[0])
        table = None if vectors is None else torch.from_numpy(vectors.astype(np.float32))
        detectors = [[network.for_catalogue(counts.n_items, table) for network in of_halving] for of_halving in self.detectors]
        return kinds | {"detector": detector_kind(detectors, halvings)}


def learn_models(data: DataSet, vectors: np.ndarray | None, halvings: np.ndarray, seed: int = 0) -> Models:
    """From the train windows. vectors (n_items + 1, D) of titles, padding zero, or None; halvings (2, U) of the users."""
    windows = data.train_items  # (N, W)
    halvings_of_windows = halvings[:, data.interactions.users[data.train[:, -1]]]  # (2, N)
    title_maps = None if vectors is None else learn_title_maps(vectors, windows, halvings_of_windows[0], seed)
    detectors = learn_detectors(windows, halvings_of_windows, data.n_items, vectors, detector.DetectorSettings(), seed)
    return Models(title_maps, detectors)


@dataclass(frozen=True)
class Learned:
    """models and, by kind of evidence, the regression that makes r of its features."""

    models: Models
    log_ratios: dict[str, LogRatio]


def apply_learned(
    data: DataSet, learned: Learned, counts: Cooccurrence, vectors: np.ndarray | None, halvings: np.ndarray
) -> dict[str, np.ndarray]:
    """{kind: r (n,) float32} of the train interactions of `data`, NaN where no train window holds one.

    Nothing is learned. counts: of the log that was learned from, users having the codes that they have in `data`.
    """
    kinds = learned.models.kinds(counts, vectors, halvings)
    nothing_planted = Planted(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    features = {name: kind.of_interactions(data, nothing_planted)[0] for name, kind in kinds.items()}
    features[FUSED] = np.concatenate([features[name] for name in kinds], axis=1)
    return {name: log_ratio.of(features[name]) for name, log_ratio in learned.log_ratios.items()}


# ---------------------------------------------------------------- the file


def save_learned(path: Path, learned: Learned) -> None:
    """As safetensors; the settings stand in the metadata."""
    tensors = {}
    for half, title_map in enumerate(learned.models.title_maps or []):
        tensors |= {f"title map {half}/down": title_map.down, f"title map {half}/up": title_map.up}
    for halving, of_halving in enumerate(learned.models.detectors):
        for half, network in enumerate(of_halving):
            state = network.state_dict()
            tensors |= {f"detector {halving} {half}/{name}": values.cpu().numpy() for name, values in state.items()}
    for kind, log_ratio in learned.log_ratios.items():
        for name in ARRAYS_OF_LOG_RATIO:
            tensors[f"log ratio {kind}/{name}"] = np.asarray(getattr(log_ratio, name), dtype=np.float64)
    settings = {
        "version": VERSION,
        "kinds": list(learned.log_ratios),
        "detector": asdict(learned.models.detectors[0][0].settings),
    }
    metadata = {"settings": json.dumps(settings)}  # one text: several are written in any order, and equal files would differ
    save_tensors(path, tensors, metadata)


def load_learned(path: Path) -> Learned:
    """What `save_learned` wrote. Raises InputError for a file that is not there, damaged or of another version."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            settings = json.loads((file.metadata() or {}).get("settings", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dict
        if settings.get("version") != VERSION:
            raise InputError(f"{path}: of version {settings.get('version')}, this code reads {VERSION}")
        of_detector = DetectorSettings(**settings["detector"])
        detectors = [
            [Detector.of_state(part_of(tensors, f"detector {halving} {half}"), of_detector) for half in (0, 1)]
            for halving in (0, 1)
        ]
        title_maps = None
        if "title map 0/down" in tensors:
            title_maps = [TitleMap(**part_of(tensors, f"title map {half}")) for half in (0, 1)]
        log_ratios = {kind: LogRatio(**part_of(tensors, f"log ratio {kind}")) for kind in settings["kinds"]}
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as what evidence has learned ({one_line(error)})") from None
    return Learned(Models(title_maps, detectors), log_ratios)


def part_of(tensors: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The arrays `name/...`."""
    return {key.removeprefix(f"{name}/"): array for key, array in tensors.items() if key.startswith(f"{name}/")}
