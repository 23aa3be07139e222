"""Every op on ragged arrays, and measurements of its edge cases.

  python -m tests.ragged.ops

writes the table of docs/ops.md; the tests check that it is true.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from deepsets_jax.ragged import Ragged, attention, pooling
from deepsets_jax.ragged.ordering import (
  segment_argsort,
  segment_cumsum,
  segment_quantile,
  segment_sort,
  segment_top_k,
)
from deepsets_jax.ragged.segments import (
  segment_all,
  segment_any,
  segment_argmax,
  segment_argmin,
  segment_max,
  segment_min,
  segment_prod,
  segment_softmax,
  segment_sum,
)

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "ops.md"
LENGTHS = (3, 0, 1, 5)
NUM_EXAMPLES, NUM_SLOTS, FEATURES = 4, 12, 4  # As many features as examples.
SLOT_EXAMPLES = np.repeat(np.arange(5), (*LENGTHS, NUM_SLOTS - sum(LENGTHS)))
OFFSETS = np.array([0, 3, 3, 4, 9], np.int32)


@dataclasses.dataclass(frozen=True)
class Op:
  """An op of values `[n, ...]` in the slots of a `Ragged`.

  Attributes:
    call: (values, elements) -> result.
    loop: Values of one example, `[m, ...]` float64 -> its result, by numpy.
    per: "example" or "element": the leading axis of the result.
    smooth: Whether it has a gradient.
    sums: Whether rounding grows with the number of elements.
    flat: Whether values must be `[n, d]`.
    reverse_only: Whether forward mode needs `mode="forward"`.
  """

  call: Callable
  loop: Callable
  per: str = "example"
  smooth: bool = True
  sums: bool = False
  flat: bool = False
  reverse_only: bool = False


def of_pool(pool, values, elements, empty=0.0):
  """Apply a pool; scores of the softmax pool are the values themselves."""
  scores = values if pool == "softmax" else None
  return pooling.pool(pool, elements.replace(values=values), scores=scores, empty=empty)


def softmax(x):
  """Compute a softmax over the first axis by numpy."""
  exponentials = np.exp(x - x.max(0))
  return exponentials / exponentials.sum(0)


def attend(values, elements, **settings):
  """Compute self-attention of one head, without projections."""
  most = 16 if settings.pop("bounded", False) else elements.num_slots
  plan = attention.plan(elements.offsets, elements.offsets, most, most)
  x = values[:, None]
  return attention.attend(x, x, x, plan, **settings)[:, 0]


def attend_loop(x):
  logits = x @ x.T / np.sqrt(x.shape[1])
  return softmax(logits.T).T @ x


def top_two(x):
  """Return the two largest values, -inf where there are fewer."""
  rows = np.concatenate([np.sort(x, 0)[::-1], np.full((2, *x.shape[1:]), -np.inf)])
  return rows[:2]


def _pools():
  loops = {
    "sum": (lambda x: x.sum(0), True),
    "mean": (lambda x: x.mean(0), True),
    "prod": (lambda x: x.prod(0), False),
    "max": (lambda x: x.max(0), False),
    "min": (lambda x: x.min(0), False),
    "logsumexp": (lambda x: np.log(np.exp(x - x.max(0)).sum(0)) + x.max(0), True),
    "softmax": (lambda x: (softmax(x) * x).sum(0), True),
    "rms": (lambda x: np.sqrt((x**2).mean(0)), True),
    "var": (lambda x: x.var(0), True),
    "std": (lambda x: x.std(0), True),
    "median": (lambda x: np.quantile(x, 0.5, axis=0, method="lower"), False),
  }
  return {
    f'pool "{name}"': Op(functools.partial(of_pool, name), loop, sums=sums)
    for name, (loop, sums) in loops.items()
  }


OPS = {
  **_pools(),
  "segment_sum": Op(segment_sum, lambda x: x.sum(0), sums=True),
  "segment_prod": Op(segment_prod, lambda x: x.prod(0)),
  "segment_max": Op(segment_max, lambda x: x.max(0)),
  "segment_min": Op(segment_min, lambda x: x.min(0)),
  "segment_any": Op(segment_any, lambda x: (x != 0).any(0), smooth=False),
  "segment_all": Op(segment_all, lambda x: (x != 0).all(0), smooth=False),
  "segment_argmax": Op(segment_argmax, lambda x: x.argmax(0), smooth=False),
  "segment_argmin": Op(segment_argmin, lambda x: x.argmin(0), smooth=False),
  "segment_softmax": Op(segment_softmax, softmax, per="element", sums=True),
  "segment_quantile": Op(
    lambda x, e: segment_quantile(x, e, 0.3), lambda x: np.quantile(x, 0.3, axis=0)
  ),
  "segment_sort": Op(segment_sort, lambda x: np.sort(x, 0), per="element"),
  "segment_argsort": Op(
    segment_argsort, lambda x: x.argsort(0, kind="stable"), per="element", smooth=False
  ),
  "segment_top_k": Op(lambda x, e: segment_top_k(x, e, 2)[0], top_two),
  "segment_cumsum": Op(segment_cumsum, lambda x: x.cumsum(0), per="element", sums=True),
  "attend": Op(attend, attend_loop, per="element", flat=True, reverse_only=True),
}
INDICES = ("segment_argmax", "segment_argmin", "segment_argsort")


def elements_of(values, offsets=OFFSETS) -> Ragged:
  """Return a `Ragged` of these values on the device."""
  return Ragged(jnp.asarray(values), jnp.asarray(offsets, jnp.int32))


def values_of(seed: int = 0, shape: tuple[int, ...] = (FEATURES,)) -> np.ndarray:
  """Return random values, zeros on padding."""
  values = np.random.default_rng(seed).normal(size=(NUM_SLOTS, *shape))
  values[sum(LENGTHS) :] = 0
  return values.astype(np.float32)


@functools.partial(jax.jit, static_argnames="name")
def run(name: str, values, offsets=OFFSETS):
  """Return the op's result."""
  return OPS[name].call(values, elements_of(values, offsets))


@functools.partial(jax.jit, static_argnames="name")
def gradient(name: str, values, cotangent, offsets=OFFSETS):
  """Return the op's result, and the gradient of its product with `cotangent`."""
  call = lambda v: OPS[name].call(v, elements_of(v, offsets))  # noqa: E731
  result, pull = jax.vjp(call, values)
  return result, pull(cotangent)[0]


@functools.partial(jax.jit, static_argnames="name")
def tangent(name: str, values, direction):
  """Return the op's derivative along a direction, in forward mode."""
  settings = {"mode": "forward"} if OPS[name].reverse_only else {}
  call = lambda v: OPS[name].call(v, elements_of(v), **settings)  # noqa: E731
  return jax.jvp(call, (values,), (direction,))[1]


def rows(result, example: int) -> np.ndarray:
  """Return the part of a result that belongs to an example."""
  result = np.asarray(result)
  if len(result) == NUM_EXAMPLES:
    return result[example]
  return result[SLOT_EXAMPLES == example]


def wanted(name: str, values: np.ndarray, example: int) -> np.ndarray:
  """Return the loop's result for an example, with slots counted over the batch."""
  begin, end = OFFSETS[example : example + 2]
  own = OPS[name].loop(np.asarray(values[begin:end], np.float64))
  return own + begin if name in INDICES else own


# Measurements of an op, in the words of the table.


def empty(name: str) -> str:
  """Return the result for an example without elements."""
  if OPS[name].per == "element":
    return "-"
  found = np.unique(rows(run(name, values_of()), 1))
  if name in INDICES:
    return "n" if (found == NUM_SLOTS).all() else f"{found}"
  return ", ".join(f"{x:g}" if x.dtype != bool else str(x) for x in found)


def nan(name: str) -> str:
  """Describe the effect of a NaN; other examples must not change in a bit."""
  values = values_of()
  values[5, 1] = np.nan
  got, clean = run(name, values), run(name, values_of())
  for example in (0, 1, 2):
    np.testing.assert_array_equal(rows(got, example), rows(clean, example))
  own = rows(got, 3)
  if own.dtype == bool:
    return "counts as true"
  if name in ("segment_argmax", "segment_argmin"):
    return "the first NaN" if own[1] == 5 else "lost"
  if name == "segment_argsort":
    return "last" if own[-1, 1] == 5 else "lost"
  if name in ("segment_sort", "segment_top_k"):
    column = own[:, 1]
    place = np.flatnonzero(np.isnan(column)).tolist()
    return {(4,): "last", (0,): "first"}.get(tuple(place), "lost")
  if name == "segment_cumsum":
    later = np.isnan(own[:, 1]).tolist() == [False] + [True] * 4
    return "from there on" if later else "lost"
  return "NaN" if np.isnan(own[..., 1]).all() else "lost"


def ties(name: str) -> str:
  """Describe which of equal elements a selecting op selects, or gives its gradient."""
  if not any(word in name for word in ("max", "min", "median", "quant", "sort", "top")):
    return "-"
  if "soft" in name:
    return "-"
  if name in INDICES:
    return "the first"
  values = np.zeros((NUM_SLOTS, FEATURES), np.float32)
  values[4:9] = 1.0
  result = np.asarray(run(name, values))
  cotangent = np.zeros_like(result)
  first = 3 if len(result) == NUM_EXAMPLES else 4
  cotangent[(first, 0) if name == "segment_top_k" else first] = 1
  own = np.asarray(gradient(name, values, cotangent)[1])[4:9]
  if (own == own[0]).all():
    return "equal shares"
  return "the first" if own[0].all() and not own[1:].any() else "others"


def derivative(name: str, values=None) -> tuple[np.ndarray, np.ndarray]:
  """Return a directional derivative by reverse mode, and by differences of the loop."""
  values = values_of(3) if values is None else values
  rng = np.random.default_rng(4)
  direction = values_of(5).astype(np.float64)
  result = run(name, values)
  cotangent = rng.normal(size=result.shape).astype(np.float32)
  cotangent[~np.isfinite(np.asarray(result))] = 0
  _, got = gradient(name, values, cotangent)
  want = 0.0
  for example in (0, 2, 3):
    sides = []
    for sign in (1, -1):
      moved = wanted(name, values + sign * 1e-5 * direction, example)
      weight = rows(cotangent, example)
      sides.append((np.where(np.isfinite(moved), moved, 0) * weight).sum())
    want += (sides[0] - sides[1]) / 2e-5
  return np.vdot(got, direction), want


def modes(name: str) -> str:
  """List the modes of differentiation that agree with differences."""
  op = OPS[name]
  if not op.smooth:
    return "-"
  np.testing.assert_allclose(*derivative(name), 2e-3, 1e-3)
  values, direction = values_of(3), values_of(5)
  result = run(name, values)
  weight = np.random.default_rng(4).normal(size=result.shape).astype(np.float32)
  _, pulled = gradient(name, values, weight)
  along = np.asarray(tangent(name, values, direction))
  # Places without an element hold a constant, such as -inf of top k.
  np.testing.assert_allclose(
    np.vdot(weight, along), np.vdot(pulled, direction), 1e-4, 1e-4
  )
  return 'reverse; forward with mode="forward"' if op.reverse_only else "both"


def exports(name: str) -> str:
  """Check that the op exports with symbolic numbers of slots and examples."""
  op = OPS[name]
  n, b1 = export.symbolic_shape("n, b + 1")
  settings = {"bounded": True} if name == "attend" else {}

  def call(values, offsets):
    return op.call(values, Ragged(values, offsets), **settings)

  exported = export.export(jax.jit(call), platforms=("cpu", "cuda", "tpu"))(
    jax.ShapeDtypeStruct((n, FEATURES), jnp.float32),
    jax.ShapeDtypeStruct((b1,), jnp.int32),
  )
  for cut in (NUM_EXAMPLES, 3):
    values, offsets = values_of()[: 8 + cut], OFFSETS[: cut + 1]
    got = jax.jit(exported.call)(values, offsets)
    want = call(jnp.asarray(values), jnp.asarray(offsets))
    np.testing.assert_allclose(got, want, 1e-6, 1e-6)
  return "yes"


def dtypes(name: str) -> str:
  """Return the types of results for bfloat16, int32 and float64 values."""
  found = []
  whole = np.abs(np.round(values_of()))
  for dtype in (jnp.bfloat16, jnp.int32):
    if dtype == jnp.int32 and not _takes_integers(name):
      found.append("-")
      continue
    found.append(str(run(name, jnp.asarray(whole, dtype)).dtype))
  with jax.enable_x64(True):
    found.append(str(run(name, jnp.asarray(values_of(), jnp.float64)).dtype))
  return ", ".join(found)


def _takes_integers(name: str) -> bool:
  return name not in ("segment_softmax", "segment_quantile", "attend")


ACCURACY_DATA = {
  "0.1": lambda rng, n: np.full(n, 0.1),
  "N(1000, 1)": lambda rng, n: rng.normal(1000, 1, n),
  "uniform": lambda rng, n: rng.uniform(size=n),
  "log-normal": lambda rng, n: rng.lognormal(size=n),
}


def relative_error(name: str, data: str, n: int) -> float:
  """Return the error of one set of `n` values against float64, relative to its scale.

  The error of a variance of equal values is relative to their square.
  """
  values = ACCURACY_DATA[data](np.random.default_rng(0), n).astype(np.float32)
  exact = np.asarray(OPS[name].loop(values.astype(np.float64)))
  got = np.asarray(run(name, values, np.array([0, n], np.int32)), np.float64)
  got = got if OPS[name].per == "element" else got[0]
  scale = np.abs(exact).max()
  if data == "0.1" and name.endswith(('"var"', '"std"')):
    scale = 0.1
  return float(np.abs(got - exact).max() / scale)


def accuracy(name: str) -> str:
  """Return a bound on the largest error for sets of a million values."""
  if name == "attend":
    return "-"  # Its cost is quadratic; see the tests of attention.
  if not OPS[name].sums:
    return "-" if "prod" in name else "exact"
  worst = max(relative_error(name, data, 10**6) for data in ACCURACY_DATA)
  return next(f"< {bound:.0e}" for bound in (1e-6, 1e-5, 1e-3, 1) if worst < bound)


COLUMNS = {
  "empty set": empty,
  "NaN": nan,
  "ties": ties,
  "derivatives": modes,
  "symbolic export": exports,
  "type for bfloat16, int32, float64": dtypes,
  "error at 10^6": accuracy,
}


def row(name: str) -> str:
  """Return the op's row of the table."""
  return (
    " | ".join([f"| `{name}`", *(probe(name) for probe in COLUMNS.values())]) + " |"
  )


def table() -> str:
  """Return the table of all ops."""
  names = ["op", *COLUMNS]
  lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
  return "\n".join([*lines, *map(row, OPS)])


def main() -> None:
  """Write the table into docs/ops.md, between its two marks."""
  text = DOCS.read_text()
  before, _, rest = text.partition("<!-- table -->")
  _, _, after = rest.partition("<!-- end -->")
  text = f"{before}<!-- table -->\n{table()}\n<!-- end -->{after}"
  temporary = DOCS.with_suffix(".md.tmp")
  temporary.write_text(text)
  temporary.rename(DOCS)


if __name__ == "__main__":
  main()
