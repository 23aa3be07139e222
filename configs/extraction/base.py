"""Every setting of `experiments.extract`, with its meaning and default."""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """Return the defaults; a config of your own calls this and changes the result."""
  config = ml_collections.ConfigDict()
  # Extractors to run: keys of `deepsets_jax.extraction.EXTRACTORS`. The flag
  # --extractors overrides this.
  config.extractors = ("image", "faces", "lines", "sentences")
  # Rows per step of the pipeline, and inputs per call of an extractor.
  config.batch_size = 32
  # Longest side of a picture in pixels; larger pictures are scaled down. A larger value
  # finds smaller faces and letters, and takes longer.
  config.max_side = 1024
  # Number of processes, each with all extractors; None for one per core. A single
  # process uses an accelerator if JAX has one.
  config.workers = config_dict.placeholder(int)
  # Rows per file that a Beam pipeline writes.
  config.shard_rows = 1000
  config.regions = config_dict.create(
    # Smallest probability of a region's class, from 0 to 1.
    score=0.4,
    # Largest intersection over union with a region of higher probability, from 0 to 1;
    # regions that overlap more are removed.
    overlap=0.2,
    # Largest number of regions per picture.
    count=16,
  )
  config.faces = config_dict.create(
    # Smallest score of the detector; below 0.25, many detections are not faces.
    score=0.25,
    # Number of times that a picture is doubled in size before the search, 0 to 3, to
    # find smaller faces.
    upsample=1,
  )
  config.lines = config_dict.create(
    # Smallest confidence of the recognized text, from 0 to 1.
    score=0.6,
    # Encoder of a line's text: "sentences" or "static_words".
    encoder="sentences",
    # Threads of ONNX Runtime; None for a worker's share of the cores.
    threads=config_dict.placeholder(int),
  )
  config.onnx = config_dict.create(
    # Path of an ONNX file; required if "onnx" is one of the extractors.
    path=config_dict.placeholder(str),
    # Name of the column in the output.
    name="onnx",
    # Height and width of the input in pixels, if the file does not fix them.
    size=config_dict.placeholder(tuple),
    # Layout of the input, if the file does not fix it: "NCHW" or "NHWC".
    layout=config_dict.placeholder(str),
    # Mean of red, green and blue, as shares of 255: subtracted from the pixels.
    mean=(0.485, 0.456, 0.406),
    # Standard deviation of red, green and blue, as shares of 255: divides the
    # difference.
    std=(0.229, 0.224, 0.225),
    # Name of the output to use, if there are several.
    output=config_dict.placeholder(str),
    # Licence of the weights, as text that the command prints.
    licence=config_dict.placeholder(str),
    # Threads of ONNX Runtime; None for a worker's share of the cores.
    threads=config_dict.placeholder(int),
  )
  return config
