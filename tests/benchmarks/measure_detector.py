"""What the detector is worth to `fused`: injected noise in test histories, found by the evidence of a folder and by the same without it.

A line for each denoised folder: AUC and average precision of both, and the difference of the AUC with its 95 % interval over users. The
evidence without the detector is made here, in a minute; that with it is read from the folder.

python tests/benchmarks/measure_detector.py data/ML100K_denoise_user0.1_0 data/Toy_denoise_user0.1_0
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from denoise_code.common.statistics import interval
from denoise_code.common.text_table import text_table
from denoise_code.data_set.evidence_files import FUSED, read_evidence
from denoise_code.data_set.folder import noisy_name
from denoise_code.data_set.interactions import DataSet
from denoise_code.data_set.padded_rows import read_vectors
from denoise_code.data_set.planting import INJECTED
from denoise_code.evidence import cooccurrence
from denoise_code.evidence.detection import auc, bootstrap_aucs
from denoise_code.evidence.figures import test_file
from denoise_code.evidence.fit import learn_evidence
from denoise_code.evidence.learned import Models
from denoise_code.evidence.title_similarity import learn_title_maps
from denoise_code.evidence.unseen_items import unseen_items
from denoise_code.making_evidence import data_set_of, read_rows, user_keys


def fused_without_detector(data: DataSet, vectors: np.ndarray | None, halvings: np.ndarray, file: str) -> np.ndarray:
    """r (N, H) of the histories of a file, by all evidence but the detector."""
    unseen = unseen_items(data)
    counts = cooccurrence.count(data.interactions, unseen.n_items_and_stand_ins, data.train.shape[1])
    of_windows = halvings[0, data.interactions.users[data.train[:, -1]]]
    title_maps = None if vectors is None else learn_title_maps(vectors, data.train_items, of_windows)
    kinds = Models(title_maps, []).kinds(counts, unseen.with_stand_ins(vectors), halvings)
    del kinds["detector"]
    return learn_evidence(data, kinds, counts, unseen).kinds[FUSED].histories[file]


def measure(folder: Path) -> list[str]:
    from sklearn.metrics import average_precision_score

    rows = read_rows(folder, folder.parent / noisy_name(folder.name))
    data = data_set_of(rows)
    file = test_file(data)
    evaluated = data.evaluated[file]
    scored = evaluated.histories != 0  # (N, H)
    truth = evaluated.history_masks[scored] == INJECTED
    users = np.broadcast_to(evaluated.users[:, None], scored.shape)[scored]
    halvings = data.interactions.halvings(user_keys(rows, data))
    scores = {
        "with": read_evidence(folder).histories[file][FUSED][scored],
        "without": fused_without_detector(data, read_vectors(folder, rows.titles), halvings, file)[scored],
    }
    draws = bootstrap_aucs(users, truth, scores)
    low, high = interval(draws["with"] - draws["without"])
    figures = [f"{figure(truth, score):.3f}" for score in scores.values() for figure in (auc, average_precision_score)]
    difference = auc(truth, scores["with"]) - auc(truth, scores["without"])
    return [folder.name, *figures, f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]"]


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print(
        text_table(["data", "AUC", "AP", "AUC without", "AP without", "with less without"], map(measure, map(Path, sys.argv[1:])))
    )
