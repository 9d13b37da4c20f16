"""Tensors and streams of them."""

import numpy as np
import pytest

from cupola import DataLoss, InvalidArgument, _protos, _tensors

ActivationsResponse = _protos.analysis.ActivationsResponse
T = _protos.tensor


def answer(*tensors, chunks=()):
    """A stream: a header that holds `tensors`, then `chunks`."""
    header = ActivationsResponse.Header(positions=tensors)
    yield ActivationsResponse(header=header)
    for chunk in chunks:
        yield ActivationsResponse(chunk=chunk)


def received(*tensors, chunks=()):
    _, arrays = _tensors.receive(
        answer(*tensors, chunks=chunks), lambda header: header.positions
    )
    return arrays


def test_every_type_survives_the_round_trip():
    for dtype in ("f4", "f2", "f8", "i4", "u4", "i8"):
        array = np.arange(6).astype(dtype).reshape(2, 3)
        (back,) = received(_tensors.to_tensor(array))
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)
        back[0, 0] = 1  # a caller may write to its answer


def test_other_orders_become_little_endian_rows():
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    message = _tensors.to_tensor(array.astype("<f4"))
    assert list(message.shape) == [3, 2]
    assert message.data == np.array([0, 3, 1, 4, 2, 5], "<f4").tobytes()


def test_to_tensor_refuses_types_of_no_code():
    with pytest.raises(TypeError, match="complex128"):
        _tensors.to_tensor(np.zeros(2, complex))
    # A uint16 is not a bfloat16, though both have two bytes.
    with pytest.raises(TypeError, match="uint16"):
        _tensors.to_tensor(np.zeros(2, np.uint16))


def test_bfloat16_becomes_float32():
    # 1.0, -2.0, infinity, NaN and the smallest subnormal of bfloat16.
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x7FC0, 0x0001], "<u2")
    message = T.Tensor(dtype=T.BFLOAT16, shape=[5], data=bits.tobytes())
    (values,) = received(message)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(
        values, np.array([1, -2, np.inf, np.nan, 2.0**-133], np.float32)
    )


@pytest.mark.parametrize("size", [1, 3, 4, 7, 1000])
def test_chunks_fill_empty_tensors_in_order(size):
    first = np.arange(5, dtype=np.float32)
    inline = np.array([7], np.int32)
    empty = np.zeros((0, 4), np.float32)
    last = np.array([[1, 2], [3, 4]], np.int64)
    data = first.tobytes() + last.tobytes()
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    arrays = received(
        T.Tensor(dtype=T.FLOAT32, shape=[5]),
        _tensors.to_tensor(inline),
        _tensors.to_tensor(empty),
        T.Tensor(),
        T.Tensor(dtype=T.INT64, shape=[2, 2]),
        chunks=chunks,
    )
    assert arrays[3] is None
    for array, expected in zip(
        arrays[:3] + arrays[4:], [first, inline, empty, last]
    ):
        np.testing.assert_array_equal(array, expected)
        assert array.shape == expected.shape


def test_a_chunked_bfloat16_is_converted_after_it_is_whole():
    bits = np.array([0x3F80, 0xC000], "<u2").tobytes()
    (values,) = received(
        T.Tensor(dtype=T.BFLOAT16, shape=[2]), chunks=[bits[:1], bits[1:]]
    )
    np.testing.assert_array_equal(values, [1, -2])


def test_streams_that_do_not_add_up():
    hole = T.Tensor(dtype=T.FLOAT32, shape=[2])
    for chunks in ([], [b"1234"], [b"1234", b"56789"]):
        with pytest.raises(DataLoss, match="8 bytes"):
            received(hole, chunks=chunks)
    with pytest.raises(DataLoss, match="came with"):
        received(T.Tensor(dtype=T.FLOAT32, shape=[2], data=b"123"))
    with pytest.raises(DataLoss, match="shape"):
        received(T.Tensor(dtype=T.FLOAT32, shape=[-1], data=b"1234"))
    with pytest.raises(DataLoss, match="type 99"):
        received(T.Tensor(dtype=99, shape=[1], data=b"1234"))
    with pytest.raises(DataLoss, match="no header"):
        _tensors.receive(iter([]), lambda header: [])
    with pytest.raises(DataLoss, match="no header"):
        chunk = ActivationsResponse(chunk=b"1")
        _tensors.receive(iter([chunk]), lambda header: [])


def test_rows():
    matrix = np.arange(12).reshape(3, 4)
    for value in (
        matrix,
        matrix.tolist(),
        matrix.astype(np.float64),
        np.asfortranarray(matrix),
        [matrix[:1], matrix[1:]],  # per prompt
        matrix.reshape(3, 2, 2),  # [n, heads, d_head]
        matrix.reshape(1, 3, 4),  # [batch, n, d_in]
    ):
        rows = _tensors.to_rows(value, 4)
        assert rows.dtype == np.float32 and rows.flags.c_contiguous
        np.testing.assert_array_equal(rows, matrix)
    assert _tensors.to_rows([1, 2, 3, 4], 4).shape == (1, 4)
    assert _tensors.to_rows(np.zeros((0, 4)), 4).shape == (0, 4)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((2, 3)),
        5.0,
        [],
        ["a", "b", "c", "d"],
        [[1, 2, 3, 4], [1]],
        np.zeros((1, 4), complex),
        np.array([None] * 4),
    ],
)
def test_bad_rows(value):
    with pytest.raises(InvalidArgument, match="inputs"):
        _tensors.to_rows(value, 4)
