"""Every example of the documentation runs: README, docs/, and the docstrings of the package."""

import doctest
import importlib
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted(path.stem for path in (ROOT / "gpuadam").glob("*.py") if not path.stem.startswith("__main"))
EXAMPLES = [
    (f"{page.name}:{number}", block)
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


FRAMEWORKS = ("jax", "keras", "optax", "spacy", "thinc", "torch")
os.environ.setdefault("KERAS_BACKEND", "torch")


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    if name.partition("_")[0] in FRAMEWORKS:
        pytest.importorskip(name.partition("_")[0])
    module = importlib.import_module("gpuadam" if name == "__init__" else f"gpuadam.{name}")
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_the_public_classes_and_schedules_have_examples():
    from gpuadam import SGD, Adam, AdamW, NAdam, RMSprop, schedules

    factories = [getattr(family, name) for family in schedules.FAMILIES for name in family.__all__]
    assert len(factories) >= 13
    assert all(">>>" in (thing.__doc__ or "") for thing in (Adam, AdamW, NAdam, RMSprop, SGD, *factories))


def test_the_readme_counts_what_there_is():
    import gpuadam
    from gpuadam import schedules

    made = [getattr(gpuadam, name) for name in gpuadam.__all__]
    optimizers = [c for c in made if isinstance(c, type) and issubclass(c, gpuadam.Optimizer)]
    names = [name for family in schedules.FAMILIES for name in family.__all__]
    assert f"{len(optimizers) - 1} optimizers and {len(names)} schedules" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("name", "block"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_examples_of_the_pages(name, block, tmp_path, monkeypatch):
    for library in FRAMEWORKS:
        if re.search(rf"^\s*(?:import|from) (?:gpuadam\.)?{library}\b", block, re.MULTILINE):
            pytest.importorskip(library, reason=f"{library} is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, name, "exec"), {})


def test_there_are_examples():
    assert any(name.startswith("README") for name, _ in EXAMPLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{os.path.relpath(page, ROOT)} links to {target}"
