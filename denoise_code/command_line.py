"""What every script needs at its edges: errors that a user can act on, option types, files that are whole or absent.

Knows nothing of models, titles or data sets.
"""

import argparse
import json
import os
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """Input that cannot be used; the message names the file, row or option and says what to do."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


@contextmanager
def input_errors(script: str):
    """Ends a script with one line for what its user can mend."""
    try:
        yield
    except InputError as error:
        Parser(prog=Path(script).name).error(str(error))


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def table(header: list[str], rows: list[list]) -> str:
    """Rows for people, aligned: texts to the left, numbers as they are given to the right."""
    lines = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(zip(line, widths)))
        for line in lines
    )


@contextmanager
def beside(path: Path):
    """Where to write what is renamed to `path` when all went well: a reader never sees half a file or folder."""
    partial = path.with_name(f".{path.name}.partial-{os.uname().nodename}-{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:  # where it failed
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)


def write_json(path: Path, content) -> None:
    with beside(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def peak_memory_gib() -> float:
    """Peak of the GPU's allocated memory where there is one, else of the process's resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
