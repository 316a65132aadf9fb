"""How right P(noise) is for train interactions that no regression was fitted on, where noise was injected.

A row for each kind of evidence of each denoised folder: the true share of noise and its bound; with the true share P's Brier score
beside that of the constant share, its expected calibration error, precision and recall above 0.5. AUC and average precision too.

python tests/benchmarks/measure_probabilities.py data/ML100K_denoise_user0.1_0 data/ML100K_denoise_user0.2_0
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from denoise_code.common.statistics import precision_and_recall
from denoise_code.common.text_table import text_table
from denoise_code.data_set.evidence_files import noise_probability, read_evidence
from denoise_code.data_set.folder import noisy_name
from denoise_code.data_set.planting import INJECTED
from denoise_code.evidence.detection import auc, brier_score, expected_calibration_error, recall_at_half
from denoise_code.evidence.fit import draw_log
from denoise_code.making_evidence import data_set_of, read_rows

HEADER = [
    "data",
    "evidence",
    "share",
    "bound",
    "AUC",
    "AP",
    "Brier",
    "constant",
    "ECE",
    "precision",
    "recall",
    "recall at precision 0.5",
]


def measure(folder: Path) -> list[list[str]]:
    from sklearn.metrics import average_precision_score

    evidence = read_evidence(folder)
    rows_of_folder = read_rows(folder, folder.parent / noisy_name(folder.name))
    data = data_set_of(rows_of_folder)
    is_injected = np.zeros(len(data.interactions), dtype=bool)
    is_injected[data.train[data.train >= 0]] = rows_of_folder.splits["train"].mask[data.train >= 0] == INJECTED
    fitted = draw_log(data, np.random.default_rng([0, 2]))  # as `learn_evidence` draws it
    rows = []
    for kind, r in evidence.train.items():
        judged = data.interactions.in_train & ~fitted & ~np.isnan(r)
        truth, values = is_injected[judged], r[judged]
        share = float(truth.mean())
        row = [folder.name, kind, f"{share:.3f}", f"{evidence.record['share_bound'][kind]:.3f}"]
        if truth.any():
            prob = noise_probability(values, share)
            figures = [
                auc(truth, values),
                average_precision_score(truth, values),
                brier_score(truth, prob),
                share * (1 - share),
                expected_calibration_error(truth, prob),
                *precision_and_recall(truth, prob > 0.5),
                recall_at_half(truth, values),
            ]
            row += ["-" if figure is None else f"{figure:.4f}" for figure in figures]
        rows.append(row + ["-"] * (len(HEADER) - len(row)))
    return rows


if __name__ == "__main__":
    print(text_table(HEADER, [row for folder in sys.argv[1:] for row in measure(Path(folder))]))
