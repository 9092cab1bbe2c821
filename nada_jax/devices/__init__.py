"""The machine: `mesh` (devices and how arrays lie on them), `processes` (several hosts), `compilation` (what XLA
compiles and keeps) and `huge_pages` (memory on CPU)."""
