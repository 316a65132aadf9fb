"""Files and folders that are whole or absent, JSON and fingerprints."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from denoise_code.common.errors import InputError, one_line


@contextmanager
def write_atomically(path: Path):
    """Where to write what is renamed to `path` when all went well: a reader never sees half a file or folder.

    A file that exists is replaced; a folder must not exist (`publish_folder` replaces one).
    """
    partial = path.with_name(f".{path.name}.partial-{os.uname().nodename}-{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:  # where it failed
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)


def publish_folder(folder: Path, write) -> None:
    """Let `write` fill a folder next to `folder`, then move it into place: nobody ever sees half a data set."""
    replaced = folder.with_name(f".{folder.name}.replaced-{os.uname().nodename}-{os.getpid()}")
    try:
        with write_atomically(folder) as partial:
            write(partial)
            if folder.exists():
                folder.rename(replaced)
    except BaseException:
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        raise
    finally:
        shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def naming(path: Path):
    """Failing to write says which file of which data set cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path.name} cannot be written in {path.parent.parent}: {error.strerror or error}") from None


def write_json(path: Path, content) -> None:
    """Strict JSON: NaN and infinities, which other readers refuse, raise ValueError."""
    with write_atomically(path) as partial:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_of_json(content) -> str:
    """SHA-256 of what JSON can hold, in hexadecimal digits. Files are kept by it: the same content has to give the same digits."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def fingerprint_of_array(array) -> str:
    """SHA-256 of the values of a numpy array, in hexadecimal digits."""
    return hashlib.sha256(array.tobytes()).hexdigest()


def fingerprint_of_files(paths: list[Path]) -> str:
    """SHA-256 over the contents of files that exist."""
    digest = hashlib.sha256()
    for path in paths:
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def save_arrays(path: Path, **arrays) -> None:
    import numpy as np

    with write_atomically(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def save_figure(path: Path, figure) -> None:
    """A figure of matplotlib as PNG, whole or absent; it is closed."""
    from matplotlib import pyplot

    figure.tight_layout()
    with write_atomically(path) as partial:
        figure.savefig(partial, dpi=160, format="png", bbox_inches="tight")
    pyplot.close(figure)


def save_tensors(path: Path, tensors: dict, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file of numpy arrays, whole or absent, which others may read, too."""
    import numpy as np
    from safetensors.numpy import save_file

    with write_atomically(path) as partial:
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, partial, metadata)
        partial.chmod(0o644)  # the library gives nobody else the right to read


@contextmanager
def naming_tensors(path: Path):
    """Failing to write a safetensors file names it, whatever the library calls the error."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be written ({one_line(error)})") from None


def lock(file: TextIO, operation: int) -> None:
    """`fcntl.flock` of an open file, which it closes where it raises.

    Raises InputError where another process holds the lock and LOCK_NB forbids to wait, and where there are no locks.
    """
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        file.close()
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            raise InputError(f"{file.name}: another process is writing it; the same command runs already") from None
        raise InputError(
            f"{file.name}: cannot be locked ({error.strerror}): a file system with locks is needed; --output_root names another place"
        ) from None
