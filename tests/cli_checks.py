"""What the tests of the command line share: how it is run, and the one line in which it must refuse."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from gpuadam import cli, demo

ROOT = Path(__file__).parents[1]
PNG = b"\x89PNG\r\n\x1a\n"
QUICK = ["demo", "--backend", "cpu", "--epochs", "2"]


def python_m_gpuadam(*arguments, **settings):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "gpuadam", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **settings)


def number(label, output):
    return re.search(rf"{label} +(\S+)", output)[1]


def trained(options, epochs=None):
    """A run of the demo, interrupted after so many epochs."""
    run = demo.begin(np, options)
    with demo.one_blas_thread():
        list(itertools.islice(demo.train(run), epochs))
    return run


def raises(error):
    """A function that raises, whatever it is given."""

    def fail(*arguments, **settings):
        raise error

    return fail


def refusal(arguments, capsys):
    """The one line that the arguments must earn."""
    assert cli.main(arguments) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n"), told.err[-1:]) == ("", 1, "\n")
    return told.err
