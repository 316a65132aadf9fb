"""The bytes and the text of any file that people have: plain or compressed, in an archive, from a pipe, in several encodings.

What a file is tells its content, never its name. Whatever is wrong with a file raises InputError.
"""

import bz2
import codecs
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO

from denoise_code.common.errors import InputError, one_line

GZIP, XZ, ZSTANDARD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
ZIP, EMPTY_ZIP, PARQUET = b"PK\x03\x04", b"PK\x05\x06", b"PAR1"
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257  # where POSIX and GNU tar write it
HEAD_BYTES = 512
DEEPEST = 4  # a .csv.gz in a .tar.gz is three deep
BYTE_ORDER_MARKS = (  # the long one first: UTF-16's mark is the beginning of UTF-32's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DAMAGED = (
    EOFError, MemoryError, NotImplementedError, gzip.BadGzipFile, lzma.LZMAError, struct.error, tarfile.TarError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
LINE_END = re.compile(r"\r\n|\r|\n")


class WrongEncoding(InputError):
    """Text that is not of the encoding it was read as."""


class Rest(io.RawIOBase):
    """A pipe whose first bytes were read already: these, then the pipe."""

    def __init__(self, head: bytes, pipe: BinaryIO):
        self.head, self.pipe = head, pipe

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        chunk = self.head[: len(buffer)] or self.pipe.read(len(buffer))
        self.head = self.head[len(buffer) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)


@contextmanager
def reading(path: Path):
    """Whatever goes wrong while a file is opened or read becomes one line that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, where a file is wanted") from None
    except DAMAGED as error:
        raise InputError(f"{path}: damaged: {one_line(error)}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from None


def is_pipe(path: Path) -> bool:
    """Whether a file can be read only once: a pipe, a terminal, /dev/stdin of either kind."""
    with reading(path):
        return not stat.S_ISREG(path.stat().st_mode)


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file's data, decompressed: gzip, bzip2, xz, zstandard, or the one data file of a zip or tar archive."""
    with reading(path):
        stream: BinaryIO = path.open("rb")
        from_pipe = not stream.seekable()
        for _ in range(DEEPEST):
            head, stream = peek(stream, from_pipe)
            opener = opener_of(head)
            if opener is None:
                break
            if from_pipe and opener is open_archive:
                raise InputError(f"{path}: an archive cannot be read from a pipe: save it as a file first")
            stream = opener(path, stream)
        return stream


def peek(stream: BinaryIO, from_pipe: bool) -> tuple[bytes, BinaryIO]:
    """The first bytes of a stream, and a stream that still has them. (Gzip data of a pipe say wrongly that they can seek.)"""
    head = stream.read(HEAD_BYTES)
    if from_pipe:
        return head, io.BufferedReader(Rest(head, stream))
    stream.seek(0)
    return head, stream


def opener_of(head: bytes):
    """The function that opens what begins with these bytes; None where they are the data."""
    if head.startswith(GZIP):
        return open_gzip
    if re.match(rb"BZh[1-9]1AY&SY", head):  # a header of a table may begin with BZh too
        return open_bzip2
    if head.startswith(XZ):
        return open_xz
    if head.startswith(ZSTANDARD):
        return open_zstandard
    if head.startswith((ZIP, EMPTY_ZIP)) or head[TAR_MAGIC_AT:].startswith(TAR_MAGIC):
        return open_archive
    return None


def open_gzip(path: Path, stream: BinaryIO) -> BinaryIO:
    return gzip.GzipFile(fileobj=stream)


def open_bzip2(path: Path, stream: BinaryIO) -> BinaryIO:
    return bz2.BZ2File(stream)


def open_xz(path: Path, stream: BinaryIO) -> BinaryIO:
    return lzma.LZMAFile(stream)


def open_zstandard(path: Path, stream: BinaryIO) -> BinaryIO:
    try:
        from compression import zstd  # Python 3.14 and later
    except ImportError:
        raise InputError(f"{path}: zstandard data, which this Python cannot read: decompress it first (zstd -d)") from None
    return zstd.ZstdFile(stream)


def open_archive(path: Path, stream: BinaryIO) -> BinaryIO:
    """The one data file of a zip or tar archive."""
    head = stream.read(len(ZIP))
    stream.seek(0)
    try:
        return open_in_zip(path, stream) if head in (ZIP, EMPTY_ZIP) else open_in_tar(path, stream)
    except (InputError, OSError):
        raise
    except Exception as error:  # both modules raise errors of many classes for damaged directories
        raise InputError(f"{path}: damaged: {one_line(error)}") from None


def open_in_zip(path: Path, stream: BinaryIO) -> BinaryIO:
    archive = zipfile.ZipFile(stream)
    names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    name = the_data_file(path, names)
    if archive.getinfo(name).flag_bits & 1:
        raise InputError(f"{path}: {name} in it is encrypted")
    return archive.open(name)


def open_in_tar(path: Path, stream: BinaryIO) -> BinaryIO:
    archive = tarfile.TarFile(fileobj=stream)
    entries = {entry.name: entry for entry in archive.getmembers() if entry.isfile()}
    return archive.extractfile(entries[the_data_file(path, list(entries))])


def the_data_file(path: Path, names: list[str]) -> str:
    """The one name that is not what a Mac adds to archives."""
    hidden = re.compile(r"(^|/)(__MACOSX/|\.DS_Store$|\._)")
    data = [name for name in names if not hidden.search(name)]
    if len(data) != 1:
        found = ", ".join(sorted(data)[:5]) + (", …" if len(data) > 5 else "")
        raise InputError(f"{path}: an archive of {len(data)} data files{f' ({found})' if data else ''}: unpack it, or keep one")
    return data[0]


def open_lines(path: Path, stream: BinaryIO, head: bytes, encoding: str = "utf-8") -> Iterator[str]:
    """The lines of the text in `stream`, which begins with `head`. A byte order mark overrules UTF-8 and is left out."""
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        marked = (name for mark, name in BYTE_ORDER_MARKS if head.startswith(mark))
        encoding = next(marked, encoding)
    lines = lines_of(path, io.TextIOWrapper(stream, encoding=encoding, newline=""), encoding)
    return chain([next(lines, "").removeprefix("\ufeff")], lines)


def lines_of(path: Path, text: TextIO, encoding: str) -> Iterator[str]:
    """The lines of a text, which end at CR, LF or CRLF, with their ends.

    Raises WrongEncoding, or InputError for damaged data, with the line.
    """
    number = 0
    try:
        with reading(path):
            for line in text:
                number += 1
                yield line
    except UnicodeDecodeError as error:
        # what was decoded but not yet given out has no end of line, so the bad byte's line counts from here
        before = error.object[: error.start].decode(error.encoding, "replace")
        number += 1 + len(LINE_END.findall(before))
        raise WrongEncoding(
            f"{path}:{number}: is not {encoding} ({error.reason}): save it as UTF-8 or, of a table of columns, name its "
            "encoding (--encoding, of titles --titles_encoding), e.g. latin-1"
        ) from None
    except UnicodeError as error:
        raise WrongEncoding(f"{path}: is not {encoding} ({one_line(error)})") from None
    except InputError as error:
        raise InputError(str(error).replace(": damaged:", f": damaged after line {number}:", 1)) from None
