"""Faces found by dlib's detector, each with the 128 numbers of dlib's network.

Histograms of oriented gradients find frontal faces (Dalal and Triggs, 2005; King,
2009), five landmarks align each face, and a residual network of 29 layers describes it
(King, 2017). By dlib's advice, vectors less than 0.6 apart belong to one person.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deepsets_jax.extraction import boxes, weights
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.foundation.errors import ConfigError

_PACKAGE = "face_recognition_models"
# Of the two landmark models, this one has training data that allow any use.
_FILES = (
  "shape_predictor_5_face_landmarks.dat",
  "dlib_face_recognition_resnet_model_v1.dat",
)


class Faces:
  """The faces in pictures, clearest first.

  Args:
    score: Least score of the detector. By its training a face has at least 0, but
      scores between 0 and 0.25 are often wrong (a round badge has 0.12, a portrait
      1.2).
    upsample: Number of times to double a picture before the search, 0 to 3. The
      smallest face is 80 pixels wide at 0, 40 at 1, 20 at 2; each doubling takes four
      times as long.
  """

  name, kind, dimension = "faces", "image", 128
  licence = "dlib's face models: CC0 (face_recognition_models)"

  def __init__(self, *, score: float = 0.25, upsample: int = 1):
    import dlib

    if upsample not in range(4):
      raise ConfigError(f"upsample is {upsample}; choose 0, 1, 2 or 3")
    paths = [
      weights.package_file(_PACKAGE, f"{_PACKAGE}/models/{file}") for file in _FILES
    ]
    self._score, self._upsample = score, upsample
    self._detector = dlib.get_frontal_face_detector()
    self._points = dlib.shape_predictor(str(paths[0]))
    self._network = dlib.face_recognition_model_v1(str(paths[1]))
    self.fingerprint = weights.fingerprint(
      paths,
      extractor="faces 1",
      dlib=dlib.__version__,  # The detector is part of dlib.
      score=score,
      upsample=upsample,
    )

  def __call__(self, batch: Sequence[np.ndarray]) -> list[Extraction]:
    boxes.check_pictures(batch)
    return [self._find(np.ascontiguousarray(picture)) for picture in batch]

  def _find(self, picture: np.ndarray) -> Extraction:
    found, scores, _ = self._detector.run(picture, self._upsample, self._score)
    vectors = np.zeros((len(found), self.dimension), np.float32)
    corners = np.zeros((len(found), 4), np.float32)
    for i, face in enumerate(found):
      points = self._points(picture, face)
      vectors[i] = self._network.compute_face_descriptor(picture, points)
      # A rectangle of dlib includes its last pixel.
      corners[i] = face.left(), face.top(), face.right() + 1, face.bottom() + 1
    return Extraction(
      vectors, boxes.relative_boxes(corners, picture), np.array(scores, np.float32)
    )
