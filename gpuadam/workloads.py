"""What is stepped in measurements: the parameter shapes of well-known networks, and tensors of one size."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Workload:
    """Tensors to be stepped together.

    Args:
        name: A word, as on the command line.
        title: What tables say.
        shapes: Of the tensors.
        groups: Parameter groups over which they are spread, as evenly as it goes.
    """

    name: str
    title: str
    shapes: tuple[Shape, ...]
    groups: int = 1

    @property
    def elements(self) -> int:
        return count_elements(self.shapes)


def count_elements(shapes: Iterable[Shape]) -> int:
    return sum(map(math.prod, shapes))


def resnet50() -> list[Shape]:
    """ResNet-50 of torchvision: 161 tensors, 25,557,032 elements."""
    shapes: list[Shape] = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            kernels = [(width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            if block == 0:
                kernels.append((4 * width, inputs, 1, 1))
            for kernel in kernels:
                shapes += [kernel, kernel[:1], kernel[:1]]
            inputs = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


def linear(inputs: int, outputs: int) -> list[Shape]:
    """The weight and bias of a layer, in PyTorch's order of axes."""
    return [(outputs, inputs), (outputs,)]


def vit_b16() -> list[Shape]:
    """ViT-B/16 with 1,000 classes, as in transformers: 200 tensors, 86,567,656 elements."""
    width = 768
    norm: list[Shape] = [(width,), (width,)]
    attention = 4 * linear(width, width)
    layer = [*attention, *linear(width, 4 * width), *linear(4 * width, width), *norm, *norm]
    patches: list[Shape] = [(1, 1, width), (1, 197, width), (width, 3, 16, 16), (width,)]
    return [*patches, *(12 * layer), *norm, *linear(width, 1000)]


def gpt2(layers: int = 12, width: int = 768) -> list[Shape]:
    """GPT-2 as in transformers, whose layers have the inputs first; small: 148 tensors, 124,439,808 elements."""
    norm: list[Shape] = [(width,), (width,)]
    attention: list[Shape] = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    mlp: list[Shape] = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(50257, width), (1024, width), *(layers * [*norm, *attention, *norm, *mlp]), *norm]


def gpt2_medium() -> list[Shape]:
    """GPT-2 medium: 292 tensors, 354,823,168 elements."""
    return gpt2(24, 1024)


def llama(layers: int = 32) -> list[Shape]:
    """Llama 7B: 291 tensors, 6,738,415,616 elements; with fewer layers, what fits a smaller memory."""
    width, hidden, words = 4096, 11008, 32000
    square, wider, narrower, norm = (width, width), (hidden, width), (width, hidden), (width,)
    layer: list[Shape] = [*(4 * [square]), wider, wider, narrower, norm, norm]
    return [(words, width), *(layers * layer), norm, (words, width)]


def spacy_small(tags: int = 50, transitions: int = 100, entity_moves: int = 74) -> list[Shape]:
    """spaCy's small pipeline: tagger, parser and entity recogniser over one small convolutional network.

    Args:
        tags, transitions, entity_moves: Outputs of the three, by the labels in the data; 18 kinds of entity have 74.
    """
    width, pieces = 96, 3
    embeddings: list[Shape] = [(rows, width) for rows in (5000, 1000, 2500, 2500)]
    layers: list[Shape] = []
    for inputs in (4 * width, *(4 * [3 * width])):
        layers += [(width, pieces, inputs), (width, pieces), (width,), (width,)]
    shapes = [*embeddings, *layers, *linear(width, tags)]
    for features, hidden, parts, outputs in ((8, 128, 3, transitions), (3, 64, 2, entity_moves)):
        lower: list[Shape] = [(features, hidden, parts, hidden), (hidden, parts), (1, features, hidden, parts)]
        shapes += [*lower, *linear(hidden, outputs), *linear(width, hidden)]
    return shapes


NETWORKS: dict[str, tuple[str, Callable[[], list[Shape]]]] = {
    "resnet50": ("ResNet-50", resnet50),
    "vit-b16": ("ViT-B/16", vit_b16),
    "gpt2": ("GPT-2 small", gpt2),
    "gpt2-medium": ("GPT-2 medium", gpt2_medium),
    "llama-7b": ("Llama 7B", llama),
    "spacy-small": ("spaCy's small pipeline", spacy_small),
}


def network(name: str, groups: int = 1) -> Workload:
    """The parameters of a network of `NETWORKS`."""
    title, shapes_of = NETWORKS[name]
    shapes = tuple(shapes_of())
    return Workload(name, f"{title}, {len(shapes)} tensors", shapes, groups)


def uniform(tensors: int, size: int, groups: int = 1) -> Workload:
    """Some tensors of one size."""
    many = f"{tensors:,} tensors of {size:,}" if tensors > 1 else f"one tensor of {size:,}"
    title = f"{many}, {groups} groups" if groups > 1 else many
    return Workload(f"{tensors}x{size}", title, ((size,),) * tensors, groups)


def llama_within(elements: int) -> Workload:
    """A Llama of so many of its 32 layers that it has at most so many elements, at least one layer."""
    outside, inside = count_elements(llama(0)), count_elements(llama(1)) - count_elements(llama(0))
    layers = max(1, min(32, (elements - outside) // inside))
    shapes = tuple(llama(layers))
    return Workload(f"llama-{layers}", f"Llama 7B, {layers} of 32 layers, {len(shapes)} tensors", shapes)
