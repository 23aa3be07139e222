"""Explanations of a small run have the methods' own numbers, and fail early."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import deepsets_jax
from configs import smoke
from deepsets_jax.analysis import attribution, explanation, page
from deepsets_jax.analysis.attribution import faithfulness, outputs, result
from deepsets_jax.data.datasets import digits
from deepsets_jax.data.tables.ablation import Bags
from deepsets_jax.tasks import fit, trained
from deepsets_jax.tasks.supervised import run as runs
from deepsets_jax.tasks.trained import Trained
from tests.analysis.page_test import Reader

ROOT = pathlib.Path(__file__).parents[2]
IDS = ("test 900", "test 3")
SAMPLED = 20


def small_config(task="multimodal", fusion="set_pool"):
  config = smoke.get_config(fusion)
  config.total_steps = 80
  config.data.digits.update(task=task, train_examples=100, test_sizes=())
  if task != "multimodal":
    config.data.budgets = {"image": None}
    config.train.metric = "loss"
  config.data.update(batch_size=16)
  config.model.features = 8
  config.model.dense.hidden = (8,)
  config.model.head.hidden = (8,)
  config.optim.update(warmup_steps=2, learning_rate=1e-2)
  config.train.update(eval_every=40, log_every=40)
  return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "tiny"
  fit.train_and_evaluate(small_config(), folder)
  return folder


@pytest.fixture(scope="module")
def model(workdir):
  return trained.load_trained(workdir)


@pytest.fixture(scope="module")
def explained(model):
  return explanation.explain(model, ids=IDS, examples=SAMPLED, seed=1)


@pytest.fixture(scope="module")
def sample(model):
  """The table of the sampled examples, and what is explained of them."""
  table = model.run.tables["test"]
  table = table.select(np.random.default_rng(1).permutation(len(table))[:SAMPLED])
  target = table.schema.target
  return table, outputs.predicted(target, model.logits(table), model.threshold)


class TestTheDataSet:
  def test_has_every_method_of_the_model(self, explained, model):
    methods = attribution.possible(model)
    assert "argmax" in methods and "attention" not in methods
    assert list(explained.attributions) == methods
    assert list(explained.summary["methods"]) == methods

  @pytest.mark.parametrize("method", ["argmax", "shapley", "integrated_gradients"])
  def test_shares_are_those_of_the_sample_alone(self, explained, model, sample, method):
    alone = attribution.compute(method, model, *sample).shares()
    told = explained.summary["methods"][method]["shares"]
    assert told == pytest.approx(alone, rel=1e-4)
    assert sum(told.values()) == pytest.approx(1)

  def test_curves_are_those_of_the_scores(self, explained, model, sample):
    table, output = sample
    alone = attribution.compute("leave_one_out", model, table, output)
    scores = faithfulness.scores_of(alone, Bags(table))
    told = explained.summary["methods"]["leave_one_out"]
    for name in ("deletion", "insertion"):
      want = getattr(faithfulness, name)(model, table, scores, seed=1)
      assert told[name]["values"] == want.values.tolist()
      assert told[name]["area"] == want.area
      assert told[name]["area_band"] == list(want.area_band)

  def test_chance_is_the_mean_of_five_orders(self, explained, model, sample):
    table, _ = sample
    random = explained.summary["random"]
    assert random["orders"] == 5
    nothing = np.zeros(len(Bags(table).modality))
    curves = [faithfulness.deletion(model, table, nothing, seed=i) for i in range(2, 7)]
    assert len({curve.area for curve in curves}) > 1
    want = np.mean([curve.values for curve in curves], axis=0)
    np.testing.assert_allclose(random["deletion"]["values"], want)
    want = np.mean([curve.area for curve in curves])
    assert random["deletion"]["area"] == pytest.approx(want)

  def test_agreement_is_of_every_two_methods(self, explained):
    found = np.array(explained.summary["agreement"], float)
    assert found.shape == (len(explained.attributions),) * 2
    np.testing.assert_allclose(np.diag(found), 1)

  def test_states_what_it_is_of(self, explained):
    summary = explained.summary
    assert (summary["examples"], summary["examples_of_split"]) == (SAMPLED, 1000)
    assert summary["split"] == "test" and summary["metric"] == "accuracy"
    assert summary["config"]["fusion"]["name"] == "set_pool"
    assert summary["config"]["data"]["task"] == "multimodal"

  def test_does_not_depend_on_the_examples_shown(self, explained, model):
    other = explanation.explain(model, methods=["argmax"], examples=SAMPLED, seed=1)
    told = other.summary["methods"]["argmax"]["shares"]
    want = explained.summary["methods"]["argmax"]["shares"]
    assert told == pytest.approx(want, rel=1e-5)


class TestExamples:
  def test_are_those_that_were_named(self, explained):
    assert [each["id"] for each in explained.summary["chosen"]] == list(IDS)

  def test_are_else_some_of_the_sample(self, model):
    found = explanation.explain(model, methods=["argmax"], examples=9)
    ids = [each["id"] for each in found.summary["chosen"]]
    assert len(set(ids)) == 6
    assert len(found.attributions["argmax"].table) == 9

  def test_elements_are_ranked_and_have_their_names(self, explained):
    for each in explained.summary["chosen"]:
      assert set(each["elements"]) == set(explained.attributions) - {"shapley"}
      for method, groups in each["elements"].items():
        one = explained.attributions[method]
        (row,) = result.rows_of(one.table, [each["id"]])
        ranked = one.ranked(row)
        assert [e["score"] for e in groups["top"]] == [e.score for e in ranked[:12]]
        for told, element in zip(groups["top"], ranked, strict=False):
          want = f"{element.modality}[{element.position}]"
          if element.modality == "caption":
            want = digits.NUMBER_WORDS[element.value]
          elif element.modality == "ocr":
            want = str(element.value)
          assert told["text"] == want and told["modality"] == element.modality

  def test_modalities_have_the_scores_of_the_method(self, explained):
    for each in explained.summary["chosen"]:
      for method, scores in each["modalities"].items():
        one = explained.attributions[method]
        (row,) = result.rows_of(one.table, [each["id"]])
        assert scores == {name: v[row] for name, v in one.modalities.items()}

  def test_say_what_was_predicted_and_what_is_true(self, explained, model):
    table = model.run.tables["test"]
    rows = result.rows_of(table, IDS)
    logits = model.logits(table.select(rows))
    for each, row, scores in zip(
      explained.summary["chosen"], rows, logits, strict=True
    ):
      best = digits.NUMBER_WORDS[scores.argmax()]
      assert each["predicted"][0]["name"] == each["explained"] == best
      assert each["true"] == [digits.NUMBER_WORDS[table.targets[row]]]
      log = scores - scores.max()
      assert each["value"] == pytest.approx(-np.log(np.exp(log).sum()), rel=1e-4)

  def test_the_pictures_are_theirs(self, explained):
    for each in explained.summary["chosen"]:
      assert len(each["pictures"]["image"]) == each["num_elements"]["image"]

  def test_only_what_speaks_against_is_at_the_bottom(self):
    ranked = [{"score": score} for score in [5] * 12 + [1, 0, -1, -2]]
    ends = explanation._ends(ranked)
    assert [e["score"] for e in ends["bottom"]] == [-1, -2]
    assert explanation._ends(ranked[:12])["bottom"] == []


class TestOutputs:
  def test_a_label_can_be_explained_instead(self, model):
    found = explanation.explain(
      model, methods=["leave_one_out"], ids=IDS, examples=5, label="nine"
    )
    assert {each["explained"] for each in found.summary["chosen"]} == {"nine"}
    one = found.attributions["leave_one_out"]
    output = outputs.of_label(one.table.schema.target, "nine", len(one.table))
    want = attribution.compute("leave_one_out", model, one.table, output)
    for name, scores in want.modalities.items():
      np.testing.assert_allclose(one.modalities[name], scores, atol=1e-5)

  @pytest.mark.parametrize("task", ["contains_nine", "sum"])
  def test_other_targets_can_be_explained(self, task):
    run = runs.build_run(small_config(task))
    random = Trained(run, run.init(0).eval_params, 0.5)
    found = explanation.explain(random, methods=["leave_one_out"], examples=8)
    chosen = found.summary["chosen"]
    if task == "sum":
      assert found.summary["metric"] == "mae"
      assert chosen[0]["value"] == pytest.approx(chosen[0]["predicted"][0]["value"])
    for each in chosen:
      if task == "contains_nine":
        negative = each["predicted"][0]["value"] <= 0.5
        assert each["explained"] == "not " * negative + "contains a nine"
        assert each["true"] in (["yes"], ["no"])
      assert each["id"] in Reader(found._repr_html_()).text


class TestAModelThatIgnoresScale:
  def test_has_a_page_that_says_which_scores_are_numerically_zero(self):
    config = small_config()
    config.model.set_pool.update(pools=("sum", "max"), normalize=True)
    run = runs.build_run(config)
    random = Trained(run, run.init(0).eval_params, 0.5)
    chosen = ["shapley", "leave_one_out", "gradient_x_input", "integrated_gradients"]
    found = explanation.explain(random, methods=chosen, examples=8)
    methods = found.summary["methods"]
    assert list(methods) == chosen
    text = Reader(found._repr_html_()).text
    for name, facts in methods.items():
      zero = "gradient" in name
      assert sum(facts["shares"].values()) == pytest.approx(float(not zero))
      notes = [note for note in facts["notes"] if "numerically zero" in note]
      assert len(notes) == zero
      assert all(note in text for note in facts["notes"])
    assert any("add up to" in x for x in methods["integrated_gradients"]["notes"])


class TestErrors:
  @pytest.mark.parametrize(
    ("wrong", "words"),
    [
      ({"methods": ["lime"]}, "unknown method 'lime'; choose from .*shapley"),
      (
        {"methods": ["attention"]},
        "this run's fusion is 'set_pool'.*Methods of this model",
      ),
      ({"methods": []}, "methods is empty; choose from .*argmax"),
      ({"split": "dev"}, "no split 'dev'; the data has .*'test'"),
      ({"ids": ["test 3", "test 9999"]}, "no example 'test 9999' among 1000"),
      ({"ids": ["train 3"]}, "'train 3' is in the split 'train', not in 'test'"),
      ({"label": "ten"}, "no label 'ten'; choose from .*'nine'"),
      ({"label": "10"}, "no label 10; choose from"),
      ({"examples": 0}, "examples is 0; give at least 1"),
      ({"permutations": 5}, "permutations is 5.*even number of at least 4"),
    ],
  )
  def test_come_before_the_work_and_name_what_is_possible(
    self, model, monkeypatch, wrong, words
  ):
    monkeypatch.setattr(attribution, "compute", None)  # Would fail otherwise.
    monkeypatch.setattr(Trained, "logits", None)
    with pytest.raises(ValueError, match=words):
      explanation.explain(model, **wrong)

  def test_a_folder_must_hold_a_run_with_a_checkpoint(self, workdir, tmp_path):
    with pytest.raises(ValueError, match="is no folder of a run"):
      explanation.explain(tmp_path)
    (tmp_path / "config.json").write_bytes((workdir / "config.json").read_bytes())
    with pytest.raises(ValueError, match="no checkpoint"):
      explanation.explain(tmp_path)


class TestFiles:
  def test_hold_what_was_found(self, explained, tmp_path):
    explained.write(tmp_path)
    found = json.loads((tmp_path / "explain.json").read_text())
    assert found == explained.summary
    want = {"index.html", "explain.json", *(f"{k}.png" for k in explained.figures)}
    assert {path.name for path in tmp_path.iterdir()} == want
    text = Reader((tmp_path / "index.html").read_text()).text
    for name in (*explained.attributions, *IDS):
      assert name in text
    for method, facts in explained.summary["methods"].items():
      assert page.MEANINGS[method].text in text
      assert all(f"{share:.3f}" in text for share in facts["shares"].values())
    assert Reader(explained._repr_html_()).text in text

  def test_pictures_have_the_numbers(self, explained):
    panels = [axes for axes in explained.figures["importance"].axes if axes.patches]
    for axes, facts in zip(panels, explained.summary["methods"].values(), strict=True):
      widths = [bar.get_width() for bar in axes.patches]
      assert widths == list(facts["shares"].values())
    assert {"removal", "agreement", "example_1", "example_2"} < set(explained.figures)


class TestCommand:
  @pytest.mark.slow
  def test_writes_the_page_and_prints_the_table(self, workdir, explained):
    command = [
      *(sys.executable, "-m", "experiments.explain", f"--workdir={workdir}"),
      *(f"--examples={SAMPLED}", f"--ids={','.join(IDS)}", "--seed=1"),
    ]
    done = subprocess.run(
      command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    folder = workdir / "explain"
    assert str(folder) in done.stdout and (folder / "index.html").exists()
    found = json.loads((folder / "explain.json").read_text())
    for method, facts in explained.summary["methods"].items():
      assert f"{method}: " in done.stdout  # The line with its seconds.
      told = found["methods"][method]["shares"]
      assert told == pytest.approx(facts["shares"], rel=1e-3)
      assert all(f"{share:.3f}" in done.stdout for share in told.values())

  @pytest.mark.parametrize(
    ("arguments", "words"),
    [
      (["--workdir=nowhere"], "nowhere is no folder of a run"),
      (["--workdir={run}", "--output={run}/config.json"], "cannot write to"),
      (["--workdir={run}", "more"], "unknown arguments"),
    ],
  )
  def test_fails_early(self, workdir, arguments, words):
    given = [argument.format(run=workdir) for argument in arguments]
    command = [sys.executable, "-m", "experiments.explain", *given]
    done = subprocess.run(
      command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0 and words in done.stdout + done.stderr
    assert "load:" not in done.stdout


class TestThePackage:
  def test_has_explain(self):
    assert deepsets_jax.explain is explanation.explain
    with pytest.raises(AttributeError, match="no attribute 'explan'"):
      deepsets_jax.explan  # noqa: B018

  def test_is_imported_without_jax(self):
    code = "import sys, deepsets_jax; assert not {'jax', 'matplotlib'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
