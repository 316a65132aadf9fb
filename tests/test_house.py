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
WAY_OF_A_LOG = [
    "log",
    "keys",
    "times",
    "titles",
    "tables",
    "sources",
    "windows",
    "folder",
]  # data/preparation, then prepare_noise_data.py
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
    return [
        *root.glob("*.py"),
        *(path for room in ("denoise_code", "SASRec_code", "data") for path in root.glob(f"{room}/**/*.py")),
    ]


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
    folder = root / "data" / "preparation"
    assert {path.stem for path in folder.glob("*.py")} == {*WAY_OF_A_LOG, "__init__"}
    for place, stem in enumerate(WAY_OF_A_LOG):
        ours = {name for name in WAY_OF_A_LOG if f"preparation.{name}" in imported_by(folder / f"{stem}.py")}
        assert ours <= set(WAY_OF_A_LOG[:place]), stem


def test_what_all_stages_share_imports_nothing_else(root):
    order = ["errors", "options", "files", "opening", "delimited", "records"]
    folder = root / "denoise_code" / "common"
    assert {path.stem for path in folder.glob("*.py")} >= set(order)
    for place, stem in enumerate(order):
        ours = {name for name in imported_by(folder / f"{stem}.py") if name.startswith("denoise_code")}
        below = {f"denoise_code.common.{name}" for name in order[:place]}
        assert all(name in below or name.rpartition(".")[0] in below for name in ours), stem


def test_no_stage_imports_another(root):
    """Stages 0 and 3 share what lies in denoise_code/common; each is its own otherwise."""
    stage_3 = {path.stem for path in root.glob("SASRec_code/*.py")}
    data = {"prepare_noise_data"} | {
        name for name in imported_by(root / "data" / "prepare_noise_data.py") if "preparation" in name
    }
    scripts = {path.stem for path in root.glob("*.py")}
    for path in code_files(root):
        found = imported_by(path)
        stage = path.relative_to(root).parts[0]
        inside = {"SASRec_code": stage_3, "data": data}.get(stage, set())
        assert not found & ((scripts | stage_3 | data) - inside), path
        for name in found if stage in ("SASRec_code", "data") else ():
            assert not name.startswith("denoise_code") or name.startswith("denoise_code.common."), (path, name)
        sys_path = path.read_text().count("sys.path")
        assert sys_path == (path.name == "prepare_noise_data.py") and "pickle" not in found, path


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
