"""denoise_code/common/records.py: which columns a file of records has."""

import json

import pytest

from denoise_code.common.delimited import CHUNK_ROWS, Dialect
from denoise_code.common.errors import InputError
from denoise_code.common.records import open_table
from denoise_code.data_set.log.log import Account
from denoise_code.data_set.log.tables import Columns, read_log
from denoise_code.data_set.log.whole_tables import WholeTable


def write_records(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def record(number, **more):
    return {"user": f"u{number % 7}", "item": f"i{number % 3}", "timestamp": number} | more


def test_columns_that_the_first_record_lacks(tmp_path):
    """In order of appearance; nothing of the records that were looked at is lost."""
    records = [record(0), record(1, note="x", title="B"), record(2, title="C")]
    table = open_table(write_records(tmp_path / "log.jsonl", records), Dialect())
    assert table.names == ["user", "item", "timestamp", "note", "title"]
    assert list(table.chunks(["item", "title"])) == [[["i0", "i1", "i2"], ["", "B", "C"]]]
    table = open_table(tmp_path / "log.jsonl", Dialect())
    assert read_log(table, Columns("user", "item", "timestamp", title="title"), Account()).titles == ["", "B", "C"]


@pytest.mark.parametrize("wrap", [lambda table: table, WholeTable], ids=["as it is", "whole"])
def test_a_column_that_comes_late_is_refused_by_what_was_searched(tmp_path, wrap):
    records = [*map(record, range(CHUNK_ROWS)), record(CHUNK_ROWS, title="A")]
    table = wrap(open_table(write_records(tmp_path / "log.jsonl", records), Dialect()))
    with pytest.raises(InputError, match=r"no column 'title' in its first 2,000 records, found 'user', 'item', 'timestamp'$"):
        read_log(table, Columns("user", "item", "timestamp", title="title"), Account())
    assert len(read_log(table, Columns("user", "item", "timestamp"), Account()).users) == CHUNK_ROWS + 1


def test_the_line_of_what_is_no_record(tmp_path):
    path = write_records(tmp_path / "log.jsonl", map(record, range(3)))
    path.write_text(path.read_text() + "no record\n")
    with pytest.raises(InputError, match=r"log.jsonl:4: neither a JSON object nor a Python dict: 'no record"):
        open_table(path, Dialect())
