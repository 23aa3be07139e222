"""A MovieLens of a few films, and a short retrieval run on it.

The films stand in circles; a user walks along one of them, a film a minute.
"""

import zipfile

import numpy as np

from deepsets_jax.tasks import defaults, fit

CIRCLES, AROUND, USERS = 3, 8, 60
# Titles and years of the first films, as in the files; the others have numbers.
NAMED = {
  1: ("Toy Story", 1995),
  2: ("Sabrina", 1954),
  3: ("Sabrina", 1995),
  4: ("Chasing Amy", 1997),
  5: ("Chasing Amy", 1997),
  6: ("Usual Suspects, The", 1995),
  7: ("Toy Soldiers", 1991),
}
# A film outside the circles: no events, no year, no genre, no common word.
UNKNOWN = CIRCLES * AROUND + 1


def write(path):
  """Writes RecBole's wheel with these films, and users that walk along circles."""
  films = []
  for film in range(1, UNKNOWN):
    title, year = NAMED.get(film, (f"Film {film}", 1950 + film))
    films.append(f"{film}\t{title}\t{year}\tComedy")
  films.append(f"{UNKNOWN}\tZyxomma\tunkonwn\tunknown")
  users = [f"{u}\t{20 + u}\t{'MF'[u % 2]}\twriter\t0" for u in range(1, USERS + 1)]
  texts = {
    "user": [
      "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token",
      *users,
    ],
    "item": [
      "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
      *films,
    ],
    "inter": [
      "user_id:token\titem_id:token\trating:float\ttimestamp:float",
      *_events(),
    ],
    "link": ["item_id:token\tentity_id:token"],
    "kg": ["head_id:token\trelation_id:token\ttail_id:token"],
  }
  with zipfile.ZipFile(path, "w") as archive:
    for name, lines in texts.items():
      member = f"recbole/dataset_example/ml-100k/ml-100k.{name}"
      archive.writestr(member, "\n".join(lines) + "\n")


def _events():
  rng = np.random.default_rng(0)
  for user in range(1, USERS + 1):
    first, start = rng.integers(AROUND), 880_000_000 + 86_400 * user
    for position in range(3 + user % 4):
      film = 1 + user % CIRCLES * AROUND + (first + position) % AROUND
      yield f"{user}\t{film}\t{1 + position % 5}\t{start + 60 * position}"


def config(path):
  """A model of a few numbers, and few steps."""
  config = defaults.retrieval()
  config.total_steps = 60
  config.data.update(path=str(path), batch_size=64, shards=8)
  config.data.histories.update(
    max_history=4, id_events=1, user_fields=("gender",), item_fields=("genres", "title")
  )
  for tower in (config.model, config.item_model):
    tower.update(features=8)
    tower.set_pool.pools = ("sum",)
    tower.head.hidden = ()
  config.model.update(fading=("history",))
  config.model.positions.history = "sinusoidal"  # So that ages are read.
  config.retrieval.update(dimensions=8, num_uniform_negatives=8, in_batch=False)
  config.optim.update(learning_rate=0.03, warmup_steps=5)
  config.train.update(eval_every=30)
  return config


def run(tmp_path_factory):
  """The folder of a run, trained once for all tests, beside its data."""
  folder = tmp_path_factory.getbasetemp() / "small_movielens"
  if not folder.exists():
    folder.mkdir()
    write(folder / "small.whl")
    fit.train_and_evaluate(config(folder / "small.whl"), folder / "run")
  return folder / "run"
