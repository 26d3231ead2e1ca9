"""Warm-ups of papers and of repositories without an installable library, their numbers worked out from the formulas."""

import math
from fractions import Fraction

from . import Row

HOME = "Papers: warm-up"
STEPS = (0, 1, 2, 3, 4, 5, 9, 10, 11, 50, 99, 100, 400, 10_000)


def by_hand(formula, steps=STEPS):
    return {k: float(formula(k)) for k in steps}


def goyal(k):
    """Update i = k + 1 of the first m = 5 has i * eta / m."""
    return Fraction(1, 10) * min(Fraction(k + 1, 5), 1)


def vaswani(k):
    """lrate = d_model**-0.5 * min(step_num**-0.5, step_num * warmup_steps**-1.5), step_num from 1."""
    n = k + 1
    return 64**-0.5 * min(n**-0.5, n * 10**-1.5)


def t5(k):
    """1 / sqrt(max(n, k)), here with k = 100."""
    return 1 / math.sqrt(max(k, 100))


def ulmfit(k):
    """cut = floor(T * cut_frac) = 10; p = t / cut, after it 1 - (t - cut) / (cut * (1 / cut_frac - 1))."""
    p = Fraction(k, 10) if k < 10 else 1 - Fraction(k - 10, 90)
    return Fraction(1, 10) * (1 + max(p, 0) * 31) / 32


def minicpm(k):
    """Linear to step 10, flat to step 50, then 0.1**(x) of the peak, x of 20 steps done."""
    return 0.1 * min(k / 10, 1) * 10.0 ** -min(max(k - 50, 0) / 20, 1)


def nanogpt(k):
    """modded-nanogpt: (it + 1) / warmup_iters; 1; (num_iterations - it) / warmdown_iters."""
    up, down = Fraction(k + 1, 5), Fraction(100 - k, 50)
    return Fraction(1, 10) * max(min(up, 1, down), 0)


def bert(k):
    """google-research/bert: polynomial_decay over all T = 100 steps, its first 10 replaced by k / 10 of the rate."""
    return Fraction(k, 100) if k < 10 else max(Fraction(1, 10) * (1 - Fraction(k, 100)), 0)


def karpathy(k):
    """nanoGPT's get_lr: rate * (it + 1) / (W + 1), then the cosine from W = 10 to 100."""
    if k < 10:
        return Fraction(1, 10) * Fraction(k + 1, 11)
    return 0.01 + 0.5 * (1 + math.cos(math.pi * min((k - 10) / 90, 1))) * (0.1 - 0.01)


def detectron2(k):
    """WarmupMultiStepLR: gamma ** (milestones reached) * (factor * (1 - a) + a), a = k / W; W = 10, factor 1 / 1000."""
    a = min(Fraction(k, 10), 1)
    return Fraction(1, 10) ** (1 + (k >= 50) + (k >= 100)) * (Fraction(1, 1000) * (1 - a) + a)


# GradualWarmupScheduler(optimizer, 4, 4, after) of warmup-scheduler 0.3 on torch 2.13, recorded once.
GRADUAL = {0: 0.1, 1: 0.175, 2: 0.25, 3: 0.325, 4: 0.4}
ROWS = [
    Row("Goyal et al., `i * eta / m` for update i = 1, 2, ..., m", "linear_warmup(0.1, 5, first=1)",
        numbers=by_hand(goyal)),
    Row("Goyal et al., constant warm-up", "warmup(0.1, 5, 0.0125, shape='constant')",
        numbers={0: 0.0125, 1: 0.0125, 4: 0.0125, 5: 0.1, 6: 0.1, 100: 0.1}),
    Row("Vaswani et al., `d_model**-0.5 * min(n**-0.5, n * warmup_steps**-1.5)`", "noam(64, 10)",
        numbers=by_hand(vaswani)),
    Row("T5, `1 / sqrt(max(n, k))`", "rsqrt(0.1, 100)", numbers=by_hand(t5)),
    Row("fairseq inverse_sqrt, `--warmup-updates 4 --warmup-init-lr 0.02`", "inverse_sqrt(0.1, 4, init=0.02)",
        numbers=by_hand(lambda k: 0.02 + 0.02 * k if k < 4 else 0.1 * 4**0.5 * k**-0.5)),
    Row("Howard & Ruder, slanted triangular, T = 100", "slanted_triangular(0.1, 100)",
        numbers=by_hand(ulmfit)),
    Row("MiniCPM WSD, exponential decay to a tenth", "wsd(0.1, 10, 40, 20, end=0.01, decay_shape='exponential')",
        numbers=by_hand(minicpm, (0, 5, 10, 50, 51, 60, 69, 70, 100))),
    Row("modded-nanogpt, `(it + 1) / warmup_iters`, 1, `(num_iterations - it) / warmdown_iters`",
        "linear_warmup(1, 5, first=1) * trapezoid(0.1, 0, 50, 100)", numbers=by_hand(nanogpt)),
    Row("Power scheduler, `min(eta_max, a * n**b)` with b = -0.5", "power_schedule(0.1, 0.4, 0.5, warmup_steps=4)",
        numbers=by_hand(lambda k: 0.025 * k if k < 4 else min(0.1, 0.4 / k**0.5), (0, 1, 4, 15, 16, 17, 64, 400))),
    Row("Ma & Yarats, exponential warm-up, `1 - exp(-t / tau)` for t = 1, 2, ...", "exponential_warmup(0.1, 20)",
        numbers=by_hand(lambda k: 0.1 * (1 - math.exp(-(k + 1) / 20)))),
    Row("Ma & Yarats, untuned exponential warm-up of Adam", "untuned_exponential_warmup(0.1, beta2=0.99)",
        numbers=by_hand(lambda k: 0.1 * (1 - math.exp(-(k + 1) / 100)))),
    Row("Ma & Yarats, untuned linear warm-up of Adam", "untuned_linear_warmup(0.1, beta2=0.99)",
        numbers=by_hand(lambda k: 0.1 * min(1, (k + 1) / 200))),
    Row("google-research/bert, `create_optimizer(0.1, num_train_steps=100, num_warmup_steps=10)`",
        "where(step < 10, linear_warmup(0.1, 10), polynomial_decay(0.1, 100, 0.0))",
        remark="the decay runs under the warm-up: after it the rate jumps down to 0.09",
        numbers=by_hand(bert)),
    Row("nanoGPT get_lr, `(it + 1) / (warmup_iters + 1)`, then cosine",
        "where(step < 10, linear_warmup(0.1, 11, first=1), warmup_cosine_decay(0.0, 0.1, 10, 100, 0.01))",
        numbers=by_hand(karpathy)),
    Row("detectron2 WarmupMultiStepLR, linear, `warmup_iters=10, warmup_factor=0.001`, milestones 50, 100",
        "linear_warmup(1, 10, 0.001) * multi_step_decay(0.1, [50, 100])", numbers=by_hand(detectron2)),
    Row("Adafactor's relative step, `min(1e-2, 1 / sqrt(t))` for t = 1, 2, ...",
        "power_schedule(0.01, 1.0, 0.5, first=1)",
        numbers=by_hand(lambda k: min(1e-2, 1 / math.sqrt(k + 1)), (0, 1, 9998, 9999, 10_000, 39_999, 10**6))),
    Row("Adafactor's relative step with `warmup_init`, `min(1e-6 * t, 1 / sqrt(t))`",
        "minimum(1e-6 * (step + 1), 1 / sqrt(step + 1))",
        numbers=by_hand(lambda k: min(1e-6 * (k + 1), 1 / math.sqrt(k + 1)), (0, 1, 9998, 9999, 10_000, 10**6))),
    Row("mmcv LrUpdaterHook, `warmup='constant', warmup_iters=5, warmup_ratio=0.01`",
        "warmup(1, 5, 0.01, shape='constant') * 0.1",
        numbers={0: 0.001, 1: 0.001, 4: 0.001, 5: 0.1, 6: 0.1, 100: 0.1}),
    Row("mmcv LrUpdaterHook, `warmup='linear', warmup_iters=5, warmup_ratio=0.01`",
        "warmup(1, 5, 0.01) * 0.1",
        numbers=by_hand(lambda k: 0.1 * (1 - (1 - min(k / 5, 1)) * (1 - 0.01)))),
    Row("mmcv LrUpdaterHook, `warmup='exp', warmup_iters=5, warmup_ratio=0.01`",
        "warmup(1, 5, 0.01, shape='exponential') * 0.1",
        remark="a factor of the schedule, whichever that is; so are the two above",
        numbers=by_hand(lambda k: 0.1 * 0.01 ** max(1 - k / 5, 0))),
    Row("ildoonet GradualWarmupScheduler(optimizer, 1, 4)", "gradual_warmup(0.1, 1, 4)",
        remark="multiplier 1: from 0 to `lr`",
        numbers=by_hand(lambda k: Fraction(1, 10) * min(Fraction(k, 4), 1))),
    Row("ildoonet GradualWarmupScheduler(optimizer, 4, 4)", "gradual_warmup(0.1, 4, 4)",
        remark="multiplier 4: from `lr` to `4 * lr`",
        numbers=by_hand(lambda k: Fraction(1, 10) * (1 + 3 * min(Fraction(k, 4), 1)))),
    Row("ildoonet GradualWarmupScheduler(optimizer, 4, 4, ExponentialLR(optimizer, 0.9))",
        "gradual_warmup(0.1, 4, 4, exponential_decay(0.4, 1, 0.9))",
        numbers={**GRADUAL, **{4 + k: 0.4 * 0.9**k for k in range(1, 12)}}),
    Row("ildoonet GradualWarmupScheduler(optimizer, 4, 4, LambdaLR(optimizer, lambda k: 1 / (1 + k))), `step(epoch)`",
        "gradual_warmup(0.1, 4, 4, 0.4 / (1 + step))",
        remark="equal but for step 5, T + 1, which there still has step 0 of the second scheduler: 0.4 for 0.2",
        numbers={**GRADUAL, 6: 0.4 / 3, 7: 0.4 / 4, 8: 0.4 / 5, 20: 0.4 / 17}),
    Row("ildoonet GradualWarmupScheduler(optimizer, 4, 4, StepLR(optimizer, 3, 0.5)), `step()`",
        "join([gradual_warmup(0.1, 4, 4), step_decay(0.4, 3, 0.5)], [5])",
        remark="without an epoch StepLR and LambdaLR begin one step late, at T + 1; ExponentialLR does not; "
        "CosineAnnealingLR overshoots: 0.4158 for 0.4",
        numbers={**GRADUAL, 5: 0.4, 6: 0.4, 7: 0.4, 8: 0.2, 10: 0.2, 11: 0.1, 14: 0.05}),
]  # fmt: skip
