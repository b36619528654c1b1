"""What a handler returns, and what a task is given, as JSON."""

from __future__ import annotations

import enum
import json
import uuid
from typing import Any

import pytest

from crew_worker.api import decode, encode

ID = uuid.UUID(int=7)


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize("beside", [{}, {"nothing": None}], ids=["alone", "beside null"])
@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (ID, str(ID)),
        (Colour.RED, "red"),
        (2**70, 2**70),
        ("\ud800", "\ud800"),
        ({1: 2}, {"1": 2}),
        ("é", "é"),
        (1.5, 1.5),
    ],
)
def test_a_value_is_the_same_whatever_stands_beside_it(value: Any, kept: Any, beside: dict[str, Any]) -> None:
    assert json.loads(encode({"value": value, **beside})) == {"value": kept, **beside}


@pytest.mark.parametrize("beside", [{}, {"nothing": None}], ids=["alone", "beside null"])
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1, 2}, object(), b"bytes"], ids=["nan", "inf", "set", "object", "bytes"]
)
def test_what_is_no_json_is_refused(value: Any, beside: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode({"value": value, **beside})


def test_a_loop_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises((TypeError, ValueError)):
        encode(loop)


@pytest.mark.parametrize("bits", [53, 63, 64, 65, 70])
@pytest.mark.parametrize("off", [-1, 0, 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_whole_number_is_read_exactly_however_long(bits: int, off: int, sign: int) -> None:
    number = sign * (2**bits + off)
    read = decode(f'{{"n":[{number}]}}')["n"][0]
    assert (read, type(read)) == (number, int)
