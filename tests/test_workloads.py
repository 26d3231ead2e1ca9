"""The shapes that measurements step are those of the networks whose names they bear."""

import pytest

from gpuadam import workloads


def shapes_of(model):
    return [tuple(parameter.shape) for parameter in model.parameters()]


@pytest.mark.parametrize(
    ("name", "tensors", "elements"),
    [
        ("resnet50", 161, 25_557_032),  # torchvision's table of weights
        ("vit-b16", 200, 86_567_656),
        ("gpt2", 148, 124_439_808),
        ("gpt2-medium", 292, 354_823_168),
        ("llama-7b", 291, 6_738_415_616),
    ],
)
def test_the_sizes_are_the_published_ones(name, tensors, elements):
    found = workloads.network(name)
    assert (len(found.shapes), found.elements) == (tensors, elements)


def test_the_shapes_are_those_of_transformers():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    configs = {
        "vit-b16": (transformers.ViTForImageClassification, transformers.ViTConfig(num_labels=1000)),
        "gpt2": (transformers.GPT2Model, transformers.GPT2Config()),
        "gpt2-medium": (transformers.GPT2Model, transformers.GPT2Config(n_embd=1024, n_layer=24, n_head=16)),
        "llama-7b": (transformers.LlamaForCausalLM, transformers.LlamaConfig()),
    }
    for name, (model, config) in configs.items():
        with torch.device("meta"):
            assert sorted(shapes_of(model(config))) == sorted(workloads.network(name).shapes), name


def test_a_llama_that_fits():
    whole = workloads.network("llama-7b")
    assert workloads.llama_within(10**12).elements == whole.elements
    one, two = workloads.count_elements(workloads.llama(1)), workloads.count_elements(workloads.llama(2))
    assert workloads.llama_within(two).elements == two
    assert workloads.llama_within(two - 1).elements == one
    assert workloads.llama_within(1).elements == one
