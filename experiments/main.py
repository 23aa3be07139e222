"""Train and evaluate a config.

  python -m experiments.main --config=configs/debian_programs.py
  python -m experiments.main --config=configs/debian_programs.py:concat \
    --config.seed=1 --workdir=runs/concat_1

All output is in the folder of the run. The same command resumes an interrupted run.
"""

import jax
from absl import flags, logging
from ml_collections import config_flags

from deepsets_jax.tasks import fit
from deepsets_jax.training import run_folder, sharding
from experiments import command

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  help_string="File with get_config(); its argument may follow after a colon.",
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run; default: runs/<name of the config>."
)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Join the other processes of a TPU or GPU cluster."
)


def main(argv: list[str]) -> None:
  """Train the config of the command line, and print its metrics."""
  command.reject_arguments(argv)
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # Orbax logs every file it touches.
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
  devices = f"{jax.device_count()} {jax.devices()[0].device_kind}"
  print(f"process {jax.process_index()} of {jax.process_count()}, devices: {devices}")
  workdir = _WORKDIR.value or run_folder.default_workdir(
    flags.FLAGS["config"].config_filename
  )
  results = fit.train_and_evaluate(_CONFIG.value, workdir)
  if not sharding.is_main_process():
    return
  for split, values in results.items():
    if split.startswith(("validation", "test")):
      print(f"{split}: " + "  ".join(f"{k} {v:.4f}" for k, v in values.items()))
  print(f"results and pictures are in {workdir}")


if __name__ == "__main__":
  jax.config.config_with_absl()
  flags.mark_flag_as_required("config")
  command.run(main)
