"""Draw the extractions of three pictures of scikit-image: the figure in the README.

pip install -e '.[extract]'
python -m tools.draw_extraction --output=docs/extract.png
"""

from __future__ import annotations

import argparse
import io
import pathlib

import numpy as np
import PIL.Image
import skimage.data
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from deepsets_jax.extraction import build_extractor
from deepsets_jax.extraction.drawing import draw_extractions
from deepsets_jax.figures import style
from deepsets_jax.foundation.files import replacing


def main(output: str) -> None:
  """Write the figure of three pictures of scikit-image."""
  extractors = [
    build_extractor("image"),
    build_extractor("faces"),
    build_extractor("regions", count=4),
    build_extractor("lines"),
  ]
  page = np.repeat(skimage.data.page()[..., None], 3, axis=2)
  samples = []
  for image in (skimage.data.astronaut(), page, skimage.data.chelsea()):
    found = {extractor.name: extractor([image])[0] for extractor in extractors}
    samples.append((image, found))
  _save_small(draw_extractions(samples), pathlib.Path(output))


def _save_small(figure: Figure, path: pathlib.Path) -> None:
  """Write a PNG of 256 colours, replacing the file.

  With all colours, the photographs would take four times the space. The colours of the
  modalities are put into the palette: a palette made from pixel counts alone would lose
  those of small letters.
  """
  buffer = io.BytesIO()
  style.write_png(figure, buffer, dpi=110)
  image = PIL.Image.open(buffer).convert("RGB")
  ours = [round(255 * x) for color in (*style.COLORS, "white") for x in to_rgb(color)]
  theirs = image.quantize(255 - len(style.COLORS)).getpalette()
  palette = PIL.Image.new("P", (1, 1))
  palette.putpalette(ours + theirs[: 768 - len(ours)])
  with replacing(path) as temporary:
    image.quantize(palette=palette).save(temporary, format="png", optimize=True)


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument("--output", required=True, help="PNG file")
  main(parser.parse_args().output)
