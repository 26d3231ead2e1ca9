"""A small transformer learns to write Python, character by character, from the sources of the standard library.

    python examples/char_transformer_jax.py

`apply` takes the place of optax's `update` and `apply_updates`: one launch inside the compiled step, which takes the
gradients and changes the donated parameters and state where they lie, with schedule and clipping inside.
"""

import argparse
import functools
import sysconfig
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gpuadam.jax
from gpuadam import schedules

CHARACTERS = 128  # of ASCII; the others are left out
CONTEXT, WIDTH, HEADS, LAYERS = 64, 128, 4, 2
BATCH = 32


def read_library():
    """The standard library, some millions of characters."""
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    codes = np.frombuffer(b"".join(module.read_bytes() for module in modules), np.uint8)
    return codes[codes < CHARACTERS].astype(np.int32)


def new_params(key):
    """Matrices that keep the variance of what goes through; the blocks begin as sums of nothing."""
    keys = iter(jax.random.split(key, 4 + 2 * LAYERS))

    def random(*shape):
        return jax.random.normal(next(keys), shape) * shape[0] ** -0.5

    def block():
        return {
            "queries_keys_values": random(WIDTH, 3 * WIDTH),
            "attended": jnp.zeros((WIDTH, WIDTH)),
            "thought": random(WIDTH, 4 * WIDTH),
            "concluded": jnp.zeros((4 * WIDTH, WIDTH)),
        }

    return {
        "characters": random(CHARACTERS, WIDTH),
        "places": random(CONTEXT, WIDTH),
        "blocks": [block() for _ in range(LAYERS)],
        "scores": random(WIDTH, CHARACTERS),
    }


def normalised(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def forward(params, text):
    """The scores of the next character, at each place of a text: each place attends to those before it."""
    x = params["characters"][text] + params["places"][: text.shape[-1]]
    for block in params["blocks"]:
        heads = (normalised(x) @ block["queries_keys_values"]).reshape(*text.shape, 3, HEADS, -1)
        queries, keys, values = (heads[..., i, :, :] for i in range(3))
        attended = jax.nn.dot_product_attention(queries, keys, values, is_causal=True)
        x = x + attended.reshape(x.shape) @ block["attended"]
        x = x + jax.nn.relu(normalised(x) @ block["thought"]) @ block["concluded"]
    return normalised(x) @ params["scores"]


def loss_of(params, text):
    """Nats a character."""
    log_probabilities = jax.nn.log_softmax(forward(params, text[:, :-1]))
    return -jnp.take_along_axis(log_probabilities, text[:, 1:, None], -1).mean()


@functools.partial(jax.jit, static_argnames="length")
def write(params, key, window, length):
    """The characters that follow; the text moves on under a window of CONTEXT places."""

    def next_character(window, key):
        character = jax.random.categorical(key, forward(params, window)[-1])
        return jnp.append(window[1:], character), character

    return jax.lax.scan(next_character, window, jax.random.split(key, length))[1]


def train(steps):
    library = read_library()
    params = new_params(jax.random.key(0))
    lr = schedules.warmup_cosine_decay(0.0, 3e-3, warmup_steps=steps // 10, decay_steps=steps)
    optimizer = gpuadam.jax.adamw(lr=lr, weight_decay=0.1, clip_norm=1.0)
    state = optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params, state, text):
        loss, gradients = jax.value_and_grad(loss_of)(params, text)
        params, state = optimizer.apply(gradients, state, params)
        return params, state, loss

    rng = np.random.default_rng(0)
    begin, losses, report = time.perf_counter(), [], max(steps // 10, 1)
    for step in range(1, steps + 1):
        starts = rng.integers(len(library) - CONTEXT, size=(BATCH, 1))
        params, state, loss = train_step(params, state, library[starts + np.arange(CONTEXT + 1)])
        losses.append(loss)
        if step % report == 0:  # only here the host waits for the device
            mean = float(jnp.stack(losses[-report:]).mean())
            speed = step * BATCH * CONTEXT / (time.perf_counter() - begin)
            print(f"step {step:5}   loss {mean:.3f} nats a character   {speed:,.0f} characters/s")

    beginning = "def "
    window = jnp.array(list(beginning.rjust(CONTEXT, "\n").encode()))
    written = write(params, jax.random.key(1), window, 200)
    print(beginning + bytes(written.tolist()).decode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A small transformer learns to write Python.")
    parser.add_argument("--steps", type=int, default=400)
    train(parser.parse_args().steps)
