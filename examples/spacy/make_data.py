"""Docstrings of Python's standard library, labelled with the package that they come from, as spaCy's training data.

    python make_data.py [folder] [--most N]

Writes train.spacy and dev.spacy. Which of the two a text goes to depends on the text alone.
"""

import argparse
import ast
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path

import spacy
from spacy.tokens import DocBin

PACKAGES = ("asyncio", "email", "importlib", "logging", "multiprocessing", "unittest", "urllib", "xml")


def docstrings(package: str) -> Iterator[str]:
    """Those of all its modules, classes and functions, each once; nothing is imported."""
    seen = set()
    for path in sorted((Path(sysconfig.get_path("stdlib")) / package).rglob("*.py")):
        if {"test", "tests"} & set(path.parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8", errors="replace"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                if len(text) >= 30 and text not in seen:
                    seen.add(text)
                    yield text[:600]


def write(folder: Path, most: int) -> dict[str, int]:
    """Write both files, with at most so many texts of a package; returns how many texts each has."""
    nlp = spacy.blank("en")
    bins = {"train": DocBin(), "dev": DocBin()}
    for label in PACKAGES:
        for text in list(docstrings(label))[:most]:
            doc = nlp.make_doc(text)
            doc.cats = {package: float(package == label) for package in PACKAGES}
            bins["dev" if zlib.crc32(text.encode()) % 4 == 0 else "train"].add(doc)
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in bins.items():
        texts.to_disk(folder / f"{name}.spacy")
    return {name: len(texts) for name, texts in bins.items()}


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", nargs="?", type=Path, default=Path("data"))
    arguments.add_argument("--most", type=int, default=200, help="texts of a package")
    given = arguments.parse_args()
    print(write(given.folder, given.most))
