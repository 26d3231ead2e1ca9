"""A PyDyNet model, trained by gpuadam behind PyDyNet's own optimizer interface.

    python examples/pydynet_mlp.py

`GpuAdam` below is all that it takes: copy it, and write it where `pydynet.optim.Adam` stood.
"""

import argparse

import numpy as np
import pydynet
from pydynet import nn
from pydynet.nn import functional
from pydynet.optim import Optimizer
from sklearn.datasets import load_digits

import gpuadam
from gpuadam import schedules

BATCH, HELD_OUT = 64, 360


class GpuAdam(Optimizer):
    """The numbers of PyDyNet's Adam, in one launch for all parameters; move the model to its device before.

    `lr` may be a schedule. If it is a number, PyDyNet's own schedulers can set it.
    """

    def __init__(self, params, lr=1e-3, **options):
        super().__init__(params)
        arrays = [param.data for param in self.params]
        self.adam = gpuadam.Adam(arrays, lr, eps_placement="hat", **options)
        self.adam.bind([param.grad for param in self.params])  # `backward` adds to these arrays, never to others

    @property
    def lr(self):
        return self.adam.hyperparameters()[0]["lr"]

    @lr.setter
    def lr(self, lr):
        self.adam.set_hyperparameters(lr=lr)

    def step(self):
        self.adam.step()


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(64, 128, dtype=np.float32)
        self.output = nn.Linear(128, 10, dtype=np.float32)

    def forward(self, images):
        return self.output(functional.relu(self.hidden(images)))


def load():
    """Pixels in [0, 1] and the digit of each image, in an order that mixes the writers."""
    pixels, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(digits))
    return (pixels[order] / 16).astype(np.float32), digits[order]


def train(steps):
    images, digits = load()
    np.random.seed(1)  # of PyDyNet's first weights
    model = Classifier()
    lr = schedules.warmup_cosine_decay(0.0, 1e-2, warmup_steps=steps // 10, decay_steps=steps)
    optimizer = GpuAdam(model.parameters(), lr=lr, clip_norm=1.0)

    rng = np.random.default_rng(2)
    for step in range(1, steps + 1):
        batch = rng.integers(HELD_OUT, len(digits), size=BATCH)
        loss = functional.cross_entropy_loss(model(pydynet.Tensor(images[batch])), digits[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(steps // 10, 1) == 0:
            with pydynet.no_grad():
                scores = model(pydynet.Tensor(images[:HELD_OUT])).data
            correct = 100 * (scores.argmax(axis=1) == digits[:HELD_OUT]).mean()
            print(f"step {step:5}   loss {loss.item():.4f}   held out: {correct:.1f} % correct")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A PyDyNet model learns to read handwritten digits.")
    parser.add_argument("--steps", type=int, default=1000)
    train(parser.parse_args().steps)
