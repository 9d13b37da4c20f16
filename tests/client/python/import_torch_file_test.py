"""Files of torch.save, read without torch and without running anything."""

import gzip
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cupola.importers import ImportFailed  # noqa: E402
from cupola.importers._pickle import (  # noqa: E402
    Allowed,
    read_pickle,
)
from cupola.importers._torch_file import _allowed, read_torch  # noqa: E402
from harness import upstream  # noqa: E402

KINDS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
KINDS += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
KINDS += [torch.bool]


def save(value, path, container):
    if container == "pickle":
        with gzip.open(path, "wb") as file:
            pickle.dump(value, file)
    else:
        torch.save(value, path, _use_new_zipfile_serialization=container == "zip")
    return path


def same(loaded, tensor):
    array = loaded.load()
    assert array.dtype == np.float32 and array.flags.c_contiguous
    assert loaded.shape == tuple(tensor.shape) == array.shape
    np.testing.assert_array_equal(array, tensor.float().numpy())


@pytest.mark.parametrize("container", ["zip", "sequence", "pickle"])
def test_every_type_and_view(container, tmp_path):
    base = torch.arange(60).reshape(5, 12)
    value = {
        **{
            str(kind): (base % 2 if kind == torch.bool else base).to(kind)
            for kind in KINDS
        },
        "transposed": base.float().T,
        "slice": base.float()[1:4, 3:9],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 7),
        "parameter": torch.nn.Parameter(base.bfloat16()),
        "nested": [{"a": (1, -2, 3.5, None, True, False, "é")}],
        7: "a number's",
    }
    read = read_torch(save(value, tmp_path / "file", container))
    for name, tensor in value.items():
        if isinstance(tensor, torch.Tensor):
            same(read[name], tensor.detach())
    assert read["nested"] == value["nested"] and read[7] == "a number's"


@pytest.mark.parametrize("container", ["zip", "sequence", "pickle"])
def test_a_modules_state_dict(container, tmp_path):
    module = torch.nn.Linear(3, 4)
    state = module.state_dict()  # an OrderedDict with an attribute of its own
    assert hasattr(state, "_metadata")
    read = read_torch(save(state, tmp_path / "file", container))
    same(read["weight"], module.weight.detach())


class Hostile:
    """Runs a command wherever it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("container", ["zip", "sequence", "pickle"])
def test_code_is_refused_by_its_name(container, tmp_path):
    marker = tmp_path / "ran"
    value = {"cfg": Hostile(marker), "W": torch.zeros(2)}
    file = save(value, tmp_path / "file", container)
    with pytest.raises(ImportFailed, match=r"'posix\.system'"):
        read_torch(file)
    assert not marker.exists()


def test_a_class_that_is_not_allowed(tmp_path):
    made = upstream.make("dunefsky", tmp_path / "source")
    with pytest.raises(
        ImportFailed, match=r"sae_training\.config\.LanguageModelSAERunner"
    ):
        read_torch(made.source)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "'builtins.eval'"),
        (b"cbuiltins\ngetattr\n.", "'builtins.getattr'"),
        (b"cnumpy\nload\n.", "'numpy.load'"),
        (b"ctorch._utils\n__import__\n.", "__import__"),
        # By the stack, by its instruction for instances, by an extension.
        (b"\x8c\x02os\x8c\x06system\x93.", "'os.system'"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(S'x'\nios\nsystem\n.", "refused|not read"),
        (b"\x82\x01.", "EXT1"),
        (b"(cos\nsystem\no.", "'os.system'"),
        # An allowed name, used otherwise than it is meant.
        (b"ccollections\nOrderedDict\n)\x81.", "no allowed class"),
        (b"ccollections\nOrderedDict\n}b.", "no instance"),
        (b"ccollections\nOrderedDict\n](K\x01K\x02e\x85R.", "at once"),
        (b"ctorch\nFloatStorage\n)R.", "no allowed function"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02))tR.", "damaged"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "damaged"),
        (b"](K\x01K\x02\x87e.", "damaged"),  # a tuple of more than is there
        (b"}(]K\x01u.", "neither text nor int"),
        (b"})K\x01s.", "neither text nor int"),
        (b"]K\x01K\x02s.", "no dictionary"),
        (b"h\x05.", "damaged"),  # memory that was never set
        (b".", "damaged"),
        (b"N", "damaged|no end"),
        (b"I" + b"9" * 10000 + b"\n.", "damaged|not read"),
        (b"\x8e" + struct.pack("<Q", 1 << 60) + b"x.", "larger than"),
        (b"\x8b" + struct.pack("<i", 1 << 30) + b"x.", "larger than"),
        (b"\x80\x02\x00", "damaged"),
    ],
)
def test_hostile_programs(program, message):
    with pytest.raises(ImportFailed, match=message) as failed:
        read_pickle(io.BytesIO(program), 1 << 21, _allowed(frozenset({"a.Class"})))
    assert len(str(failed.value)) < 1100


def pairs(depth):
    """() in pairs of itself: a few bytes for 2**depth things."""
    return b")q\x00" + b"".join(
        b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(depth)
    )


HUGE = b"\x8b" + struct.pack("<i", 3000) + b"\x7f" * 3000


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"ctorch\ndevice\n" + pairs(60) + b"\x85R.", "device's description"),
        (b"ctorch\ndevice\n(X\x01\x00\x00\x00a" + pairs(60) + b"tR.", "device's"),
        (
            b"ctorch\nSize\nB" + struct.pack("<I", 1 << 20) + bytes(1 << 20) + b"\x85R.",
            "damaged",
        ),
        (b"ctorch\nSize\nX\x02\x00\x00\x0011\x85R.", "damaged"),
        (b"ctorch\nSize\n(" + b"K\x01" * 9 + b"t\x85R.", "damaged"),
        (b"ctorch\nSize\n" + HUGE + b"\x85\x85R.", "damaged"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00]]tR.", "damaged"),
        (b"ctorch._utils\n_rebuild_parameter\n)R.", "damaged"),
        (b"ctorch.storage\n_load_from_bytes\n)R.", "_load_from_bytes'"),
        (b"}" + HUGE + b"Ns.", "a huge number"),
        # One state, set again and again.
        (
            b"ca\nClass\n)\x81}("
            + b"".join(b"X\x04\x00\x00\x00%04dN" % i for i in range(5000))
            + b"uq\x00b"
            + b"h\x00b" * 300
            + b".",
            "too many instructions",
        ),
        (b"c" + b"a" * 3000 + b"\nb\n.", r"'a{80}'\.\.\."),
        (b"cos\nsys\x1b[2Jtem\n.", r"sys\\x1b\[2Jtem"),
    ],
)
def test_small_programs_for_much_work(program, message):
    test_hostile_programs(program, message)


def sequence(value, keys, protocol=pickle.dumps(1001, 2)):
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    facts = pickle.dumps({"little_endian": True}, 2)
    return magic + protocol + facts + value + keys


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (sequence(b"N.", b"].", b"\x80\x02" + pairs(60) + b"."), "protocol a tuple"),
        (sequence(b"N.", b"\x80\x02]" + pairs(60) + b"a."), "list of storages"),
        (sequence(b"N.", pickle.dumps([[]], 2)), "list of storages"),
        (sequence(b"N.", pickle.dumps(["a", "a"], 2)), "list of storages"),
        (sequence(b"N.", HUGE + b"."), "list of storages"),
    ],
)
def test_hostile_sequences(data, message, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(data)
    with pytest.raises(ImportFailed, match=message):
        read_torch(file)


def loads(data, times):
    """A plain pickle that reads a sequence within itself that often."""
    return (
        b"\x80\x02](B"
        + (struct.pack("<I", len(data)) + data + b"q\x00")
        + b"ctorch.storage\n_load_from_bytes\nq\x01"
        + b"h\x01h\x00\x85R" * times
        + b"e."
    )


@pytest.mark.parametrize(
    ("data", "times", "message"),
    [
        (sequence(b"(" + b"N" * 100_000 + b"t.", b"]."), 20, "too many instructions"),
        (sequence(b"N.", b"]."), 300, "data is damaged"),
        (b"x", 1, "damaged|no end"),
    ],
)
def test_sequences_within_a_pickle(data, times, message, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(loads(data, times))
    with pytest.raises(ImportFailed, match=message):
        read_torch(file)


def test_what_a_small_file_inflates_to(tmp_path):
    file = tmp_path / "file"
    with gzip.open(file, "wb", 9) as out:
        out.write(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 28))
        for _ in range(1 << 8):
            out.write(bytes(1 << 20))
        out.write(b".")
    assert file.stat().st_size < 1 << 19
    with pytest.raises(ImportFailed, match="larger than"):
        read_torch(file)
    # A claim of what is not there takes no memory.
    file.write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 7 << 30) + b"x.")
    with pytest.raises(ImportFailed, match="damaged"):
        read_torch(file)


def long(number):
    return b"\x8a\x10" + number.to_bytes(16, "little", signed=True)


@pytest.mark.parametrize(
    "shape_and_strides",
    [
        b"K\x01K\x05\x86" + long(1 << 64) + b"K\x01\x86",
        b"K\x00" + long(1 << 62) + b"\x86K\x01K\x01\x86",
        b"K\x00" + long(1 << 61) + b"\x86K\x01K\x01\x86",
        b"K\x05\x85K\x01K\x01\x86",
        b"K\x05\x85\x88\x85",
    ],
)
def test_sizes_that_numpy_has_not(shape_and_strides, tmp_path):
    file = tmp_path / "file"
    program = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
        b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuM\x90\x01tQ"
        b"K\x00" + shape_and_strides + b"\x89}tR."
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/data/0", bytes(4 * 400))
    with pytest.raises(ImportFailed):
        read_torch(file).load()


def test_a_program_without_an_end():
    many = b"N" * 1_100_000 + b"."
    with pytest.raises(ImportFailed, match="too many instructions"):
        read_pickle(io.BytesIO(many), 1 << 24, Allowed({}, {}, frozenset()))
    with pytest.raises(ImportFailed, match="larger than"):
        read_pickle(io.BytesIO(many), 1 << 10, Allowed({}, {}, frozenset()))


def test_deep_nesting_does_not_end_the_process():
    deep = b"]" * 200_000 + b"a" * 199_999 + b"."
    value = read_pickle(io.BytesIO(deep), 1 << 24, Allowed({}, {}, frozenset()))
    depth = 0
    while value:
        (value,), depth = value, depth + 1
    assert depth == 199_999
    tuples = b"N" + b"\x85" * 200_000 + b"."
    keyed = b"}" + tuples[:-1] + b"Ns."
    with pytest.raises(ImportFailed, match="neither text nor int"):
        read_pickle(io.BytesIO(keyed), 1 << 24, Allowed({}, {}, frozenset()))


def rewritten(path, target, change):
    """A copy of an archive with other members."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            data = change(info.filename, old.read(info))
            if data is not None:
                new.writestr(info.filename, data)
    return target


def test_archives_whose_parts_disagree(tmp_path):
    file = tmp_path / "good.pt"
    torch.save({"a": torch.arange(8.0)}, file)

    def refused(message, change):
        bad = rewritten(file, tmp_path / "bad.pt", change)
        with pytest.raises(ImportFailed, match=message):
            read_torch(bad)

    def only(suffix, function):
        return lambda name, data: function(data) if name.endswith(suffix) else data

    refused("28 bytes where 32", only("data/0", lambda data: data[:-4]))
    refused("lacks the data of storage '0'", only("data/0", lambda data: None))
    refused("big-endian", only("byteorder", lambda data: b"big"))
    refused("not one that torch.save writes", only("data.pkl", lambda data: None))
    refused("no end|damaged", only("data.pkl", lambda data: data[: len(data) // 2]))


@pytest.mark.parametrize("container", ["zip", "sequence", "pickle"])
def test_every_truncation_is_an_error(container, tmp_path):
    value = {"a": torch.arange(8.0), "b": torch.ones(3, 3)}
    file = save(value, tmp_path / "file", container)
    whole = file.read_bytes()
    for size in [*range(0, len(whole), 37), len(whole) - 1]:
        file.write_bytes(whole[:size])
        with pytest.raises(ImportFailed):
            read_torch(file)


# pickletools warns of escapes in texts that flips made.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("container", ["zip", "sequence"])
def test_flipped_bytes_give_an_error_or_a_value(container, tmp_path):
    value = {"a": torch.arange(8.0), "b": torch.ones(3, 3)}
    file = save(value, tmp_path / "file", container)
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        data = bytearray(whole)
        for at in random.integers(0, len(data), 2):
            data[at] ^= int(random.integers(1, 256))
        file.write_bytes(data)
        try:
            read = read_torch(file)
            for tensor in read.values() if isinstance(read, dict) else ():
                if hasattr(tensor, "load"):
                    tensor.load()
            outcomes.add("value")
        except ImportFailed:
            outcomes.add("error")
    assert outcomes == {"value", "error"}


def test_an_expanded_tensor_allocates_nothing(tmp_path):
    file = tmp_path / "file.pt"
    torch.save({"a": torch.zeros(1).expand(1 << 20, 1 << 20)}, file)
    assert file.stat().st_size < 1 << 20
    with pytest.raises(ImportFailed, match="does not fit its storage of 1"):
        read_torch(file)


def test_what_is_no_file_of_torch(tmp_path):
    file = tmp_path / "file"
    for data in (b"", b"hello", b"\x80", b"PK\x03\x04", b"\x1f\x8b\x08"):
        file.write_bytes(data)
        with pytest.raises(ImportFailed):
            read_torch(file)
