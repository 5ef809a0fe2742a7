"""A user's file is read as text without changes, or refused with the line that is wrong."""

import bz2
import csv
import gzip
import lzma
import re

import pytest
from user_tables import N, csv_of, labels, numbers

from mlagent_jax.tasks.user_table.new_task import NewTaskError


def refused(make, content, **options):
    with pytest.raises(NewTaskError) as caught:
        make(content, **options)
    assert "\n" not in str(caught.value).replace("\\n", "")
    return str(caught.value)


def test_trailing_commas_shift_no_column(make):
    rows = "".join(f"{i},{1000 + i},{i / 7:.3f},\n" for i in range(N))
    made = make(f"width,height,weight\n{rows}", "weight", "rmse")
    assert made.cells("train")[0] == ["id", "width", "height", "weight"]
    assert made.column("width") == sorted(map(str, range(N)))
    assert made.column("weight") == sorted(f"{i / 7:.3f}" for i in range(N))
    assert "left out the ',' that ends every row except the header" in made.notes
    made = make(f"width,height,weight,\n{rows}", "weight", "rmse")
    assert made.cells("train")[0] == ["id", "width", "height", "weight"]
    assert "left out column 4, which has neither a name nor any values" in made.notes


def test_names_of_rows_are_never_taken_for_a_column(make):
    rows = [f"r{i},{i},{'' if i == 5 else i % 2}\n" for i in range(N)]
    said = refused(make, "a,y\n" + "".join(rows))
    assert "names 2 columns, but each row has 3 cells" in said and "name that column too" in said
    made = make("name,a,y\n" + "".join(rows[:5] + rows[6:]))
    assert made.column("name") == sorted(f"r{i}" for i in range(N) if i != 5)
    said = refused(make, "name,a,y\n" + "".join(rows))
    assert "1 of 120 rows" in said and "in row 6 after the header (line 7)" in said


PLAIN = csv_of(["x", "y"], numbers(), labels(numbers()))


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (PLAIN.encode("utf-8-sig"), {}),
        (PLAIN.encode("utf-8-sig"), {"encoding": "utf-8"}),
        (PLAIN.encode("utf-16"), {"encoding": "utf-16"}),
        (PLAIN.replace("\r\n", "\n") + "\n\n\n", {}),
        (PLAIN.replace("\r\n", "\r"), {}),
        (PLAIN.replace("\r\n", "\n\n"), {}),
        (PLAIN.replace(",", "\t"), {"delimiter": "\\t"}),
        (PLAIN.replace(",", ";"), {"delimiter": ";"}),
        (gzip.compress(PLAIN.encode()), {"name": "rows.csv.gz"}),
        (bz2.compress(PLAIN.encode()), {"name": "rows.csv.bz2"}),
        (lzma.compress(PLAIN.encode()), {"name": "rows.csv.xz"}),
        (PLAIN.replace('"', "").rstrip(), {}),
    ],
)
def test_the_form_of_the_file_changes_no_cell(make, content, options):
    made = make(content, **options)
    assert made.cells("train")[0] == ["id", "x", "y"]
    assert made.column("x") == sorted(numbers()) and made.column("y") == sorted(labels(numbers()))


ROWS = "".join(f"{i},{i % 2}\n" for i in range(N))


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (b"", {}, "it is empty"),
        ("x,y\n", {}, "it has a header and no rows"),
        (f"x,y\n{ROWS}1,2,3\n{ROWS}", {}, "line 122 has 3 cells, the header 2; quote the cells that contain a"),
        (f"x,y\n{ROWS}1\n{ROWS}", {}, "line 122 has 1 cells, the header 2"),
        (f'x,y\n"a\nb",0\n{ROWS}1\n{ROWS}', {}, "line 124 has 1 cells"),
        (f"# a comment\nx,y\n{ROWS}", {}, "begins with the comment '# a comment'; remove everything above"),
        (f"x,y\n{ROWS}# the end\n", {}, "line 122 has 1 cells, the header 2; remove comments"),
        (f"x;y\n{ROWS.replace(',', ';')}", {}, "only one column; set its delimiter, for example with --delimiter=';'"),
        (f"x\ty\n{ROWS.replace(',', '	')}", {}, r"for example with --delimiter='\\t'"),
        ("x;y\n" + "".join(f"{i},5;{i % 2}\n" for i in range(N)), {}, "--delimiter=';'"),
        ("a;b, c;y\n" + "".join(f"{i},5;1;{i % 2}\n" for i in range(N)), {}, "--delimiter=';'"),
        (f"x,y\n{ROWS}", {"delimiter": ";;"}, "--delimiter is ';;', expected one character"),
        (f"x,y\n{ROWS}a\0b,1\n", {}, "NUL byte in line 122"),
        (f"x,y\n{ROWS}".encode("utf-16-le"), {}, "use --encoding=utf-16"),
        (f"x,y\n{ROWS}ü,1\n".encode("latin-1"), {}, "is not utf-8.*line 122.*--encoding=latin-1"),
        (f'x,y\n{ROWS}"a"b,1\n', {}, "row that begins in line 122 has unbalanced quotes"),
        (f'x,y\n{ROWS}"a,1\n', {}, "row that begins in line 122 has unbalanced quotes"),
        (f'x,y\n{ROWS}1, "a, b"\n', {}, "line 122 has 3 cells, the header 2; a quote must directly follow"),
        (f"x,y\n{ROWS}a\rb,1\n", {}, "carriage return outside quotes near line 122"),
        (f"x,x,y\n{ROWS.replace(',', ',1,')}", {}, "two columns named 'x'"),
        (gzip.compress(f"x,y\n{ROWS}".encode()), {}, "is compressed, not text"),
        (gzip.compress(f"x,y\n{ROWS}".encode())[:-20], {"name": "a.csv.gz"}, "cannot read .*a.csv.gz"),
        (b"PK\x03\x04abc", {"name": "a.xlsx"}, "a zip archive or a spreadsheet"),
        ("x,y\n" + "".join(f"{i},\n" for i in range(N)), {}, "120 of 120 rows .* have no 'y', the first in row 1"),
        ("x,y\n" + "".join(f"{i},a\n" for i in range(N)), {}, "is 'a' in every row; there is nothing to learn"),
        (f"x,y\n{ROWS}zz,c\n", {}, "'c' in only 1 rows; a class needs 5"),
        (f"x,y\n{ROWS}zz,a\n", {"metric": "rmse"}, "'a' in row 121 after the header .line 122., but rmse needs numb"),
        (f'x,y\n{ROWS}zz,"1,5"\n', {"metric": "rmse"}, "'1,5' in row 121.*write it with a decimal point"),
        (f'x,y\n{ROWS}zz,"1,500"\n', {"metric": "rmse"}, "'1,500' in row 121.*write it with a decimal point"),
        (f"x,y\n{ROWS}zz,inf\n", {"metric": "rmse"}, "'inf' in row 121"),
        (f"x,y\n{ROWS}zz,1e999\n", {"metric": "rmse"}, "too large to be scored"),
        (f"x,y\n{ROWS}zz,NA\n", {"metric": "rmse"}, "'NA' in row 121"),
        ("x,y\n" + "".join(f",{i % 2}\n" for i in range(N)), {}, "there is nothing to predict it from"),
        (f"x,y\n{ROWS}zz,{'c' * 300}\n", {}, "a class of 300 characters"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_nothing_is_written(make, tmp_path, content, options, said):
    assert re.search(said, refused(make, content, **options))
    assert len(list(tmp_path.iterdir())) == 1


def test_long_cells_are_cells(make):
    texts = [f"{i} " + "word " * (40_000 if i == 3 else 2) for i in range(N)]
    assert make(csv_of(["text", "y"], texts, labels(numbers()))).column("text") == sorted(texts)
    assert csv.field_size_limit() == 131072
