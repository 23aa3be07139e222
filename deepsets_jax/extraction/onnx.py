"""Any network in an ONNX file: pictures in, vectors out.

The input is `[b, 3, h, w]` or `[b, h, w, 3]`; sizes that the file leaves open are
settings. An output `[b, d]` gives one element per picture. An output `[b, n, d]` gives
`n`, such as the patches of a vision transformer. With more dimensions, it is flattened
to one element.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from deepsets_jax.extraction import boxes, weights
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.foundation.errors import DataError

_DTYPES = {
  "tensor(float)": np.float32,
  "tensor(float16)": np.float16,
  "tensor(uint8)": np.uint8,
}
_BATCH = 16  # Batch size, if the file leaves it open.


class Onnx:
  """The vectors that a network in an ONNX file computes for whole pictures.

  Weights outside of the file are found where `torch.onnx.export` puts them: in
  FILE.data, beside it.

  Args:
    path: The file.
    name: Name of the output column.
    size: Height and width of the input, if the file leaves them open.
    layout: "NCHW" or "NHWC", if the file leaves it open.
    mean: Subtracted from red, green and blue, as fractions of 255; by default as for
      torchvision's networks. An input of uint8 gets unchanged pixels.
    std: Then divides red, green and blue.
    output: Name of the output, if there are several.
    licence: Licence of the weights, for the record.
    threads: Threads of ONNX Runtime; None for all cores.

  Raises:
    FileNotFoundError: There is no such file.
    DataError: It is not a network of pictures, or a setting is missing or contradicts
      it.
  """

  kind = "image"

  def __init__(
    self,
    path: str | pathlib.Path,
    *,
    name: str = "onnx",
    size: tuple[int, int] | None = None,
    layout: str | None = None,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    output: str | None = None,
    licence: str | None = None,
    threads: int | None = None,
  ):
    path = pathlib.Path(path)
    self.name, self.licence = name, licence or f"{path.name}: not stated"
    self._path, self._session = path, _open(path, threads)
    self._input = _only_input(self._session, path)
    self._layout = _layout(self._input.shape, layout, path)
    self._size = _size(self._input.shape, self._layout, size, path)
    self._mean, self._std = (np.array(x, np.float32) for x in (mean, std))
    if self._mean.shape != (3,) or self._std.shape != (3,) or not self._std.all():
      raise DataError(
        f"mean={mean}, std={std}: both need three numbers, those of std not 0"
      )
    self._output = _output(self._session, output, path)
    # A first run finds the size of vectors, and errors that the file does not show.
    blank = np.zeros((*self._size, 3), np.uint8)
    self.dimension = self._run([blank])[0].shape[1]
    beside = path.with_name(f"{path.name}.data")
    self.fingerprint = weights.fingerprint(
      [path, beside] if beside.is_file() else [path],
      extractor="onnx 1",
      size=self._size,
      layout=self._layout,
      mean=self._mean.tolist(),
      std=self._std.tolist(),
      output=self._output,
    )

  def __call__(self, batch: Sequence[np.ndarray]) -> list[Extraction]:
    boxes.check_pictures(batch)
    fixed = self._input.shape[0]
    size = fixed if isinstance(fixed, int) else _BATCH
    found = []
    for begin in range(0, len(batch), size):
      seen = [self._scale(picture) for picture in batch[begin : begin + size]]
      found += [Extraction(vectors) for vectors in self._run(seen)]
    return found

  def _scale(self, picture: np.ndarray) -> np.ndarray:
    """The picture at the network's height and width, uint8."""
    import PIL.Image

    height, width = self._size
    image = PIL.Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((width, height), PIL.Image.Resampling.BICUBIC))

  def _run(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Vectors of pictures of the right size, `[n, d]` each."""
    fixed = self._input.shape[0]
    count = fixed if isinstance(fixed, int) else len(pictures)
    pixels = np.zeros((count, *self._size, 3), np.uint8)
    pixels[: len(pictures)] = pictures
    dtype = _DTYPES[self._input.type]
    if dtype != np.uint8:
      shares = pixels.astype(np.float32) / 255
      pixels = ((shares - self._mean) / self._std).astype(dtype)
    if self._layout == "NCHW":
      pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    try:
      (values,) = self._session.run([self._output], {self._input.name: pixels})
    except Exception as error:  # ONNX Runtime has no public class of errors.
      raise DataError(
        f"{self._path} fails on {pixels.dtype} {list(pixels.shape)}: {error}"
      ) from error
    return self._split(values, count)[: len(pictures)]

  def _split(self, values: Any, count: int) -> list[np.ndarray]:
    shape = np.shape(values)
    if (
      len(shape) < 2 or shape[0] != count or not np.issubdtype(values.dtype, np.number)
    ):
      raise DataError(
        f"{self._path}: output {self._output!r} of {count} pictures is {list(shape)};"
        " expected numbers of shape [pictures, d] or [pictures, n, d]"
      )
    vectors = values if len(shape) == 3 else values.reshape(count, 1, -1)
    return list(vectors.astype(np.float32))


def _open(path: pathlib.Path, threads: int | None) -> Any:
  import onnxruntime

  if not path.is_file():
    raise FileNotFoundError(f"{path}: no such ONNX file")
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3  # Errors; warnings are about optimizations.
  options.intra_op_num_threads = threads or 0
  try:
    providers = onnxruntime.get_available_providers()
    return onnxruntime.InferenceSession(str(path), options, providers=providers)
  except Exception as error:  # As in `_run`.
    raise DataError(
      f"{path} is not an ONNX file that ONNX Runtime can open: {error}"
    ) from error


def _only_input(session: Any, path: pathlib.Path) -> Any:
  found = [f"{x.name}: {x.type} {x.shape}" for x in session.get_inputs()]
  pictures = session.get_inputs()[0] if len(found) == 1 else None
  if pictures is None or pictures.type not in _DTYPES or len(pictures.shape) != 4:
    raise DataError(
      f"{path} has the inputs {found}; expected a single one of 4 dimensions and type"
      f" {' or '.join(_DTYPES)}"
    )
  return pictures


def _layout(shape: Sequence[Any], layout: str | None, path: pathlib.Path) -> str:
  """The layout of the input, from the file or from the setting."""
  # A dimension that is not a number is open.
  fits = {
    name: not isinstance(shape[axis], int) or shape[axis] == 3
    for name, axis in (("NCHW", 1), ("NHWC", 3))
  }
  certain = [name for name, axis in (("NCHW", 1), ("NHWC", 3)) if shape[axis] == 3]
  if layout is None and len(certain) == 1:
    return certain[0]
  if layout is None or not fits.get(layout):
    raise DataError(
      f"{path}: the input's shape is {shape} and layout={layout!r}. Set the layout to"
      f" one that fits: {[name for name in fits if fits[name]]}."
    )
  return layout


def _size(
  shape: Sequence[Any], layout: str, size: Sequence[int] | None, path: pathlib.Path
) -> tuple[int, int]:
  """Height and width of the input, from the file or from the setting."""
  static = list(shape[2:] if layout == "NCHW" else shape[1:3])
  found = static if size is None else list(size)
  numbers = all(isinstance(x, int) and x > 0 for x in found)
  fits = len(found) == 2 and numbers
  for known, wanted in zip(static, found, strict=False):
    fits = fits and (known == wanted or not isinstance(known, int))
  if not fits:
    raise DataError(
      f"{path}: the input's height and width are {static} and size={size}. Set the size"
      " to two numbers that fit, such as (224, 224)."
    )
  return found[0], found[1]


def _output(session: Any, output: str | None, path: pathlib.Path) -> str:
  names = [x.name for x in session.get_outputs()]
  if output is None and len(names) == 1:
    return names[0]
  if output not in names:
    raise DataError(
      f"{path} has the outputs {names}, and output={output!r}. Set it to one of them."
    )
  return output
