# %% [markdown]
# # deepsets_jax in five steps
#
# An example is a set of elements from several modalities, with any number of elements
# per modality, including none. This notebook shows such data, trains a model in a
# minute, explains its predictions, and removes modalities.
#
# ## 1. Install
#
# In a clone, run the cell as it is. In Colab, set `REPOSITORY` to the address of the
# repository; the cell then clones and installs it. If pip replaces a package that was
# already imported, restart the runtime once.

# %%
import importlib.util
import pathlib
import subprocess
import sys

REPOSITORY = ""

here = pathlib.Path.cwd()
package = "deepsets_jax/__init__.py"
clones = [path for path in (here, *here.parents) if (path / package).exists()]
clone = clones[0] if clones else here / "deepsets"
if not clone.exists():
  assert REPOSITORY, "there is no clone above this notebook: fill in REPOSITORY"
  subprocess.run(["git", "clone", REPOSITORY, clone], check=True)
if importlib.util.find_spec("deepsets_jax") is None:
  subprocess.run(
    [sys.executable, "-m", "pip", "install", "-q", "-e", clone], check=True
  )
sys.path.insert(0, str(clone))  # The configs are beside the package.

# %matplotlib inline

# %% [markdown]
# ## 2. Look at the data
#
# The data has 7,453 Debian programs. Their 74 labels are tags that people gave them.
# There are seven modalities, and most programs lack some of them. The split is by
# source package, with a seed.

# %%
from deepsets_jax.data.datasets import debian_programs

tables = debian_programs.load_debian_programs(seed=0, text="bag")
words = debian_programs.vocabularies(seed=0)
for split, table in tables.items():
  print(f"{split:12}{len(table):6,} programs")
for name, modality in tables["train"].schema.modalities.items():
  print(f"{name:12}{modality.size:6,} {modality.kind}")

# %% [markdown]
# This is one program as the model sees it: a set of elements per modality, printed as
# strings instead of ids. The elements of `name` are pieces of the program's name.

# %%
test = tables["test"]
row = test.ids.tolist().index("geeqie")
for name, column in test.modalities.items():
  values = column.values[column.offsets[row] : column.offsets[row + 1]]
  print(f"{name:12}", *[words[name][v] if name in words else v for v in values])
labels = test.schema.target.names
print("\nlabels:", *[labels[i] for i in test.targets[row].nonzero()[0]])

# %% [markdown]
# This picture shows the number of elements per program. A batch has a fixed number of
# slots per modality, shared by all its examples, so that few slots are empty.

# %%
from deepsets_jax import figures
from deepsets_jax.data.tables import batching, budgets

slots = budgets.propose(tables, examples=128)
usage = budgets.usage(tables["train"], batching.Budget(128, slots))
lengths = {name: tables["train"].lengths(name) for name in slots}
fills = {name: one.fill for name, one in usage.items()}
display(figures.set_sizes(lengths, slots, fills))

# %% [markdown]
# ## 3. Train
#
# The model encodes the elements of all modalities into one space and pools them
# together. A config has every setting of a run; this one is the published config with
# half of its steps. The command `python -m experiments.main
# --config=configs/debian_programs.py` does the same.

# %%
import tempfile

from configs import debian_programs as job
from deepsets_jax.tasks import fit

config = job.get_config("set_pool,0")
config.total_steps = 140
workdir = pathlib.Path(tempfile.mkdtemp()) / "quickstart"
results = fit.train_and_evaluate(config.lock(), workdir)
print(f"micro F1 on test: {results['test']['f1_micro']:.3f}")

# %% [markdown]
# ## 4. Explain
#
# A finished run is loaded from its folder. An absent modality takes no part, so every
# subset of a program's modalities is a valid input, and Shapley values over modalities
# can be exact. Their shares show how much each modality contributes to the predictions.

# %%
import numpy as np

from deepsets_jax.analysis import attribution
from deepsets_jax.tasks import trained

model = trained.load_trained(workdir)
test = model.run.tables["test"]
found = attribution.compute("shapley", model, test.select(np.arange(200)))
for name, share in sorted(found.shares().items(), key=lambda item: -item[1]):
  print(f"{name:12}{share:6.1%}")

# %% [markdown]
# The score of an element of one program is the decrease of the mean logit of the
# predicted labels without it. These elements have the highest scores:

# %%
found = attribution.compute("leave_one_out", model, test.select(np.array([row])))
for element in found.ranked(0)[:10]:
  known = element.modality in words
  text = words[element.modality][element.value] if known else element.value
  print(f"{element.score:7.3f}  {element.modality:12}{text}")

# %% [markdown]
# One page has the attribution by every method, and tests of its faithfulness:

# %%
import deepsets_jax

deepsets_jax.explain(model, examples=50, ids=["geeqie"])

# %% [markdown]
# ## 5. Remove modalities
#
# Each modality of each program is removed with a probability. Micro F1 falls as this
# rate rises, from that of whole programs to that of empty sets. The model was not
# trained with missing modalities; `config.data.modality_dropout` does that.

# %%
from deepsets_jax.analysis import robustness

rates = (0, 0.25, 0.5, 0.75, 1)
curve = robustness.curve(model, test, robustness.missing, rates, draws=1)
title = "modalities missing"
display(
  figures.robustness_curves(
    curve.metric, {title: rates}, {"set pool": {title: curve.values[None]}}
  )
)
print(f"with half of the modalities missing it loses {curve.loss_at(0.5):.3f}")

# %% [markdown]
# The same for subsets of the seven modalities: each one alone, and all others without
# it.

# %%
subsets = robustness.every_subset(model, test)
names = tuple(test.schema.modalities)
print(f"all {subsets[names]:.3f}, none {subsets[()]:.3f}\n")
print(f"{'':12}{'alone':>8}{'without':>9}")
for name in names:
  others = tuple(other for other in names if other != name)
  print(f"{name:12}{subsets[(name,)]:8.3f}{subsets[others]:9.3f}")

# %% [markdown]
# The command `python -m experiments.robustness --workdir=runs/debian_programs` does
# this for finished runs, over seeds and against other models.
