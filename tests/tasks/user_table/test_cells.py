"""No cell of a user's table changes on its way into a task, whatever its column looks like."""

import io

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from user_tables import CELL, Made, N, csv_of, labels, numbers

from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.preparation import prepare_task
from mlagent_jax.tasks.user_table.column_kinds import classify
from mlagent_jax.tasks.user_table.new_task import NewTask, write_new_task


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
        "left out 3 of 103 rows, which have the features of an earlier row, 1 of them with a different 'y'"
        in note
        for note in made.notes
    ) or any("'a' is treated as text: '05.0'" in note for note in made.notes)
    made = make("a,y\n" + "\n".join([*distinct, "3,0", "4.0,0"]))
    assert any(
        "left out 2 of 102 rows" in note and "1 of them with a different 'y'" in note for note in made.notes
    )


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
        ("comma", "if '0,0' is a number, write it with a decimal point"),
    ):
        assert any(f"column {name!r} is treated as text" in note and said in note for note in made.notes), (
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
    assert "emptied 12 cells 'NA' in the column 'x', which otherwise holds numbers" in made.notes
    assert made.column("x") == sorted("" if value == "NA" else value for value in with_na)
    made.score()
    two = [value if i % 10 else ("NA" if i % 20 else "None") for i, value in enumerate(values)]
    made = make(csv_of(["x", "n", "y"], two, row, labels(values)))
    assert made.column("x") == sorted(two)
    made.score()
    made = make(csv_of(["x", "n", "y"], two, row, labels(values)), missing=("NA", "None"))
    assert any("emptied 6 cells 'None', as --missing says" in note for note in made.notes)
    assert made.column("x").count("") == 12


def test_wide_and_odd_columns(make):
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(150)]
    cells = [[f"{value:.3f}" for value in rng.normal(size=N)] for _ in names]
    cells[7], cells[8] = [""] * N, ["1e308" if i % 2 else "inf" for i in range(N)]
    made = make(csv_of([*names, "y"], *cells, labels(cells[0])))
    assert "left out the column 'c7', which has no values" in made.notes
    assert made.column("c149") == sorted(cells[149])
    made.score()
    assert "c140" not in made.task.starter and "50 more" not in made.task.starter
    assert "and 49 more, which the header of `data/train.csv` names" in made.task.description


def test_a_byte_order_mark_within_quotes_is_no_part_of_a_name(make):
    values = [str(i) for i in range(N)]
    made = make('"\ufeffx",n,y\n' + "".join(f"{value},{value},c{int(value) % 2}\n" for value in values))
    assert "left out the byte order mark before the name of the first column, 'x'" in made.notes
    assert made.column("x") == sorted(values)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), columns=st.integers(1, 4))
def test_cells_of_random_tables_survive(tmp_path_factory, data, columns):
    tmp_path = tmp_path_factory.mktemp("fuzz")
    n = 80
    names = data.draw(st.lists(CELL.filter(str.strip), min_size=columns, max_size=columns, unique=True))
    assume("y" not in names and not names[0].startswith("\ufeff"))
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


@settings(deadline=None)
@given(st.lists(CELL, min_size=1, max_size=20))
def test_a_column_of_numbers_is_read_as_just_these_numbers(cells):
    column = classify("x", pd.Series(cells, dtype=object))
    if not column.is_number:
        assert column.cells.tolist() == cells
        return
    read = pd.read_csv(io.StringIO("n,x\n" + "".join(f"0,{cell}\n" for cell in column.cells)))["x"]
    assert read.astype(float).equals(column.cells.mask(column.cells == "").astype(float))
    assert (column.cells != cells).sum() == 0 or column.notes
