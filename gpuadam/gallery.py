"""One example of each schedule, as `schedule_text` reads it; they fit into STEPS steps."""

STEPS = 1_000
EXAMPLES: dict[str, str] = {
    "constant": "constant(0.1)",
    "piecewise_constant": "piecewise_constant([300, 600, 800], [0.1, 0.03, 0.01, 0.001])",
    "linear_warmup": "linear_warmup(0.1, 300)",
    "exponential_decay": "exponential_decay(0.1, 200, 0.5)",
    "polynomial_decay": "polynomial_decay(0.1, 900, 0.001, power=2)",
    "cosine_decay": "cosine_decay(0.1, 900)",
    "warmup_cosine_decay": "warmup_cosine_decay(0, 0.1, 150, 900)",
    "cosine_decay_restarts": "cosine_decay_restarts(0.1, 140, m_mul=0.8)",
    "one_cycle": "one_cycle(0.1, 1000)",
    "one_cycle_momentum": "one_cycle_momentum(1000)",
    "cyclic": 'cyclic(0.01, 0.1, 100, mode="triangular2")',
    "join": "join([linear_warmup(0.1, 200), 0.1, cosine_decay(0.1, 400)], [200, 500])",
}
