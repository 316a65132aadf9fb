"""tests/benchmarks/gpu.py: all its rows run on a CPU at the smallest size, and none takes the time of the others."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def gpu(root):
    sys.path.append(str(root / "tests" / "benchmarks"))
    import gpu

    yield gpu
    sys.path.remove(str(root / "tests" / "benchmarks"))


def lines_of(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def test_every_row_runs(root, gpu):
    done = subprocess.run([sys.executable, root / "tests/benchmarks/gpu.py", "--tiny"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = lines_of(done.stdout)  # each is JSON: what libraries print is not among them
    figures_of = {name: [line for line in lines if line["row"] == name] for name in ("machine", *gpu.ROWS)}
    assert all(figures_of.values())
    (training,) = figures_of["training"]
    assert training["tokens_per_s"] == pytest.approx(32 * training["mean_tokens"] / training["epoch_s"], rel=0.1)
    (reading,) = figures_of["reading_bfloat16"]
    assert reading["windows"] == 12 and 0 < reading["noise_prob_mean_difference"] <= reading["noise_prob_largest_difference"]
    (compiled,) = figures_of["reading_compiled"]
    assert compiled.get("passes") or "skipped" in compiled
    assert figures_of["training_eager"][0]["mean_loss"] == training["mean_loss"]
    assert figures_of["llama_reading"][0]["windows"] == 8


def test_a_row_is_ended_at_its_limit_and_the_others_run(gpu, monkeypatch, capfd):
    rows = {name: gpu.Row(None, {}, limit) for name, limit in (("long", 0.5), ("broken", 60), ("short", 60))}
    monkeypatch.setattr(gpu, "ROWS", rows)
    program = "import sys, time; name = sys.argv[-1]; time.sleep(60 * (name == 'long')); sys.exit(name == 'broken')"
    assert not gpu.run_rows(list(rows), [sys.executable, "-c", program])
    problems = {line["row"]: line["error"] for line in lines_of(capfd.readouterr().out)}
    assert problems == {"long": "longer than 0.5 s", "broken": "exit status 1"}
