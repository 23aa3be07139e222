"""Makes RESULTS.md and the README's results: all runs, and the tables.

  python -m experiments.results.reproduce
  python -m experiments.results.reproduce --parts=structures,bags

Runs are in `runs/reproduce`; finished runs are not repeated. All parts together take
about an hour and a half on two cores, most of it for "structures". "sentences" needs
the file of `tools.encode_sentences` first, see `configs/debian_structures.py`.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Mapping

from absl import flags, logging

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.foundation.files import write_text
from experiments import command
from experiments.results import (
  attribution,
  missing,
  provenance,
  quality,
  ranking,
  reading,
  retrieval,
)
from experiments.results.runs import Section

# In the order of RESULTS.md. The text around a table is written by hand in
# docs/<name>.md: an introduction, a line "---", and the interpretation.
PARTS: Mapping[str, Callable[[], Section]] = {
  "debian_programs": quality.debian_section,
  "structures": quality.structures_section,
  "sentences": quality.sentences_section,
  "bags": quality.bags_section,
  "digits_sum": quality.digits_section,
  "planted": attribution.planted_section,
  "removal": attribution.removal_section,
  "shapley": attribution.shapley_section,
  "missing": missing.debian_section,
  "larger": missing.larger_section,
  "views": missing.views_section,
  "reading": reading.reading_section,
  "retrieval": retrieval.retrieval_section,
  "ranking": ranking.ranking_section,
}
_CHOSEN = flags.DEFINE_list("parts", list(PARTS), f"Any of {', '.join(PARTS)}.")


def surrounding_text(name: str) -> tuple[str, str]:
  """Read the texts that stand before and after the generated part of a section."""
  before, after = pathlib.Path(f"docs/{name}.md").read_text().split("\n---\n")
  return before.strip(), after.strip()


def replace_part(path: pathlib.Path, name: str, text: str) -> None:
  """Replace the text between the two marks of a part; a file without them stays."""
  page = path.read_text()
  begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
  pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
  write_text(path, pattern.sub(lambda _: f"{begin}{text.strip()}\n{end}", page))


def main(argv: list[str]) -> None:
  """Trains missing runs, and writes the parts into RESULTS.md and README.md."""
  command.reject_arguments(argv)
  unknown = sorted(set(_CHOSEN.value) - set(PARTS))
  if unknown:
    raise ConfigError(f"unknown part {unknown[0]!r}; one of {list(PARTS)}")
  logging.set_verbosity(logging.WARNING)
  provenance.commit()  # Before pages are written, which would make it "dirty".
  for name in _CHOSEN.value:
    section = PARTS[name]()
    caption = provenance.caption(section.results, section.seeds)
    table = f"{section.text}\n\n{caption}"
    before, after = surrounding_text(name)
    replace_part(pathlib.Path("RESULTS.md"), name, f"{before}\n\n{table}\n\n{after}")
    replace_part(pathlib.Path("README.md"), name, table)
    print(f"wrote {name}")


if __name__ == "__main__":
  command.run(main)
