"""benchmark.md: the figures of a benchmark as two tables, and how to read them."""

from typing import Any

from nada_jax import tables
from nada_jax.performance.parts import PARTS
from nada_jax.settings import PRECISIONS

Row = dict[str, Any]
GIBI, GIGA = 2**30, 1e9


def in_short(row: Row) -> str:
    """A row in a few words."""
    if row["out_of_memory"]:
        return "out of memory"
    compiled = f"compiled in {row['compile_cold_s']:.1f} s"
    return f"{row['ms']:.1f} ms/step, {row['images_per_s']:.1f} images/s, {compiled}"


def document(found: Row) -> str:
    """The whole file."""
    ceilings, rows = found["ceilings"], found["cells"]
    text = [f"# Training step on {found['device']} ({found['platform']}), JAX {found['jax']}"]
    if rows:
        rates = [
            f"{name} products {ceilings[name] / GIGA:,.0f} GFLOP/s"
            for name in PRECISIONS
            if name in ceilings
        ]
        text.append(
            f"Ceilings, measured: {', '.join(rates)}; copies {ceilings['copy'] / GIGA:,.0f} GB/s."
        )
        text.append(tables.markdown([step_columns(row) for row in rows]))
    if any("parts" in row for row in rows):
        text.append(tables.markdown([part_columns(row) for row in rows if "parts" in row]))
    if rows:
        text.append("\n".join(f"- {note}" for note in notes(found)))
    if found["not_run"]:
        text.append(f"Not run, for lack of time: {'; '.join(found['not_run'])}.")
    return "\n\n".join(text) + "\n"


def step_columns(row: Row) -> dict[str, str]:
    """A line of the first table; blank where there is no figure."""

    def number(field: str, digits: int = 1, unit: float = 1) -> str:
        value = row.get(field)
        return "" if value is None else f"{value / unit:,.{digits}f}"

    share = row.get("roofline_share")
    columns = {
        "cell": row["cell"],
        "ms": "out of memory" if row["out_of_memory"] else number("ms"),
        "min": number("ms_min"),
        "spread": number("ms_spread"),
        "images/s": number("images_per_s"),
        "of roofline": "" if share is None else f"{share:.0%} {row['bound']}",
        "GFLOP": number("flops", 0, GIGA),
        "GB": number("bytes", 1, GIGA),
        "GiB held": number("memory_bytes", 2, GIBI),
        "device peak": number("device_peak_bytes", 2, GIBI),
        "trace s": number("trace_s"),
        "lower s": number("lower_s"),
        "compile s": number("compile_cold_s"),
        "cached s": number("compile_cached_s"),
    }
    if "official_ms" in row:
        columns |= {"official ms": number("official_ms", 0), "speed-up": number("speedup")}
    return columns


def part_columns(row: Row) -> dict[str, str]:
    """A line of the second table."""
    shown = {
        name: f"{part['ms']:,.1f} ({part['share']:.0%})" for name, part in row["parts"].items()
    }
    parts = {name: shown.get(name, "") for name in PARTS}
    whole = {"sum": f"{row['parts_ms']:,.1f}", "step": f"{row['ms']:,.1f}"}
    return {"parts, ms (of step)": row["cell"]} | parts | whole


def notes(found: Row) -> list[str]:
    """How to read the tables."""
    rows = found["cells"]
    lines = [
        "ms: median of the steps, each waited for; spread: their 90th less their 10th percentile",
        "of roofline: the least time that FLOPs or bytes take at the ceilings, whichever is longer, over ms; "
        "XLA counts bytes that caches serve, too",
        "GiB held: arguments, outputs and temporaries of the compiled step, by XLA's analysis",
        "compile s: nothing cached; cached s: from JAX's persistent cache",
    ]
    # A count that fell in optimisation: products went into library calls, which XLA cannot look into.
    if any(
        (row.get("flops_compiled") or 0) < 0.9 * (row.get("flops_lowered") or 0) for row in rows
    ):
        lines[1] += ", and none of library calls such as cuDNN's, which these steps make"
    if any(row.get("device_peak_bytes") for row in rows):
        lines.append(
            "device peak, GiB: of the process so far, compiling included; blank if not new"
        )
    if any("parts" in row for row in rows):
        lines.append("trainable: forward and backward; parts are compiled apart and may share work")
    if any("official_ms" in row for row in rows):
        theirs, ours = found["official_device"], found["device"]
        lines.append(
            f"official ms: the official PyTorch code on one {theirs}, from its table, not measured here; same "
            f"card? {'yes' if theirs == ours else f'no, this is {ours}'}"
        )
    return lines
