"""Compiles training steps for an H100 on a machine without one, and counts what the compiler made of them.

    pip install --no-deps jax-cuda12-plugin==$V jax-cuda12-pjrt==$V    # V: the version of jaxlib
    pip install --no-deps nvidia-cuda-{nvcc,runtime,cupti}-cu12 nvidia-nvjitlink-cu12
    python -m tests.benchmarks.compile_for_gpu 1024/2/none/b32+b16 1024/2/adaptive/b32+b16

Nothing is run, and no kernel is chosen by timing, so compile times leave that out. Any convolution with a window above
3x3 (patch embeddings aside) is a kernel gradient that cuDNN does not know for one; see models/convolution.py.
"""

import argparse
import os
import re
import time

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from configs import benchmark
from nada_jax.adaptation.step import make_train_step
from nada_jax.devices import compilation
from nada_jax.models import convolution
from nada_jax.tasks import benchmark as task

# XLA's description of the card, from which it chooses tiles and fusions.
H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 10 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 l2_cache_size: 52428800
  memory_bandwidth: 3352320000000 device_memory_size: 84978434048
}
"""


def measure(cell: str, precision: str, device: jax.Device) -> str:
    """Compiles a cell of configs/benchmark.py and describes the program in a line."""
    config = benchmark.get_config()
    config.sizes, config.cells, config.k, config.precisions = (), (cell,), 0, (precision,)
    (workload,) = task.grid(task.Settings.read(config))
    arguments = jax.eval_shape(workload.build)
    step = make_train_step(workload.settings, workload.optimizer)
    here = SingleDeviceSharding(device)
    clocks = [time.perf_counter()]
    traced = jax.jit(step, in_shardings=here, out_shardings=here, donate_argnums=0).trace(
        *arguments
    )
    clocks.append(time.perf_counter())
    lowered = traced.lower(lowering_platforms=("cuda",))
    clocks.append(time.perf_counter())
    compiled = lowered.compile()
    clocks.append(time.perf_counter())
    program, memory = compiled.as_text(), compiled.memory_analysis()
    instructions = re.findall(r"^\s+(?:ROOT )?%\S+ = ", program, re.MULTILINE)
    kernels = re.findall(r" (?:fusion|custom-call|copy)\(", program[program.index("\nENTRY") :])
    windows = re.findall(r"window=\{size=(\d+)x\d+.*__cudnn\$conv", program)
    trace, lower, compile_ = (b - a for a, b in zip(clocks, clocks[1:], strict=False))
    size = (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**30
    return (
        f"{workload}: traced in {trace:.1f} s, lowered in {lower:.1f} s, compiled in {compile_:.1f} s; "
        f"{len(instructions):,} instructions, {len(kernels):,} calls outside of loops, {size:.2f} GiB; largest window of "
        f"a convolution {max(map(int, windows), default=0)}"
    )


def main() -> None:
    """Measures the cells of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cells", nargs="+", help="SIZE/BATCH/STRATEGY/CLIPS")
    parser.add_argument("--precision", default="bfloat16")
    options = parser.parse_args()
    compilation.set_flags()
    os.environ["XLA_FLAGS"] += " --xla_gpu_autotune_level=0"  # there is no card to time kernels on
    jax.config.update("jax_platforms", "cpu")
    topology = topologies.get_topology_desc("h100", "cuda", target_config=H100, topology="1x1x1")
    convolution.on_cpu = lambda: False  # all is traced for the card
    for cell in options.cells:
        print(measure(cell, options.precision, topology.devices[0]), flush=True)


if __name__ == "__main__":
    main()
