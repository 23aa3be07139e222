"""Extract elements from pictures and texts: a list of vectors per extractor.

  pip install -e '.[extract]'
  python -m experiments.extract --input=photos --output=photos.parquet \
    --extractors=image,faces,lines,sentences
  python -m experiments.extract --input=films.parquet --images=poster --texts=plot \
    --output=film_sets.parquet

The input is a folder of pictures and texts with matching names (cat.jpg, cat.txt), or a
table with columns of them. The output has the same rows in the same order: the columns
of the table (for a folder: id, path, text), with paths relative to the output's folder,
and for each extractor a list of vectors, with boxes, scores and strings if it returns
them. A stopped run continues, and a second run processes only what is new: results are
cached by content in OUTPUT.cache. OUTPUT.problems.json lists unreadable inputs.

With --beam (pip install -e '.[beam]') it runs as an Apache Beam pipeline, on any of its
runners: --beam_options=--runner=FlinkRunner,--parallelism=64
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping

import tqdm
from absl import flags, logging
from ml_collections import config_flags

from deepsets_jax.extraction import EXTRACTORS, inputs, pipeline, registry, worker
from deepsets_jax.extraction.pipeline import Settings, Summary
from deepsets_jax.extraction.worker import Make
from deepsets_jax.foundation.errors import ConfigError
from experiments import command
from experiments.explain import check_folder

_BASE = pathlib.Path(__file__).parents[1] / "configs/extraction/base.py"
# Largest number of problems to print; the file lists all.
_SHOWN = 10


def maker(config, workers: int) -> Make:
  """Return a function that builds the extractors of a config in a worker process.

  Raises:
    ConfigError: There is no extractor of a name, or a setting is missing.
  """
  settings = {}
  for name in config.extractors:
    if name not in EXTRACTORS:
      raise ConfigError(f"no extractor {name!r}; choose from {', '.join(EXTRACTORS)}")
    given = config.get(name, {})
    settings[name] = {k: v for k, v in given.items() if v is not None}
    if workers > 1 and "threads" in given:
      settings[name].setdefault("threads", max(worker.available_cores() // workers, 1))
  if "onnx" in settings and "path" not in settings["onnx"]:
    raise ConfigError("extractor 'onnx' needs a file: --config.onnx.path=FILE")
  return functools.partial(
    registry.build_extractors, tuple(config.extractors), settings
  )


def report(summary: Summary, output: str) -> str:
  """Return a summary as lines of text."""
  lines = [
    f"{output}: {summary.rows} rows in {summary.seconds:.0f} s;"
    f" {summary.extracted} results found, {summary.reused} from the cache"
  ]
  lines += [f"  {count} {name}" for name, count in summary.elements.items()]
  lines += [f"licence of {name}: {text}" for name, text in summary.licences.items()]
  if summary.problems:
    lines.append(f"{len(summary.problems)} problems, in {output}.problems.json:")
  for problem in summary.problems[:_SHOWN]:
    of = "" if problem.extractor is None else f", {problem.extractor}"
    lines.append(
      f"  row {problem.row}, {problem.column} {problem.value!r}{of}: {problem.reason}"
    )
  if len(summary.problems) > _SHOWN:
    lines.append(f"  and {len(summary.problems) - _SHOWN} more")
  return "\n".join(lines)


def left_out(suffixes: Mapping[str, int]) -> str:
  """Return a line of text about the files of a folder that are not read."""
  return (
    f"left out: {inputs.counted(suffixes)}. These formats are not supported: save"
    " pictures as JPEG or PNG, and texts as .txt."
  )


def main(argv: list[str]) -> None:
  """Run the extraction that the command line describes."""
  command.reject_arguments(argv)
  logging.set_verbosity(logging.WARNING)
  given = flags.FLAGS
  config, output = given.config, given.output
  if given.extractors:
    config.extractors = tuple(given.extractors)
  if given.workers:
    config.workers = given.workers
  cache = given.cache or f"{output}.cache"
  check_folder(pathlib.Path(output).parent)
  if pathlib.Path(output).resolve() == pathlib.Path(given.input).resolve():
    raise ConfigError(f"--output={output} is the input; give another path")
  workers = 1 if given.beam else config.workers or worker.available_cores()
  settings = Settings(config.batch_size, config.max_side, workers)
  make = maker(config, workers)
  source = inputs.open_input(given.input, given.images, given.texts)
  if source.left_out:
    print(left_out(source.left_out))
  if given.beam:
    from deepsets_jax.extraction import beam

    job = beam.BeamExtraction(
      *(given.input, given.images, given.texts, output, cache, make, settings),
      shard_rows=config.shard_rows,
    )
    print(report(beam.run_beam(job, given.beam_options), output))
    return
  with tqdm.tqdm(total=source.source.num_rows, unit=" rows", disable=None) as bar:
    summary = pipeline.run_pipeline(
      *(source, output, make, settings, cache),
      progress=lambda done: bar.update(done - bar.n),
    )
  print(report(summary, output))


def define_flags() -> None:
  """Define the flags; a function, so that importing the module defines none."""
  config_flags.DEFINE_config_file("config", str(_BASE), lock_config=True)
  flags.DEFINE_string(
    "input", None, "Folder of pictures and texts, or a table.", required=True
  )
  flags.DEFINE_string("output", None, "Parquet file to write.", required=True)
  flags.DEFINE_list("images", [], "Columns of pictures: bytes or paths.")
  flags.DEFINE_list("texts", [], "Columns of texts.")
  flags.DEFINE_list("extractors", [], "Names; default: those of the config.")
  flags.DEFINE_integer(
    "workers", None, "Number of processes; default: that of the config."
  )
  flags.DEFINE_string("cache", None, "Folder of the cache; default: OUTPUT.cache.")
  flags.DEFINE_bool("beam", False, "Run as an Apache Beam pipeline.")
  flags.DEFINE_list("beam_options", [], "Options of Beam, such as --runner=...")


if __name__ == "__main__":
  define_flags()
  command.run(main)
