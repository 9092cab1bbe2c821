#!/usr/bin/env bash
# What is to be measured on a GPU, part by part, in ten minutes on an H100:
#     bash tests/benchmarks/on_gpu.sh OUT [PART...]
# Parts: steps, first_run, precision, determinism, compiling; by default all. What each prints is kept in OUT.
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd); shift
cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export NADA_JAX_CACHE="$scratch/cache" XLA_PYTHON_CLIENT_PREALLOCATE=false TF_CPP_MIN_LOG_LEVEL=2
pair=b32+b16

# Compile times, cold and from the cache, and the step; beside other code's times where the card is the same.
steps() {
  python3 main.py --config=configs/benchmark.py:h200 --config.precisions="('bfloat16',)" --config.breakdown=False \
    --config.cells="('1024/2/none/$pair', '1024/2/adaptive/$pair', '1024/16/none/$pair', '256/16/none/$pair')" \
    --workdir="$scratch/steps"
}

# The first command of the README with nothing compiled, and again.
first_run() {
  for name in cold warm; do
    time NADA_JAX_CACHE="$scratch/first" python3 main.py --config=configs/nada_sketch.py --workdir="$scratch/$name"
  done
}

# Whether one seed gives one result, as XLA compiles by default and with its deterministic operations.
determinism() {
  for flags in "" --xla_gpu_deterministic_ops=true; do
    for name in first second; do
      XLA_FLAGS=$flags python3 main.py --config=configs/nada_sketch.py --config.steps=40 --config.overwrite=True \
        --workdir="$scratch/$name" >/dev/null
      tail -n 1 "$scratch/$name/metrics.jsonl"
    done
    cmp "$scratch"/{first,second}/generator.safetensors && echo "flags '$flags': equal"
  done
}

precision() { python3 -m tests.benchmarks.on_gpu precision; }

# What may shorten compiling, one change at a time, each in a process of its own and with an empty cache; two at a time,
# on half of the cores each, so that they are to be held against each other and not against `steps`.
compiling() {
  half=$(($(nproc) / 2))
  variants=("" --xla_gpu_enable_triton_gemm=true --xla_gpu_autotune_level=1 --xla_gpu_enable_command_buffer=)
  for ((i = 0; i < ${#variants[@]}; i += 2)); do
    for j in 0 1; do
      XLA_FLAGS=${variants[i + j]} taskset -c $((j * half))-$((j * half + half - 1)) \
        python3 -m tests.benchmarks.on_gpu step 1024/2/none/$pair &
    done
    wait
  done
}

keep() { "$1" 2>&1 | tee "$out/$1.txt"; }

if (($#)); then
  for part; do keep "$part"; done
else
  # Steps and the first command have the machine to themselves; the others only need it.
  keep steps
  keep first_run
  { keep precision && keep determinism; } &
  keep compiling
  wait
fi
