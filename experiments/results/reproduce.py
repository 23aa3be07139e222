"""Makes RESULTS.md and the README's results: every run behind them, and the tables.

  python -m experiments.results.reproduce
  python -m experiments.results.reproduce --parts=structures,bags

Runs are in `runs/reproduce`; one that is finished is not repeated. All parts take about
an hour and a half on two cores, most of it in "structures"; "sentences" first needs the
file of `tools.encode_sentences`, see `configs/debian_structures.py`.
"""

from __future__ import annotations

import functools
import pathlib
import re
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from absl import app, flags, logging

from experiments import command
from experiments.results import (
  attribution,
  missing,
  quality,
  ranking,
  reading,
  retrieval,
  runs,
)


def provenance(facts: Mapping[str, Any]) -> str:
  """The sentence that says where numbers come from."""
  device, versions = facts["device"], facts["versions"]
  seeds = ", ".join(map(str, facts.get("seeds", runs.SEEDS)))
  spread = "Seed" if seeds == "0" else "Mean ± sample standard deviation of seeds"
  return (
    f"{spread} {seeds}; written at commit"
    f" {_commit()}, {device['count']} {device['kind']} device, jax {versions['jax']},"
    f" jaxlib {versions['jaxlib']}, Python {versions['python']}."
  )


@functools.cache
def _commit() -> str:
  """The commit, asked before anything is written."""
  return subprocess.run(
    ["git", "describe", "--always", "--dirty"],
    capture_output=True,
    text=True,
    check=True,
  ).stdout.strip()


# By name, in the order of RESULTS.md. What to read from a table is in docs/<name>.md,
# the one thing that no run writes; its first part comes before the table.
_PARTS: Mapping[str, Callable[[], tuple[str, dict[str, Any]]]] = {
  "debian_programs": quality.debian_table,
  "structures": quality.structures_table,
  "sentences": quality.sentences_table,
  "bags": quality.bags_table,
  "digits_sum": quality.digits_table,
  "planted": attribution.planted_part,
  "removal": attribution.removal_part,
  "shapley": attribution.shapley_part,
  "missing": missing.debian_part,
  "larger": missing.larger_part,
  "views": missing.views_part,
  "reading": reading.reading_part,
  "retrieval": retrieval.retrieval_part,
  "ranking": ranking.ranking_part,
}
_CHOSEN = flags.DEFINE_list("parts", list(_PARTS), f"Of {', '.join(_PARTS)}.")


def section(name: str) -> tuple[str, str]:
  """A part of RESULTS.md, and what of it stands in the README."""
  table, facts = _PARTS[name]()
  table = f"{table}\n\n{provenance(facts)}"
  before, after = pathlib.Path(f"docs/{name}.md").read_text().split("\n---\n")
  return f"{before.strip()}\n\n{table}\n\n{after.strip()}", table


def put(path: pathlib.Path, name: str, text: str) -> None:
  """Puts a text between the two marks of a part, where the file has them."""
  page = path.read_text()
  begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
  pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
  write_text(path, pattern.sub(lambda _: f"{begin}{text.strip()}\n{end}", page))


def main(argv: list[str]) -> None:
  """Runs what is missing, writes the parts into RESULTS.md and README.md."""
  command.no_arguments(argv)
  unknown = sorted(set(_CHOSEN.value) - set(_PARTS))
  if unknown:
    raise app.UsageError(f"unknown part {unknown[0]!r}; one of {list(_PARTS)}")
  logging.set_verbosity(logging.WARNING)
  for name in _CHOSEN.value:
    text, table = section(name)
    put(pathlib.Path("RESULTS.md"), name, text)
    put(pathlib.Path("README.md"), name, table)
    print(f"wrote {name}")


if __name__ == "__main__":
  command.run(main)
