"""A run and its directory: `workdir` (every task), `training` (many steps), `checkpoints`, `progress`, `metrics`,
`plots` and `grids`. Process 0 alone writes."""
