"""timm's schedulers, stepped once an update; without the noise.

The numbers were recorded from timm 1.0.31, made with `t_in_epochs=False` in every row and stepped by `step_update(k)`
before update k. For whole epochs, `step(epoch)`, write `per_epoch(schedule, steps_per_epoch)`.
"""

from . import Row

HOME = "timm"
ROWS = [
    Row("CosineLRScheduler(optimizer, t_initial=50)",
        "cosine_decay(0.1, 50)",
        remark="past the end `lr_min` stays, as here",
        numbers={0: 0.1, 1: 0.0999013364214, 25: 0.05, 49: 9.86635786e-05, 50: 0.0, 80: 0.0}),
    Row("CosineLRScheduler(optimizer, t_initial=50, lr_min=0.01, warmup_t=5, warmup_lr_init=0.001, "
        "warmup_prefix=True)",
        "warmup_cosine_decay(0.001, 0.1, 5, 55, 0.01)",
        numbers={0: 0.001, 1: 0.0208, 4: 0.0802, 5: 0.1, 6: 0.0999112027793, 30: 0.055, 54: 0.0100887972207,
                 55: 0.01, 80: 0.01}),
    Row("CosineLRScheduler(optimizer, t_initial=50, lr_min=0.01, warmup_t=5, warmup_lr_init=0.001)",
        "where(step < 5, linear_warmup(0.1, 5, 0.001), cosine_cycles(0.1, 50, 0.01))",
        remark="without `warmup_prefix` the decay runs under the warm-up: after it the rate jumps down",
        numbers={0: 0.001, 1: 0.0208, 4: 0.0802, 5: 0.0977975432333, 6: 0.096839941865, 30: 0.0410942352531,
                 49: 0.0100887972207, 50: 0.01, 80: 0.01}),
    Row("CosineLRScheduler(optimizer, t_initial=50, lr_min=0.01, cycle_mul=2.0, cycle_decay=0.5, "
        "cycle_limit=3)",
        "cosine_cycles(0.1, 50, 0.01, cycle_mul=2.0, cycle_decay=0.5, cycle_limit=3)",
        remark="the restart is found there by a logarithm, which at some boundaries misses it by one step",
        numbers={0: 0.1, 25: 0.055, 49: 0.0100887972207, 50: 0.05, 100: 0.03, 149: 0.0100098687927, 150: 0.025,
                 250: 0.0175, 349: 0.0100009252564, 350: 0.01, 400: 0.01}),
    Row("CosineLRScheduler(optimizer, t_initial=50, lr_min=0.01, k_decay=2.0, cycle_decay=0.5, "
        "cycle_limit=2)",
        "cosine_cycles(0.1, 50, 0.01, k=2.0, cycle_decay=0.5, cycle_limit=2)",
        numbers={0: 0.1, 1: 0.0999999644694, 25: 0.0868198051534, 49: 0.0103477862657, 50: 0.05,
                 75: 0.0441421356237, 99: 0.0101545716737, 100: 0.01, 150: 0.01}),
    Row("PolyLRScheduler(optimizer, t_initial=50)",
        "polynomial_decay(0.1, 50, 0.0, power=0.5)",
        remark="the power is 0.5 if nothing is said",
        numbers={0: 0.1, 1: 0.0989949493661, 25: 0.0707106781187, 49: 0.0141421356237, 50: 0.0, 80: 0.0}),
    Row("PolyLRScheduler(optimizer, t_initial=50, power=2.0, lr_min=0.01, warmup_t=5, "
        "warmup_prefix=True)",
        "warmup_polynomial_decay(0.0, 0.1, 5, 55, 0.01, power=2.0)",
        numbers={0: 0.0, 1: 0.02, 4: 0.08, 5: 0.1, 6: 0.096436, 30: 0.0325, 54: 0.010036, 55: 0.01, 80: 0.01}),
    Row("PolyLRScheduler(optimizer, t_initial=50, lr_min=0.01, k_decay=0.5, cycle_mul=3.0, "
        "cycle_decay=0.5, cycle_limit=2)",
        "polynomial_cycles(0.1, 50, 0.01, k=0.5, cycle_mul=3.0, cycle_decay=0.5, cycle_limit=2)",
        numbers={0: 0.1, 1: 0.093393566985, 25: 0.0587076490132, 49: 0.0190226992272, 50: 0.05, 51: 0.0483322390039,
                 125: 0.0316478440058, 199: 0.0123113312129, 200: 0.01, 300: 0.01}),
    Row("TanhLRScheduler(optimizer, t_initial=50)",
        "tanh_decay(0.1, 50)",
        remark="at the end the rate falls from 0.25% of the way to `lr_min`; the first update has 0.1 itself if "
        "`step_update(0)` was not called",
        numbers={0: 0.0999999168472, 1: 0.0999998759506, 25: 0.0982013790038, 40: 0.0119202922022,
                 49: 0.0003684239899, 50: 0.0, 80: 0.0}),
    Row("TanhLRScheduler(optimizer, t_initial=50, lb=-4.0, ub=2.0, lr_min=0.01, warmup_t=5, "
        "warmup_lr_init=0.001, warmup_prefix=True)",
        "join([linear_warmup(0.1, 5, 0.001), tanh_decay(0.1, 50, 0.01, lower=-4.0, upper=2.0)], [5])",
        remark="the warm-up aims at 0.1, the decay begins a little lower",
        numbers={0: 0.001, 1: 0.0208, 4: 0.0802, 5: 0.0999698184883, 6: 0.0999616352686, 30: 0.089271737018,
                 54: 0.0120478549117, 55: 0.01, 80: 0.01}),
    Row("TanhLRScheduler(optimizer, t_initial=50, lb=-2.0, warmup_t=20)",
        "where(step < 20, linear_warmup(tanh_decay(0.1, 50, lower=-2.0)(20), 20), tanh_decay(0.1, 50, "
        "lower=-2.0))",
        remark="without `warmup_prefix` the warm-up aims at the value that the decay has by then",
        numbers={0: 0.0, 1: 0.0025, 10: 0.025, 19: 0.0475, 20: 0.05, 21: 0.0450166002688, 30: 0.0119202922022,
                 49: 0.0003018416325, 50: 0.0}),
    Row("TanhLRScheduler(optimizer, t_initial=50, lr_min=0.01, cycle_mul=2.0, cycle_decay=0.5, "
        "cycle_limit=2)",
        "tanh_decay(0.1, 50, 0.01, cycle_mul=2.0, cycle_decay=0.5, cycle_limit=2)",
        numbers={0: 0.0999999251625, 25: 0.0983812411034, 40: 0.020728262982, 49: 0.0103315815909,
                 50: 0.0499999667389, 100: 0.0492805516015, 130: 0.0147681168809,
                 149: 0.010120736653, 150: 0.01, 200: 0.01}),
    Row("StepLRScheduler(optimizer, decay_t=30, decay_rate=0.5)",
        "step_decay(0.1, 30, 0.5)",
        numbers={0: 0.1, 1: 0.1, 29: 0.1, 30: 0.05, 59: 0.05, 60: 0.025, 300: 9.765625e-05}),
    Row("StepLRScheduler(optimizer, decay_t=30, decay_rate=0.5, warmup_t=5)",
        "join([linear_warmup(0.1, 5), step_decay(0.1, 30, 0.5)], [5])",
        remark="`warmup_prefix` is True if nothing is said",
        numbers={0: 0.0, 1: 0.02, 4: 0.08, 5: 0.1, 34: 0.1, 35: 0.05, 64: 0.05, 65: 0.025, 300: 0.0001953125}),
    Row("MultiStepLRScheduler(optimizer, decay_t=[10, 30], decay_rate=0.5)",
        "multi_step_decay(0.1, [9, 29], 0.5)",
        remark="each drop comes one step early: the milestone is compared with step + 1",
        numbers={0: 0.1, 8: 0.1, 9: 0.05, 10: 0.05, 28: 0.05, 29: 0.025, 30: 0.025, 100: 0.025}),
    Row("MultiStepLRScheduler(optimizer, decay_t=[10, 30], decay_rate=0.5, warmup_t=5, "
        "warmup_prefix=False)",
        "where(step < 5, linear_warmup(0.1, 5), multi_step_decay(0.1, [9, 29], 0.5))",
        numbers={0: 0.0, 1: 0.02, 4: 0.08, 5: 0.1, 8: 0.1, 9: 0.05, 10: 0.05, 28: 0.05, 29: 0.025, 30: 0.025,
                 100: 0.025}),
    Row("WSDLRScheduler(optimizer, t_initial=50, decay_t=20, warmup_t=10)",
        "wsd(0.1, 10, 30, 20)",
        remark="`t_initial` leaves the warm-up out; the stable part is `t_initial - decay_t`",
        numbers={0: 0.0, 1: 0.01, 9: 0.09, 10: 0.1, 39: 0.1, 40: 0.1, 41: 0.077639320225, 50: 0.0292893218813,
                 59: 0.0025320565519, 60: 0.0, 80: 0.0}),
    Row("WSDLRScheduler(optimizer, t_initial=50, decay_t=20, lr_min=0.01, warmup_t=10, "
        "warmup_lr_init=0.02, decay_fn='linear')",
        "wsd(0.1, 10, 30, 20, init=0.02, end=0.01, decay_shape='linear')",
        numbers={0: 0.02, 1: 0.028, 9: 0.092, 10: 0.1, 39: 0.1, 41: 0.0955, 50: 0.055, 59: 0.0145, 60: 0.01,
                 80: 0.01}),
    Row("WSDLRScheduler(optimizer, t_initial=50, decay_t=20, lr_min=0.01, warmup_t=10, "
        "warmup_lr_init=0.02, decay_fn='cosine')",
        "wsd(0.1, 10, 30, 20, init=0.02, end=0.01, decay_shape='cosine')",
        numbers={0: 0.02, 1: 0.028, 9: 0.092, 10: 0.1, 39: 0.1, 41: 0.0994459753268, 50: 0.055, 59: 0.0105540246732,
                 60: 0.01, 80: 0.01}),
    Row("WSDLRScheduler(optimizer, t_initial=50, decay_t=20, lr_min=0.01, warmup_t=10, "
        "warmup_lr_init=0.02, decay_fn='power', decay_power=2.0)",
        "wsd(0.1, 10, 30, 20, init=0.02, end=0.01, decay_shape='power', decay_power=2.0)",
        numbers={0: 0.02, 1: 0.028, 9: 0.092, 10: 0.1, 39: 0.1, 41: 0.099775, 50: 0.0775, 59: 0.018775, 60: 0.01,
                 80: 0.01}),
    Row("WSDLRScheduler(optimizer, t_initial=50, decay_t=20, lr_min=0.01, warmup_t=10, "
        "warmup_lr_init=0.02, decay_fn='exp', decay_ratio=0.2)",
        "wsd(0.1, 10, 30, 20, init=0.02, end=0.01, decay_shape='exponential', decay_ratio=0.2)",
        numbers={0: 0.02, 1: 0.028, 9: 0.092, 10: 0.1, 39: 0.1, 41: 0.0913015938914, 50: 0.0378115294937,
                 59: 0.0118854637015, 60: 0.01, 80: 0.01}),
    Row("WSDLRScheduler(optimizer, t_initial=50, decay_t=20, lr_min=0.04, stable_fn='rsqrt', "
        "warmup_t=10)",
        "wsd(0.1, 10, 30, 20, end=0.04, stable_power=0.5)",
        numbers={0: 0.0, 1: 0.01, 9: 0.09, 10: 0.1, 11: 0.0953462589246, 39: 0.0506369683542, 41: 0.047287599135,
                 50: 0.0413828541958, 59: 0.0400296085648, 60: 0.04, 80: 0.04}),
    Row("WSDLRScheduler(optimizer, t_initial=50, decay_t=20, lr_min=0.01, stable_fn='power', "
        "stable_power=2.0, stable_timescale=7.0, decay_fn='linear')",
        "wsd(0.1, 0, 30, 20, end=0.01, stable_power=2.0, timescale=7.0, decay_shape='linear')",
        remark="the stable part never falls below `lr_min`",
        numbers={0: 0.1, 1: 0.0765625, 9: 0.019140625, 14: 0.0111111111111, 16: 0.01, 30: 0.01, 31: 0.01, 49: 0.01,
                 50: 0.01, 80: 0.01}),
]  # fmt: skip
