"""Where networks train: device, precision, how many side by side.  in: a RuntimeSpec   out: a Placement

On a CPU one network per core, each with one thread inside its operations: stacking several loses there, because the
state of one network stays in the cache and that of four does not.  On a GPU, MLPs train as a stack.  Precision, float32
routing, kernel and layout follow from the processor and the recipe, never from a measured time, which depends on what
else runs.  They are kept on the run, so that a launch that resumes it elsewhere trains as it began.  How many networks
a GPU trains side by side is measured, see `autotune`.  Several GPUs have a process each, see `engines.multi_device`.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch

from study.errors import RecipeError
from study.kernels import native
from study.kernels.kde import exact_routing
from study.training.engines.mlp_native import trains
from study.training.types import OptimizerSpec, RuntimeSpec

log = logging.getLogger(__name__)
STACK = 128  # members in one stack on a GPU, an estimate: their state is 820 MB; scripts/bench_gpu compares sizes
BFLOAT16 = {
    "amx_bf16",
    "avx512_bf16",
}  # flags of processors that multiply bfloat16 twice as fast as float32
TILES = "amx_bf16"  # the flag of those that have torch multiply whole tiles of it, which the project's kernel does not
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


@dataclass(frozen=True)
class Placement:
    """How networks are laid onto the machine; changes speed and rounding, never masks, initial weights or order."""

    device: str
    precision: str  # of the matrix products; master weights are float32 (float64 with "float64")
    matmul: str  # torch's float32 routing: "highest" or "medium"
    threads: int  # networks trained at a time, each in a thread; on a GPU in a stream of its own
    cores: int  # threads inside one operation
    stack: int  # networks in one stack
    machine: int = 1  # cores that this launch may use in all
    kernel: str = "torch"  # of an MLP's steps: "native" or "torch"
    layout: str = "channels_last"  # of a convolutional network's images in memory, or "contiguous"
    devices: tuple[str, ...] = ()  # more than one: jobs are dealt to a process for each; `device` is the first

    @property
    def compute(self) -> torch.dtype:
        """The type of the matrix products."""
        return DTYPES[self.precision]

    @property
    def master(self) -> torch.dtype:
        """The type of the weights that are updated."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def alone(self, *, wide: bool) -> "Placement":
        """For one network that has the machine to itself.

        Wide networks take all cores inside their operations.  An MLP's operations last some 100 us, less than two
        threads need to meet: it stays on one core (two gave .6 of its speed, measured at batches of 32 and of 128).
        """
        return replace(self, threads=1, cores=self.machine if wide else 1, stack=1, devices=())

    def split(self) -> "list[Placement]":
        """One for each device, with its share of the cores; just this one where there is one device."""
        share = max(1, self.machine // max(1, len(self.devices)))
        one = replace(self, devices=(), cores=min(self.cores, share), machine=share)
        return [replace(one, device=device) for device in self.devices] or [self]

    def tags(self) -> dict[str, str]:
        """What a run says of its placement: `study.placement` is read again by `placed`, the others are for people."""
        shown = {"device": device_name(self.device), "precision": self.precision, "matmul": self.matmul}
        shown |= {"layout": self.layout, "kernel": self.kernel}
        side_by_side = f"{self.threads} threads x {self.cores} cores, stacks of {self.stack}"
        if self.devices:
            side_by_side += f", on each of {len(self.devices)} devices"
        shown |= {"side_by_side": side_by_side, "placement": json.dumps(asdict(self))}
        return {f"study.{key}": value for key, value in shown.items()}


def like_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Of a run's tags what `place` reads of a run that is resumed: all on which bits depend."""
    return {key: tags[key] for key in ("study.placement",) if key in tags}


def placed(tags: Mapping[str, str] | None) -> dict[str, Any]:
    """The fields of the Placement of a run, by its tags; none where they cannot be read."""
    try:
        fields = json.loads((tags or {}).get("study.placement", "{}"))
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def place(runtime: RuntimeSpec, *, stackable: bool, like: Mapping[str, str] | None = None) -> Placement:
    """Choose the placement.

    Args:
        runtime: what is asked for.
        stackable: whether the network has a stacked form (MLPs).
        like: tags of the run that is resumed; its precision, routing, kernel and layout win over this machine's, so
            that bits agree, and an operation is split over as many threads as there.

    Raises:
        RecipeError: a device that is not there.
    """
    devices = find_devices(runtime.device)
    device = devices[0]
    before = placed(like)
    matmul = before.get("matmul", exact_routing(device))
    precision = before.get("precision", best_precision(device)) if runtime.precision == "auto" else runtime.precision
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    layout = before.get("layout", "channels_last") if runtime.layout == "auto" else runtime.layout
    if device == "cpu":
        kept = int(before.get("cores", 0)) if runtime.threads in (0, before.get("threads")) else 0
        threads = min(runtime.threads or max(1, cores // max(1, 0 if stackable else kept)), cores)
        inside = kept or max(1, cores // threads)
        stack = (runtime.stack or 1) if stackable else 1
        kernel = "torch"
        if stackable and stack == 1:
            kernel = choose_kernel(runtime, before.get("kernel", "auto"), precision)
        return Placement(device, precision, matmul, threads, inside, stack, cores, kernel, layout)
    stack = (runtime.stack or STACK) if stackable else 1
    threads = 1 if stackable else runtime.threads or int(before.get("threads", 0)) or 1
    several = devices if len(devices) > 1 else ()
    inside = max(1, cores // threads)
    return Placement(device, precision, matmul, threads, inside, stack, cores, layout=layout, devices=several)


def choose_kernel(runtime: RuntimeSpec, before: str, precision: str) -> str:
    """The project's own where it can be compiled, but torch's where that multiplies tiles; a resumed run keeps its own.

    Raises:
        RecipeError: the project's own is asked for and cannot be had.
    """
    wanted = before if runtime.kernel == "auto" else runtime.kernel
    if wanted == "auto":
        tiles = precision == "bfloat16" and TILES in cpu_flags()
        wanted = "native" if trains(OptimizerSpec(), DTYPES[precision]) and not tiles else "torch"
    if wanted == "native" and native.library() is None:
        if runtime.kernel == "native":
            raise RecipeError("runtime.kernel: native needs a C++ compiler; install g++ or --set runtime.kernel=auto")
        log.warning(
            "this run began with the project's own kernel, which is not here: the last bits of scores may differ"
        )
        return "torch"
    return wanted


def find_devices(name: str) -> tuple[str, ...]:
    """`auto` is CUDA where there is a device, else the CPU; CUDA without a number is every CUDA device.

    Raises:
        RecipeError: a device that is not there.
    """
    count = torch.cuda.device_count() if name != "cpu" and torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return ("cpu",)
    _, number, index = name.partition(":")
    if int(index or 0) >= count:
        raise RecipeError(f"runtime.device: {name} is not here ({count} CUDA devices); --set runtime.device=cpu")
    if number:
        return (name,)
    return tuple(f"cuda:{each}" for each in range(count)) if count > 1 else ("cuda",)


def device_name(device: str) -> str:
    """A name that a person recognizes."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")
    except OSError:
        model = "CPU"
    return f"{model}, {os.cpu_count()} cores"


@cache
def cpu_flags() -> frozenset[str]:
    """What the processor says that it can do; nothing where the system does not tell, as on macOS."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))
    except OSError:
        return frozenset()


def best_precision(device: str) -> str:
    """bfloat16 where the processor has instructions for it, else float32."""
    able = torch.cuda.is_bf16_supported() if device.startswith("cuda") else bool(BFLOAT16 & cpu_flags())
    return "bfloat16" if able else "float32"


@contextmanager
def operation_threads(count: int) -> Iterator[None]:
    """Operations of this thread use so many threads; put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def float32_routing(routing: str) -> Iterator[None]:
    """Float32 products go the given way; put back afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(routing)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
