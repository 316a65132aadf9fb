"""denoise_code/common: tables of random text in declared dialects are read back exactly, or damaged files refused with one line."""

import bz2
import csv
import gzip
import io
import json
import lzma
import string
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from denoise_code.common import delimited, opening
from denoise_code.common.delimited import Dialect
from denoise_code.common.errors import InputError
from denoise_code.common.records import open_table

MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SEPARATORS = [",", ";", "\t", "|", "::", ", ", "~|~"]
NAMES = ["user", "item", "time"]
SOME = '" ,;|:~\t\n\r\x00\x85\u2028\ufeff' + string.ascii_letters + "0123456789éß映😀'\\"
CELLS = st.text(st.one_of(st.sampled_from(SOME), st.characters(exclude_categories=["Cs"])), max_size=6)


def read(path, dialect, names=NAMES):
    """The records of a file: tuples of cells."""
    rows = []
    found = open_table(path, dialect)
    for columns in found.chunks(names):
        rows += zip(*columns)
    return rows


def written(rows, separator, quoting, line_end):
    """Python's csv in a dialect; it separates with one character, so longer separators are put in afterwards."""
    out = io.StringIO()
    stand_in = separator if len(separator) == 1 else "\ue000"
    writer = csv.writer(out, delimiter=stand_in, quoting=quoting, lineterminator=line_end, quotechar='"')
    writer.writerows(rows)
    return out.getvalue().replace(stand_in, separator)


@st.composite
def tables(draw):
    """(rows, separator, quoting of Python's csv, line end)."""
    separator, line_end = draw(st.sampled_from(SEPARATORS)), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    cells = CELLS.map(lambda text: text.replace("\ue000", ""))
    if quoting == csv.QUOTE_MINIMAL:
        # Python's csv quotes only the line end that it writes, and of a long separator it knows nothing
        cells = cells.map(lambda text: "".join(c for c in text if c not in ("\r\n" + (separator if len(separator) > 1 else ""))))
    rows = draw(st.lists(st.tuples(*[cells] * len(NAMES)), min_size=1, max_size=8))
    return rows, separator, quoting, line_end


@MANY
@given(tables(), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]), st.booleans())
def test_random_tables_are_read_back(tmp_path, table, encoding, header):
    rows, separator, quoting, line_end = table
    path = tmp_path / "table"
    path.write_bytes(written([NAMES, *rows] if header else rows, separator, quoting, line_end).encode(encoding))
    names = NAMES if header else ["1", "2", "3"]
    dialect = Dialect(separator, header=header, quoting="standard")
    if header or not first_row_tells_something(rows[0]):
        assert read(path, dialect, names) == rows


def first_row_tells_something(row) -> bool:
    """Without a header the first row is data, but for a byte order mark, a JSON record, blanks behind all separators."""
    return row[0].lstrip()[:1] in ("\ufeff", "{", "[") or all(cell[:1] == " " for cell in row[1:])


@MANY
@given(tables(), st.data())
def test_one_damaged_byte_harms_its_record_or_the_file_is_refused(tmp_path, table, data):
    rows, separator, quoting, line_end = table
    lines = [written([row], separator, quoting, line_end).encode() for row in [NAMES, *rows]]
    content = bytearray(b"".join(lines))
    place = data.draw(st.integers(len(lines[0]), len(content) - 1))
    content[place] = data.draw(st.one_of(st.sampled_from(list(b'",;\t\r\n\x00 a')), st.integers(0, 255)))
    (tmp_path / "table").write_bytes(content)
    try:
        again = read(tmp_path / "table", Dialect(separator, quoting="standard"))
    except InputError as error:
        assert str(error).startswith(str(tmp_path / "table")) and "\n" not in str(error)
        return
    ends = [sum(map(len, lines[: number + 1])) for number in range(len(lines))]
    harmed = next(number for number, end in enumerate(ends) if place < end) - 1
    # a line end belongs to the record before it and to the one behind
    near = {harmed, harmed + 1} if place >= ends[harmed + 1] - len(line_end) else {harmed}
    blank = "".join(cell.strip() for row in rows[min(near) :] for cell in row) == ""
    assert blank or len(again) == len(rows)
    for number, (row, found) in enumerate(zip(rows, again)):
        assert number in near or row == found


PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n,"), max_size=5)


@MANY
@given(st.lists(st.tuples(PLAIN, PLAIN, PLAIN), min_size=1))
def test_without_quoting_every_character_is_text(tmp_path, rows):
    (tmp_path / "table").write_bytes(("user,item,time\n" + "".join(",".join(row) + "\n" for row in rows)).encode())
    assert read(tmp_path / "table", Dialect(quoting="none")) == rows


BEGINNINGS = [
    b"", b"user,item,time\n", b'"', b"{", b"\xff\xfe", b"PAR1", b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh91AY&SY", b"\xfd7zXZ\x00",
    b"\x28\xb5\x2f\xfd", bytes(opening.TAR_MAGIC_AT) + opening.TAR_MAGIC,
]  # fmt: skip


@pytest.mark.parametrize("beginning", BEGINNINGS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=700))
def test_any_bytes_give_a_table_or_one_line(tmp_path, beginning, content):
    (tmp_path / "table").write_bytes(beginning + content)
    for dialect in (Dialect(), Dialect("\t"), Dialect("::", header=False), Dialect(encoding="utf-16-le")):
        try:
            read(tmp_path / "table", dialect, NAMES if dialect.header else ["1"])
        except InputError as error:
            assert str(tmp_path / "table") in str(error) and "\n" not in str(error)


def valid_files():
    text = "user,item,time\n" + "".join(f'u{n},"i,{n}",{n}\n' for n in range(300))
    files = {
        "gzip": gzip.compress(text.encode()),
        "bzip2": bz2.compress(text.encode()),
        "xz": lzma.compress(text.encode()),
        "json": "\n".join(json.dumps({"user": f"u{n}", "item": n, "time": 1.5}) for n in range(300)).encode(),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("table.csv", text)
    files["zip"] = buffer.getvalue()
    import pyarrow as pa
    import pyarrow.parquet

    buffer = io.BytesIO()
    columns = {"user": [f"u{n}" for n in range(300)], "item": list(range(300)), "time": [n / 4 for n in range(300)]}
    pa.parquet.write_table(pa.table(columns), buffer, write_page_checksum=True)
    files["parquet"] = buffer.getvalue()
    return files


FILES = valid_files()


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_of_any_kind_is_no_traceback(tmp_path, kind, data):
    content = bytearray(FILES[kind])
    (tmp_path / "table").write_bytes(content)
    whole = read(tmp_path / "table", Dialect())
    assert len(whole) == 300
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] = data.draw(st.integers(0, 255))
    else:
        content = content[:place]
    (tmp_path / "table").write_bytes(content)
    try:
        again = read(tmp_path / "table", Dialect())
    except InputError as error:
        assert str(error).startswith(str(tmp_path / "table")) and "\n" not in str(error)
        return
    if kind in ("gzip", "bzip2", "xz", "zip"):  # they have checksums
        assert again == whole


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 1500), st.integers(0, 255))
def test_the_damaged_footer_of_a_parquet_file(tmp_path, place, byte):
    """Names of columns and sizes stand there: what pyarrow raises is not always an error of its own."""
    content = bytearray(FILES["parquet"])
    content[-place] = byte
    (tmp_path / "table").write_bytes(content)
    try:
        read(tmp_path / "table", Dialect())
    except InputError as error:
        assert str(error).startswith(str(tmp_path / "table")) and "\n" not in str(error)


def test_lines_are_counted_across_chunks(tmp_path, monkeypatch):
    """Line numbers hold where records span lines and chunks."""
    monkeypatch.setattr(delimited, "CHUNK_ROWS", 3)
    rows = [(f"u{n}", "a\r\nb\rc\nd" if n % 4 == 1 else "x", str(n)) for n in range(50)]
    content, starts = "user,item,time\n", []
    for row in rows:
        starts.append(1 + len(opening.LINE_END.findall(content)))
        content += written([row], ",", csv.QUOTE_ALL, "\r\n")
    (tmp_path / "table").write_bytes(content.encode())
    found = open_table(tmp_path / "table", Dialect())
    count = 0
    for columns in found.chunks(NAMES):
        assert [found.line_of(count + place) for place in range(len(columns[0]))] == starts[count : count + len(columns[0])]
        count += len(columns[0])
    assert count == 50 and found.line_of(0) == 2
    for bad, message in (('u,"i\n\n"x,1\n', "the quotation mark that opens here"), ("u,i\n", "expected 3 fields")):
        (tmp_path / "table").write_bytes((content + bad).encode())
        with pytest.raises(InputError, match=rf"table:{1 + len(opening.LINE_END.findall(content))}: {message}"):
            read(tmp_path / "table", Dialect())


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_text_of_another_encoding_is_named_with_its_line(tmp_path, line_end):
    lines = ["user,item,time", *(f"u{n},i,{n}" for n in range(5000))]
    lines[3210] = "ué,i,1"
    (tmp_path / "table").write_bytes(line_end.join(lines).encode("latin-1"))
    with pytest.raises(InputError, match="table:3211: is not utf-8"):
        read(tmp_path / "table", Dialect())
    assert read(tmp_path / "table", Dialect(encoding="latin-1"))[3209][0] == "ué"


def test_a_cell_without_end_is_refused_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "LONGEST_CELL", 1000)
    (tmp_path / "table").write_text('user,item,time\nu,i,1\nu,"i,2\n' + "u,i,1\n" * 10_000)
    with pytest.raises(InputError, match="table:3: the quotation mark that opens here"):
        read(tmp_path / "table", Dialect())
    (tmp_path / "table").write_text("user,item,time\nu,i,1\nu," + "i" * 2000 + ",2\n")
    with pytest.raises(InputError, match="table:3: a cell of more than 1,000 characters"):
        read(tmp_path / "table", Dialect(quoting="none"))
    assert csv.field_size_limit() != 1000
