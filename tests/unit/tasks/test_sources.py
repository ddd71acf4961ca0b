"""Data files of any kind: byte order marks, encodings, compression, delimiters, addresses."""

import bz2
import codecs
import datetime
import functools
import gzip
import http.server
import json
import lzma
import threading
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masa.errors import ConfigError
from masa.tasks.hub import GOLD
from masa.tasks.sources import READERS, Source, answer_of, cell

ROWS = [
    {"problem": "Wie groß ist 1,5 + \u2028 2?\n", "answer": "3"},
    {"problem": "b", "answer": "x"},
]


def lines(rows=ROWS):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(delimiter):
    def quoted(value):
        return '"' + value.replace('"', '""') + '"'

    rows = [["problem", "answer"], *(list(row.values()) for row in ROWS)]
    return "".join(delimiter.join(map(quoted, row)) + "\r\n" for row in rows)


TEXTS = {
    "jsonl": lines(),
    "ndjson": lines(),
    "json": lines(),
    "list.json": json.dumps(ROWS, indent=1),
    "csv": table(","),
    "semicolon.csv": table(";"),
    "tab.csv": table("\t"),
    "tsv": table("\t"),
}
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-16-le": b"",
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32": b"",
}
PACKED = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def rows_of(path):
    return list(Source(str(path)).rows())


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_is_read(kind, encoding, tmp_path):
    file = tmp_path / f"data.{kind}"
    file.write_bytes(ENCODINGS[encoding] + TEXTS[kind].encode(encoding))
    assert rows_of(file) == ROWS


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_every_ending_is_read(kind, packed, change, tmp_path):
    file = tmp_path / f"sums.{change(kind)}{change(packed)}"
    file.write_bytes(PACKED[packed](TEXTS[kind].encode()))
    assert Source(str(file)).is_local and not Source(str(file)).label.upper().endswith("SON")
    assert rows_of(file) == ROWS


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_as_on_any_system(kind, end, tmp_path):
    rows = [{"problem": "a\u2028b", "answer": "1"}, {"problem": "c", "answer": "2"}]
    texts = {"csv": ["problem,answer", "a\u2028b,1", "c,2"]}
    lines = texts.get(kind, [json.dumps(row, ensure_ascii=False) for row in rows])
    file = tmp_path / f"data.{kind}"
    file.write_bytes("".join(line + end for line in lines).encode())
    assert rows_of(file) == rows


def test_columns_without_a_name_may_repeat(tmp_path):
    (tmp_path / "a.csv").write_text("problem,answer,,\nx,1,,\n")
    assert rows_of(tmp_path / "a.csv") == [{"problem": "x", "answer": "1", "": ""}]


def test_packed_parts_may_be_joined(tmp_path):
    for packed in (".gz", ".zst", ".bz2", ".xz"):
        file = tmp_path / f"sums.jsonl{packed}"
        file.write_bytes(PACKED[packed](lines().encode()) * 2)
        assert rows_of(file) == ROWS * 2


def test_files_with_marks_may_be_joined(tmp_path):
    file = tmp_path / "sums.jsonl"
    file.write_bytes(lines().encode("utf-8-sig") * 2)
    assert rows_of(file) == ROWS * 2


def test_single_precision_is_read_as_it_is_written(tmp_path):
    values = [0.1, None, 3.0, 1e-5, 16777216.0, -2.5e30]
    table = pa.table({"answer": pa.array(values, pa.float32())})
    pq.write_table(table, tmp_path / "a.parquet")
    assert [row["answer"] for row in rows_of(tmp_path / "a.parquet")] == values


def test_parquet_may_be_packed(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.PARQUET")
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.PARQUET").read_bytes()))
    assert rows_of(tmp_path / "a.PARQUET") == rows_of(tmp_path / "b.parquet.gz") == ROWS


@pytest.mark.parametrize("name", ["sums [v1]", "a*b", "what?", "[", "a b", "ü", "~sums"])
def test_a_file_of_that_name_comes_before_a_pattern(name, tmp_path):
    (tmp_path / f"{name}.jsonl").write_text(lines())
    (tmp_path / "axb.jsonl").write_text("")
    (tmp_path / "sums v.jsonl").write_text("")
    source = Source(str(tmp_path / f"{name}.jsonl"))
    assert list(source.rows()) == ROWS and source.label == name


def test_patterns(tmp_path):
    for name in ("a1", "a2", "b"):
        (tmp_path / f"{name}.jsonl").write_text(lines([{"of": name}]))
    assert rows_of(tmp_path / "a*.jsonl") == [{"of": "a1"}, {"of": "a2"}]
    assert rows_of(tmp_path / "[ab]?.jsonl") == [{"of": "a1"}, {"of": "a2"}]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_what_json_writes_is_read(tmp_path_factory, texts):
    rows = [{"problem": text} for text in texts]
    folder = tmp_path_factory.mktemp("rows")
    (folder / "a.jsonl").write_text(lines(rows), encoding="utf-8", newline="")
    (folder / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    assert rows_of(folder / "a.jsonl") == rows_of(folder / "a.json") == rows


BROKEN = {
    "a.jsonl": (b'{"a": 1}\n\n{"a": \n', "line 3, column 6: Expecting value"),
    "b.jsonl": (b'{"a": 1}\n5\n', "a list of objects, not 5"),
    "deep.jsonl": (b"[" * 100_000, "recursion"),
    "c.json": (b'[{"a": 1}', "Expecting ',' delimiter"),
    "d.json": (b"5", "a list of objects, not 5"),
    "e.json": (b"[1]", "a list of objects, not 1"),
    "latin.jsonl": ('{"a": "ü"}'.encode("latin-1"), "it is not in UTF-8, -16 or -32 (byte 0xfc)"),
    "more.csv": (b"problem,answer\nx,1\n1,000+1?,1001\n", "line 3: more fields than the header"),
    "twice.csv": (b"problem,answer,answer\nx,1,\n", "2 columns have the name 'answer'"),
    "open.csv": (b'problem,answer\nx,1\n"y,2\nz,3\n', "unexpected end of data"),
    "f.jsonl.gz": (b'{"a": 1}\n', "Not a gzipped file"),
    "g.jsonl.gz": (gzip.compress(lines().encode())[:-12], "ended before"),
    "h.jsonl.zst": (PACKED[".zst"](lines().encode())[:-9], "Truncated"),
    "i.csv.xz": (b"problem\n", "not supported by decoder"),
    "j.csv.bz2": (b"problem\n", "Invalid data stream"),
    "k.parquet": (b"PAR1", "Parquet file size"),
    "data.txt": (b"{}", "it must end in .parquet, .jsonl"),
    "data": (b"{}", "it must end in .parquet, .jsonl"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_in_one_line(name, tmp_path):
    content, expected = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        rows_of(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(f"cannot read {tmp_path / name}: ") and expected in message
    assert "\n" not in message


def test_an_integer_that_python_does_not_read_is_text(tmp_path):
    (tmp_path / "a.jsonl").write_text(f'{{"a": {"9" * 6000}, "b": -12}}')
    assert rows_of(tmp_path / "a.jsonl") == [{"a": "9" * 6000, "b": -12}]


def test_numbers_that_mean_null_are_missing(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": NaN, "b": [-Infinity, 1], "c": 0.0, "d": " NaN"}')
    (row,) = rows_of(tmp_path / "a.jsonl")
    values = [cell(row, column, "x") for column in ("a", "b.0", "b.1", "c", "d")]
    assert values == [None, None, 1, 0.0, None]


# --- gold answers


@pytest.mark.parametrize(
    ("value", "gold"),
    [
        (float("nan"), None),
        (float("inf"), None),
        (-float("inf"), None),
        (Decimal("NaN"), None),
        ("NaN", None),
        (" nan ", None),
        ([1, float("nan")], None),
        (3.0, "3"),
        (-0.0, "0"),
        (1e16, "10000000000000000"),
        (1e-05, "0.00001"),
        (0.1, "0.1"),
        (Decimal("2.50"), "2.50"),
        (Decimal("1E+3"), "1000"),
        (-7, "-7"),
        (b"5", None),
        (datetime.date(2024, 5, 1), None),
        (datetime.datetime(2024, 5, 1), None),
        ([[1, 2], [3, 4]], None),
        ([1.0, "x"], "1, x"),
        ({"a": 1}, None),
        ((1, 2), None),
        (False, None),
        ("  \u3000\n", None),
        ("infinity", "infinity"),
        ("None", "None"),
    ],
)
def test_values_as_gold_answers(value, gold):
    assert GOLD["text"](value) == gold


def test_a_long_integer_as_gold_answer():
    assert GOLD["text"](10**5000) == "1" + "0" * 5000


@pytest.mark.parametrize("kind", GOLD)
@pytest.mark.parametrize(
    "value",
    [
        None, True, 4, 4.5, float("nan"), b"#### 4", {"a": "#### 4"}, ["#### 4"], [], {}, (),
        datetime.date(2024, 5, 1), Decimal(4), "", "####", r"\boxed{}",
    ],
)  # fmt: skip
def test_no_value_is_a_traceback(kind, value):
    gold = GOLD[kind](value)
    assert gold is None or (isinstance(gold, str) and gold.strip() == gold != "")
    if kind != "text":
        assert gold is None


# --- addresses


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{http_server.server_port}"
        http_server.shutdown()


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "downloads")


@pytest.mark.parametrize(
    ("served", "path", "label"),
    [
        ("x.jsonl", "x.jsonl", "x.jsonl/train"),
        ("x.jsonl", "x.jsonl?download=true", "x.jsonl/train"),
        ("x.jsonl", "x.jsonl?sig=a/b%2Fc&x=y.z", "x.jsonl/train"),
        ("X.JSONL", "X.JSONL?x", "X.JSONL/train"),
        ("x.jsonl.gz", "x.jsonl.gz?a=b", "x.jsonl.gz/train"),
        ("get", "get?file=x.jsonl&k=1", "get/train"),
        ("a b.jsonl", "a%20b.jsonl", "a%20b.jsonl/train"),
    ],
)
def test_addresses(server, no_cache, served, path, label):
    folder, address = server
    packed = PACKED[".gz"] if served.endswith(".gz") else bytes
    (folder / served).write_bytes(packed(lines().encode()))
    source = Source(f"{address}/{path}")
    assert list(source.rows()) == ROWS and source.label == label and not source.is_local


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", f"it must end in {', '.join(READERS)}"),
        ("nothing.jsonl?x=1", "404"),
        ("nothing.csv", "404"),
    ],
)
def test_addresses_that_give_nothing(server, no_cache, path, message):
    _, address = server
    with pytest.raises(ConfigError) as caught:
        list(Source(f"{address}/{path}").rows())
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row, text",
    [
        ({}, ""), ({"answer": None}, ""), ({"answer": float("nan")}, ""), ({"answer": ""}, ""),
        ({"answer": 0}, "0"), ({"answer": False}, "False"), ({"answer": "inf"}, "inf"),
    ],
)  # fmt: skip
def test_a_missing_answer_is_empty_and_no_other(row, text):
    assert answer_of(row) == text
