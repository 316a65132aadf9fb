"""The finished batches of a job: files of JSON lines that survive a kill."""

import errno
import fcntl
import json
import shutil
from pathlib import Path

from denoise_code.common.errors import InputError


class Shards:
    """The finished batches of a job: one file of JSON lines a split and process, appended to."""

    def __init__(self, folder: Path, rank: int):
        self.folder, self.rank = folder, rank

    def own(self, split: str) -> Path:
        return self.folder / f"{split}.{self.rank}.jsonl"

    def pilot(self, part: str) -> Path:
        """What all processes and restarts take their threshold from."""
        return self.folder / f"{part}.pilot.json"

    def remove(self) -> None:
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def read(self, split: str) -> dict[int, dict]:
        """{batch: line} of all processes; a last line that a kill tore is left out."""
        return {line["batch"]: line for path in sorted(self.folder.glob(f"{split}.*.jsonl")) for line in whole_lines(path)[0]}

    def open(self, split: str):
        """This process's file, cut back to its last whole line."""
        path = self.own(split)
        out = path.open("a", encoding="utf-8")
        lock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        out.truncate(whole_lines(path)[1])
        return out


def lock(file, operation: int) -> None:
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
            f"{file.name}: cannot be locked ({error.strerror}): stage 2 needs a file system with locks; "
            "--output_root names another place"
        ) from None


def whole_lines(path: Path) -> tuple[list[dict], int]:
    """The lines of a shard that were written to their end, and the bytes they take."""
    lines, size = [], 0
    with path.open("rb") as file:
        for raw in file:
            try:
                line = json.loads(raw) if raw.endswith(b"\n") else None
            except ValueError:
                line = None
            if line is None:
                break
            lines.append(line)
            size += len(raw)
    return lines, size
