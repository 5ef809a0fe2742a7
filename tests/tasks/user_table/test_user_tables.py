"""A user's table becomes a task whose cells are those of the file, or is refused by the line that does not fit."""

import bz2
import contextlib
import csv
import gzip
import io
import lzma
import re
import runpy
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlagent_jax.grading.grade import Graded, Invalid, grade
from mlagent_jax.tasks.checks import constant_submission, shuffled_submission
from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.preparation import prepare_task
from mlagent_jax.tasks.rows import train_targets
from mlagent_jax.tasks.task import Task
from mlagent_jax.tasks.user_table.column_kinds import classify
from mlagent_jax.tasks.user_table.new_task import NewTask, NewTaskError, write_new_task
from mlagent_jax.tasks.user_table.text_table import any_length

N = 120


class Made(NamedTuple):
    task: Task
    notes: list[str]

    def cells(self, name: str) -> list[list[str]]:
        """Of train.csv or test.csv, or the labels: read by Python's csv."""
        path = self.task.labels_path if name == "labels" else self.task.data_dir / f"{name}.csv"
        with any_length():
            return list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))

    def column(self, name: str) -> list[str]:
        """Of all rows, sorted."""
        found = []
        for part in ("train", "test"):
            header, *rows = self.cells(part)
            found += [row[header.index(name)] for row in rows] if name in header else []
        if name in self.task.target_columns:
            found += [row[1] for row in self.cells("labels")[1:]]
        return sorted(found)

    def run_starter(self) -> bytes:
        """What train.py hands in."""
        work = self.task.data_dir.parents[1] / f"work-{self.task.name}"
        work.mkdir(exist_ok=True)
        if not (work / "data").exists():
            (work / "data").symlink_to(self.task.data_dir)
        (work / "train.py").write_text(self.task.starter)
        with contextlib.chdir(work), contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path("train.py")
        return (work / "submission.csv").read_bytes()

    def score(self) -> float:
        scores = grade(self.task, self.run_starter())
        assert isinstance(scores, Graded), scores
        return scores.private


@pytest.fixture
def make(tmp_path):
    """A task of the bytes or text of a CSV file."""

    def made(content, target="y", metric="accuracy", name="rows.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        folder = tmp_path / f"task{len(list(tmp_path.iterdir()))}"
        notes = write_new_task(NewTask(folder, path, target, metric, **options))
        prepare_task(folder, tmp_path, tmp_path / "data")
        return Made(load_task(folder, tmp_path, tmp_path / "data"), notes)

    return made


def refused(make, content, **options):
    with pytest.raises(NewTaskError) as caught:
        make(content, **options)
    assert "\n" not in str(caught.value).replace("\\n", "")
    return str(caught.value)


def csv_of(names, *columns):
    """As a careful writer writes it."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([names, *zip(*columns, strict=True)])
    return buffer.getvalue()


def numbers(seed=0, n=N):
    return [f"{value:.6f}" for value in np.random.default_rng(seed).normal(size=n)]


def labels(of, *classes):
    """A class for each number: by its sign, then by turns."""
    names = classes or ("no", "yes")
    return [names[(float(value) > 0) + 2 * (i % (len(names) // 2))] for i, value in enumerate(of)]


def test_trailing_commas_shift_no_column(make):
    rows = "".join(f"{i},{1000 + i},{i / 7:.3f},\n" for i in range(N))
    made = make(f"width,height,weight\n{rows}", "weight", "rmse")
    assert made.cells("train")[0] == ["id", "width", "height", "weight"]
    assert made.column("width") == sorted(map(str, range(N)))
    assert made.column("weight") == sorted(f"{i / 7:.3f}" for i in range(N))
    assert "left out the ',' that ends each row but the header" in made.notes
    made = make(f"width,height,weight,\n{rows}", "weight", "rmse")
    assert made.cells("train")[0] == ["id", "width", "height", "weight"]
    assert "left out column 4, which has neither a name nor a value" in made.notes


def test_names_of_rows_are_never_taken_for_a_column(make):
    rows = [f"r{i},{i},{'' if i == 5 else i % 2}\n" for i in range(N)]
    said = refused(make, "a,y\n" + "".join(rows))
    assert "names 2 columns, but each of its rows has 3 cells" in said and "name that column too" in said
    made = make("name,a,y\n" + "".join(rows[:5] + rows[6:]))
    assert made.column("name") == sorted(f"r{i}" for i in range(N) if i != 5)
    said = refused(make, "name,a,y\n" + "".join(rows))
    assert "1 of 120 rows" in said and "in row 6 after the header (line 7)" in said


def test_a_carriage_return_in_quotes_stays_in_its_cell(make):
    values = numbers()
    texts = [f'first {i}\rsecond\r\nthird\nfourth, "quoted"' for i in range(N)]
    content = csv_of(["x", "text", "y"], values, texts, labels(values))
    made = make(content)
    assert made.column("text") == sorted(texts)
    assert made.task.classes == ("no", "yes")
    for name in ("train", "test"):
        read = pd.read_csv(made.task.data_dir / f"{name}.csv")
        assert read["text"].tolist() == [row[2] for row in made.cells(name)[1:]]
    assert made.score() > 0.8


def test_a_class_may_have_a_carriage_return(make):
    values = numbers()
    made = make(csv_of(["x", "y"], values, labels(values, "a\rb", "c\r\nd")))
    assert made.task.classes == ("a\rb", "c\r\nd")
    assert made.score() > 0.8


def test_counts_are_taken_of_distinct_rows(make):
    distinct = [f"{i},{i % 7},{i % 2}" for i in range(250)]
    made = make("a,b,y\n" + "\n".join(distinct + distinct[:150]))
    counts = [len(made.cells(name)) - 1 for name in ("train", "test")]
    assert counts == [150, 100]
    assert any("left out 150 of 400 rows" in note and "250 are left" in note for note in made.notes)
    assert made.notes[-1] == "150 training rows, 50 public and 50 private test rows"
    made = make("a,b,y\n" + "\n".join((distinct * 3)[:400][:150] + distinct[:150] + distinct[:100]))
    assert made.notes[-1].startswith("90 training rows")


def test_rows_that_contradict_each_other_are_told(make):
    distinct = [f"{i},{i % 2}" for i in range(100)]
    made = make("a,y\n" + "\n".join([*distinct, "3,0", "4.0,0", "05.0,1"]))
    assert any(
        "left out 3 of 103 rows: what they predict from is that of an earlier row, 1 of them with another 'y'"
        in note
        for note in made.notes
    ) or any("'a' is taken as text: '05.0'" in note for note in made.notes)
    made = make("a,y\n" + "\n".join([*distinct, "3,0", "4.0,0"]))
    assert any(
        "left out 2 of 102 rows" in note and "1 of them with another 'y'" in note for note in made.notes
    )


WORDS = ("None", " ", " NA", "NA", "nan", "null")


def test_words_that_pandas_takes_for_missing_are_classes(make):
    values = numbers(n=300)
    made = make(csv_of(["x", "y"], values, labels(values, *WORDS)))
    assert made.task.classes == tuple(sorted(WORDS))
    assert made.column("y") == sorted(labels(values, *WORDS))
    assert "keep_default_na=False" in made.task.description and "keep_default_na=False" in made.task.starter
    made.score()
    assert isinstance(grade(made.task, constant_submission(made.task)), Graded)
    assert isinstance(grade(made.task, shuffled_submission(made.task)), Graded)
    assert set(train_targets(made.task)[:, 0]) == set(WORDS)
    blank = made.run_starter().replace(b",NA\n", b",\n")
    assert isinstance(wrong := grade(made.task, blank), Invalid)
    assert "keep_default_na=False" in wrong.reason and "' NA'" in wrong.reason


@pytest.mark.parametrize(
    ("classes", "metric"),
    [
        (("01", "02"), "accuracy"),
        (("+1", "-1"), "macro_f1"),
        (("1e5", "2e5"), "accuracy"),
        (("9007199254740993", "9007199254740992"), "accuracy"),
        (("123456789012345678901234567890", "123456789012345678901234567891"), "accuracy"),
        (("1.10", "1.1"), "accuracy"),
        (("1", "01"), "accuracy"),
        (("1.0", "2.0"), "accuracy"),
        (("0", "1"), "accuracy"),
        (("True", "False"), "accuracy"),
        (("TRUE", "false"), "accuracy"),
        (("2020-01-01", "2020-02-01"), "accuracy"),
        (("inf", "-inf"), "accuracy"),
        (("a,b", 'c "d"'), "accuracy"),
        (("line\nend", "Ünï"), "accuracy"),
        (("False", "True"), "auc"),
        (("NA", "None"), "accuracy"),
    ],
)
def test_classes_come_back_as_the_starter_writes_them(make, classes, metric):
    values = numbers()
    made = make(csv_of(["x", "y"], values, labels(values, *classes)), metric=metric)
    if metric != "auc":
        assert made.column("y") == sorted(labels(values, *classes))
    assert made.score() > 0.75


@pytest.mark.parametrize(
    "classes", [("01", "02"), ("1.0", "2.0"), ("1.50", "2"), ("TRUE", "false"), ("+1", "1e5")]
)
def test_an_agent_that_reads_by_default_is_graded_where_that_names_one_class(make, classes):
    values = numbers()
    made = make(csv_of(["x", "y"], values, labels(values, *classes)))
    train, test = (pd.read_csv(made.task.data_dir / f"{name}.csv") for name in ("train", "test"))
    answer = pd.DataFrame({"id": test["id"], "y": train["y"].iloc[0]})
    assert isinstance(grade(made.task, answer.to_csv(index=False).encode()), Graded)


def test_a_number_that_two_classes_share_names_neither(make):
    values = numbers()
    made = make(csv_of(["x", "y"], values, labels(values, "1", "01")))
    ids = [row[0] for row in made.cells("test")[1:]]
    answer = "id,y\n" + "".join(f"{identity},1.0\n" for identity in ids)
    assert isinstance(grade(made.task, answer.encode()), Invalid)
    assert isinstance(grade(made.task, answer.replace("1.0", "01").encode()), Graded)


SPECIAL = {
    "long": [str(2**53 + i) for i in range(N)],
    "zip": [f"{i:05d}" for i in range(N)],
    "phone": [f"+{100 + i}" for i in range(N)],
    "code": [f"{i}e{i % 3}" for i in range(N)],
    "date": [f"2020-01-{1 + i % 28:02d}" for i in range(N)],
    "flag": [str(i % 3 == 0) for i in range(N)],
    "mixed": [str(i) if i % 2 else f"w{i}" for i in range(N)],
    "comma": [f"{i},{i % 10}" for i in range(N)],
    "thousands": [f"1,{i:03d}" for i in range(N)],
    "few": [("NA", "", "None", "007")[i % 4] for i in range(N)],
    " spaced ": [f" {i} " for i in range(N)],
    "Case": ["x"] * N,
    "case": [f"{'y' if i % 2 else ''}" for i in range(N)],
    "a": [("b_c", "d")[i % 2] for i in range(N)],
    "a_b": [("c", "e")[i % 2] for i in range(N)],
    "a_d": [str(i) for i in range(N)],
    "new\nline": [str(i) for i in range(N)],
    "{brace}": [str(i) for i in range(N)],
    "quo'te\"": [str(i) for i in range(N)],
    "y_": [str(i) for i in range(N)],
    "row_id": [str(i // 2) for i in range(N)],
    "split": [str(i % 5) for i in range(N)],
}


def test_no_cell_changes_whatever_a_column_looks_like_and_the_starter_runs(make):
    target = numbers()
    content = csv_of([*SPECIAL, "y"], *SPECIAL.values(), labels(target))
    made = make(content)
    for name, cells in SPECIAL.items():
        assert made.column(name) == sorted(cells), name
    made.score()
    for name, said in (
        ("long", "'9007199254740993' would change"),
        ("zip", "'00000' would change"),
        ("comma", "if '0,0' is a number, write it with a point"),
    ):
        assert any(f"column {name!r} is taken as text" in note and said in note for note in made.notes), (
            made.notes
        )
    for names in (["code"], ["few"], ["flag"], ["date"], ["a", "a_b", "a_d"], ["comma"]):
        chosen = {
            **{name: SPECIAL[name] for name in names},
            "number of the row": [f"w {i}" for i in range(N)],
        }
        make(csv_of([*chosen, "y"], *chosen.values(), labels(target))).score()


def test_text_without_words_has_a_starter(make):
    cells = ["".join("!?*"[int(digit)] for digit in np.base_repr(i + 3, 3)) for i in range(N)]
    make(csv_of(["signs", "y"], cells, labels(numbers()))).score()


def test_derived_names_are_unique_and_told(make):
    values = numbers()
    ids = [str(i // 2) for i in range(N)]
    made = make(
        csv_of(["id", "price", "", "price, $"], ids, values, values[::-1], values), "price, $", "rmse"
    )
    assert made.cells("train")[0] == ["row_id", "id", "price", "column_3", "price_"]
    assert made.column("id") == sorted(ids)
    assert "column 3 has no name and is called 'column_3'" in made.notes
    assert "the target 'price, $' is called 'price_' in the task" in made.notes
    made.score()
    made = make(csv_of(["ID", "x", "id"], [f"r{i}" for i in range(N)], values, labels(values)), "id")
    assert made.cells("train")[0] == ["id", "x", "id_"]
    assert any("left out the column 'ID'" in note for note in made.notes)
    made.score()
    made = make(csv_of(["x", "split"], values, labels(values)), "split")
    assert made.task.target_columns == ("split_",)
    made.score()


def test_one_word_for_missing_in_a_column_of_numbers_is_emptied_and_told(make):
    values, row = numbers(), [str(i) for i in range(N)]
    with_na = [value if i % 10 else "NA" for i, value in enumerate(values)]
    made = make(csv_of(["x", "n", "y"], with_na, row, labels(values)))
    assert "emptied 12 cells 'NA' of the column 'x', which otherwise holds numbers" in made.notes
    assert made.column("x") == sorted("" if value == "NA" else value for value in with_na)
    made.score()
    two = [value if i % 10 else ("NA" if i % 20 else "None") for i, value in enumerate(values)]
    made = make(csv_of(["x", "n", "y"], two, row, labels(values)))
    assert made.column("x") == sorted(two)
    made.score()
    made = make(csv_of(["x", "n", "y"], two, row, labels(values)), missing=("NA", "None"))
    assert any("emptied 6 cells 'None', as --missing says" in note for note in made.notes)
    assert made.column("x").count("") == 12


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
        (f"x,y\n{ROWS}1,2,3\n{ROWS}", {}, "line 122 has 3 cells, the header 2; put cells that have a delimiter"),
        (f"x,y\n{ROWS}1\n{ROWS}", {}, "line 122 has 1 cells, the header 2"),
        (f'x,y\n"a\nb",0\n{ROWS}1\n{ROWS}', {}, "line 124 has 1 cells"),
        (f"# a comment\nx,y\n{ROWS}", {}, "begins with the comment '# a comment'; remove what stands above"),
        (f"x,y\n{ROWS}# the end\n", {}, "line 122 has 1 cells, the header 2; remove comments"),
        (f"x;y\n{ROWS.replace(',', ';')}", {}, "one column only, so give its --delimiter, such as --delimiter=';'"),
        (f"x\ty\n{ROWS.replace(',', '	')}", {}, r"such as --delimiter='\\t'"),
        ("x;y\n" + "".join(f"{i},5;{i % 2}\n" for i in range(N)), {}, "--delimiter=';'"),
        ("a;b, c;y\n" + "".join(f"{i},5;1;{i % 2}\n" for i in range(N)), {}, "--delimiter=';'"),
        (f"x,y\n{ROWS}", {"delimiter": ";;"}, "--delimiter is ';;', expected one character"),
        (f"x,y\n{ROWS}a\0b,1\n", {}, "NUL byte in line 122"),
        (f"x,y\n{ROWS}".encode("utf-16-le"), {}, "say --encoding=utf-16"),
        (f"x,y\n{ROWS}ü,1\n".encode("latin-1"), {}, "is not utf-8.*line 122.*--encoding=latin-1"),
        (f'x,y\n{ROWS}"a"b,1\n', {}, "row that begins in line 122 has quotes that do not match"),
        (f'x,y\n{ROWS}"a,1\n', {}, "row that begins in line 122 has quotes that do not match"),
        (f'x,y\n{ROWS}1, "a, b"\n', {}, "line 122 has 3 cells, the header 2; a quote counts only right after"),
        (f"x,y\n{ROWS}a\rb,1\n", {}, "carriage return outside of quotes at about line 122"),
        (f"x,x,y\n{ROWS.replace(',', ',1,')}", {}, "two columns 'x'"),
        (gzip.compress(f"x,y\n{ROWS}".encode()), {}, "is compressed, not text"),
        (gzip.compress(f"x,y\n{ROWS}".encode())[:-20], {"name": "a.csv.gz"}, "cannot read .*a.csv.gz"),
        (b"PK\x03\x04abc", {"name": "a.xlsx"}, "a zip archive or a spreadsheet"),
        ("x,y\n" + "".join(f"{i},\n" for i in range(N)), {}, "120 of 120 rows .* have no 'y', the first in row 1"),
        ("x,y\n" + "".join(f"{i},a\n" for i in range(N)), {}, "is 'a' in every row; there is nothing to learn"),
        (f"x,y\n{ROWS}zz,c\n", {}, "'c' in 1 rows only; a class needs 5"),
        (f"x,y\n{ROWS}zz,a\n", {"metric": "rmse"}, "'a' in row 121 after the header .line 122., but rmse needs numb"),
        (f'x,y\n{ROWS}zz,"1,5"\n', {"metric": "rmse"}, "'1,5' in row 121.*write it with a point"),
        (f'x,y\n{ROWS}zz,"1,500"\n', {"metric": "rmse"}, "'1,500' in row 121.*write it with a point"),
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


def test_wide_and_odd_columns(make):
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(150)]
    cells = [[f"{value:.3f}" for value in rng.normal(size=N)] for _ in names]
    cells[7], cells[8] = [""] * N, ["1e308" if i % 2 else "inf" for i in range(N)]
    made = make(csv_of([*names, "y"], *cells, labels(cells[0])))
    assert "left out the column 'c7', which has no value" in made.notes
    assert made.column("c149") == sorted(cells[149])
    made.score()
    assert "c140" not in made.task.starter and "50 more" not in made.task.starter
    assert "and 49 more, which the header of `data/train.csv` names" in made.task.description


def test_long_cells_are_cells(make):
    texts = [f"{i} " + "word " * (40_000 if i == 3 else 2) for i in range(N)]
    assert make(csv_of(["text", "y"], texts, labels(numbers()))).column("text") == sorted(texts)
    assert csv.field_size_limit() == 131072


CELL = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6
) | st.sampled_from(
    [
        *WORDS,
        "",
        "007",
        "1",
        "1.0",
        "-0",
        "1e5",
        "+1",
        "True",
        "a\rb",
        '"',
        '""',
        "'",
        ",",
        "\n",
        "\r\n",
        "\ufeff",
        "#",
    ]
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), columns=st.integers(1, 4))
def test_cells_of_random_tables_survive(tmp_path_factory, data, columns):
    tmp_path = tmp_path_factory.mktemp("fuzz")
    n = 80
    names = data.draw(st.lists(CELL.filter(str.strip), min_size=columns, max_size=columns, unique=True))
    assume("y" not in names)
    pool = data.draw(st.lists(CELL, min_size=1, max_size=12))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    cells = [[pool[i] for i in rng.integers(len(pool), size=n)] for _ in names]
    cells.append([f"w{i}" for i in range(n)])
    classes = data.draw(st.lists(CELL.filter(bool), min_size=2, max_size=4, unique=True))
    target = [classes[i % len(classes)] for i in range(n)]
    names = [*names, "word of the row", "y"]
    path = tmp_path / "rows.csv"
    path.write_bytes(csv_of(names, *cells, target).encode())
    notes = write_new_task(NewTask(tmp_path / "mine", path, "y", "accuracy"))
    prepare_task(tmp_path / "mine", tmp_path, tmp_path / "data")
    made = Made(load_task(tmp_path / "mine", tmp_path, tmp_path / "data"), notes)
    assert made.column("y") == sorted(target)
    for name, column in zip(names, cells, strict=False):
        if any(
            "column" in note and repr(name) in note and note.startswith(("emptied", "left")) for note in notes
        ):
            continue
        assert made.column(name) == sorted(column)
    made.score()


@given(st.lists(CELL, min_size=1, max_size=20))
def test_a_column_of_numbers_is_read_as_just_these_numbers(cells):
    column = classify("x", pd.Series(cells, dtype=object))
    if not column.is_number:
        assert column.cells.tolist() == cells
        return
    read = pd.read_csv(io.StringIO("n,x\n" + "".join(f"0,{cell}\n" for cell in column.cells)))["x"]
    assert read.astype(float).equals(column.cells.mask(column.cells == "").astype(float))
    assert (column.cells != cells).sum() == 0 or column.notes
