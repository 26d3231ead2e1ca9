"""What the tests of bad input share: optimizers that refuse it whole, and twins that never see it.

A refusal is the right exception, with a message that names what is wrong, its value and what is allowed; nothing is
written, and the optimizer goes on as if nothing had happened.
"""

import contextlib
import copy

import numpy as np
import pytest

from gpuadam import SGD, Adam, AdamW, NAdam, RMSprop, schedules

F32, F64 = np.float32, np.float64
DTYPES = ("float32", "float64", "float16", "bfloat16")
DTYPE_NAMES = ["int8", "int32", "int64", "uint8", "bool", "complex64", "complex128", "longdouble", "object"]
LAYOUT = {"w": ((3, 4), F32), "b": ((5,), F64)}
VIEWS = {  # that are not one dense run of memory
    "every second": lambda a: a[::2],
    "columns": lambda a: a.reshape(6, 4)[:, 1:3],
    "backwards": lambda a: a[::-1],
    "rows backwards": lambda a: a.reshape(6, 4)[::-1],
    "columns backwards": lambda a: a.reshape(6, 4)[:, ::-1],
    "expanded": lambda a: np.lib.stride_tricks.as_strided(a, (24,), (0,)),
    "expanded rows": lambda a: np.lib.stride_tricks.as_strided(a, (6, 4), (0, a.itemsize)),
    "windows": lambda a: np.lib.stride_tricks.as_strided(a, (20, 5), (a.itemsize, a.itemsize)),
    "diagonal": lambda a: np.lib.stride_tricks.as_strided(a, (4,), (5 * a.itemsize,)),
}


def filled(scale=1.0, seed=0, layout=LAYOUT):
    random = np.random.default_rng(seed)
    return {name: (scale * random.standard_normal(shape)).astype(dtype) for name, (shape, dtype) in layout.items()}


def frozen(value):
    """A value as something that can be compared to the bit, NaN and the sign of zero included."""
    if isinstance(value, dict):
        return {name: frozen(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return repr(value)


class Pair:
    """An optimizer that gets the bad call, and its twin that never does."""

    def __init__(self, make=AdamW, **settings):
        settings = {"lr": 0.1, **settings}
        self.params, self.twins = filled(), filled()
        self.optimizer, self.twin = make(self.params, **settings), make(self.twins, **settings)
        self.grads, self.twin_grads = filled(0.1, 1), filled(0.1, 1)
        self.optimizer.step(self.grads)
        self.twin.step(self.twin_grads)

    def picture(self):
        optimizer = self.optimizer
        return frozen([self.params, self.grads, optimizer.state_dict(), optimizer.hyperparameters()])

    def go_on(self):
        """Two steps: with the gradients that are still in force, and with others."""
        for grads in (None, filled(2.0, 2)):
            before, twin_grads = frozen(self.params), copy.deepcopy(grads)
            self.optimizer.step(grads)
            self.twin.step(twin_grads)
            assert frozen(self.params) != before
            assert frozen(self.params) == frozen(self.twins)
            assert frozen(self.optimizer.state_dict()) == frozen(self.twin.state_dict())

    @contextlib.contextmanager
    def refuses(self, error, *texts):
        before = self.picture()
        with pytest.raises(error) as caught:
            yield
        check_message(caught.value, error, texts)
        assert self.picture() == before, "something was written"
        self.go_on()


def check_message(raised, error, texts):
    assert type(raised) is error, f"{type(raised).__name__} for {error.__name__}"
    message = str(raised)
    for text in texts:
        assert text in message, f"{text!r} is not in {message!r}"


def refused(make, arguments, error, texts, *, watched=(), **settings):
    """The constructor refuses; no array has changed, and one that was good still serves."""
    before = frozen(list(watched))
    with pytest.raises(error) as caught:
        make(arguments, **settings)
    check_message(caught.value, error, texts)
    assert frozen(list(watched)) == before, "something was written"


def refused_parameter(bad, error, texts, watched=()):
    good, twin, grad = np.ones(6, F32), np.ones(6, F32), np.full(6, 0.5, F32)
    for arguments, name in (([good, bad], "parameter 1"), ({"a": good, "x": bad}, "parameter 'x'")):
        refused(Adam, arguments, error, [name, *texts], watched=[good, *watched])
    Adam([good]).step([grad])
    Adam([twin]).step([grad])
    assert frozen(good) == frozen(twin)
    assert good[0] != 1


def aligned_at(offset, count, dtype):
    """A view whose address is `offset` bytes beyond a multiple of 64."""
    raw = np.zeros(count * np.dtype(dtype).itemsize + 128, np.uint8)
    begin = -raw.ctypes.data % 64 + offset
    return raw[begin : begin + count * np.dtype(dtype).itemsize].view(dtype)


class OnGPU:
    """An array that claims to lie on a GPU."""

    def __init__(self, number=0, address=4096, shape=(5,), form="<f8", read_only=False):
        self.device, self._interface = number, {"typestr": form, "shape": shape, "version": 3}
        self._interface["data"] = (address, read_only)

    @property
    def __cuda_array_interface__(self):
        return self._interface


class ThroughDLPack:
    """A stranger that exports a NumPy array, read-only or not."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **keywords):
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


ADAM_NAMES = ["lr", "beta1", "beta2", "eps", "weight_decay"]
RMSPROP_NAMES = ["lr", "alpha", "eps", "weight_decay", "momentum"]
SGD_NAMES = ["lr", "momentum", "dampening", "weight_decay"]
NAMES_OF = {AdamW: ADAM_NAMES, NAdam: [*ADAM_NAMES, "momentum_decay"], RMSprop: RMSPROP_NAMES, SGD: SGD_NAMES}
NAMES = [(make, name) for make, names in NAMES_OF.items() for name in names]


def setting(name, value):
    if name in ("beta1", "beta2"):
        return {"betas": (value, 0.5) if name == "beta1" else (0.5, value)}
    return {name: value}


def refused_everywhere(make, name, value, error, texts):
    """In the constructor, in a group, for one group or all of them later, and none of it has an effect."""
    param, bad = np.ones(5), setting(name, value)
    where = f"{name} of group 0"
    refused(make, [param], error, [where, *texts], watched=[param], **bad)
    groups = [{"params": []}, {"params": [param], **bad}]
    refused(make, groups, error, [f"{name} of group 1", *texts], watched=[param])
    pair = Pair(make)
    for chosen in (None, 0, -1):
        with pair.refuses(error, where, *texts):
            pair.optimizer.set_hyperparameters(chosen, **bad)
    with pair.refuses(error, where, *texts):  # a good one beside it has no effect either
        pair.optimizer.set_hyperparameters(**{"weight_decay": 0.5, "lr": 0.5, **bad})


def saved(**settings):
    """A state with everything in it: two groups, a named parameter, an accumulator, three states."""
    optimizer = stateful(**settings)
    optimizer.step([np.ones((2, 3)), None])
    optimizer.step([np.ones((2, 3)), np.ones(4, F32)])
    return optimizer


def stateful(make=Adam, **settings):
    product = schedules.accumulator("product", 1.0, lambda x: x * 0.5)
    lr = 0.1 * product * schedules.parameter("scale", 1.0)
    groups = [{"params": [np.ones((2, 3))], "lr": lr}, {"params": [np.ones(4, F32)], "lr": 0.2}]
    if make is Adam:
        settings = {"amsgrad": True, **settings}
    return make(groups, **settings)


DELETE = object()


def change(path, value):
    """A fault to plant in a state: another value at one place, or none."""

    def apply(state):
        *way, last = path
        for key in way:
            state = state[key]
        if value is DELETE:
            del state[last]
        else:
            state[last] = value

    return apply


def check_refused_state(optimizer, twin, state, texts, **options):
    params = [array.owner for array in optimizer._engine.tensors.params]
    before = frozen([params, optimizer.state_dict(), optimizer.hyperparameters()])
    with pytest.raises(ValueError, match="nothing was changed") as caught:
        optimizer.load_state_dict(state, **options)
    check_message(caught.value, ValueError, texts)
    assert frozen([params, optimizer.state_dict(), optimizer.hyperparameters()]) == before
    for other in (optimizer, twin):
        other.step([np.full((2, 3), 0.3), np.full(4, 0.7, F32)])
    assert frozen(params) == frozen([array.owner for array in twin._engine.tensors.params])
    assert frozen(optimizer.state_dict()) == frozen(twin.state_dict())
