"""A small transformer learns to write Python, character by character, from the sources of the standard library.

    python examples/char_transformer_torch.py

Against a trainer with `torch.optim.AdamW`: the import is another one, `lr` takes a schedule, and the clipping is an
argument. So there is no scheduler to step, and no `clip_grad_norm_`: all of it happens in the launch that updates.
"""

import argparse
import sysconfig
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from gpuadam import schedules
from gpuadam.torch import AdamW

CHARACTERS = 128  # of ASCII; the others are left out
CONTEXT, WIDTH, HEADS, LAYERS = 64, 128, 4, 2
BATCH = 32
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def read_library():
    """The standard library, some millions of characters."""
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    codes = torch.frombuffer(bytearray(b"".join(module.read_bytes() for module in modules)), dtype=torch.uint8)
    return codes[codes < CHARACTERS].to(DEVICE)


class Block(nn.Module):
    """Each place attends to those before it, then thinks by itself; what either finds is added."""

    def __init__(self):
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.queries_keys_values = nn.Linear(WIDTH, 3 * WIDTH)
        self.attended = nn.Linear(WIDTH, WIDTH)
        self.thought = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.ReLU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x):
        heads = self.queries_keys_values(self.attention_norm(x)).unflatten(-1, (3, HEADS, -1))
        queries, keys, values = heads.transpose(1, 3).unbind(2)
        attended = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.attended(attended.transpose(1, 2).flatten(2))
        return x + self.thought(x)


class Writer(nn.Module):
    """The scores of the next character, at each place of a text."""

    def __init__(self):
        super().__init__()
        self.character = nn.Embedding(CHARACTERS, WIDTH)
        self.place = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)), nn.LayerNorm(WIDTH))
        self.scores = nn.Linear(WIDTH, CHARACTERS)
        for embedding in (self.character, self.place):
            nn.init.normal_(embedding.weight, std=0.1)  # small, so that what the blocks add counts at once

    def forward(self, text):
        places = torch.arange(text.shape[1], device=text.device)
        return self.scores(self.blocks(self.character(text) + self.place(places)))

    @torch.no_grad()
    def write(self, beginning, length):
        text = torch.tensor([list(beginning.encode())], device=DEVICE)
        for _ in range(length):
            probabilities = self(text[:, -CONTEXT:])[:, -1].softmax(-1)
            text = torch.cat([text, torch.multinomial(probabilities, 1)], dim=1)
        return bytes(text[0].tolist()).decode()


def train(steps):
    torch.manual_seed(0)
    library = read_library()
    model = Writer().to(DEVICE)
    lr = schedules.warmup_cosine_decay(0.0, 3e-3, warmup_steps=steps // 10, decay_steps=steps)
    optimizer = AdamW(model.parameters(), lr=lr, weight_decay=0.1, clip_norm=1.0)

    begin, report = time.perf_counter(), max(steps // 10, 1)
    total = torch.zeros((), device=DEVICE)
    for step in range(1, steps + 1):
        starts = torch.randint(len(library) - CONTEXT, (BATCH, 1), device=DEVICE)
        text = library[starts + torch.arange(CONTEXT + 1, device=DEVICE)].long()
        loss = functional.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
        if step % report == 0:  # only here the host waits for the GPU
            mean = total.item() / report
            speed = step * BATCH * CONTEXT / (time.perf_counter() - begin)
            print(f"step {step:5}   loss {mean:.3f} nats a character   {speed:,.0f} characters/s")
            total.zero_()
    print(model.write("def ", 200))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A small transformer learns to write Python.")
    parser.add_argument("--steps", type=int, default=400)
    train(parser.parse_args().steps)
