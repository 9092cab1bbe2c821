#!/usr/bin/env bash
# What is to be measured on a GPU, part by part, in ten minutes on an H100:
#     bash tests/benchmarks/on_gpu.sh OUT [PART...]
# Parts: steps, first_run, determinism, precision, compiling; by default all. What each prints is kept in OUT.
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd); shift
cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=2
pair=b32+b16

# Compile times, cold and from the cache, and the step; beside other code's times where the card is the same.
steps() {
  python main.py --config=configs/benchmark.py:h200 --config.precisions="('bfloat16',)" --config.breakdown=False \
    --config.cells="('1024/2/none/$pair', '1024/2/adaptive/$pair', '1024/16/none/$pair', '256/16/none/$pair')" \
    --workdir="$scratch/steps"
}

# The first command of the README with nothing compiled, and again.
first_run() {
  for name in cold warm; do
    time NADA_JAX_CACHE="$scratch/cache" python main.py --config=configs/nada_sketch.py --workdir="$scratch/$name"
  done
}

# Whether one seed gives one result, as XLA compiles by default and with its deterministic operations.
determinism() {
  for flags in "" --xla_gpu_deterministic_ops=true; do
    for name in first second; do
      XLA_FLAGS=$flags python main.py --config=configs/nada_sketch.py --config.steps=40 --config.overwrite=True \
        --workdir="$scratch/$name" >/dev/null
      tail -n 1 "$scratch/$name/metrics.jsonl"
    done
    cmp "$scratch"/{first,second}/generator.safetensors && echo "flags '$flags': equal"
  done
}

precision() { python -m tests.benchmarks.on_gpu precision; }

# What may shorten compiling, one change at a time, each in a process of its own and with an empty cache.
compiling() {
  for flags in "" --xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=1 --xla_gpu_enable_command_buffer= \
    --xla_gpu_enable_llvm_module_compilation_parallelism=true; do
    XLA_FLAGS=$flags python -m tests.benchmarks.on_gpu step 1024/2/none/$pair
  done
}

for part in "${@:-steps first_run determinism precision compiling}"; do
  for name in $part; do
    echo "== $name"
    "$name" 2>&1 | tee "$out/$name.txt"
  done
done
