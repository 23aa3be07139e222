import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from deepsets_jax.data.ingest import pictures
from deepsets_jax.data.ingest.pictures import PictureError

RNG = np.random.default_rng(0)
# Red above blue, wider than high.
FLAG = np.zeros((20, 30, 3), np.uint8)
FLAG[:10, :, 0] = FLAG[10:, :, 2] = 255


def saved(image, kind="PNG", **options):
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def png(width, height, mode=2):
  """The bytes of a PNG that says it is so large, with no pixel in it."""

  def chunk(name, data):
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

  header = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_pixels_are_those_of_the_file(kind):
  options = {"lossless": True} if kind == "WEBP" else {}
  data = saved(PIL.Image.fromarray(FLAG), kind, **options)
  np.testing.assert_array_equal(pictures.decode(data, 64), FLAG)


def test_grey_and_black_and_white_are_three_equal_channels():
  grey = RNG.integers(0, 256, (7, 5), dtype=np.uint8)
  for image in (PIL.Image.fromarray(grey), PIL.Image.fromarray(grey > 127)):
    want = np.repeat(np.asarray(image.convert("L"))[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(pictures.decode(saved(image), 64), want)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(kind):
  deep = np.array([[0, 257, 65535], [128, 32768, 65278]], np.uint16)
  data = saved(PIL.Image.fromarray(deep), kind)
  want = deep.astype(int) * 255 // 65535
  np.testing.assert_array_equal(pictures.decode(data, 64)[:, :, 1], want)


def test_transparency_is_on_white():
  rgba = np.dstack([FLAG, np.full(FLAG.shape[:2], 255, np.uint8)])
  rgba[:, :15, 3] = 0
  want = FLAG.copy()
  want[:, :15] = 255
  np.testing.assert_array_equal(
    pictures.decode(saved(PIL.Image.fromarray(rgba)), 64), want
  )
  palette = PIL.Image.fromarray(FLAG).quantize(4)
  index = int(np.asarray(palette)[0, 0])  # Of red.
  found = pictures.decode(saved(palette, transparency=index), 64)
  np.testing.assert_array_equal(found[:10], 255)
  np.testing.assert_array_equal(found[10:], FLAG[10:])


def test_colours_of_print_become_those_of_screens():
  data = saved(PIL.Image.fromarray(FLAG).convert("CMYK"), "JPEG", quality=95)
  found = pictures.decode(data, 64)
  assert found.shape == FLAG.shape
  assert abs(found[2, 15].astype(int) - (255, 0, 0)).max() < 40


def test_orientation_of_the_camera_is_followed():
  exif = PIL.Image.Exif()
  exif[0x0112] = 6  # To be turned a quarter clockwise.
  data = saved(PIL.Image.fromarray(FLAG), "PNG", exif=exif)
  np.testing.assert_array_equal(pictures.decode(data, 64), np.rot90(FLAG, -1))


def test_of_several_frames_the_first_is_taken():
  first, second = PIL.Image.fromarray(FLAG), PIL.Image.fromarray(FLAG[::-1])
  data = saved(first, "GIF", save_all=True, append_images=[second])
  np.testing.assert_array_equal(pictures.decode(data, 64), FLAG)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_large_pictures_are_made_smaller_in_proportion(kind):
  large = PIL.Image.fromarray(np.repeat(np.repeat(FLAG, 30, 0), 30, 1))
  found = pictures.decode(saved(large, kind), 45)
  assert found.shape == (30, 45, 3)
  assert abs(found[:13].astype(int) - FLAG[0, 0]).max() < 8


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000)])
def test_tiny_and_thin_pictures_stay_pictures(shape):
  found = pictures.decode(saved(PIL.Image.new("RGB", shape, "red")), 64)
  assert min(found.shape[:2]) == 1 and max(found.shape[:2]) == min(max(shape), 64)
  np.testing.assert_array_equal(
    found.reshape(-1, 3), [[255, 0, 0]] * found[..., 0].size
  )


NOISE = saved(
  PIL.Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)), "JPEG"
)
BROKEN = {
  "empty": (b"", "empty"),
  "text": (b"This is no picture.", "none of AVIF"),
  "truncated": (NOISE[: len(NOISE) // 2], "truncated"),
  "only a header": (NOISE[:20], "none of|Truncated|EOF|truncated|Unsupported"),
  "no pixels": (png(8, 8), "cannot load"),
  "a bomb": (png(60000, 60000), "bomb"),
  "a smaller bomb": (png(9000, 9000), "9000 x 9000 pixels"),
  "a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of"),
  "floats": (saved(PIL.Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "'F'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_picture_says_why(name):
  data, reason = BROKEN[name]
  with pytest.raises(PictureError, match=reason) as error:
    pictures.decode(data, 64)
  assert len(str(error.value)) > 10
  # The same in each run: no addresses.
  assert " at 0x" not in str(error.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
def test_damaged_bytes_are_a_picture_or_a_reason(kind):
  good = saved(PIL.Image.fromarray(FLAG), kind)
  rng = np.random.default_rng(1)
  refused = 0
  for _ in range(100):
    data = bytearray(good[: rng.integers(1, len(good) + 1)])
    for place in rng.integers(0, len(data), 3):
      data[place] = rng.integers(0, 256)
    try:
      assert pictures.decode(bytes(data), 64).shape[2] == 3
    except PictureError:
      refused += 1
  assert refused > 20


def test_too_many_bytes_are_refused(monkeypatch):
  monkeypatch.setattr(pictures, "MOST_BYTES", 10)
  with pytest.raises(PictureError, match="11 bytes, and at most 10"):
    pictures.decode(b"01234567890", 64)
