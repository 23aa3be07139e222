"""Build the embedded file of `debian_programs` from a Debian package index.

  python -m tools.build_debian_programs --input=INDEX --output=FILE

INDEX is a Parquet file with one package per row (package, source, summary, paragraphs,
depends, recommends, suggests, size_kb, tags), or a folder with the lists of apt
(`*_Packages` and `*_Translation-en`, plain or .gz), or "apt" for the folder of this
machine. A package is in the benchmark if it is tagged `role::program` and has a label:
a tag of the facets below that at least 100 programs have.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from deepsets_jax.data.datasets import debian_programs
from deepsets_jax.data.tables import parquet
from deepsets_jax.foundation.errors import DataError

FACETS = frozenset(
  "use works-with interface uitoolkit implemented-in network admin field game web sound"
  " security protocol works-with-format hardware mail".split()
)
MIN_POSITIVES = 100

_APT_LISTS = pathlib.Path("/var/lib/apt/lists")
_WORD = re.compile(r"[a-z0-9]+(?:[+#]+)?")
_ORIGIN = (
  "Names, descriptions, relations, sizes and debtags tags of programs in the package"
  " index (Packages, Translation-en) of one stable release of Debian, debian.org"
)
_LICENCE = (
  "The descriptions are the packages' own, under their free licences; the tags are the"
  " work of the Debian debtags contributors"
)


class Package(NamedTuple):
  """The fields of a package that are used.

  Attributes:
    name: Name of the package.
    source: Name of its source package.
    text: Its summary and description; the first line is the summary.
    depends: Names of packages it depends on.
    recommends: Names of packages it recommends.
    suggests: Names of packages it suggests.
    size_kb: Installed size in kilobytes; None if unknown.
    tags: Its debtags, `facet::tag`.
  """

  name: str
  source: str
  text: str
  depends: Sequence[str]
  recommends: Sequence[str]
  suggests: Sequence[str]
  size_kb: int | None
  tags: Sequence[str]


def read_packages(source: str) -> list[Package]:
  """Read the packages of an index: a Parquet file, a folder of lists, or "apt".

  Raises:
    DataError: The index is missing or cannot be read.
  """
  path = _APT_LISTS if source == "apt" else pathlib.Path(source)
  return _read_lists(path) if path.is_dir() else _read_parquet(path)


def build(packages: Iterable[Package]) -> pa.Table:
  """Build the table of the benchmark, by name, with dictionary-encoded lists.

  The first of several packages with one name is taken. A dictionary has every token
  that occurs, the most frequent first.

  Raises:
    DataError: No program has a label.
  """
  by_name: dict[str, Package] = {}
  for package in packages:
    if "role::program" in package.tags:
      by_name.setdefault(package.name, package)
  positives = collections.Counter(
    tag
    for package in by_name.values()
    for tag in set(package.tags)
    if tag.partition("::")[0] in FACETS
  )
  labels = {tag for tag, count in positives.items() if count >= MIN_POSITIVES}
  rows = [by_name[name] for name in sorted(by_name)]
  rows = [package for package in rows if labels & set(package.tags)]
  if not rows:
    raise DataError(
      f"none of the tags of {len(by_name)} packages with role::program is on"
      f" {MIN_POSITIVES} of them; give the index of a whole Debian release, with its"
      " Tag fields"
    )
  return pa.table(
    {
      "package": [package.name for package in rows],
      "source": [package.source for package in rows],
      "summary": _encode(
        _WORD.findall(package.text.partition("\n")[0].lower()) for package in rows
      ),
      "description": _encode(_WORD.findall(package.text.lower()) for package in rows),
      "depends": _encode(sorted(set(package.depends)) for package in rows),
      "recommends": _encode(sorted(set(package.recommends)) for package in rows),
      "suggests": _encode(sorted(set(package.suggests)) for package in rows),
      "size_kb": pa.array([package.size_kb for package in rows], pa.int64()),
      "labels": _encode(sorted(labels & set(package.tags)) for package in rows),
    }
  ).replace_schema_metadata(
    {"format": debian_programs.FORMAT, "origin": _ORIGIN, "licence": _LICENCE}
  )


def write(table: pa.Table, path: str | pathlib.Path) -> None:
  """Write the file atomically; the same table gives the same bytes."""
  parquet.write_parquet(table, path, compression_level=19)


def _encode(lists: Iterable[list[str]]) -> pa.ListArray:
  """Dictionary-encode lists of strings, the most frequent string first."""
  lists = list(lists)
  count = collections.Counter(term for terms in lists for term in terms)
  lexicon = sorted(count, key=lambda term: (-count[term], term))
  ids = {term: i for i, term in enumerate(lexicon)}
  offsets = [0]
  for terms in lists:
    offsets.append(offsets[-1] + len(terms))
  indices = pa.array([ids[term] for terms in lists for term in terms], pa.int32())
  elements = pa.DictionaryArray.from_arrays(indices, pa.array(lexicon, pa.string()))
  return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), elements)


def _read_parquet(path: pathlib.Path) -> list[Package]:
  columns = ["package", "source", "summary", "paragraphs", "depends", "recommends"]
  columns += ["suggests", "size_kb", "tags"]
  try:
    schema = pq.read_schema(path)
    missing = [name for name in columns if name not in schema.names]
    if missing:
      raise DataError(f"{path}: no column {missing[0]!r}; it has {schema.names}")
    rows = pq.read_table(path, columns=columns).to_pylist()
  except (OSError, pa.ArrowException) as error:
    raise DataError(
      f"{path} is not a Parquet file ({error}); give one, or a folder of apt's lists"
    ) from error
  return [
    Package(
      name=row["package"],
      source=row["source"],
      text="\n".join([row["summary"], *row["paragraphs"]]),
      depends=row["depends"],
      recommends=row["recommends"],
      suggests=row["suggests"],
      size_kb=row["size_kb"],
      tags=row["tags"],
    )
    for row in rows
  ]


def _read_lists(folder: pathlib.Path) -> list[Package]:
  """Read the packages in apt's lists, with descriptions from the translations."""
  texts = {}
  for path in _lists(folder, "Translation-en"):
    for fields in _stanzas(path):
      texts[fields.get("Description-md5")] = fields.get("Description-en", "")
  packages = []
  for path in _lists(folder, "Packages"):
    for fields in _stanzas(path):
      name = fields["Package"]
      size = fields.get("Installed-Size")
      packages.append(
        Package(
          name=name,
          source=fields.get("Source", name).split()[0],
          text=texts.get(fields.get("Description-md5"), fields.get("Description", "")),
          depends=_names(fields.get("Pre-Depends"), fields.get("Depends")),
          recommends=_names(fields.get("Recommends")),
          suggests=_names(fields.get("Suggests")),
          size_kb=None if size is None else int(size),
          tags=[tag.strip() for tag in fields.get("Tag", "").split(",")],
        )
      )
  return packages


def _lists(folder: pathlib.Path, kind: str) -> list[pathlib.Path]:
  """Return the paths of apt's lists of one kind in a folder, sorted by name."""
  found = sorted(folder.glob(f"*{kind}*"))
  readable = [path for path in found if path.name.endswith((kind, f"{kind}.gz"))]
  if readable:
    return readable
  if found:
    raise DataError(
      f"{found[0]} is compressed in an unsupported format; unpack it, and give the"
      " folder of the result"
    )
  raise DataError(
    f"{folder}: no list *{kind}; run apt-get update (for translations, with"
    " -o Acquire::Languages=en), or give the folder with the lists"
  )


def _stanzas(path: pathlib.Path) -> Iterator[dict[str, str]]:
  """Yield {field: value} of each paragraph of a control file."""
  opener = gzip.open if path.suffix == ".gz" else open
  with opener(path, "rt", encoding="utf-8") as file:
    fields: dict[str, str] = {}
    field = None
    for number, line in enumerate(file, start=1):
      if not line.strip():
        if fields:
          yield fields
        fields, field = {}, None
      elif line[0].isspace() and field is not None:
        fields[field] += "\n" + line.strip()
      elif ":" in line and not line[0].isspace():
        field, _, value = line.partition(":")
        fields[field] = value.strip()
      else:
        raise DataError(
          f"{path}, line {number}: {line.strip()!r} is not 'Field: value'; the file is"
          " damaged, run apt-get update"
        )
  if fields:
    yield fields


def _names(*relations: str | None) -> list[str]:
  """Return the package names in relations such as "a (>= 1) | b:any, c"."""
  entries = re.split(r"[,|]", ",".join(filter(None, relations)))
  names = {re.split(r"[\s:(\[<]", entry.strip())[0] for entry in entries}
  return sorted(names - {""})


def main(arguments: Sequence[str] | None = None) -> None:
  """Write the file of the command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--input", required=True, help='Parquet file, folder, or "apt"')
  parser.add_argument("--output", required=True, help="Parquet file to write")
  flags = parser.parse_args(arguments)
  table = build(read_packages(flags.input))
  write(table, flags.output)
  labels = table["labels"].combine_chunks().flatten()
  print(
    f"{flags.output}: {len(table)} programs of {len(set(table['source'].to_pylist()))}"
    f" source packages, {len(labels.dictionary)} labels,"
    f" {len(labels) / len(table):.2f} labels per program,"
    f" {pathlib.Path(flags.output).stat().st_size} bytes"
  )


if __name__ == "__main__":
  main()
