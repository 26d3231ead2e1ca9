"""All contenders on the CPU by their names, in the order in which they are sampled and told."""

from cpu_contenders import Contender, Gpuadam
from jax_contenders import Optax
from thinc_contenders import GpuadamThinc, Thinc
from torch_contenders import Bitsandbytes, DeepSpeed, Foreach, Fused, Loop

KINDS: tuple[type[Contender], ...] = (
    *(Gpuadam, Fused, Foreach, Loop, Optax),
    *(Bitsandbytes, DeepSpeed, Thinc, GpuadamThinc),
)
CONTENDERS = {kind.name: kind for kind in KINDS}
OURS = Gpuadam.name
