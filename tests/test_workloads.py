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
        # by hand: embeddings 4; 5 layers of 4; tagger 2; parser and entity recogniser 7 each
        ("spacy-small", 40, 11_000 * 96 + (288 * (384 + 4 * 288) + 5 * 480) + 97 * 50 + 421_988 + 36_106),
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


def test_the_small_pipeline_is_that_of_spacy():
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed")
    from spacy.cli.init_config import init_config
    from spacy.tokens import Doc
    from spacy.training import Example

    config = init_config(lang="en", pipeline=["tagger", "parser", "ner"], optimize="efficiency")
    nlp = spacy.util.load_model_from_config(config, auto_fill=True)
    words, entities = ["We", "saw", "John"], ["O", "O", "U-PERSON"]
    annotations = {"words": words, "tags": ["PRP", "VBD", "NNP"], "heads": [1, 1, 1], "deps": ["nsubj", "ROOT", "dobj"]}
    doc = Doc(nlp.vocab, words=words)
    nlp.initialize(lambda: [Example.from_dict(doc, {**annotations, "entities": entities})])
    nodes = [node for _, pipe in nlp.pipeline for node in pipe.model.walk()]
    shapes = [node.get_param(name).shape for node in nodes for name in node.param_names if node.has_param(name)]
    assert sorted(workloads.spacy_small(tags=3, transitions=3, entity_moves=6)) == sorted(shapes)
