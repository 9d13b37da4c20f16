"""What a user passes, as messages."""

import numpy as np
import pytest

from cupola import InvalidArgument, _protos, _requests


def texts(message):
    return [prompt.text for prompt in message.prompts]


def ids(message):
    assert all(p.WhichOneof("content") == "tokens" for p in message.prompts)
    return [list(prompt.tokens.ids) for prompt in message.prompts]


def test_prompts_as_text():
    assert texts(_requests.prompts_message("one")) == ["one"]
    assert texts(_requests.prompts_message(["a", "b"])) == ["a", "b"]
    assert texts(_requests.prompts_message(("",))) == [""]


@pytest.mark.parametrize(
    "prompts, expected",
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([[]], [[]]),
        (np.array([4, 5]), [[4, 5]]),
        (np.array([[4, 5], [6, 7]], np.uint16), [[4, 5], [6, 7]]),
        ([np.int64(4), 5], [[4, 5]]),
        ([np.array([1]), [2]], [[1], [2]]),
    ],
)
def test_prompts_as_token_ids(prompts, expected):
    assert ids(_requests.prompts_message(prompts)) == expected


def test_texts_and_ids_mix():
    message = _requests.prompts_message(["a", [1, 2]])
    assert [p.WhichOneof("content") for p in message.prompts] == [
        "text",
        "tokens",
    ]


def test_prepend_bos_has_three_states():
    assert not _requests.prompts_message("a").HasField("prepend_bos")
    for value in (True, False):
        message = _requests.prompts_message("a", value)
        assert message.HasField("prepend_bos")
        assert message.prepend_bos is value


@pytest.mark.parametrize(
    "prompts, part",
    [
        ([], "empty"),
        (5, "int"),
        (None, "NoneType"),
        (b"bytes", "bytes"),
        ({"a": 1}, "dict"),
        ([1.5], "float"),
        ([[1, -2]], "-2"),
        ([[1, 2**32]], "4294967296"),
        ([[True]], "True"),
        ([["a"]], "'a'"),
        (["\ud800"], "surrogates"),
    ],
)
def test_bad_prompts(prompts, part):
    with pytest.raises(InvalidArgument, match=part) as caught:
        _requests.prompts_message(prompts)
    assert "prompts" in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_positions_of_every_prompt():
    assert _requests.positions_message(None) is None
    for value, expected in [
        (-1, [-1]),
        (np.int32(3), [3]),
        ([0, -2], [0, -2]),
        (range(3), [0, 1, 2]),
        (np.array([5]), [5]),
    ]:
        message = _requests.positions_message(value)
        assert list(message.every_prompt.values) == expected


def test_no_positions_are_not_all_positions():
    message = _requests.positions_message([])
    assert message.WhichOneof("selection") == "every_prompt"
    assert list(message.every_prompt.values) == []


def test_positions_per_prompt():
    for value in ([[0, 1], [-1]], [np.array([0, 1]), -1]):
        message = _requests.positions_message(value)
        rows = [list(row.values) for row in message.per_prompt.lists]
        assert rows == [[0, 1], [-1]]


@pytest.mark.parametrize(
    "positions", ["0", 1.5, [0.5], [[0], ["a"]], {0: 1}, [2**63], [None]]
)
def test_bad_positions(positions):
    with pytest.raises(InvalidArgument, match="positions"):
        _requests.positions_message(positions)


def test_processing():
    assert _requests.processing_code("raw") == _protos.common.RAW
    assert _requests.processing_code("folded") == _protos.common.FOLDED
    assert _requests.processing_code(None) == 0
    for wrong in ("RAW", "", 1, ["raw"]):
        with pytest.raises(InvalidArgument, match="processing"):
            _requests.processing_code(wrong)


def test_answer_dtype():
    code = _requests.answer_dtype_code
    assert code("bfloat16") == _protos.tensor.BFLOAT16
    assert code("float16") == code(np.float16) == _protos.tensor.FLOAT16
    assert code(np.dtype("float32")) == code("f4") == _protos.tensor.FLOAT32
    assert code(None) == _protos.tensor.DTYPE_UNSPECIFIED
    for wrong in ("float64", np.int32, "nonsense", 5):
        with pytest.raises(InvalidArgument, match="float32, bfloat16"):
            code(wrong)
