"""Files of weights: their place in packages, their digest, and `.pth` without PyTorch.

A `.pth` file is a pickle, and a pickle can run any program. It is not unpickled here:
`pickletools.genops` only reads the opcodes, and the few of them that build a dictionary
of tensors are interpreted. All others are refused by name.

The format is PyTorch's before version 1.6 (`torch/serialization.py`, `_legacy_save`):
five pickles (magic number, protocol version, byte order, the dictionary, the keys of
the storages), then each storage: its length as int64, and its numbers.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import math
import pathlib
from collections.abc import Sequence
from pickletools import genops
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from deepsets_jax.foundation.errors import DataError

EXTRA = "pip install 'deepsets-jax[extract]'"

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {"torch FloatStorage": "<f4", "torch LongStorage": "<i8"}
_DICT, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_GLOBALS = {_DICT, _TENSOR, *_DTYPES}
_MARK = object()
_CONSTANTS = {"MARK": _MARK, "NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}


class _Global(NamedTuple):
  """A class or function that a pickle names."""

  name: str


class _Storage(NamedTuple):
  """A storage at the end of the file with `length` numbers."""

  dtype: str
  key: str
  length: int


class _View(NamedTuple):
  """A tensor: numbers of a storage from `begin` on, with strides."""

  storage: _Storage
  begin: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def package_file(package: str, path: str) -> pathlib.Path:
  """The path of a file of an installed package, found without importing the package.

  Args:
    package: Name of the package for pip.
    path: Path from the folder in which packages are installed.

  Raises:
    ModuleNotFoundError: The package is not installed, or has no such file.
  """
  try:
    distribution = importlib.metadata.distribution(package)
  except importlib.metadata.PackageNotFoundError as error:
    raise ModuleNotFoundError(f"no package {package!r}: {EXTRA}") from error
  found = pathlib.Path(distribution.locate_file(path))
  if not found.is_file():
    raise ModuleNotFoundError(
      f"package {package!r} {distribution.version} has no file {path}: {EXTRA}"
    )
  return found


def fingerprint(paths: Sequence[pathlib.Path], **settings: Any) -> str:
  """A digest of files and of the settings that they are used with."""
  digest = hashlib.blake2b(digest_size=16)
  for path in paths:
    with path.open("rb") as file:
      digest.update(hashlib.file_digest(file, hashlib.blake2b).digest())
  digest.update(json.dumps(settings, sort_keys=True).encode())
  return digest.hexdigest()


def read_state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Read the tensors of a `.pth` file by name, without unpickling it.

  It supports float32 and int64 tensors in PyTorch's old format.

  Raises:
    DataError: The file is missing, truncated or of another format, or its pickle does
      anything other than build a dictionary of tensors.
  """
  path = pathlib.Path(path)
  try:
    # Read as a whole, so that no length in the file makes us allocate memory.
    return _read(io.BytesIO(path.read_bytes()))
  except OSError as error:
    raise DataError(f"{path} cannot be read: {error}") from error
  except DataError as error:
    raise DataError(f"{path}: {error}") from error
  # Errors from opcodes that are misplaced or cut off.
  except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
    raise DataError(
      f"{path} is truncated, damaged or not a state dict of PyTorch's old format"
      f" ({error}). Download it again."
    ) from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
  if file.read(4) == b"PK\x03\x04":
    raise DataError(
      "this is a zip file, PyTorch's format since 1.6. Save it with"
      " torch.save(..., _use_new_zipfile_serialization=False)."
    )
  file.seek(0)
  if _follow(file) != _MAGIC or _follow(file) != _PROTOCOL:
    raise DataError("the first numbers are not those of PyTorch's old format")
  if _follow(file)["little_endian"] is not True:
    raise DataError("the numbers are not little-endian")
  views, keys = _follow(file), _follow(file)
  if not all(isinstance(view, _View) for view in views.values()):
    raise DataError("it contains more than tensors")
  storages = {view.storage.key: view.storage for view in views.values()}
  if sorted(storages) != sorted(keys):
    raise DataError("its storages are not those of its tensors")
  numbers = {key: _numbers(file, storages[key]) for key in keys}
  if file.read(1):
    raise DataError("there is data after the last storage")
  return {
    name: _tensor(view, numbers[view.storage.key]) for name, view in views.items()
  }


def _numbers(file: BinaryIO, storage: _Storage) -> np.ndarray:
  (length,) = np.frombuffer(file.read(8), "<i8", 1)
  if length != storage.length:
    raise DataError(
      f"storage {storage.key} has {length} numbers; expected {storage.length}"
    )
  dtype = np.dtype(storage.dtype)
  return np.frombuffer(file.read(length * dtype.itemsize), dtype, length)


def _tensor(view: _View, numbers: np.ndarray) -> np.ndarray:
  """A copy of a view's numbers, if they all lie in the storage."""
  sizes = (view.begin, *view.shape, *view.strides)
  if any(type(size) is not int or size < 0 for size in sizes):
    raise DataError("a tensor's shape, strides or offset are not counts")
  if len(view.shape) != len(view.strides) or math.prod(view.shape) > numbers.size:
    raise DataError(
      f"a tensor of shape {view.shape} does not fit into {numbers.size} numbers"
    )
  steps = zip(view.shape, view.strides, strict=True)
  last = view.begin + sum((size - 1) * stride for size, stride in steps)
  if last >= numbers.size:
    raise DataError(f"a tensor ends at number {last} of {numbers.size}")
  strides = tuple(stride * numbers.itemsize for stride in view.strides)
  begin = numbers[view.begin :]
  return np.lib.stride_tricks.as_strided(begin, view.shape, strides).copy()


def _follow(file: BinaryIO) -> Any:
  """The result of one pickle: numbers, strings, lists, dictionaries and `_View`s."""
  stack: list[Any] = []
  memo: dict[int, Any] = {}
  for opcode, value, at in genops(file):
    match opcode.name:
      case "PROTO":
        pass
      case "STOP":
        return stack.pop()
      case name if name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
      case name if name in _EMPTY:
        stack.append(_EMPTY[name]())
      case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
        stack.append(value)
      case "BINPUT" | "LONG_BINPUT":
        memo[value] = stack[-1]
      case "BINGET" | "LONG_BINGET":
        stack.append(memo[value])
      case "TUPLE":
        stack.append(tuple(_since_mark(stack)))
      case "TUPLE1" | "TUPLE2":
        size = int(opcode.name[-1])
        stack[-size:] = [tuple(stack[-size:])]
      case "APPEND" | "APPENDS":
        items = [stack.pop()] if opcode.name == "APPEND" else _since_mark(stack)
        stack[-1].extend(items)
      case "SETITEM" | "SETITEMS":
        single = opcode.name == "SETITEM"
        items = [stack.pop(), stack.pop()][::-1] if single else _since_mark(stack)
        _put(stack[-1], items)
      case "BUILD":  # PyTorch adds versions of its layers to the dictionary.
        stack.pop()
      case "GLOBAL" if value in _GLOBALS:
        stack.append(_Global(value))
      case "BINPERSID":
        stack.append(_storage(stack.pop()))
      case "REDUCE":
        arguments = stack.pop()
        stack.append(_call(stack.pop(), arguments))
      case name:
        what = name if value is None else f"{name} {value!r}"
        raise DataError(
          f"refused: {what:.80} at byte {at} does not belong in a state dict"
        )
  raise DataError("a pickle has no end")


def _since_mark(stack: list[Any]) -> list[Any]:
  """Remove and return the items on the stack since the last mark."""
  begin = max(i for i, item in enumerate(stack) if item is _MARK)
  items = stack[begin + 1 :]
  del stack[begin:]
  return items


def _put(target: Any, items: Sequence[Any]) -> None:
  if type(target) is not dict or not all(type(key) is str for key in items[::2]):
    raise DataError("names in a dictionary are not strings")
  target.update(zip(items[::2], items[1::2], strict=True))


def _storage(found: Any) -> _Storage:
  kind, of, key, _, length, view = found
  if type(of) is not _Global or of.name not in _DTYPES or type(key) is not str:
    raise DataError("a storage has an unknown type")
  if kind != "storage" or type(length) is not int or view is not None:
    raise DataError(f"storage {key} has an unknown form")
  return _Storage(_DTYPES[of.name], key, length)


def _call(what: Any, arguments: Any) -> Any:
  """The result of calling one of `_GLOBALS`."""
  name = what.name if type(what) is _Global else ""
  if name == _DICT and arguments == ():
    return {}
  if name == _TENSOR and type(arguments[0]) is _Storage:
    return _View(*arguments[:4])
  raise DataError(f"refused: a call of {name or 'something unknown'}")
