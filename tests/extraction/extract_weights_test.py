"""PyTorch's files are read without PyTorch, and their programs are never run."""

import os
import pathlib
import pickle
import random
import struct

import numpy as np
import pytest

from deepsets_jax.extraction import weights
from deepsets_jax.foundation.errors import DataError

MAGIC = 0x1950A86A20F9469CFC6C
ORDERED_DICT = b"ccollections\nOrderedDict\n"


# The opcodes of a pickle of protocol 2, by hand: none of the modules named is needed.
def text(value):
  return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
  return b"J" + struct.pack("<i", value)


def tuple_of(*items):
  return b"(" + b"".join(items) + b"t"


def whole(body):
  return b"\x80\x02" + body + b"."


def tensor(key, kind, length, begin, shape, strides):
  storage = tuple_of(
    text("storage"),
    f"ctorch\n{kind}\n".encode(),
    text(key),
    text("cpu"),
    number(length),
    b"N",
  )
  arguments = tuple_of(
    storage + b"Q",
    number(begin),
    tuple_of(*map(number, shape)),
    tuple_of(*map(number, strides)),
    b"\x89",  # Needs no gradient.
    ORDERED_DICT + b")R",
  )
  return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def legacy_file(entries, storages, keys=None):
  """A file of a state dict; storages are by key, each an array."""
  items = b"".join(text(name) + value for name, value in entries.items())
  state = ORDERED_DICT + b")R(" + items + b"u"
  # What PyTorch says of its layers' versions, and gives the dictionary by BUILD.
  state += b"}" + text("_metadata") + ORDERED_DICT + b")Rs" + b"b"
  keys = list(storages) if keys is None else keys
  parts = [
    pickle.dumps(MAGIC, 2),
    pickle.dumps(1001, 2),
    pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2),
    whole(state),
    pickle.dumps(keys, 2),
  ]
  for key in keys:
    parts.append(struct.pack("<q", len(storages[key])) + storages[key].tobytes())
  return b"".join(parts)


@pytest.fixture
def storages():
  rng = np.random.default_rng(0)
  return {"7": rng.normal(size=12).astype(np.float32), "40": np.array([-3], np.int64)}


@pytest.fixture
def file_bytes(storages):
  entries = {
    "conv.weight": tensor("7", "FloatStorage", 12, 0, (3, 4), (4, 1)),
    "conv.turned": tensor("7", "FloatStorage", 12, 0, (4, 3), (1, 4)),
    "conv.bias": tensor("7", "FloatStorage", 12, 8, (4,), (1,)),
    "conv.none": tensor("7", "FloatStorage", 12, 0, (0,), (1,)),
    "count": tensor("40", "LongStorage", 1, 0, (), ()),
  }
  return legacy_file(entries, storages)


def read(tmp_path, data):
  path = tmp_path / "weights.pth"
  path.write_bytes(data)
  return weights.read_state_dict(path)


class TestReading:
  def test_gives_the_tensors_by_name(self, tmp_path, storages, file_bytes):
    found = read(tmp_path, file_bytes)
    numbers = storages["7"]
    want = {
      "conv.weight": np.array(
        [[numbers[4 * i + j] for j in range(4)] for i in range(3)]
      ),
      "conv.turned": np.array(
        [[numbers[i + 4 * j] for j in range(3)] for i in range(4)]
      ),
      "conv.bias": numbers[8:],
      "conv.none": numbers[:0],
      "count": np.array(-3),
    }
    assert list(found) == list(want)
    for name in want:
      np.testing.assert_array_equal(found[name], want[name])
      assert found[name].dtype == want[name].dtype

  def test_refuses_every_truncation(self, tmp_path, file_bytes):
    for length in range(len(file_bytes)):
      with pytest.raises(DataError, match="weights.pth"):
        read(tmp_path, file_bytes[:length])

  def test_refuses_what_follows_the_end(self, tmp_path, file_bytes):
    with pytest.raises(DataError, match="data after the last"):
      read(tmp_path, file_bytes + b"\0")

  # pickletools decodes the strings of opcodes that are refused then.
  @pytest.mark.filterwarnings("ignore:invalid:DeprecationWarning")
  def test_of_changed_bytes_ends_in_tensors_or_an_error(self, tmp_path, file_bytes):
    rng = random.Random(0)
    refused = 0
    for _ in range(1000):
      data = bytearray(file_bytes)
      for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] = rng.randrange(256)
      try:
        assert all(isinstance(x, np.ndarray) for x in read(tmp_path, data).values())
      except DataError:
        refused += 1
    assert 300 < refused < 1000

  @pytest.mark.parametrize(
    ("begin", "shape", "strides"),
    [
      (0, (13,), (1,)),
      (9, (4,), (1,)),
      (0, (3,), (6,)),
      (0, (2, 2), (1,)),
      (-1, (2,), (1,)),
      (4, (2,), (-1,)),
      (0, (100_000, 100_000), (0, 0)),
    ],
  )
  def test_refuses_a_tensor_outside_of_its_numbers(
    self, tmp_path, storages, begin, shape, strides
  ):
    entry = tensor("7", "FloatStorage", 12, begin, shape, strides)
    data = legacy_file({"x": entry}, {"7": storages["7"]})
    with pytest.raises(DataError, match="a tensor"):
      read(tmp_path, data)

  def test_refuses_storages_that_nothing_uses(self, tmp_path, storages):
    entry = tensor("7", "FloatStorage", 12, 0, (12,), (1,))
    with pytest.raises(DataError, match="storages"):
      read(tmp_path, legacy_file({"x": entry}, storages))

  def test_refuses_another_magic_number(self, tmp_path):
    with pytest.raises(DataError, match="first numbers"):
      read(tmp_path, pickle.dumps(5, 2))

  def test_says_that_a_zip_file_is_of_the_new_format(self, tmp_path):
    with pytest.raises(DataError, match="_use_new_zipfile_serialization=False"):
      read(tmp_path, b"PK\x03\x04 and so on")

  def test_says_that_a_file_is_missing(self, tmp_path):
    with pytest.raises(DataError, match=r"none\.pth cannot be read"):
      weights.read_state_dict(tmp_path / "none.pth")


class TestMalice:
  """Each of these runs a command if it is unpickled, which the first lines show."""

  def payloads(self, path):
    command = f"touch {path}"
    system = f"c{os.name}\nsystem\n".encode()
    stacked = b"\x8c" + bytes([len(os.name)]) + os.name.encode() + b"\x8c\x06system\x93"
    return {
      "GLOBAL": system + b"(" + text(command) + b"tR",
      "STACK_GLOBAL": stacked + b"(" + text(command) + b"tR",
      "INST": b"(" + text(command) + f"i{os.name}\nsystem\n".encode(),
      "OBJ": b"(" + system + text(command) + b"o",
    }

  @pytest.mark.parametrize("name", ["GLOBAL", "STACK_GLOBAL", "INST", "OBJ"])
  @pytest.mark.parametrize("place", ["first", "as a tensor"])
  def test_a_command_is_refused_by_name(self, tmp_path, storages, name, place):
    trace = tmp_path / "was_here"
    payload = self.payloads(trace)[name]
    pickle.loads(b"\x80\x04" + payload + b".")
    assert trace.exists()
    trace.unlink()
    data = whole(payload)
    if place == "as a tensor":
      data = legacy_file({"x": payload}, storages)
    # OBJ is after the name of what it calls.
    named = "GLOBAL" if name == "OBJ" else "(SHORT_BIN)?" + name
    with pytest.raises(DataError, match=f"refused: {named}|refused: SHORT_BINUNICODE"):
      read(tmp_path, data)
    assert not trace.exists()

  def test_a_call_of_a_storage_is_refused(self, tmp_path, storages):
    call = b"ctorch\nFloatStorage\n(" + number(10**9) + b"tR"
    with pytest.raises(DataError, match="a call of torch FloatStorage"):
      read(tmp_path, legacy_file({"x": call}, storages))

  def test_a_dictionary_in_itself_is_refused(self, tmp_path, storages):
    data = legacy_file({"x": b"}q\x01" + text("me") + b"h\x01s"}, storages)
    with pytest.raises(DataError, match="more than tensors"):
      read(tmp_path, data)

  def test_a_wrong_length_is_refused(self, tmp_path, file_bytes):
    with pytest.raises(DataError):
      read(tmp_path, b"\x80\x02X\xff\xff\xff\xff" + file_bytes)


class TestFingerprint:
  def test_changes_with_a_file_and_with_a_setting(self, tmp_path):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
      path.write_bytes(b"same")
    first = weights.fingerprint(paths, score=1, extractor="x 1")
    assert weights.fingerprint(paths, extractor="x 1", score=1) == first
    others = {weights.fingerprint(paths, score=2, extractor="x 1")}
    paths[1].write_bytes(b"else")
    others.add(weights.fingerprint(paths, score=1, extractor="x 1"))
    others.add(weights.fingerprint(paths[::-1], score=1, extractor="x 1"))
    assert len(others | {first}) == 4


class TestPackageFile:
  def test_is_found_without_an_import(self):
    found = weights.package_file("numpy", "numpy/__init__.py")
    assert found == pathlib.Path(np.__file__)

  @pytest.mark.parametrize(
    ("package", "path"), [("no-such-package", "x"), ("numpy", "numpy/no_such_file")]
  )
  def test_says_how_to_get_what_is_missing(self, package, path):
    with pytest.raises(ModuleNotFoundError, match=r"deepsets-jax\[extract\]"):
      weights.package_file(package, path)
