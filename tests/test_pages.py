"""The pages for people: links that lead somewhere, files and functions that exist, the tree of all files."""

import ast
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("*/*.md"))]
OF_THAT_TIME = {"TRIED.md"}  # names files of older commits
BACKTICKED = re.compile(r"`([^`]+)`")


def outside_code(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchor(heading: str) -> str:
    """As GitHub makes it: lower case, punctuation left out, blanks to dashes."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", outside_code(page), re.MULTILINE)}


def test_an_anchor_is_what_github_makes_of_a_heading():
    assert anchor("What is evidence, and what does a threshold mean?") == "what-is-evidence-and-what-does-a-threshold-mean"
    assert anchor("6. From r to a `probability`") == "6-from-r-to-a-probability"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", outside_code(page))
    for path, heading in links:
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), (page.name, path)
        if heading:
            assert heading in anchors(target), (page.name, path, heading)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in OF_THAT_TIME], ids=lambda page: str(page.parent.name)
)
def test_scripts_that_a_page_names_exist(page):
    named = {word for quoted in BACKTICKED.findall(outside_code(page)) for word in re.findall(r"[\w/.]+\.(?:py|sh)\b", quoted)}
    folders = [ROOT, page.parent, ROOT / "SASRec_code", ROOT / "data", ROOT / "denoise_code", ROOT / "tests/benchmarks"]
    missing = {name for name in named if not any((folder / name.removeprefix("./")).is_file() for folder in folders)}
    assert not missing


def names_of(path: Path) -> set[str]:
    """Functions, classes and `Class.method`s of a file."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)}
    return names


def test_the_steps_of_the_method_are_where_the_page_says():
    """Each line of *Where is each step?*: the files exist, and the functions are in them."""
    text = (ROOT / "denoise_code/README.md").read_text()
    table = text[text.index("## Where is each step?") : text.index("## The walk")]
    lines = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("|") and ".py" in line]
    assert len(lines) >= 20
    for step, files, functions in lines:
        paths = [
            next(path for path in (ROOT / "denoise_code" / file, ROOT / file) if path.exists())
            for file in BACKTICKED.findall(files)
        ]
        defined = set().union(*map(names_of, paths))
        assert set(BACKTICKED.findall(functions)) <= defined, step


def scripts_of_the_tree() -> set[str]:
    """The paths of Python files in the tree of the README; a folder's line may name its files behind it."""
    text = (ROOT / "README.md").read_text()
    tree = re.search(r"## Where is what\n+```\n(.*?)```", text, re.DOTALL)[1]
    folders, paths = [], set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        names, *description = re.split(r" {2,}", line.strip(), maxsplit=1)
        if names.endswith("/"):
            folders[depth:] = [names]
            paths |= {"".join(folders) + name for name in re.findall(r"\w+\.py", "".join(description))}
        else:
            paths |= {"".join(folders[:depth]) + name for name in names.split(", ") if name.endswith(".py")}
    return paths


def test_the_tree_names_every_file_of_code():
    rooms = ("denoise_code", "SASRec_code", "data")
    files = [*ROOT.glob("*.py"), *(path for room in rooms for path in ROOT.glob(f"{room}/**/*.py"))]
    assert scripts_of_the_tree() == {str(path.relative_to(ROOT)) for path in files if path.name != "__init__.py"}


def test_the_glossary_is_in_order_and_says_each_word_once():
    text = (ROOT / "denoise_code/README.md").read_text()
    lines = text[text.index("## Glossary") :].splitlines()[4:]
    words = [line.split("|")[1].strip() for line in lines]
    assert len(words) > 80 and len(set(words)) == len(words)
    assert words == sorted(words, key=lambda word: word.lower().replace("-", " "))


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_python_on_a_page_imports_exists(page):
    for block in python_blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not missing, (node.module, missing)


def test_the_example_of_the_method_runs():
    """200 users with one window of six items each: an r for each interaction."""
    (block,) = python_blocks(ROOT / "denoise_code/README.md")
    names = {}
    exec(block, names)
    assert names["r"].shape == (1200,) and np.isfinite(names["r"]).all()
