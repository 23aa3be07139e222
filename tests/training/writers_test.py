"""Metric files that survive interruption, and the progress that is shown."""

import io
import json
import math

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from deepsets_jax.foundation.files import write_json
from deepsets_jax.training import writers
from deepsets_jax.training.writers import MetricsWriter, Progress, read_metrics


class Terminal(io.StringIO):
  def isatty(self):
    return True


class Clock:
  """A clock that the test advances."""

  def __init__(self):
    self.now = 100.0

  def perf_counter(self):
    return self.now


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(writers, "time", clock)
  return clock


def lines(workdir):
  return (workdir / "metrics.jsonl").read_text().splitlines()


def scalars(workdir):
  """Step, tag and value of all TensorBoard events of a run."""
  found = []
  for path in sorted((workdir / "tensorboard").iterdir()):
    data = path.read_bytes()
    while data:
      # A record: its length, a checksum, itself, a checksum.
      size = int.from_bytes(data[:8], "little")
      event = event_pb2.Event.FromString(data[12 : 12 + size])
      data = data[16 + size :]
      found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
  return found


class TestWriteJson:
  def test_takes_numpy_numbers_and_values_that_json_lacks(self, tmp_path):
    value = {
      "a": np.float32(0.5),
      "b": [np.int64(3), math.nan, np.float64(math.inf)],
      "c": (True, None, "x"),
      "d": {"e": np.arange(2)},
    }
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    want = {"a": 0.5, "b": [3, None, None], "c": [True, None, "x"], "d": {"e": [0, 1]}}
    assert json.loads(text, parse_constant=pytest.fail) == want
    assert text.startswith('{\n  "a": 0.5,\n') and text.endswith("}\n")

  def test_keeps_the_old_file_when_the_value_cannot_be_written(self, tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
      write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


class TestMetricsWriter:
  def test_writes_a_line_at_once(self, tmp_path):
    with MetricsWriter(tmp_path) as writer:
      writer.write(3, "train", {"loss": np.float32(0.5), "fill_text": 0.25})
      assert lines(tmp_path) == [
        '{"step": 3, "split": "train", "loss": 0.5, "fill_text": 0.25}'
      ]

  def test_writes_valid_json_of_a_number_that_is_not_finite(self, tmp_path):
    with MetricsWriter(tmp_path) as writer:
      writer.write(3, "validation", {"roc_auc_macro": math.nan, "loss": math.inf})
    (record,) = read_metrics(tmp_path)
    assert record["roc_auc_macro"] is None and record["loss"] is None
    json.loads(lines(tmp_path)[0], parse_constant=pytest.fail)
    assert scalars(tmp_path) == []

  def test_writes_scalars_for_tensorboard(self, tmp_path):
    with MetricsWriter(tmp_path) as writer:
      writer.write(3, "train", {"loss": 0.5})
      writer.write(4, "validation", {"f1_micro": 0.25})
    assert scalars(tmp_path) == [
      (3, "train/loss", 0.5),
      (4, "validation/f1_micro", 0.25),
    ]

  def test_resuming_drops_the_lines_that_will_be_written_again(self, tmp_path):
    with MetricsWriter(tmp_path) as writer:
      for step in (10, 20, 30):
        writer.write(step, "train", {"loss": step / 10})
    with MetricsWriter(tmp_path, resume_step=20) as writer:
      assert [r["step"] for r in read_metrics(tmp_path)] == [10, 20]
      writer.write(30, "train", {"loss": 7.0})
    assert [r["loss"] for r in read_metrics(tmp_path)] == [1.0, 2.0, 7.0]
    assert not list(tmp_path.glob(".*"))

  def test_starting_again_at_the_beginning_drops_all(self, tmp_path):
    with MetricsWriter(tmp_path) as writer:
      writer.write(10, "train", {"loss": 1.0})
    with MetricsWriter(tmp_path):
      assert read_metrics(tmp_path) == []

  def test_a_half_written_last_line_is_dropped(self, tmp_path):
    with MetricsWriter(tmp_path) as writer:
      writer.write(10, "train", {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
      file.write('{"step": 20, "split": "tr')
    assert [r["step"] for r in read_metrics(tmp_path)] == [10]
    with MetricsWriter(tmp_path, resume_step=30) as writer:
      writer.write(40, "train", {"loss": 1.0})
    assert [r["step"] for r in read_metrics(tmp_path)] == [10, 40]


def test_a_bad_line_before_the_last_is_an_error_and_keeps_the_file(tmp_path):
  text = '{"step": 1, "split": "train"}\nrubbish\n{"step": 2, "split": "train"}\n'
  (tmp_path / "metrics.jsonl").write_text(text)
  with pytest.raises(ValueError, match=r"line 2 is not a JSON record"):
    MetricsWriter(tmp_path, resume_step=2)
  assert (tmp_path / "metrics.jsonl").read_text() == text


def test_a_last_line_that_is_not_text_is_dropped(tmp_path):
  data = b'{"step": 1, "split": "train"}\n\x00\xff'
  (tmp_path / "metrics.jsonl").write_bytes(data)
  assert [r["step"] for r in read_metrics(tmp_path)] == [1]


def test_a_folder_without_metrics_has_none(tmp_path):
  assert read_metrics(tmp_path) == []


class TestProgressInAFile:
  def test_prints_a_line_every_ten_seconds(self, clock):
    stream = io.StringIO()
    with Progress(100, stream=stream) as progress:
      for step in range(1, 26):
        clock.now += 1
        progress.update(step, 0.5, 32)
    said = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in said] == ["step 12/100", "step 23/100"]

  def test_a_line_holds_loss_metric_rate_and_time_left(self, clock):
    stream = io.StringIO()
    with Progress(100, start_step=50, stream=stream) as progress:
      clock.now += 5  # The first step compiles, and does not count.
      progress.update(51, 0.5, 1000)
      clock.now += 4.5
      progress.update(60, 0.25, 900)
      progress.evaluation(60, {"loss": 0.5, "f1_micro": 0.125})
    assert stream.getvalue() == (
      "step 60/100, loss 0.2500, validation loss 0.5000, validation f1_micro 0.1250,"
      " 200 examples/s, 00:20 left\n"
    )

  def test_a_note_is_a_line_of_its_own(self):
    stream = io.StringIO()
    with Progress(100, stream=stream) as progress:
      progress.note("resuming at step 50")
    assert stream.getvalue() == "resuming at step 50\n"

  def test_goes_to_standard_error(self, capsys):
    with Progress(100) as progress:
      progress.note("hello")
    assert capsys.readouterr() == ("", "hello\n")


class TestProgressOnATerminal:
  def test_is_a_bar_that_starts_at_the_first_step(self):
    stream = Terminal()
    with Progress(100, start_step=50, stream=stream) as progress:
      for step in range(51, 61):
        progress.update(step, 0.25, 32)
      progress.evaluation(60, {"f1_micro": 0.125})
    first, last = stream.getvalue().split("\r")[1], stream.getvalue().split("\r")[-1]
    assert "50/100" in first and "60/100" in last
    for part in ("loss 0.2500", "validation f1_micro 0.1250", "examples/s", "<"):
      assert part in last

  def test_a_note_stands_above_the_bar(self):
    stream = Terminal()
    with Progress(100, stream=stream) as progress:
      progress.note("hello")
    # The bar is wiped, the note takes its line, the bar is drawn again below.
    before, after = stream.getvalue().split("hello\n")
    assert before.endswith("\r") and "0/100" in before and "0/100" in after
