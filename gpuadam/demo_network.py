"""The demo's network and digits: 64 pixels -> 256 hidden units -> 10 digits, in array code of NumPy and CuPy.

It computes in float32, whatever the dtype in which the weights are kept; so do its gradients.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

TRAINING, HELD_OUT = 1_437, 360  # of scikit-learn's 1,797 digits; the split is the same for every seed
HIDDEN = 256
NOISE = 0.15  # on the training pixels, which lie in [0, 1]


def new_params(xp: ModuleType, seed: int, dtype: Any) -> dict[str, Any]:
    """Weights that keep the variance (He et al., arXiv 1502.01852), made on the host: the same on every device."""
    rng = np.random.default_rng([seed, 0])
    hidden = rng.standard_normal((64, HIDDEN)) * np.sqrt(2 / 64)
    output = rng.standard_normal((HIDDEN, 10)) * np.sqrt(2 / HIDDEN)
    return {
        "hidden.weight": xp.asarray(hidden.astype(dtype)),
        "hidden.bias": xp.zeros(HIDDEN, dtype),
        "output.weight": xp.asarray(output.astype(dtype)),
        "output.bias": xp.zeros(10, dtype),
    }


def new_grads(xp: ModuleType, params: dict[str, Any]) -> dict[str, Any]:
    """Room for the gradients, which `loss_and_gradients` fills."""
    return {name: xp.empty(param.shape, np.float32) for name, param in params.items()}


def in_float32(params: dict[str, Any]) -> dict[str, Any]:
    """The weights as the network computes with them: those of 16 bits are widened."""
    return {name: widened(param) for name, param in params.items()}


def widened(param: Any) -> Any:
    if param.dtype.name == "bfloat16":  # the upper half of a float32; not every CuPy casts it
        return (param.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return param.astype(np.float32) if param.dtype.name == "float16" else param


def forward(xp: ModuleType, params: dict[str, Any], images: Any) -> tuple[Any, Any]:
    """The hidden units, and a score for each digit."""
    hidden = xp.maximum(images @ params["hidden.weight"] + params["hidden.bias"], 0)
    return hidden, hidden @ params["output.weight"] + params["output.bias"]


def loss_and_gradients(xp: ModuleType, params: dict[str, Any], grads: dict[str, Any], images: Any, targets: Any) -> Any:
    """The mean cross-entropy of a batch; its gradients are written into `grads`, backwards through the network."""
    params = in_float32(params)
    hidden, scores = forward(xp, params, images)
    scores = scores - scores.max(axis=1, keepdims=True)
    log_probabilities = scores - xp.log(xp.exp(scores).sum(axis=1, keepdims=True))

    d_scores = (xp.exp(log_probabilities) - targets) / len(images)
    xp.matmul(hidden.T, d_scores, out=grads["output.weight"])
    xp.sum(d_scores, axis=0, out=grads["output.bias"])

    d_hidden = (d_scores @ params["output.weight"].T) * (hidden > 0)
    xp.matmul(images.T, d_hidden, out=grads["hidden.weight"])
    xp.sum(d_hidden, axis=0, out=grads["hidden.bias"])
    return -(targets * log_probabilities).sum() / len(images)


def accuracy(xp: ModuleType, params: dict[str, Any], images: Any, digits: Any) -> float:
    """Per cent of the images whose digit has the highest score."""
    _, scores = forward(xp, in_float32(params), images)
    return 100 * float((scores.argmax(axis=1) == digits).mean())


# ---- the digits


def load_data() -> Any:
    """Pixels in [0, 1] and digits: to learn from, and held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, digits = load_digits(return_X_y=True)
    parts = train_test_split(pixels / 16, digits, test_size=HELD_OUT, random_state=0, stratify=digits)
    images, held_out_images, digits, held_out_digits = parts
    return images.astype(np.float32), digits, held_out_images.astype(np.float32), held_out_digits


def batches(xp: ModuleType, images: Any, digits: Any, batch_size: int, seed: int, epoch: int) -> Iterator[Any]:
    """One epoch: the digits in a new order and under new noise, in batches of one size (what is left over rests).

    Nothing is carried over from the epoch before, so that a resumed run sees what one that ran through sees.
    """
    rng = np.random.default_rng([seed, 1 + epoch])  # 0 has made the weights
    order = rng.permutation(TRAINING)
    noise = NOISE * rng.standard_normal(images.shape, np.float32)
    noisy = xp.asarray(images[order] + noise)
    targets = xp.asarray(np.eye(10, dtype=np.float32)[digits[order]])
    for begin in range(0, TRAINING - batch_size + 1, batch_size):
        batch = slice(begin, begin + batch_size)
        yield noisy[batch], targets[batch]
