"""The finished batches of a job: files of JSON lines that survive a kill."""

import fcntl
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from denoise_code.common.files import lock
from denoise_code.reading.records import Record


@dataclass
class FinishedBatch:
    """A line of a shard: the records of a batch, by its number in the part of the job, and what it took.

    seconds, tokens: of the steps "score" and "suggest". peak_memory_gib: of the process until then.
    """

    batch: int
    records: list[Record]
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    peak_memory_gib: float = 0.0

    def as_line(self) -> str:
        return json.dumps(vars(self) | {"records": [record.as_json() for record in self.records]}) + "\n"

    @classmethod
    def from_json(cls, line: dict) -> "FinishedBatch":
        return cls(**line | {"records": [Record(**record) for record in line["records"]]})


class Shards:
    """The finished batches of a job: one file of JSON lines for each part of the job and process, appended to."""

    def __init__(self, folder: Path, rank: int):
        self.folder, self.rank = folder, rank

    def pilot(self, part: str) -> Path:
        """The file that all processes and restarts take their threshold from."""
        return self.folder / f"{part}.pilot.json"

    def remove(self) -> None:
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def read(self, part: str) -> dict[int, FinishedBatch]:
        """{number: batch} of all processes; a last line that a kill tore is left out."""
        lines = [line for path in sorted(self.folder.glob(f"{part}.*.jsonl")) for line in whole_lines(path)[0]]
        return {line["batch"]: FinishedBatch.from_json(line) for line in lines}

    def open(self, part: str) -> TextIO:
        """This process's file, locked and cut back to its last whole line."""
        path = self.folder / f"{part}.{self.rank}.jsonl"
        file = path.open("a", encoding="utf-8")
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(whole_lines(path)[1])
        return file


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
