"""tests/benchmarks/rebuild_log.py: published windows become a log again."""

import subprocess
import sys

import pandas as pd
import pytest


def rebuild(root, folder, out):
    script = root / "tests" / "benchmarks" / "rebuild_log.py"
    return subprocess.run([sys.executable, script, folder, out], capture_output=True, text=True)


def write_windows(folder, histories, names=("train_1000", "test_5000")):
    """All windows of 4 of each history [(item, time)], dealt to the files in turn, the latest first."""
    folder.mkdir()
    rows = [
        {
            "user_id": user,
            "item_ids": str([item for item, _ in window]),
            "mask": str([0] * len(window)),
            "timestamp": window[-1][1],
        }
        for user, history in histories.items()
        for window in [history[max(end - 4, 0) : end] for end in range(len(history), min(3, len(history) - 1), -1)]
    ]
    for number, name in enumerate(names):
        pd.DataFrame(rows[number :: len(names)]).to_csv(folder / f"{name}.csv", index=False)
    (folder / "id2name4Rec.json").write_text("{" + ", ".join(f'"{item}": "title {item}"' for item in range(1, 30)) + "}")


def test_windows_of_one_time_are_put_in_order(root, tmp_path):
    histories = {
        7: [(item, 10 * (item // 3)) for item in range(1, 13)],
        3: [(20, 5), (21, 5), (22, 5), (23, 5), (24, 5), (20, 6)],
    }
    write_windows(tmp_path / "Toy_noise_user0.0", histories)
    done = rebuild(root, tmp_path / "Toy_noise_user0.0", tmp_path / "log.csv")
    assert done.returncode == 0, done.stderr
    log = pd.read_csv(tmp_path / "log.csv")
    assert log[log["user"] == "U000003"]["item"].tolist() == [f"T{item:05d}" for item in (20, 21, 22, 23, 24)]  # 20 comes again
    of_seven = log[log["user"] == "U000007"]
    assert of_seven["item"].tolist() == [f"T{item:05d}" for item in range(1, 13)]
    assert of_seven["timestamp"].tolist() == [10, 10, 10, 10, *(10 * (item // 3) for item in range(5, 13))]  # the first target's
    assert of_seven["title"].tolist() == [f"title {item}" for item in range(1, 13)]


def test_the_authors_windows_give_the_log_that_was_measured(root, released, tmp_path):
    clean = released.with_name("Toy_noise_user0.0")
    assert rebuild(root, clean, tmp_path / "log.csv").returncode == 0
    measured = pd.read_csv(released.with_name("Toy_log") / "interactions.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "log.csv", dtype=str, keep_default_na=False), measured)
    done = rebuild(root, released, tmp_path / "log.csv")
    assert done.returncode == 1 and "has injected noise" in done.stderr


@pytest.mark.parametrize("missing", ["test_5000", "train_1000"])
def test_any_of_the_files_will_do(root, tmp_path, missing):
    write_windows(tmp_path / "Toy_noise_user0.0", {1: [(item, item) for item in range(1, 9)]})
    (tmp_path / "Toy_noise_user0.0" / f"{missing}.csv").unlink()
    done = rebuild(root, tmp_path / "Toy_noise_user0.0", tmp_path / "log.csv")
    assert done.returncode == 0 and "of 1 users" in done.stdout
