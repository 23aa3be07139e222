"""The public names of the package: all there, and imported when first used."""

import subprocess
import sys

import deepsets_jax


def test_every_public_name_is_there():
  for name in deepsets_jax._PUBLIC:
    assert getattr(deepsets_jax, name) is not None
    assert name in dir(deepsets_jax)
  assert callable(deepsets_jax.fit) and callable(deepsets_jax.attend)
  assert deepsets_jax.default_config().task == "supervised"


def test_the_package_alone_imports_neither_jax_nor_flax():
  code = "import sys, deepsets_jax; print(*sys.modules)"
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert not {"jax", "flax", "pyarrow", "sklearn"} & set(done.stdout.split())
