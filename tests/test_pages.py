"""Parquet's claims as they are read here: what PyArrow reads of honest files, and nothing that has two readings."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import thrift_trees as tt
from hypothesis import given
from hypothesis import strategies as st

from coreinfer.pages import DICTIONARY, groups_of, pages_of, values_of
from coreinfer.paths import DEMO_CLUSTERS
from coreinfer.thrift import I32, field, struct


@pytest.mark.parametrize("name", ["clusters", "neurons", "layers", "sensitivity"])
def test_honest_files_are_read_as_pyarrow_reads_them(name: str) -> None:
    path = DEMO_CLUSTERS / f"{name}.parquet"
    facts = pq.ParquetFile(path).metadata
    with path.open("rb") as file:
        groups = groups_of(file, facts.num_row_groups)
        assert [group.rows for group in groups] == [facts.row_group(i).num_rows for i in range(len(groups))]
        for i, group in enumerate(groups):
            for j, chunk in enumerate(group.chunks):
                column, pages = facts.row_group(i).column(j), pages_of(file, chunk)
                assert (chunk.values, chunk.stored) == (column.num_values, column.total_compressed_size)
                assert values_of(pages) == chunk.values
                assert any(page.kind == DICTIONARY for page in pages) == column.has_dictionary_page


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_both_versions_of_pages(tmp_path: Path, version: str) -> None:
    path = tmp_path / "table.parquet"
    table = pa.table({"a": list(range(50_000)), "b": [["x", "y"]] * 50_000})
    pq.write_table(table, path, data_page_version=version, write_page_checksum=True, data_page_size=4096)
    with path.open("rb") as file:
        ((rows, (first, second)),) = groups_of(file, 1)
        assert (rows, values_of(pages_of(file, first)), values_of(pages_of(file, second))) == (50_000, 50_000, 100_000)


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"\x15\x02\x05\x02\x02\x00", "twice"),  # field 1, and field 1 again by its id
        (b"\x05\x82\x80\x08\x02\x00", "16 bits"),  # an id that 16 bits would make another of
        (b"\x05\x00\x02\x00", "none"),
        (b"\x15" + b"\xff" * 4 + b"\x7f\x00", "32 bits"),
        (b"\x15" + b"\xff" * 20, "does not end"),
        (b"\x1b\x00\x00", "type 11"),
        (b"\x1c" * 20, "too deep"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        struct(raw)


@pytest.mark.parametrize("raw", [b"", b"\x15", b"\x18\x7fshort", b"\x19\xf5\xff\xff\x7f\x00", b"\x15\x02"])
def test_what_is_cut_short_is_refused(raw: bytes) -> None:
    with pytest.raises(LookupError):
        struct(raw)


def test_a_field_of_another_type_is_missing() -> None:
    """A library skips it."""
    made = tt.encode({3: (tt.I64, 7)})
    with pytest.raises(ValueError, match="of type 6, not 5"):
        field(struct(made)[0], 3, I32)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_struct_or_a_fault(raw: bytes) -> None:
    try:
        _, end = struct(raw)
    except (ValueError, LookupError):
        return
    assert 0 < end <= len(raw)


@given(st.dictionaries(st.integers(1, 32_000), st.tuples(st.just(tt.I64), st.integers(-(1 << 63), (1 << 63) - 1))))
def test_what_is_encoded_is_read_back(tree: tt.Tree) -> None:
    made = b"".join(
        bytes([tt.I64]) + tt.varint(number << 1) + tt.varint(((value << 1) ^ (value >> 63)) & ((1 << 64) - 1))
        for number, (_, value) in tree.items()
    )
    assert struct(made + b"\0") == (tree, len(made) + 1)
