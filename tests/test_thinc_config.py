"""A config of thinc names our optimizers and schedules, and needs no code."""

import inspect
import json
import re

import pytest

theirs = pytest.importorskip("thinc.optimizers", reason="thinc is not installed")

from thinc.api import Config, registry  # noqa: E402
from thinc_cases import IS_9, PROJECT, ROOT, Sweeper, distance, run_with_entry_points  # noqa: E402

import gpuadam  # noqa: E402
import gpuadam.thinc as ours  # noqa: E402
from gpuadam import schedules, thinc_config  # noqa: E402

ENTRY_POINTS = PROJECT["entry-points"]
CONFIG = """
[optimizer]
@optimizers = "gpuadam.AdamW.v1"
beta2 = 0.99
L2 = 0.05
grad_clip = 0.5

[optimizer.learn_rate]
@schedules = "gpuadam.gradual_warmup.v1"
lr = 0.1
multiplier = 2.0
warmup_steps = 3

[optimizer.learn_rate.after]
@schedules = "gpuadam.cosine_decay.v1"
lr = 0.2
decay_steps = 20

[theirs]
@optimizers = "Adam.v1"

[theirs.learn_rate]
@schedules = "gpuadam.formula.v1"
formula = "0.1 / (step + 2)"
"""


def test_pyproject_names_every_optimizer_and_schedule():
    makers = {name for name, value in vars(ours).items() if inspect.isfunction(value) and name[0].isupper()}
    assert ENTRY_POINTS["thinc_optimizers"] == {f"gpuadam.{name}.v1": f"gpuadam.thinc:{name}" for name in makers}
    names = {"formula", *thinc_config.NAMES}
    assert ENTRY_POINTS["thinc_schedules"] == {f"gpuadam.{name}.v1": f"gpuadam.thinc_config:{name}" for name in names}


def test_only_what_takes_functions_or_lists_of_schedules_is_left_out():
    for family in schedules.FAMILIES:
        for name in family.__all__:
            needed = inspect.signature(getattr(family, name)).parameters.values()
            hints = "".join(str(own.annotation) for own in needed if own.default is own.empty)
            takes_what_a_config_has_not = "Callable" in hints or "Iterable[typing.Union[ForwardRef('Expr')" in hints
            assert (name not in thinc_config.NAMES) == takes_what_a_config_has_not, name


def test_the_registry_finds_them_all(tmp_path):
    code = (
        "import json, inspect; from thinc.api import registry; "
        f"groups = { ({group: list(own) for group, own in ENTRY_POINTS.items()})!r}; "
        "get = {'thinc_optimizers': registry.optimizers, 'thinc_schedules': registry.schedules}; "
        "print(json.dumps({name: get[group].get(name).__name__ for group, own in groups.items() for name in own}))"
    )
    found = json.loads(run_with_entry_points(tmp_path, ["-c", code]))
    assert found == {name: name.split(".")[1] for own in ENTRY_POINTS.values() for name in own}


def test_a_config_resolves_to_a_schedule_in_the_kernel(tmp_path):
    code = (
        "import pickle, sys; from thinc.api import Config, registry; "
        f"made = registry.resolve(Config().from_str({CONFIG!r})); "
        "open('optimizer', 'wb').write(pickle.dumps(made['optimizer'])); "
        "rate = made['theirs'].learn_rate; print(rate(0) if callable(rate) else rate)"
    )
    assert float(run_with_entry_points(tmp_path, ["-c", code])) == 0.05
    import pickle

    found = Sweeper(pickle.loads((tmp_path / "optimizer").read_bytes()), [(4, 3), (5,)])
    rate = schedules.gradual_warmup(0.1, 2.0, 3, schedules.cosine_decay(0.2, 20))
    expected = Sweeper(ours.AdamW(rate, beta2=0.99, L2=0.05, grad_clip=0.5), [(4, 3), (5,)])
    for sweeper in (found, expected):
        for _ in range(10):
            sweeper.step()
    assert distance(found.weights, expected.weights) == 0


def test_the_configs_of_the_pages_resolve(tmp_path):
    pages = [ROOT / "README.md", ROOT / "docs" / "thinc.md"]
    blocks = [block for page in pages for block in re.findall(r"```ini\n(.*?)```", page.read_text(), re.DOTALL)]
    assert len(blocks) >= 2
    code = (
        "from thinc.api import Config, registry\n"
        f"for text in {blocks!r}:\n"
        "    made = registry.resolve(Config().from_str('[training]\\n' + text))['training']['optimizer']\n"
        "    print(type(made).__module__)"
    )
    assert run_with_entry_points(tmp_path, ["-c", code]).split() == ["gpuadam.thinc_optimizer"] * len(blocks)


@pytest.mark.parametrize("name", ["Adam", "RAdam", "SGD"])
def test_the_arguments_of_thinc_are_those_of_ours(name):
    """So a config needs another name, and nothing else."""
    there, here = (inspect.signature(getattr(module, name)).parameters for module in (theirs, ours))
    for argument in there.values():
        assert argument.name in here
        if argument.default is not argument.empty:
            assert here[argument.name].default == argument.default
        assert here[argument.name].kind == argument.kind


def test_what_is_wrong_in_a_config_is_said_when_it_is_read():
    registry.optimizers.register("test.Adam.v1", func=ours.Adam)
    for text, error, message in [
        ("beta3 = 0.9", Exception, "beta3"),
        ("beta1 = 1.5", ValueError, "beta1 of group 0 is 1.5; allowed is a number >= 0 and < 1"),
    ]:
        with pytest.raises(error, match=message):
            registry.resolve(Config().from_str(f'[optimizer]\n@optimizers = "test.Adam.v1"\n{text}\n'))


def test_schedules_as_thinc_has_them():
    made = thinc_config.warmup_cosine_decay(0.0, 1.0, warmup_steps=4, decay_steps=20)
    assert ours.as_schedule(made)(7) == schedules.warmup_cosine_decay(0.0, 1.0, 4, 20)(7)
    expected = [schedules.warmup_cosine_decay(0.0, 1.0, 4, 20)(step) for step in range(30)]
    assert [made(step) if IS_9 else next(made) for step in range(30)] == expected
    with pytest.raises(AttributeError, match="no attribute 'sampled'"):
        _ = thinc_config.sampled
    with pytest.raises(ValueError, match="attribute is not allowed"):
        thinc_config.formula("0.1 * os.getpid()")


@pytest.mark.skipif(IS_9, reason="thinc 8, whose schedules are generators, is not installed")
def test_a_generator_has_no_formula():
    with pytest.raises(TypeError, match="schedules of thinc 8 are generators, whose formula cannot be seen"):
        ours.as_schedule(registry.schedules.get("decaying.v1")(0.1, 0.5))


def test_modules_of_thinc_are_imported_when_they_are_asked_for():
    assert gpuadam.thinc is ours
