"""The states of a PyTorch optimizer: as its `state` shows them, as its `state_dict` has them, and their way back."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from . import state
from .clocks import read_clock
from .coefficients import read_row
from .compiler import run_section
from .engine import Engine
from .expressions import Expr
from .hyperparameters import PAIRS, split_pairs
from .torch_arrays import as_tensor, local
from .torch_groups import plain, settings_of_peer

if TYPE_CHECKING:
    from .torch_optimizer import Optimizer

REMADE = ("ema", "master", "remainder")  # what a checkpoint of PyTorch's lacks, and what can be made of the parameters
OURS = ("lr_multiplier", "schedule_step", "schedule_parameters", "skipped_steps")  # in the groups of a state_dict alone

NOISY = {"rounding", "state_dtype"}  # settings for which random numbers are drawn, at each step others


class States(Mapping[Any, Any]):
    """`optimizer.state`: parameter -> its states, made when asked for. One that has had no gradient has none."""

    def __init__(self, optimizer: "Optimizer") -> None:
        self._optimizer = optimizer

    def __getitem__(self, param: Any) -> MutableMapping[str, Any]:
        names = list(self._optimizer._names)
        places = {id(own): index for index, own in enumerate(names)}
        if id(param) not in places:
            return {}
        return TensorState(self._optimizer._core._engine, places[id(param)], param)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._optimizer._names)

    def __len__(self) -> int:
        return len(self._optimizer._names)

    def __contains__(self, param: object) -> bool:
        return param in self._optimizer._names


class TensorState(MutableMapping[str, Any]):
    """The states of one parameter; what is written here goes to where the step reads it."""

    def __init__(self, engine: Engine, index: int, param: Any) -> None:
        self._engine, self._index, self._param = engine, index, param

    def __getitem__(self, name: str) -> Any:
        return self._entry()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        own = self._engine.tensors.arrays[self._index]
        if name not in own:
            raise KeyError(f"{name!r} cannot be set; allowed are {sorted(own)}, and load_state_dict for all of it")
        self._entry()[name].copy_(value)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"the state {name!r} is memory of the optimizer's and cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._entry())

    def __len__(self) -> int:
        return len(self._entry())

    def __repr__(self) -> str:
        return repr(self._entry())

    def _entry(self) -> dict[str, Any]:
        return entry_of(self._engine, self._index, self._param, self._engine.tables.download("clocks"))


def entry_of(engine: Engine, index: int, param: Any, clocks: Any) -> dict[str, Any]:
    """The states of a tensor as PyTorch has them: its count of updates, accumulators, and arrays."""
    tensors = engine.tensors
    cohort = engine.cohorts.of[index]
    clock = read_clock(clocks[cohort], engine.program.sections[engine.cohorts.groups[cohort]])
    dtypes = tensors.host_dtypes(index)
    accumulators = {name: torch.tensor(value, dtype=torch.float64) for name, value in clock["accumulators"].items()}
    own = tensors.arrays[index].items()
    arrays = {shown(name, dtypes[name]): as_tensor(array, dtypes[name], param) for name, array in own}
    return {"step": torch.tensor(clock["updates"], dtype=torch.float32), **accumulators, **arrays}


def shown(name: str, dtype: np.dtype[Any]) -> str:
    """What a state is called. 8-bit codes are not: PyTorch's classes would take them for the numbers themselves."""
    return f"{name}_codes" if dtype == np.uint8 else name


def are_asked_for(groups: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the first step is `torch.distributed.checkpoint`'s way to have states made: rates and gradients are zero.

    It wants nothing changed by that. So it is no step: nothing is counted, and schedules stand where they stood.
    """
    if any(plain(group["lr"], "lr") for group in groups):
        return False
    grads = [param.grad for group in groups for param in group["params"] if param.grad is not None]
    counts = [torch.linalg.vector_norm(grad, 0) for grad in grads]  # of elements that are not zero
    totals = [count.full_tensor() if hasattr(count, "full_tensor") else count for count in counts]
    return not any(map(float, totals))


# ---- out


def collect(optimizer: "Optimizer") -> dict[str, Any]:
    """What `state_dict` gives. Tensors in it are views, as PyTorch's are.

    What PyTorch's has not is in it only if schedules, noise or a rule about what is not finite ask for it: so what a
    checkpoint has is known before the run, and `torch.distributed.checkpoint` finds all of it in those of PyTorch.
    """
    engine, names = optimizer._core._engine, list(optimizer._names)
    clocks = engine.tables.download("clocks")
    every = [param for group in optimizer.param_groups for param in group["params"]]
    number = {id(param): index for index, param in enumerate(every)}
    entries = {number[id(param)]: entry_of(engine, index, param, clocks) for index, param in enumerate(names)}
    groups = []
    for index, group in enumerate(optimizer.param_groups):
        indices = [number[id(param)] for param in group["params"]]
        groups.append({**_group_entry(optimizer, index, group, clocks), "params": indices})
    if groups and names:
        skipped = int(engine.tables.download("progress")["skipped"][0])
        if skipped or engine.defaults.policy.nonfinite != "propagate":
            groups[0]["skipped_steps"] = skipped
        parameters = engine.program.named_parameters()
        groups[0].update({"schedule_parameters": parameters} if parameters else {})
    return {"state": dict(sorted(entries.items())), "param_groups": groups}


def _group_entry(optimizer: "Optimizer", index: int, group: Mapping[str, Any], clocks: Any) -> dict[str, Any]:
    """A group in numbers: of schedules, what they are at this step."""
    entry = {name: value for name, value in group.items() if name != "params"}
    schedule = optimizer._groups.schedule(index)
    if schedule is not None:
        entry.update(lr_multiplier=entry["lr"], lr=schedule)
    if "decoupled_weight_decay" in settings_of_peer(optimizer.core_class) - set(entry):
        entry["decoupled_weight_decay"] = {**optimizer._unshown, **group}["decay"] == "decoupled"
    now: Mapping[str, float] = {}
    reads_step = any(_is_scheduled(name, value) for name, value in entry.items()) or NOISY & set(entry)
    if reads_step:
        entry["schedule_step"] = 0
    if reads_step and optimizer._names:
        engine = optimizer._core._engine
        clock = clocks[[engine.cohorts.speakers(clocks)[index]]]
        rows, _ = run_section(engine.program, engine.program.sections[index], clock)
        now = read_row(engine.defaults.rule, engine.groups[index], rows[0])
        entry["schedule_step"] = int(clock["step"][0])
    return {name: _in_numbers(name, value, now) for name, value in entry.items()}


def _in_numbers(name: str, value: Any, now: Mapping[str, float]) -> Any:
    if isinstance(value, Expr):
        return now[name] if name in now else float(value(0))
    if name in PAIRS and any(isinstance(member, Expr) for member in value):
        return tuple(_in_numbers(own, member, now) for own, member in zip(PAIRS[name], value, strict=True))
    return value


# ---- in


def restore(optimizer: "Optimizer", given: Mapping[str, Any]) -> None:
    """Take up what `collect` gave, or a checkpoint of PyTorch's class; all of it or nothing."""
    groups = optimizer.param_groups
    optimizer._core._engine.check_own_weights()  # another engine would take averages for what is trained
    _check_groups(groups, given)
    params = [param for group in groups for param in group["params"]]
    order = [number for group in given["param_groups"] for number in group["params"]]
    entries = {param: _there(given["state"][n]) for param, n in zip(params, order, strict=True) if n in given["state"]}
    before = [dict(group) for group in groups]
    try:
        for index, (group, saved) in enumerate(zip(groups, given["param_groups"], strict=True)):
            group.update(_settings(optimizer, index, group, saved))
        engine = optimizer._engine_with(entries)
        state.restore(engine, _as_saved(optimizer, engine, given["param_groups"], entries), False)
    except BaseException:
        for group, old in zip(groups, before, strict=True):
            group.clear()
            group.update(old)
        raise
    optimizer._install(engine, entries)


def as_dict(given: Any) -> dict[str, Any]:
    """A copy of a state_dict for the hooks, which may exchange its entries."""
    if not isinstance(given, Mapping):
        raise TypeError(f"state_dict is a {type(given).__name__}; allowed is a dict that state_dict gave")
    return dict(given)


def _check_groups(groups: list[dict[str, Any]], given: Mapping[str, Any]) -> None:
    if not isinstance(given, Mapping) or not {"state", "param_groups"} <= set(given):
        raise ValueError("state_dict has no entries 'state' and 'param_groups'; it is not what state_dict gave")
    there, here = ([len(group["params"]) for group in own] for own in (given["param_groups"], groups))
    if there != here:
        raise ValueError(f"state_dict has groups of {there} parameters, this optimizer of {here}; nothing was changed")


def _there(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of flat checkpoints, `torch.distributed.checkpoint` gives empty dicts for states that are not there."""
    return {name: value for name, value in entry.items() if not (isinstance(value, dict) and not value)}


def _settings(optimizer: "Optimizer", index: int, group: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """What a saved group says; schedules stay the constructor's."""
    left = {"params", "param_names", *OURS, *({"decoupled_weight_decay"} - set(group))}
    found = {name: deepcopy(value) for name, value in saved.items() if name not in left}
    if optimizer._groups.schedule(index) is not None:
        found["lr"] = saved.get("lr_multiplier", group["lr"])
    known = {**optimizer._unshown, **group}
    if known.get("decay") in ("coupled", "decoupled") and "decay" not in saved:
        is_decoupled = saved.get("decoupled_weight_decay", known["decay"] == "decoupled")
        found["decay"] = "decoupled" if is_decoupled else "coupled"
    told = {n: v for n, v in found.items() if n in group or n not in known or v != known[n]}
    return {**told, **{name: value for name, value in group.items() if _is_scheduled(name, value)}}


def _is_scheduled(name: str, value: Any) -> bool:
    return any(isinstance(member, Expr) for member in (value if name in PAIRS else (value,)))


def _as_saved(
    optimizer: "Optimizer", engine: Engine, groups: list[Mapping[str, Any]], entries: Mapping[Any, Mapping[str, Any]]
) -> dict[str, Any]:
    """PyTorch's layout as our own, of which everything is checked before anything is written."""
    tensors, names = engine.tensors, optimizer._name(entries)
    clocks = [_group_clock(optimizer, engine, index, saved, entries) for index, saved in enumerate(groups)]
    found = {}
    for index, (param, name) in enumerate(names.items()):
        group = int(tensors.group_of[index])
        found[name] = {**_clock(engine, group, entries[param], clocks[group]), **_arrays(engine, index, entries[param])}
    first = groups[0] if groups else {}
    return {
        "format_version": state.FORMAT_VERSION,
        "rule": engine.defaults.rule.name,
        "groups": clocks,
        "state": found,
        "parameters": {**engine.program.named_parameters(), **first.get("schedule_parameters", {})},
        "skipped_steps": int(first.get("skipped_steps", 0)),
    }


def _group_clock(
    optimizer: "Optimizer", engine: Engine, index: int, saved: Mapping[str, Any], entries: Mapping[Any, Any]
) -> dict[str, Any]:
    """Where the schedules of a group stand: as saved, or, of PyTorch's, at the most updates of its tensors."""
    own = [entries[param] for param in optimizer.param_groups[index]["params"] if param in entries]
    counts = [int(entry["step"]) for entry in own if entry.get("step") is not None]
    if own and not counts and "schedule_step" not in saved and optimizer._groups.schedule(index) is not None:
        raise ValueError(
            f"neither the states nor group {index} say how many steps there have been, which the schedule of its lr "
            f"needs: set state_dict['param_groups'][{index}]['schedule_step']"
        )
    step = int(saved.get("schedule_step", max(counts, default=0)))
    initial = {a.name: a.initial for a in engine.program.sections[index].accumulators}
    mixing = {name: value for name, value in split_pairs(saved, "") if name == engine.defaults.rule.mixing}
    return {"step": step, "updates": max(counts, default=step), "accumulators": initial, **mixing}


def _clock(engine: Engine, group: int, entry: Mapping[str, Any], of_group: Mapping[str, Any]) -> dict[str, Any]:
    names = [accumulator.name for accumulator in engine.program.sections[group].accumulators]
    held = any(isinstance(value, torch.Tensor) for value in entry.values())
    step = entry.get("step")
    updates = int(step) if step is not None else max(of_group["updates"], int(held))  # PyTorch's SGD counts none
    own_step = updates if engine.defaults.policy.per_tensor_step else of_group["step"]
    accumulators = {name: float(entry[name]) for name in names if name in entry}
    return {"step": own_step, "updates": updates, "accumulators": accumulators}


def _arrays(engine: Engine, index: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    dtypes, found = engine.tensors.host_dtypes(index), {}
    for name, array in engine.tensors.arrays[index].items():
        if entry.get(shown(name, dtypes[name])) is not None:
            found[name] = _to_host(entry[shown(name, dtypes[name])], dtypes[name])
        elif name in REMADE:
            found[name] = engine.backend.to_host(array).view(dtypes[name])
    return found


def _to_host(value: Any, dtype: np.dtype[Any]) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    kind = getattr(torch, dtype.name)
    tensor = local(value).detach().to(device="cpu", dtype=kind, copy=True)  # it may look into what is written to
    return tensor.view(torch.int16).numpy().view(dtype) if dtype.name == "bfloat16" else tensor.numpy()
