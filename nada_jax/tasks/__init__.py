"""What `main.py` runs: one module a task, each with run(config, workdir) -> exit code."""
