"""The plan of the house: imports run downwards, no stage reaches into another, and --help comes without waiting."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

# Folders of denoise_code, and modules beside them, lowest first: each imports itself and what stands before it.
FLOORS = [
    "common", "data_set", "evidence", "language_model", "training", "reading", "replacement", "judging", "stored_evidence",
    "making_evidence", "cleaning",
]  # fmt: skip
FOR_ALL_STAGES = {"common", "data_set"}  # what stages 0 and 3 may import
SCRIPTS = {
    "main",
    "compare",
    "draw_gap",
    "sweep",
    "report",
    "export",
    "prepare_noise_data",
    "train_denoise_model",
    "generate_denoised",
    "clean_log_file",
}


def imported_by(path):
    """Modules that a file imports anywhere: `a.b` of `import a.b` and of `from a.b import c`, and `a.b.c` of the latter."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def folders_of_denoise_code(modules):
    """The folders (or modules that lie beside them) of denoise_code that these modules belong to."""
    return {module.split(".")[1] for module in modules if module.startswith("denoise_code.")}


def code_files(root):
    rooms = ("denoise_code", "SASRec_code", "data")
    return [*root.glob("*.py"), *(path for room in rooms for path in sorted(root.glob(f"{room}/**/*.py")))]


def module_name(root, path):
    """As it is imported: stages 0 and 3 start in their own folder."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[1:] if parts[0] in ("SASRec_code", "data") else parts)


def test_denoise_code_imports_downwards(root):
    for path in root.glob("denoise_code/*/**/*.py"):
        floor = FLOORS.index(path.relative_to(root / "denoise_code").parts[0])
        above = folders_of_denoise_code(imported_by(path)) - set(FLOORS[: floor + 1])
        assert not above, (path.name, above)


def test_no_import_runs_in_a_circle(root):
    names = {module_name(root, path): path for path in code_files(root)}
    graph = {name: (imported_by(path) & names.keys()) - {name} for name, path in names.items()}
    assert len([*TopologicalSorter(graph).static_order()]) == len(names)


def test_no_script_is_imported(root):
    for path in code_files(root):
        assert not imported_by(path) & SCRIPTS, path


def test_stages_share_two_folders_alone(root):
    for path in root.glob("data/**/*.py"):
        assert folders_of_denoise_code(imported_by(path)) <= FOR_ALL_STAGES, path
    for path in root.glob("SASRec_code/**/*.py"):
        assert folders_of_denoise_code(imported_by(path)) <= FOR_ALL_STAGES, path
    stage_0 = {module_name(root, path) for path in root.glob("data/**/*.py")}
    stage_3 = {module_name(root, path) for path in root.glob("SASRec_code/**/*.py")}
    for path in code_files(root):
        room = path.relative_to(root).parts[0]
        if room != "data":
            assert not imported_by(path) & stage_0, path
        if room != "SASRec_code":
            assert not imported_by(path) & stage_3, path


def test_only_scripts_of_a_subfolder_touch_the_path(root):
    for path in code_files(root):
        is_script = path.stem in SCRIPTS and path.parent != root
        assert path.read_text().count("sys.path") <= is_script, path


def test_no_pickle(root):
    for path in code_files(root):
        assert "pickle" not in imported_by(path), path


def test_every_module_says_what_it_is_for(root):
    for path in code_files(root):
        if path.name != "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text())), path


@pytest.mark.parametrize(
    "script",
    ["train_denoise_model.py", "generate_denoised.py", "SASRec_code/main.py", "SASRec_code/sweep.py", "SASRec_code/report.py"],
)
def test_help_is_instant(root, script):
    done = subprocess.run([sys.executable, "-X", "importtime", root / script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported and not imported & {"torch", "transformers", "sklearn", "matplotlib"}
