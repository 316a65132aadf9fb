"""Evidence by hand for a data set folder: probabilities and replacements by rules that a test can say anew, in the files of stage 2."""

import numpy as np

from denoise_code.data_set.catalogue import fingerprint_of_catalogue, read_catalogue
from denoise_code.data_set.evidence_files import VERSION, StoredEvidence, fingerprint_of_rows, write_evidence
from denoise_code.data_set.folder import file_of_split
from denoise_code.data_set.interactions import build_data_set
from denoise_code.data_set.padded_rows import Split, read_split
from denoise_code.evidence.detection import detection_row
from denoise_code.evidence.figures import probability_figures
from denoise_code.making_evidence import as_rows

KINDS = ("llm", "collaborative", "semantic", "detector", "fused")
SHARE = 0.1


def probabilities_by_hand(split: Split, kind: str) -> np.ndarray:
    """P(noise) (N, W) with the share SHARE, NaN where nothing is scored: 0.7 at noise and 0.15 elsewhere, give or take 0.28."""
    rng = np.random.default_rng([KINDS.index(kind), len(split.items), len(split.path.stem)])
    prob = np.where(split.mask == 1, 0.7, 0.15) + rng.uniform(-0.28, 0.28, split.items.shape)
    return np.where(split.editable, np.clip(prob, 0.01, 0.98), np.nan)


def replacements_by_hand(split: Split, n_items: int) -> np.ndarray:
    """(N, W): what stood there before noise, elsewhere the item with the next number."""
    replacement = np.where(split.mask == 1, split.clean, split.items % n_items + 1)
    return np.where(split.editable, replacement, 0)


def write_evidence_by_hand(folder, noisy=None, kinds=KINDS) -> None:
    """evidence.safetensors and evidence.json of a folder whose rows lie there, or in the noisy folder."""
    titles = read_catalogue(noisy or folder, allow_untitled=True)
    n_items, splits = len(titles) - 1, {}
    for name in ("train", "valid", "test"):
        path = file_of_split([noisy or folder], name)
        splits["train" if name == "train" else path.stem] = read_split(path, titles, "ignored")
    evaluated = {file: split for file, split in splits.items() if file != "train"}
    data = build_data_set(as_rows(splits["train"]), {file: as_rows(split) for file, split in evaluated.items()}, n_items)
    train = splits["train"]
    missing = data.train.shape[1] - train.items.shape[1]
    windows = data.train[:, missing:]  # (N, W) as wide as the train rows

    def of_interactions(cells, nothing):
        values = np.full(len(data.interactions), nothing, dtype=cells.dtype)
        values[windows[windows >= 0]] = cells[windows >= 0]
        return values

    def in_histories(cells, fill):
        return np.pad(cells[:, :-1], ((0, 0), (data.train.shape[1] - cells.shape[1], 0)), constant_values=fill)

    r = {file: {kind: np.log(probabilities_by_hand(split, kind) / SHARE) for kind in kinds} for file, split in splits.items()}
    stored = StoredEvidence(
        interaction_of_cell=data.train,
        users=data.interactions.users,
        places=data.interactions.places,
        train={kind: of_interactions(values, np.nan) for kind, values in r["train"].items()},
        histories={file: {kind: in_histories(values, np.nan) for kind, values in r[file].items()} for file in evaluated},
        train_replacements=of_interactions(replacements_by_hand(train, n_items), 0),
        history_replacements={file: in_histories(replacements_by_hand(split, n_items), 0) for file, split in evaluated.items()},
        record={},
    )
    stored.record.update(record_by_hand(splits, titles, kinds, stored))
    write_evidence(folder, stored)


def record_by_hand(splits, titles, kinds, stored: StoredEvidence) -> dict:
    """evidence.json."""
    files = [file for file in splits if file != "train"]
    rows = {
        file: fingerprint_of_rows(split.users, split.items if file == "train" else split.items[:, :-1])
        for file, split in splits.items()
    }
    return {
        "version": VERSION,
        "kinds": list(kinds),
        "files": files,
        "rows": rows,
        "catalogue": fingerprint_of_catalogue(titles),
        "n_interactions": len(stored.users),
        "disagreements": 0,
        "noise_share": SHARE,
        "share_bound": {kind: 0.25 for kind in kinds},
        "features": {kind: [f"{kind} by hand"] for kind in kinds},
        "coefficients": {kind: {f"{kind} by hand": 1.5} for kind in kinds},
        "replacements": {"coefficients": {}, "held out items found": {"first": 0.1, "among ten": 0.5}, "least_probability": 0.0},
        "detection": detection_by_hand(splits, kinds, stored),
        "sources": "by hand",
        "options": {"noise_share": None, "replace_all": False},
        "seconds": 0.0,
        "peak_memory_gib": 0.0,
    }


def detection_by_hand(splits, kinds, stored: StoredEvidence) -> dict:
    """Figures of the injected noise of test; those of planted noise are invented."""
    file = next(file for file in splits if file.startswith("test"))
    split = splits[file]
    missing = stored.interaction_of_cell.shape[1] - split.items.shape[1]
    scored, truth = split.editable[:, :-1], (split.mask == 1)[:, :-1]
    planted = {kind: {"auc": 0.7, "interval_95": [0.6, 0.8]} for kind in kinds}
    if not truth[scored].any():
        return {"planted": planted, "auc_context": planted, "injected": None}
    r = {kind: stored.histories[file][kind][:, missing:] for kind in kinds}
    scores = {"rarity": np.where(scored, split.items[:, :-1], 0)} | r
    injected = {
        "file": file,
        "positions": int(scored.sum()),
        "share": float(truth[scored].mean()),
        "by kind": {kind: detection_row(truth & scored, score, scored) for kind, score in scores.items()},
        "fused minus": {kind: [-0.1, 0.1] for kind in scores if kind != "fused"},
        "probability": probability_figures(truth[scored], r["fused"][scored], SHARE),
    }
    return {"planted": planted, "auc_context": planted, "injected": injected}
