"""Tables of samples: columns, rows, and tables put together."""

import math
from functools import partial

import pytest
import torch

from lit_purify.records.table import Column, SampleTable, concatenate
from lit_purify.types import InputError

NAN = math.nan


def table(index, **columns):
    """A table of columns, given as lists or as pairs of lists: values and where they apply."""
    pairs = {name: c if isinstance(c, tuple) else (c,) for name, c in columns.items()}
    return SampleTable(
        {"index": Column(torch.tensor(index))}
        | {name: Column(*map(torch.tensor, parts)) for name, parts in pairs.items()}
    )


def test_a_column_has_the_samples_that_it_applies_to():
    found = table([4, 7, 9], ok=[True, False, True], rate=([1.0, 2.0, NAN], [False, True, True]))
    assert found["ok"].tolist() == [True, False, True]
    assert found["rate"][0] == 2
    assert found["rate"].isnan().tolist() == [False, True]
    assert ("rate" in found, "other" in found) == (True, False)
    assert (len(found), len(SampleTable({}))) == (3, 0)


def test_known_are_the_finite_numbers():
    found = table([0, 1, 2, 3], rate=([1.0, NAN, math.inf, 2.0], [True, True, True, False]))
    assert found.known("rate") == [1.0]
    assert found.known("other") == []


def test_rows_are_the_numbers_in_python_types():
    columns = {"ok": [True, False], "guess": [1, 0], "rate": [0.25, NAN], "x": [[0.0], [0.0]]}
    rows = list(table([4, 7], **columns, part=([5.0, -math.inf], [False, True])).rows())
    assert rows == [
        {"index": 4, "ok": True, "guess": 1, "rate": 0.25},
        {"index": 7, "ok": False, "guess": 0, "rate": None, "part": None},
    ]
    assert {name: type(value) for name, value in rows[0].items()} == {
        **{"index": int, "ok": bool, "guess": int, "rate": float}
    }
    assert next(iter(rows[0])) == "index"
    assert list(SampleTable({}).rows()) == []


def columns_of(table):
    return {
        name: [None if part is None else part.tolist() for part in column]
        for name, column in table.columns.items()
    }


def test_tables_are_put_together_in_the_order_of_the_index():
    first = table([9, 2], x=[[9.0], [2.0]], part=([9, 2], [True, False]))
    second = table([30, 4], x=[[30.0], [4.0]], part=([30, 4], [False, True]))
    expected = {
        "index": [[2, 4, 9, 30], None],
        "x": [[[2.0], [4.0], [9.0], [30.0]], None],
        "part": [[2, 4, 9, 30], [False, True, True, False]],
    }
    for parts in ([first, second], [second, first], [SampleTable({}), first, second]):
        assert columns_of(concatenate(parts)) == expected
    assert concatenate([]).columns == concatenate([SampleTable({})]).columns == {}


def test_identical_samples_count_once():
    one = partial(table, rate=([NAN, 1.0], [True, True]), image=[[0.0, NAN], [1.0, 2.0]])
    three = concatenate(
        [one([5, 3]), one([5, 3]), table([4], rate=([7.0], [False]), image=[[8.0, 9.0]])]
    )
    assert three["index"].tolist() == [3, 4, 5]
    assert three.columns["rate"].values[:2].tolist() == [1.0, 7.0]
    again = concatenate([three, one([5, 3]), one([5, 3])])
    assert repr(columns_of(again)) == repr(columns_of(three))  # nan is no other nan


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("ok", {"ok": [False, False]}),
        ("rate", {"rate": ([1.0, NAN], [True, True])}),
        ("rate", {"rate": ([1.0, 2.0], [True, False])}),
        ("image", {"image": [[0, 0], [0, 1]]}),
    ],
)
def test_contradictory_samples_are_refused(name, other):
    columns = {"ok": [False, True], "rate": ([1.0, 2.0], [True, True]), "image": [[0, 0], [0, 0]]}
    with pytest.raises(InputError, match=f"index 5 .*{name}"):
        concatenate([table([3, 5], **columns), table([3, 5], **columns | other)])


@pytest.mark.parametrize("other", [{}, {"a": [1.0], "b": [1.0]}, {"b": [1.0]}])
def test_tables_of_other_columns_are_refused(other):
    with pytest.raises(InputError, match="column"):
        concatenate([table([0], a=[1.0]), table([1], **other)])


def test_a_column_for_all_samples_of_one_table_only():
    found = concatenate([table([0, 1], x=[1.0, 2.0]), table([2, 3], x=([3.0, 4.0], [False, True]))])
    assert found["x"].tolist() == [1.0, 2.0, 4.0]
