"""denoise_code/reading/job.py: ranks, kills, torn lines, restarts, what was changed."""

import errno
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import DENOISED, arguments, csvs, refused, run, same_but_rounding

import generate_denoised as generate
from denoise_code.common.errors import InputError
from denoise_code.reading.assembling import assemble
from denoise_code.reading.job import Job, deal, make_batches, pilot_stretches
from denoise_code.reading.plan import Stretch, Text
from denoise_code.reading.shards import Shards

NO_EVIDENCE = ["--limit", 1000]  # more than there are: all rows are read, and the evidence, which takes longest, is left out
ONCE = ["--unit", "interaction", "--score", "likelihood", "--suggest", "catalogue"]


@pytest.mark.parametrize("mode", [[], ["--suggest", "catalogue"], ["--score", "likelihood"], ONCE], ids=str)
def test_batches_ranks_and_merging_do_not_matter(tiny_adapters, data, tmp_path, mode):
    adapter = tiny_adapters["llama"]
    one = csvs(run(adapter, data, *mode, out=tmp_path / "one"))
    assert set(one) == {"train.csv", "valid_5000.csv", "test_5000.csv", "planted.csv"}
    for size in (1, 5, 200):
        other = run(adapter, data, *mode, "--batch_size", size, out=tmp_path / f"size{size}")
        for name in one:
            same_but_rounding(tmp_path / "one" / DENOISED / name, other / name)
    command = [sys.executable, generate.__file__, *arguments(adapter, data, *mode, *NO_EVIDENCE, out=tmp_path / "two")]
    ranks = [subprocess.Popen(command, env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}) for rank in range(2)]
    assert [process.wait() for process in ranks] == [0, 0]
    assert csvs(tmp_path / "two" / DENOISED) == one
    assert not (tmp_path / "two" / DENOISED / ".work").exists()


def test_more_ranks_than_batches(tiny_adapters, data, tmp_path):
    few = ["--denoise_data", "test_5000", "--limit", 3, "--planted", 0]
    one = csvs(run(tiny_adapters["llama"], data, *few, out=tmp_path / "one"))
    for rank in reversed(range(3)):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "3"}
        command = [sys.executable, generate.__file__, *arguments(tiny_adapters["llama"], data, *few, out=tmp_path / "three")]
        assert subprocess.run(command, env=environment).returncode == 0
    assert csvs(tmp_path / "three" / DENOISED) == one


@pytest.mark.parametrize("unit", [[], ONCE], ids=["window", "interaction"])
def test_killed_again_and_again(tiny_adapters, data, tmp_path, unit):
    """SIGKILL at random moments, restarted each time: the same bytes as an undisturbed run."""
    adapter, mode, most = tiny_adapters["llama"], ["--batch_size", 2, *unit], 6
    expected = csvs(run(adapter, data, *mode, out=tmp_path / "calm"))
    command = [sys.executable, generate.__file__, *arguments(adapter, data, *mode, *NO_EVIDENCE, out=tmp_path / "killed")]
    rng, progress, kills = random.Random(0), [], 0
    work = tmp_path / "killed" / DENOISED / ".work"
    while kills < most:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        size = written(work)
        for _ in range(2000):  # wait until it writes, so that each kill falls into the work, not into the imports
            if written(work) > size or process.poll() is not None:
                break
            time.sleep(0.01)
        time.sleep(rng.random() * 0.1)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        progress.append(written(work))
    assert subprocess.run(command).returncode == 0
    assert csvs(tmp_path / "killed" / DENOISED) == expected and kills >= (2 if unit else 5) and progress[-1] > progress[0]


def written(work):
    return sum(path.stat().st_size for path in work.glob("*/*.jsonl"))


@pytest.mark.parametrize("tear", [b'{"batch": 1, "rec', b'{"batch": 1, "records": []}', b"\x00\x00\n"])
def test_torn_last_line(tmp_path, tear):
    path = tmp_path / "train.0.jsonl"
    path.write_bytes(b'{"batch": 0, "records": []}\n' + tear)
    shards = Shards(tmp_path, 0)
    assert list(shards.read("train")) == [0]
    with shards.open("train") as file:
        file.write('{"batch": 2, "records": []}\n')
    assert list(shards.read("train")) == [0, 2]


def test_a_shard_that_another_process_writes_is_refused(tmp_path):
    with Shards(tmp_path, 0).open("train"), pytest.raises(InputError, match="the same command runs already"):
        Shards(tmp_path, 0).open("train")
    with Shards(tmp_path, 1).open("train"), Shards(tmp_path, 0).open("valid"):
        pass  # another rank's file and another part's are free
    with Shards(tmp_path, 0).open("train"):
        pass  # and its own is, once it is closed


@pytest.mark.parametrize("code", [errno.EWOULDBLOCK, errno.EACCES])
def test_what_a_held_lock_is_told_by(tmp_path, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", failing(code))
    with pytest.raises(InputError, match="train.0.jsonl: another process is writing it; the same command runs already"):
        Shards(tmp_path, 0).open("train")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", failing(code))
    with pytest.raises(InputError) as refused:
        Shards(tmp_path, 0).open("train")
    assert f"train.0.jsonl: cannot be locked ({os.strerror(code)})" in str(refused.value)
    assert "--output_root" in str(refused.value) and "runs already" not in str(refused.value)


def failing(code):
    def flock(file, operation):
        raise OSError(code, os.strerror(code))

    return flock


def test_finished_and_changed_runs(tiny_adapters, data, tmp_path, capsys):
    adapter = tiny_adapters["llama"]
    folder = run(adapter, data)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    run(adapter, data)
    assert "is complete" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    refused(capsys, arguments(adapter, data, "--top_k", 2), "was made with another --top_k")
    refused(capsys, arguments(tiny_adapters["gpt2"], data), "was made with another --denoise_model_path")
    run(adapter, data, "--top_k", 2, "--overwrite")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} != before
    with (data / "test_5000.csv").open("a") as file:
        file.write('1,"[1, 2]","[0, 0]",[],[],5\n')
    refused(capsys, arguments(adapter, data, "--top_k", 2), "was made with another --noise_dataset_path")


def test_a_refusal_names_an_option_that_the_folder_was_made_with(tmp_path):
    job = Job({"unit": "interaction", "limit": None}, tmp_path, tmp_path)
    assert not job.is_complete()
    for other, option in (({"unit": "window", "limit": None}, "unit"), ({"language_model": "none"}, "language_model")):
        (tmp_path / "run.json").write_text(json.dumps({"job": other}))
        with pytest.raises(InputError, match=f"was made with another --{option}:"):
            job.open_work_folder(overwrite=False)


def test_only_the_process_that_wrote_the_rows_goes_on(tmp_path):
    """One that finds them written, having waited for the lock, makes no evidence of its own."""
    job = Job({"unit": "interaction"}, tmp_path, tmp_path)
    shards = Shards(job.open_work_folder(overwrite=False), 1)
    (tmp_path / "run.json").write_text(json.dumps({"job": job.description}))
    assert not assemble(job, shards, {}, {}, grounder=None)


def test_overwriting_leaves_no_evidence_of_the_rows_before(tmp_path):
    job = Job({"unit": "interaction"}, tmp_path, tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"job": job.description}))
    (tmp_path / "evidence.json").write_text("{}")
    job.open_work_folder(overwrite=True)  # the same job: it is kept
    assert (tmp_path / "evidence.json").exists()
    (tmp_path / "run.json").write_text(json.dumps({"job": {"unit": "window"}}))
    job.open_work_folder(overwrite=True)
    assert not (tmp_path / "evidence.json").exists() and not (tmp_path / "run.json").exists()


def test_batches_hold_whole_stretches_and_are_dealt_by_cost():
    texts = [Text((1,) * n, start=0, n_only_read=0, window=4) for n in (4, 9, 2, 4, 17)]
    stretches = [Stretch([], [text], [], 4) for text in texts]
    assert make_batches(stretches, [40, 90, 20, 40, 170], 3) == [[4], [1], [0, 3, 2]]  # 5, 3, and 1 + 1 + 1 windows' worth
    hands = deal([5, 90, 30, 40, 25, 1], 2)
    assert hands == [[1, 0, 5], [3, 2, 4]] and deal([1, 1], 3) == [[0], [1], []]
    for world in (1, 2, 7):
        assert sorted(number for hand in deal(list(range(20)), world) for number in hand) == list(range(20))


@pytest.mark.parametrize("n_stretches, batch_size, expected", [(1, 1, 1), (9, 4, 1), (25, 16, 2), (90, 8, 9), (1000, 4, 32)])
def test_a_pilot_is_at_most_a_tenth_and_evenly_spaced(n_stretches, batch_size, expected):
    plan = [list(range(start, min(start + batch_size, n_stretches))) for start in range(0, n_stretches, batch_size)]
    pilot = pilot_stretches(plan)
    assert len(pilot) == expected and expected <= max(1, n_stretches / 10)
    ends = [-pilot[0] - 1, *pilot, 2 * n_stretches - pilot[-1] - 1]  # mirrored at both ends, so that these are spaced too
    gaps = [after - before for before, after in zip(ends, ends[1:])]
    assert max(gaps) - min(gaps) <= 2 and min(gaps) >= min(9, n_stretches)


PILOT = ["--suggest", "catalogue", "--denoise_data", "train", "--planted", 0]


@pytest.mark.parametrize("unit", [[], ["--unit", "interaction"]], ids=["window", "interaction"])
def test_a_pilot_reads_a_tenth_of_the_tokens(tiny_adapters, data, tmp_path, unit):
    """At any batch size, and where there are several ranks: only the first of them reads it."""
    part = "interactions" if unit else "train"
    whole = scored_tokens(run(tiny_adapters["llama"], data, *PILOT, *unit, out=tmp_path / "whole"))
    for size in (2, 30):
        some = [*PILOT, *unit, "--batch_size", size, "--min_percentile", 0.8]
        ranks = tmp_path / f"ranks{size}"
        run_rank(0, tiny_adapters["llama"], data, *some, out=ranks)
        run_rank(1, tiny_adapters["llama"], data, *some, out=ranks)
        one = run(tiny_adapters["llama"], data, *some, out=tmp_path / f"one{size}")
        both = [json.loads((folder / "run.json").read_text()) for folder in (one, ranks / DENOISED)]
        assert whole < scored_tokens(one) == scored_tokens(ranks / DENOISED) < 1.13 * whole
        assert csvs(one) == csvs(ranks / DENOISED)
        pilot, of_ranks = (written["parts"][part]["pilot"] for written in both)
        assert pilot == of_ranks and pilot["stretches"] == (8 if unit else 9) and pilot["positions"] > 9


def test_the_threshold_of_a_pilot_is_kept_with_the_job(tiny_adapters, data, tmp_path):
    """What rank 0 found is what rank 1 goes by, as a restart does: moved in between, nothing more is suspected."""
    some = [*PILOT, "--min_percentile", 0.8]
    run_rank(0, tiny_adapters["llama"], data, *some, out=tmp_path / "moved")
    (kept,) = (tmp_path / "moved" / DENOISED / ".work").glob("*/train.pilot.json")
    pilot = json.loads(kept.read_text())
    kept.write_text(json.dumps(pilot | {"threshold": 0.0}))  # no log-probability is above
    run_rank(1, tiny_adapters["llama"], data, *some, out=tmp_path / "moved")
    plain, moved = (
        pd.read_csv(folder / "train.csv").noise_items.map(json.loads).map(len)
        for folder in (run(tiny_adapters["llama"], data, *some, out=tmp_path / "plain"), tmp_path / "moved" / DENOISED)
    )
    assert (moved <= plain).all() and 0 < moved.sum() < plain.sum()


def scored_tokens(folder):
    return sum(part["tokens"]["score"] for part in json.loads((folder / "run.json").read_text())["parts"].values())


def run_rank(rank, *given, out):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RANK", str(rank))
        environment.setenv("WORLD_SIZE", "2")
        run(*given, out=out)
