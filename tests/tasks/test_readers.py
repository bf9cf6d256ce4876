import pyarrow
import pyarrow.parquet
import pytest

from tasks.datasets import load_rows
from tasks.errors import InputError


def test_all_formats_give_the_same_rows(write, tmp_path):
    rows = [{"text": "null", "label": "1"}, {"text": 'he said "no", twice', "label": "0"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "r.parquet")
    files = [
        write("r.json", rows),
        write("r2.json", {"canary": "x", "examples": rows}),
        write("r.jsonl", rows),
        write("r.csv", 'text,label\r\nnull,1\r\n"he said ""no"", twice",0\r\n'),
        write("r.tsv", 'text\tlabel\nnull\t1\nhe said "no", twice\t0\n'),
        str(tmp_path / "r.parquet"),
    ]
    for file in files:
        assert load_rows(file) == rows, file


def test_a_tsv_without_header_keeps_unbalanced_quotes(write):
    file = write("s.tsv", 'a "fine film\t1\r\n\nit \'s dull"\t0\n')
    rows = load_rows(file, names=("sentence", "label"))
    assert rows == [
        {"sentence": 'a "fine film', "label": "1"},
        {"sentence": "it 's dull\"", "label": "0"},
    ]
    assert [row.where for row in rows] == ["s.tsv line 1", "s.tsv line 3"]


def test_a_header_is_seen_by_its_names(write):
    file = write("s.tsv", "\ufeffsentence\tlabel\ngood\t1\n")
    assert load_rows(file, names=("sentence", "label")) == [{"sentence": "good", "label": "1"}]


def test_a_quoted_cell_may_span_lines(write):
    rows = load_rows(write("q.csv", 'prompt,answer\n"two\nlines",yes\nnext,no\n'))
    assert rows[0]["prompt"] == "two\nlines"
    assert rows[1].where == "q.csv line 4"


def test_a_line_separator_inside_json_ends_no_line(write):
    assert load_rows(write("u.jsonl", '{"text": "a\u2028b"}\n')) == [{"text": "a\u2028b"}]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("b.jsonl", '{"a": 1}\n{"a": }\n', ["b.jsonl line 2", "column 7"]),
        ("b.jsonl", '{"a": 1}\n\n[1]\n', ["b.jsonl line 3", "list", "object"]),
        ("b.json", '[{"a": 1},\n {"a" 2}]', ["line 2 column 7", ".jsonl"]),
        ("b.json", '{"a": 1}', ["no list of rows", "examples"]),
        ("b.json", "[]", ["no rows"]),
        ("b.tsv", "x\ty\n1\t2\n1\n", ["b.tsv line 3", "1 cells", "expected 2", "x, y"]),
        ("b.csv", 'x,y\n1,"2\n', ["b.csv line 2", "quote"]),
        ("b.parquet", "PAR", ["b.parquet is not a complete Parquet file"]),
        ("b.doc", "hello", [".doc", ".jsonl"]),
    ],
)
def test_bad_files_name_the_place_and_the_remedy(write, name, content, words):
    with pytest.raises(InputError) as error:
        load_rows(write(name, content))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "l.jsonl").write_bytes(b'{"text": "caf\xe9"}')
    with pytest.raises(InputError, match=r"byte 13.*UTF-8"):
        load_rows(str(tmp_path / "l.jsonl"))


def test_an_altered_file_is_seen_at_once(write):
    assert load_rows(write("a.csv", "x\n1\n")) == [{"x": "1"}]
    assert load_rows(write("a.csv", "x\n2\n")) == [{"x": "2"}]


def test_a_missing_file_names_the_nearest(write, tmp_path):
    write("questions.jsonl", [{"a": 1}])
    with pytest.raises(InputError, match=r"question\.jsonl does not exist.*'questions\.jsonl'"):
        load_rows(str(tmp_path / "question.jsonl"))
    with pytest.raises(InputError, match=r"neither does the folder"):
        load_rows(str(tmp_path / "nowhere" / "a.csv"))
    with pytest.raises(InputError, match=r"is a folder.*questions\.jsonl"):
        load_rows(str(tmp_path))


def test_a_revision_is_refused_for_a_file(write):
    with pytest.raises(InputError, match="revision 'v1' does not apply"):
        load_rows(write("a.csv", "x\n1\n"), "v1")


def test_what_is_neither_file_nor_hub_id_is_refused():
    with pytest.raises(InputError, match="neither a file"):
        load_rows("two words")


def test_a_text_file_is_its_lines(write):
    rows = load_rows(write("a.txt", "one\r\n\n two\u2028three \n"))
    assert [row["text"] for row in rows] == ["one", "", " two\u2028three "]
    assert rows[2].where == "a.txt line 3"
    with pytest.raises(InputError, match="has no rows"):
        load_rows(write("b.txt", ""))
