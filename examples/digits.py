"""A network of two layers learns to read handwritten digits, in array code that NumPy and CuPy run alike.

    python examples/digits.py

On a machine with a CUDA GPU and CuPy everything lies there; elsewhere the same lines run on the CPU.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits

import gpuadam
from gpuadam import schedules

xp = np
if gpuadam.cuda_unavailable_reason() is None:
    import cupy as xp

HIDDEN, BATCH, HELD_OUT = 256, 64, 360


def load():
    """Pixels in [0, 1] and the digit of each image, in an order that mixes the writers."""
    pixels, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(digits))
    return xp.asarray(pixels[order] / 16, xp.float32), xp.asarray(digits[order])


def new_weights():
    """Their variance keeps that of the signal (He et al. 2015); drawn on the host, so they are the same everywhere."""
    rng = np.random.default_rng(1)
    return {
        "hidden.weight": xp.asarray(rng.normal(0, (2 / 64) ** 0.5, (64, HIDDEN)), xp.float32),
        "hidden.bias": xp.zeros(HIDDEN, xp.float32),
        "output.weight": xp.asarray(rng.normal(0, (2 / HIDDEN) ** 0.5, (HIDDEN, 10)), xp.float32),
        "output.bias": xp.zeros(10, xp.float32),
    }


def forward(weights, images):
    hidden = xp.maximum(images @ weights["hidden.weight"] + weights["hidden.bias"], 0)
    return hidden, hidden @ weights["output.weight"] + weights["output.bias"]


def loss_and_gradients(weights, gradients, images, digits):
    """The mean cross-entropy; the gradients are written where the optimizer reads them."""
    hidden, scores = forward(weights, images)
    scores = scores - scores.max(axis=1, keepdims=True)
    log_probabilities = scores - xp.log(xp.exp(scores).sum(axis=1, keepdims=True))
    rows = xp.arange(len(digits))

    d_scores = xp.exp(log_probabilities)
    d_scores[rows, digits] -= 1
    d_scores /= len(digits)
    xp.matmul(hidden.T, d_scores, out=gradients["output.weight"])
    xp.sum(d_scores, axis=0, out=gradients["output.bias"])

    d_hidden = d_scores @ weights["output.weight"].T * (hidden > 0)
    xp.matmul(images.T, d_hidden, out=gradients["hidden.weight"])
    xp.sum(d_hidden, axis=0, out=gradients["hidden.bias"])
    return -log_probabilities[rows, digits].mean()


def train(steps):
    images, digits = load()
    held_out_images, held_out_digits = images[:HELD_OUT], digits[:HELD_OUT]
    images, digits = images[HELD_OUT:], digits[HELD_OUT:]

    weights = new_weights()
    gradients = {name: xp.zeros_like(weight) for name, weight in weights.items()}
    lr = schedules.warmup_cosine_decay(0.0, 1e-2, warmup_steps=steps // 10, decay_steps=steps)
    optimizer = gpuadam.AdamW(weights, lr=lr, weight_decay=0.1)
    optimizer.bind(gradients)  # once: each step reads them where they lie

    rng = np.random.default_rng(2)
    for step in range(1, steps + 1):
        batch = xp.asarray(rng.integers(len(digits), size=BATCH))
        loss = loss_and_gradients(weights, gradients, images[batch], digits[batch])
        optimizer.step()
        if step % max(steps // 10, 1) == 0:  # only here the host waits for the GPU
            _, scores = forward(weights, held_out_images)
            correct = 100 * float((scores.argmax(axis=1) == held_out_digits).mean())
            print(f"step {step:5}   loss {float(loss):.4f}   held out: {correct:.1f} % correct")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A network of two layers learns to read handwritten digits.")
    parser.add_argument("--steps", type=int, default=2000)
    train(parser.parse_args().steps)
