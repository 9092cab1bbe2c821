"""Speed and memory: `workloads` (training steps on random weights), `timing`, `parts` (of the step), `messages` (between
devices) and `report` (the tables of a benchmark)."""
