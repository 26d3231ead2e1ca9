"""Optimizers of tf.train in TensorFlow 1, by the oracles that recorded runs of it have confirmed."""

import oracle
import oracle_momentum

from . import Row, each_step

HOME = "TensorFlow 1"
ROWS = [
    Row("tf.train.AdamOptimizer(0.01)", "Adam(params, lr=0.01, eps_placement='hat')",
        reference=each_step(oracle.adam, lr=0.01, eps_placement="hat")),
    Row("tf.train.RMSPropOptimizer(0.01, momentum=0.9)", "RMSprop.tensorflow(params, 0.01, momentum=0.9)",
        reference=each_step(oracle.rmsprop_tensorflow1, lr=0.01, momentum=0.9)),
    Row("tf.train.MomentumOptimizer(0.01, 0.9)", "SGD(params, lr=0.01, momentum=0.9)",
        reference=each_step(oracle_momentum.sgd, lr=0.01, momentum=0.9)),
]  # fmt: skip
