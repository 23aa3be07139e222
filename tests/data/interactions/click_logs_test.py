import datetime
import json
import pathlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from deepsets_jax.data.datasets import registry
from deepsets_jax.data.interactions import click_logs
from deepsets_jax.data.interactions.histories import of_events
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.tasks import defaults

USERS = {"user": ["b", "a", "c"], "age": [30, None, 50]}
ITEMS = {"item": [30, 10, 20], "title": ["A b", None, "Two  of\nthem"]}
# Out of order, with a duplicate; "c" and 30 have no events.
EVENTS = {
  "user": ["a", "b", "a", "b", "a", "a"],
  "item": [10, 10, 10, 20, 20, 10],
  "time": [300, 60, 200, 50, 100, 200],
  "rating": [1.0, 5.0, 4.0, 2.0, 3.0, 4.0],
}
COLUMNS = dict(user="user", item="item", time="time", rating="rating")


def write_json_lines(table, path):
  lines = (json.dumps(row, default=str) for row in table.to_pylist())
  path.write_text("".join(f"{line}\n" for line in lines))


def write_arrow(table, path):
  with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
    out.write_table(table)


WRITERS = {
  "parquet": lambda table, path: pq.write_table(table, path),
  "arrow": write_arrow,
  "jsonl": write_json_lines,
  "csv": lambda table, path: pcsv.write_csv(table, path),
}


def write(folder, end="parquet", **files):
  for stem, columns in files.items():
    WRITERS[end](pa.table(columns), folder / f"{stem}.{end}")


def load(folder, report=lambda line: None, **columns):
  return click_logs.load_click_logs(str(folder), **(COLUMNS | columns), report=report)


def events_of(histories):
  """{id of a user with events: the item, time and rating of each event}."""
  found = {}
  for row, user in enumerate(histories.users.ids.tolist()):
    span = slice(*histories.offsets[row : row + 2])
    items = histories.items.ids[histories.rows[span]].tolist()
    ratings = [None] * len(items)
    if histories.ratings is not None:
      ratings = histories.ratings[span].tolist()
    if items:
      times = histories.times[span].tolist()
      found[user] = list(zip(items, times, ratings, strict=True))
  return found


WANTED = {
  "a": [("20", 100, 3.0), ("10", 200, 4.0), ("10", 300, 1.0)],
  "b": [("20", 50, 2.0), ("10", 60, 5.0)],
}


@pytest.mark.parametrize("end", WRITERS)
def test_a_folder_of_any_format_becomes_histories(tmp_path, end):
  write(tmp_path, end, events=EVENTS, items=ITEMS, users=USERS)
  data = load(tmp_path)
  assert data.histories.users.ids.tolist() == ["b", "a", "c"]
  assert data.histories.items.ids.tolist() == ["30", "10", "20"]
  assert data.titles.tolist() == ["A b", "10", "Two of them"]
  assert events_of(data.histories) == WANTED
  assert list(data.histories.users.modalities) == ["age"]
  assert data.histories.users.lengths("age").tolist() == [1, 0, 1]


def test_files_may_be_of_different_formats(tmp_path):
  write(tmp_path, "csv", events=EVENTS)
  write(tmp_path, "jsonl", items=ITEMS)
  write(tmp_path, "parquet", users=USERS)
  assert events_of(load(tmp_path).histories) == WANTED


def test_a_folder_may_stand_for_a_file(tmp_path):
  (tmp_path / "events").mkdir()
  for part in range(2):
    some = {name: column[3 * part :][:3] for name, column in EVENTS.items()}
    write(tmp_path / "events", **{f"part{part}": some})
  assert events_of(load(tmp_path).histories) == WANTED


def test_equals_histories_of_the_same_rows(tmp_path):
  rng = np.random.default_rng(0)
  log = {
    "user": rng.integers(5, 25, 400),
    "item": rng.integers(0, 30, 400),
    "time": rng.integers(0, 60, 400),
    "rating": rng.integers(1, 6, 400).astype(np.float32),
  }
  write(tmp_path, events=log)
  got = load(tmp_path).histories
  rows = [
    np.array([{name: r for r, name in enumerate(ids.tolist())}[str(x)] for x in column])
    for ids, column in ((got.users.ids, log["user"]), (got.items.ids, log["item"]))
  ]
  want, repaired = of_events(
    got.users, got.items, *rows, log["time"], log["rating"], where="log"
  )
  assert repaired["duplicates"] and repaired["out_of_order"]
  for name in ("offsets", "rows", "times", "ratings"):
    np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
  assert set(got.users.ids) == {str(user) for user in log["user"]}


def test_without_files_users_and_items_come_from_the_events(tmp_path):
  write(tmp_path, events=EVENTS)
  data = load(tmp_path)
  assert data.histories.users.ids.tolist() == ["a", "b"]
  assert data.histories.items.ids.tolist() == ["10", "20"]
  assert data.titles.tolist() == ["10", "20"]
  assert data.histories.items.modalities == {}
  assert data.vocabularies == {"users": {}, "items": {}}
  assert events_of(data.histories) == WANTED


def test_repaired_events_are_counted_in_one_line(tmp_path):
  write(tmp_path, events=EVENTS)
  lines = []
  load(tmp_path, lines.append)
  (line,) = lines
  assert "events.parquet: 3 events out of order, which were sorted; 1 duplicate" in line


def test_a_log_in_order_is_not_reported(tmp_path):
  write(tmp_path, events={k: v[:2] for k, v in EVENTS.items()})
  lines = []
  load(tmp_path, lines.append)
  assert lines == []


def test_columns_are_called_as_the_config_says(tmp_path):
  columns = {"user": "uid", "item": "article id", "time": "ts", "rating": "stars"}
  write(tmp_path, events={columns[k]: v for k, v in EVENTS.items()})
  assert events_of(load(tmp_path, **columns).histories) == WANTED


@pytest.mark.parametrize("columns", [{"rating": None}, {"rating": "stars"}])
def test_without_a_column_of_ratings_events_are_clicks(tmp_path, columns):
  write(tmp_path, events=EVENTS)
  assert load(tmp_path, **columns).histories.ratings is None


@pytest.mark.parametrize(
  ("ids", "of_events"),
  [
    (["1", "2"], np.array([1.0, 2.0])),
    (pa.array([1, 2], pa.int8()), ["1", "2"]),
    (pa.array([1, 2], pa.uint64()), pa.array([1, 2], pa.int32())),
    (["é", "x y"], pa.array(["é", "x y"]).dictionary_encode()),
  ],
)
def test_ids_of_different_types_are_the_same_by_their_strings(tmp_path, ids, of_events):
  write(tmp_path, events={"user": [0, 0], "item": of_events, "time": [1, 2]})
  write(tmp_path, items={"item": ids})
  assert load(tmp_path).histories.rows.tolist() == [0, 1]


NOON = datetime.datetime(2001, 2, 3, 12, 0, 1, 999_999)
SECONDS = int(NOON.replace(tzinfo=datetime.UTC).timestamp())


@pytest.mark.parametrize(
  ("column", "want"),
  [
    ([SECONDS, 0], [SECONDS, 0]),
    ([SECONDS + 0.75, -0.5], [SECONDS, -1]),
    (pa.array([NOON, NOON], pa.timestamp("us")), [SECONDS, SECONDS]),
    (pa.array([NOON, NOON], pa.timestamp("ns", "UTC")), [SECONDS, SECONDS]),
    (pa.array([SECONDS, -1], pa.timestamp("s")), [SECONDS, -1]),
    (pa.array([SECONDS * 1000 + 1, -1], pa.timestamp("ms")), [SECONDS, -1]),
    (pa.array([1, -1], pa.int32()).cast(pa.date32()), [86_400, -86_400]),
    (
      pa.array([1, -1], pa.int32()).cast(pa.date32()).cast(pa.date64()),
      [86_400, -86_400],
    ),
  ],
)
def test_times_are_whole_seconds(tmp_path, column, want):
  write(tmp_path, events={"user": ["a", "b"], "item": [0, 0], "time": column})
  assert load(tmp_path).histories.times.tolist() == want


@pytest.mark.parametrize("end", ["csv", "jsonl"])
@pytest.mark.parametrize("text", ["2001-02-03T12:00:01", "2001-02-03T12:00:01Z"])
def test_times_in_text_are_read_as_timestamps(tmp_path, end, text):
  write(tmp_path, end, events={"user": ["a"], "item": [0], "time": [text]})
  assert load(tmp_path).histories.times.tolist() == [SECONDS]


def changed(key, row, value):
  """The events with another value in a row."""
  column = list(EVENTS[key])
  column[row] = value
  return EVENTS | {key: column}


MILLISECONDS = changed("time", 2, 1_700_000_000_000)


@pytest.mark.parametrize(
  ("events", "message"),
  [
    (changed("user", 2, None), r"row 2, column 'user': the value is missing; fill"),
    (changed("user", 2, ""), r"row 2, column 'user': the value is missing; fill"),
    (
      changed("item", 3, 1.5),
      r"row 3, column 'item': 1.5 is not a token: it is not a whol",
    ),
    (changed("time", 1, None), r"row 1, column 'time': the value is missing; fill"),
    (changed("time", 1, float("nan")), r"row 1, column 'time': the value is missing"),
    (changed("time", 1, float("inf")), r"row 1, column 'time': inf is the year inf"),
    (MILLISECONDS, r"row 2.*1700000000000 is the year 55841 .*divide by 1000"),
    (
      EVENTS | {"time": ["now"] * 6},
      r"row 0, column 'time': 'now' is of type str",
    ),
    (EVENTS | {"time": [True] * 6}, r"row 0, column 'time': True is of type bool"),
    (
      EVENTS | {"time": ["1", "2", "3", "4th", "5", "x"]},
      r"row 3, column 'time': '4th' is .*not a time; write seconds since 1970",
    ),
    (
      changed("rating", 4, float("nan")),
      r"row 4, column 'rating': the rating is nan; g",
    ),
    (changed("rating", 4, None), r"row 4, column 'rating': the rating is None"),
    (changed("rating", 4, 1e300), r"row 4, column 'rating': the rating is 1e\+300"),
    (
      EVENTS | {"rating": ["good"] * 6},
      r"column 'rating' is string, but ratings are n",
    ),
    (EVENTS | {"item": [[1]] * 6}, r"'item' is list<.*set config.data.clicks.item"),
    ({k: [] for k in EVENTS}, r"events.parquet has columns .* no rows; give some"),
    (
      {k: v for k, v in EVENTS.items() if k != "time"},
      r"no column 'time'; there are \['user', 'item', 'rating'\]: rename one, or set"
      r" config.data.clicks.time",
    ),
  ],
)
def test_bad_events_are_refused(tmp_path, events, message):
  write(tmp_path, events=events)
  with pytest.raises(DataError, match=message) as error:
    load(tmp_path)
  assert str(tmp_path / "events.parquet") in str(error.value)


def test_columns_must_be_distinct(tmp_path):
  write(tmp_path, events=EVENTS)
  with pytest.raises(
    DataError, match=r"clicks: the columns \['item', 'item', .* not di"
  ):
    load(tmp_path, user="item")


def test_ids_missing_from_a_table_are_counted(tmp_path):
  items = [10, 91, 92, 91, 93, 94]
  write(tmp_path, events=EVENTS | {"item": items}, items=ITEMS)
  with pytest.raises(DataError) as error:
    load(tmp_path)
  message = str(error.value)
  assert "row 1, column 'item': '91' is not an id of" in message
  assert "lacks 4 ids ('91', '92', '93', ...) of 5 events" in message
  write(tmp_path, events=EVENTS, users={"user": ["b"], "age": [1]}, items=ITEMS)
  with pytest.raises(DataError, match=r"row 0.*lacks 1 ids \('a'\) of 4 eve"):
    load(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
  (tmp_path / "events.csv").write_text("")
  with pytest.raises(DataError, match="events.csv is empty"):
    load(tmp_path)


def test_a_folder_without_events_is_refused(tmp_path):
  write(tmp_path, items=ITEMS)
  with pytest.raises(DataError, match=r"has no events.\*.*it has \['items.parquet'\]"):
    load(tmp_path)
  with pytest.raises(DataError, match=r"items.parquet is not a folder"):
    load(tmp_path / "items.parquet")
  with pytest.raises(ConfigError, match=r"config.data.path is not set"):
    click_logs.load_click_logs(None, **COLUMNS, report=print)


@pytest.mark.parametrize("stem", ["events", "items", "users"])
def test_two_files_of_one_stem_are_refused(tmp_path, stem):
  write(tmp_path, events=EVENTS, items=ITEMS, users=USERS)
  (tmp_path / f"{stem}.csv.gz").write_text("")
  match = rf"has {stem}.csv.gz and {stem}.parquet; keep one file of {stem}"
  with pytest.raises(DataError, match=match):
    load(tmp_path)


def test_histories_are_loaded_by_name(tmp_path):
  write(tmp_path, events={k.upper(): v for k, v in EVENTS.items()})
  config = defaults.retrieval("clicks")
  config.data.path = str(tmp_path)
  config.data.clicks.update({k: k.upper() for k in EVENTS})
  assert events_of(registry.load_histories(config.data).histories) == WANTED


def write_shop(folder, circles=4, around=10, users=120):
  """Users walk along circles of items, one item per hour; the words name the circle."""
  rng = np.random.default_rng(0)
  events = {"user": [], "item": [], "time": []}
  for user in range(users):
    first = rng.integers(around)
    for step in range(4 + user % 5):
      place = (first + step) % around
      events["user"].append(f"u{user}")
      events["item"].append(f"i{user % circles * around + place}")
      events["time"].append(3600 * step)
  places = np.arange(circles * around)
  words = [[f"circle{p // around}", f"place{p % around}"] for p in places]
  items = {"item": [f"i{p}" for p in places], "words": words}
  write(folder, "jsonl", items=items)
  write(folder, "csv", events=events)


@pytest.mark.slow
def test_the_config_trains_on_a_folder(tmp_path):
  write_shop(tmp_path)
  command = [sys.executable, "-m", "experiments.main", "--config=configs/clicks.py"]
  settings = dict(
    total_steps=200, **{"data.path": tmp_path, "retrieval.num_uniform_negatives": 40}
  )
  command += [f"--config.{name}={value}" for name, value in settings.items()]
  command.append(f"--workdir={tmp_path / 'run'}")
  root = pathlib.Path(__file__).parents[3]
  done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  results = json.loads((tmp_path / "run" / "results.json").read_text())
  # Random ranking gives .11, a random item of the circle .45.
  assert results["test"]["ndcg_10"] > 0.8
  assert "column 'words' is a field, tokens" in done.stderr
