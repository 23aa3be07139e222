"""Decode pictures of any format to arrays: upright, in RGB, of limited size.

A file that is not a picture, or a broken one, raises a `PictureError` that says why,
and never another error, so that a caller can take it for an absent modality.
"""

from __future__ import annotations

import io
import pathlib
import warnings

import numpy as np
import PIL.Image
import PIL.ImageOps

# Version of the decoded pixels, for the keys of caches: change it when they change.
FORMAT = "pictures 1"
# Endings of the names of pictures in a folder.
SUFFIXES = (
  *(".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png"),
  *(".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
# Limits: a small file may fill the memory when it is decoded (a decompression bomb).
MOST_PIXELS = 1 << 26
MOST_BYTES = 1 << 28
# Formats that hold pixels only. PostScript is not one: it is a program.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class PictureError(ValueError):
  """The reason why a file or bytes cannot be read as a picture."""


def read(path: str, folder: str) -> bytes:
  """Read the bytes of a picture's file, at most `MOST_BYTES` and one more.

  Args:
    path: Path of the file, with slashes or, as on Windows, backslashes.
    folder: Folder in which a relative path begins.

  Raises:
    PictureError: It is a URL, or the file cannot be read.
  """
  if "://" in path:
    raise PictureError(f"{path[:200]} is a URL; download the picture and give its path")
  file = pathlib.Path(folder, path)
  try:
    if "\\" in path and not file.exists():
      file = pathlib.Path(folder, path.replace("\\", "/"))
    if file.is_dir():
      raise PictureError(f"{file} is a folder; give the path of a file")
    with file.open("rb") as opened:
      return opened.read(MOST_BYTES + 1)
  except PictureError:
    raise
  except (OSError, ValueError) as error:
    raise PictureError(f"{file} cannot be read ({error})") from error


def decode(data: bytes, max_side: int) -> np.ndarray:
  """Decode the bytes of a picture's file.

  The picture is turned as its EXIF orientation says. Only the first of several frames
  is decoded, transparency becomes white, and 16 bits become 8.

  Args:
    data: The whole file.
    max_side: Largest width and height of the result, in pixels; a larger picture is
      shrunk in proportion.

  Returns:
    RGB pixels, `[h, w, 3]` uint8.

  Raises:
    PictureError: The bytes are not a picture, a broken one, or too large.
  """
  if not data:
    raise PictureError("the file is empty")
  if len(data) > MOST_BYTES:
    raise PictureError(f"{len(data)} bytes, and at most {MOST_BYTES} are read")
  try:
    with warnings.catch_warnings():
      # Pillow warns of oddities in pictures that it can read.
      warnings.simplefilter("ignore")
      return _decode(data, max_side)
  except PIL.UnidentifiedImageError as error:
    raise PictureError(
      f"{len(data)} bytes that begin with {data[:8]!r}: none of {', '.join(_FORMATS)}"
    ) from error
  except PictureError:
    raise
  except Exception as error:  # Decoders raise any error for broken files.
    raise PictureError(f"{type(error).__name__}: {error}") from error


def _decode(data: bytes, max_side: int) -> np.ndarray:
  PIL.Image.init()
  formats = [name for name in _FORMATS if name in PIL.Image.OPEN]
  with PIL.Image.open(io.BytesIO(data), formats=formats) as image:
    # A JPEG is decoded at a fraction of its size where that is enough.
    image.draft(None, (max_side, max_side))
    width, height = image.size
    if width * height > MOST_PIXELS:
      raise PictureError(
        f"{width} x {height} pixels, and {MOST_PIXELS} at most are read; shrink it"
      )
    turned = PIL.ImageOps.exif_transpose(image)
  rgb = _rgb(turned)
  if max(rgb.size) > max_side:
    rgb.thumbnail((max_side, max_side))
  return np.asarray(rgb, np.uint8)


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
  """The picture in mode RGB."""
  if image.mode.startswith(("I", "F")):
    return _from_deep(image).convert("RGB")
  if image.has_transparency_data:
    layer = image.convert("RGBA")
    white = PIL.Image.new("RGBA", layer.size, "white")
    return PIL.Image.alpha_composite(white, layer).convert("RGB")
  return image.convert("RGB")


def _from_deep(image: PIL.Image.Image) -> PIL.Image.Image:
  """The grey picture with 8 bits instead of 16."""
  values = np.asarray(image)
  if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
    raise PictureError(
      f"pixels of mode {image.mode!r}, {values.min()} to {values.max()}, and 16"
      " bits at most are read; save it with 8 or 16"
    )
  return PIL.Image.fromarray((values.astype(np.uint32) * 255 // 65535).astype(np.uint8))
