"""The plan of the house: imports only run downwards, and --help comes without waiting."""

import ast
import subprocess
import sys

import pytest

FLOORS = [
    {"command_line", "trie", "reader"},
    {"prompt", "language_model"},
    {"dataset"},
    {"examples", "scores", "readings"},
    {"denoiser", "title_vectors"},
    {"grounding"},
    {"job"},
    {"replacement"},
]
WAY_OF_A_WINDOW = [
    "options",
    "dataloader",
    "counts",
    "similarity",
    "evidence",
    "replacement",
    "filter",
    "model",
    "gru4rec",
    "bert4rec",
    "evaluate",
    "train",
    "measured",
    "page",
    "sections",
]  # then the scripts
WAY_OF_A_LOG = ["log", "titles", "tables", "sources", "windows", "files", "prepare_noise_data"]
SCRIPTS = {"main", "compare", "sweep", "report", "export"}


def imported_by(path):
    """Modules that a file imports anywhere: `a.b` of `import a.b` and of `from a.b import c`, and `a.c` of `from a import c`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def code_files(root):
    return [*root.glob("*.py"), *(path for room in ("denoise_code", "SASRec_code", "data") for path in root.glob(f"{room}/*.py"))]


def test_stages_1_and_2_import_downwards(root):
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    assert {path.stem for path in root.glob("denoise_code/*.py")} == set(floor_of)
    for room, floor in floor_of.items():
        below = {other for other in floor_of if f"denoise_code.{other}" in imported_by(root / "denoise_code" / f"{room}.py")}
        assert all(floor_of[other] < floor for other in below), (room, below)


def test_stage_3_goes_one_way(root):
    places = {name: place for place, name in enumerate(WAY_OF_A_WINDOW)}
    stems = {path.stem for path in root.glob("SASRec_code/*.py")}
    assert stems == set(places) | SCRIPTS
    for stem in stems:
        ours = imported_by(root / "SASRec_code" / f"{stem}.py") & stems
        assert not ours & SCRIPTS, (stem, "imports a script")
        assert all(places[other] < places.get(stem, len(places)) for other in ours), (stem, ours)


def test_data_goes_one_way(root):
    assert {path.stem for path in root.glob("data/*.py")} == set(WAY_OF_A_LOG)
    for place, stem in enumerate(WAY_OF_A_LOG):
        assert imported_by(root / "data" / f"{stem}.py") & set(WAY_OF_A_LOG) <= set(WAY_OF_A_LOG[:place]), stem


def test_no_stage_imports_another(root):
    stage_3, data = ({path.stem for path in root.glob(f"{room}/*.py")} for room in ("SASRec_code", "data"))
    scripts = {path.stem for path in root.glob("*.py")}
    for path in code_files(root):
        found = imported_by(path)
        inside = {"SASRec_code": stage_3, "data": data}.get(path.parent.name, set())
        assert not found & ((scripts | stage_3 | data) - inside), path
        assert path.parent.name not in ("SASRec_code", "data") or not any(name.startswith("denoise_code") for name in found), path
        assert "sys.path" not in path.read_text() and "pickle" not in found, path


def test_rooms_say_what_they_know_nothing_of(root):
    for path in root.glob("denoise_code/*.py"):
        assert "nothing of" in ast.get_docstring(ast.parse(path.read_text())), path


@pytest.mark.parametrize(
    "script", ["train_denoise_model.py", "generate_denoised.py", "SASRec_code/main.py", "SASRec_code/sweep.py"]
)
def test_help_is_instant(root, script):
    done = subprocess.run([sys.executable, "-X", "importtime", root / script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--seed" in done.stdout or script.startswith("generate"), done.stderr
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported and not imported & {"torch", "transformers", "sklearn", "matplotlib"}
