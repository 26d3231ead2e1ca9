"""GPUs that people rent and own: their memory, and how fast it is at its peak, each with the page that says so.

A GB is 10**9 bytes, as data sheets have it. A GPU for which no such page was read is not here.
"""

from typing import NamedTuple


class Source(NamedTuple):
    """The page in which both figures were read, and the vendor's document that it names for them, if it names one."""

    url: str
    quotes: str = ""


class GPU(NamedTuple):
    """One GPU: its name, GB of memory, GB/s to and from that memory, and where these stand."""

    name: str
    memory: float
    bandwidth: float
    source: Source


COMMIT = "16d2467ea8e3b45d7d9555010c2ad018d006d5c1"
OF_NVIDIA = f"https://github.com/NVIDIA/TensorRT-LLM/blob/{COMMIT}/tensorrt_llm/auto_parallel/cluster_info.py"
SHEETS = "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center"
A100 = Source(OF_NVIDIA, f"{SHEETS}/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf")
H100 = Source(OF_NVIDIA, "https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet")
H200 = Source(OF_NVIDIA, "https://nvdam.widen.net/s/nb5zzzsjdf/hpc-datasheet-sc23-h200-datasheet-3002446")
A10 = Source(OF_NVIDIA, f"{SHEETS}/a10/pdf/datasheet-new/nvidia-a10-datasheet.pdf")
L40S = Source(OF_NVIDIA, "https://resources.nvidia.com/en-us-l40s/l40s-datasheet-28413")
L4 = Source(OF_NVIDIA, "https://nvdam.widen.net/s/rvq98gbwsw/l4-datasheet-2595652")
# 1,440 GB and 64 TB/s for eight; clock and width of the memory, as a driver tells them, make 7.67 TB/s each.
B200 = Source(
    "https://brent-newsom-nvidia.github.io/AIPS-Boom/wiki/NVIDIA-DGX-B200",
    "https://www.nvidia.com/en-us/data-center/dgx-b200/",
)
V100_16 = Source(
    "https://www.io-tech.fi/uutinen/nvidia-esitteli-tesla-v100-pci-express-kiihdyttimen-tieteelliseen-laskentaan/"
)
T4 = Source("https://manualmachine.com/pny/tcst4mpb/8129101-user-manual")  # NVIDIA's product brief, in PNY's name
GEFORCE = Source("https://kitguru.net/components/graphic-cards/dominic-moass/nvidia-rtx-4090-founders-edition-review")
RTX_6000_ADA = Source("https://www.grafikkarten.com/de/news/nvidia-rtx-6000-grafikkarte-der-ada-generation")
RTX_BLACKWELL = Source("https://hardware-corner.net/rtx-5090-vs-rtx-pro-6000-spec-comparison-20250321")
GPUS = (
    GPU("B200", 180, 8000, B200),
    GPU("H200", 141, 4800, H200),
    GPU("H100-SXM", 80, 3350, H100),
    GPU("H100-PCIe", 80, 2000, H100),
    GPU("A100-SXM-80GB", 80, 2039, A100),
    GPU("A100-PCIe-80GB", 80, 1935, A100),
    GPU("A100-40GB", 40, 1555, A100),
    GPU("RTX-PRO-6000", 96, 1792, RTX_BLACKWELL),
    GPU("RTX-5090", 32, 1792, RTX_BLACKWELL),
    GPU("RTX-4090", 24, 1008, GEFORCE),
    GPU("RTX-6000-Ada", 48, 960, RTX_6000_ADA),
    GPU("RTX-3090", 24, 936, GEFORCE),
    GPU("V100-16GB", 16, 900, V100_16),
    GPU("L40S", 48, 864, L40S),
    GPU("A10", 24, 600, A10),
    GPU("A10G", 24, 600, A10),
    GPU("T4", 16, 320, T4),
    GPU("L4", 24, 300, L4),
)
