"""spaCy trains with an optimizer that its config names: the example, smaller, with ours and with thinc's own."""

import json
import re
import subprocess
import sys

import pytest

pytest.importorskip("spacy", reason="spaCy is not installed")

from thinc_cases import ROOT, run_with_entry_points

EXAMPLE = ROOT / "examples" / "spacy"
STEPS = 60
OPTIMIZERS = {
    "thinc": ["--training.optimizer.@optimizers", "Adam.v1"],
    "ours": [],
    "ours, as thinc": ["--training.optimizer.numerics", "thinc"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data: docstrings of eight packages."""
    found = tmp_path_factory.mktemp("spacy")
    command = [sys.executable, EXAMPLE / "make_data.py", found / "data", "--most", "60"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    sizes = json.loads(made.stdout.replace("'", '"'))
    assert sizes["train"] > 250
    assert sizes["dev"] > 70
    return found


def train(folder, name, *options):
    """The losses and scores that spaCy prints, and the score of the model that it writes."""
    command = ["-m", "spacy", "train", str(EXAMPLE / "config.cfg"), "--output", name]
    sizes = ["--training.max_steps", STEPS, "--training.eval_frequency", 20, "--training.batcher.size", 48]
    output = run_with_entry_points(folder, [*command, *map(str, sizes), *options])
    rows = re.findall(r"^ +\d+ +\d+ +([\d.]+) +([\d.]+) +[\d.]+\s*$", output, re.MULTILINE)
    assert len(rows) == 1 + STEPS // 20, output
    meta = json.loads((folder / name / "model-best" / "meta.json").read_text())
    return [tuple(map(float, row)) for row in rows], meta["performance"]["cats_score"]


@pytest.fixture(scope="module")
def runs(folder):
    return {name: train(folder, name, *options) for name, options in OPTIMIZERS.items()}


@pytest.mark.parametrize("name", ["ours", "ours, as thinc"])
def test_a_classifier_reaches_the_score_that_it_reaches_with_thinc(runs, name):
    rows, score = runs[name]
    expected_rows, expected = runs["thinc"]
    assert expected > 0.6  # by chance: 0.06
    assert abs(score - expected) <= 0.05
    assert rows[-1][0] < 0.1 * max(loss for loss, _ in rows)
    assert [loss for loss, _ in rows] == pytest.approx([loss for loss, _ in expected_rows], rel=0.05, abs=0.02)


def test_rehearsal():
    """`rehearse` reads the betas, and hands over the gradients of a pipe when all are there."""
    import spacy
    from spacy.training import Example

    import gpuadam.thinc as ours

    nlp = spacy.blank("en")
    pipe = nlp.add_pipe("textcat")
    texts = {"a good day": {"GOOD": 1.0, "BAD": 0.0}, "a bad day": {"GOOD": 0.0, "BAD": 1.0}}
    examples = [Example.from_dict(nlp.make_doc(text), {"cats": cats}) for text, cats in texts.items()]
    nlp.initialize(lambda: examples)
    nlp.resume_training()  # what is rehearsed is the model as it is here
    optimizer = ours.Adam(0.01)
    for _ in range(3):
        nlp.update(examples, sgd=optimizer)
        optimizer.step_schedules()
    before = pipe.model.to_bytes()
    nlp.rehearse(examples, sgd=optimizer)
    optimizer.step_schedules()
    assert pipe.model.to_bytes() != before
