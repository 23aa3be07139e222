"""Lines of text in pictures, read by RapidOCR: PP-OCRv4 in ONNX Runtime.

One network finds lines (Liao et al., 2020), another reads them; they know Latin letters
and Chinese. The vector of a line is that of its text. RapidOCR's third network, which
turns lines that are upside down, is not used: it turned lines that were not.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from deepsets_jax.extraction import boxes, texts, weights
from deepsets_jax.extraction.protocol import Extraction

# Small pictures are enlarged until the shorter side is `_SIDE` pixels, but at most
# `_LARGER` times and up to `_LARGEST` pixels: reading then keeps spaces between words.
_SIDE, _LARGER, _LARGEST = 736, 3, 2000
_LOWEST = 8  # Least height of a picture with letters, in pixels.
# No dilation, which would merge lines. The low threshold finds faint and bent lines;
# wrong ones are rarely read with confidence.
_DETECTION = dict(det_use_dilation=False, det_box_thresh=0.4)


class Lines:
  """The lines of text in pictures, from top to bottom.

  The score of a line is the confidence of its reading. A tilted line has the box around
  it.

  Args:
    score: Least confidence.
    encoder: Encoder of the text, a key of `texts.ENCODERS`.
    threads: Threads of ONNX Runtime; None for all cores.
  """

  name, kind = "lines", "image"

  def __init__(
    self,
    *,
    score: float = 0.6,
    encoder: str = "sentences",
    threads: int | None = None,
  ):
    import rapidocr_onnxruntime

    self._encoder, paths = texts.load_encoder(encoder)
    self.dimension = texts.ENCODERS[encoder].dimension
    of_text = texts.ENCODERS[encoder].licence
    self.licence = f"PP-OCRv4: Apache-2.0 (rapidocr-onnxruntime); {of_text}"
    threading = dict(intra_op_num_threads=threads or -1)
    self._reader = rapidocr_onnxruntime.RapidOCR(
      text_score=score, **_DETECTION, **threading
    )
    folder = pathlib.Path(rapidocr_onnxruntime.__file__).parent / "models"
    settings = dict(score=score, encoder=encoder, **_DETECTION)
    self.fingerprint = weights.fingerprint(
      [*sorted(folder.glob("*.onnx")), *paths], extractor="lines 1", **settings
    )

  def __call__(self, batch: Sequence[np.ndarray]) -> list[Extraction]:
    boxes.check_pictures(batch)
    read = [self._read(picture) for picture in batch]
    strings = [[line[1] for line in lines] for lines in read]
    encoded = texts.encode_all(self._encoder, strings)
    return [
      Extraction(
        found.vectors,
        np.array([line[0] for line in lines], np.float32).reshape(-1, 4),
        np.array([line[2] for line in lines], np.float32),
        found.strings,
      )
      for found, lines in zip(encoded, read, strict=True)
    ]

  def _read(self, picture: np.ndarray) -> list[tuple[np.ndarray, str, float]]:
    """Box `[4]`, text and confidence of each line."""
    long, short = max(picture.shape[:2]), min(picture.shape[:2])
    if short * min(_LARGEST / long, 1) < _LOWEST:
      return []
    larger = _enlarge(picture)
    blue_first = np.ascontiguousarray(larger[..., ::-1])
    lines, _ = self._reader(blue_first, use_cls=False)
    found = []
    for corners, text, score in lines or []:
      if text.strip():
        points = np.array(corners)
        box = np.concatenate([points.min(axis=0), points.max(axis=0)])
        found.append((boxes.relative_boxes(box, larger)[0], text, float(score)))
    return found


def _enlarge(picture: np.ndarray) -> np.ndarray:
  import PIL.Image

  height, width = picture.shape[:2]
  sizes = _SIDE / min(height, width), _LARGEST / max(height, width), _LARGER
  factor = min(sizes)
  if factor <= 1:
    return picture
  image = PIL.Image.fromarray(np.ascontiguousarray(picture))
  size = (round(width * factor), round(height * factor))
  return np.asarray(image.resize(size, PIL.Image.Resampling.BICUBIC))
