"""Many visitors of the page at once: each draws samples again and again, while one of them adapts a generator.

    python -m tests.benchmarks.demo_load --visitors 20 --rounds 3

The page runs in this process, and is asked as a browser asks it: cookie, queue, stream of events, files. Printed: how
many answers came, how long they took from the click to the last event, and how far the training went meanwhile. The exit
code is 1 where one was lost.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import gradio as gr
import jax
import numpy as np
import requests

from configs import demo as demo_config
from nada_jax import images
from nada_jax.demo import page, server
from nada_jax.demo.follow import Panel
from nada_jax.demo.settings import Settings
from nada_jax.demo.site import Site
from nada_jax.devices import compilation
from nada_jax.models.stylegan2 import draw_latents

synthesize = jax.jit(lambda generator, ws: generator.synthesize(ws))
FILE = re.compile(r'(?:"path": "|gradio_api/file=)([^"\\]+)')  # in an event, or in the HTML of one
LONGEST = 600  # seconds for one answer


def build(site):
    """A tab that draws eight images; only where the page has no tab of samples."""
    panel = Panel(site, "sample", "Draw")
    seed = gr.Number(0, precision=0, label="Seed", info="Of the latents.")
    grid = gr.Image(label="Samples", type="filepath")

    def work(job, seed):
        job.report(0.1, "draws")
        generator = site.models.source()
        ws = draw_latents(generator, jax.random.key(seed), 8)
        drawn = np.asarray(synthesize(generator, ws))
        path = job.directory / "grid.png"
        images.save_grid(drawn, 4, path)
        return path

    def start(who, seed):
        return site.jobs.submit(who, "sample", "draw", "samples", lambda job: work(job, seed))

    panel.connect(
        gr.context.Context.root_block,
        [seed],
        start,
        [grid],
        lambda job: (job.result and str(job.result),),
    )


class Visitor:
    """Asks for the page, then clicks."""

    def __init__(self, url, number):
        self.url, self.session = url, f"visitor{number}"
        self.http = requests.Session()
        self.http.get(url, timeout=LONGEST).raise_for_status()
        self.config = self.http.get(f"{url}/config", timeout=LONGEST).json()

    def click(self, tab, **values):
        """Begins a job of a tab with the values that its controls have, those of these labels replaced.

        Returns:
          Seconds until the last event, all events, and the files that they name.
        """
        known = {x["id"]: x["props"] for x in self.config["components"]}
        button = next(x for x, props in known.items() if props.get("elem_id") == f"{tab}-start")
        event = next(
            x for x in self.config["dependencies"] if [button, "click"] in map(list, x["targets"])
        )
        inputs = [known[x] for x in event["inputs"]]
        data = [values.get(props.get("label"), props.get("value")) for props in inputs]
        body = {"session_hash": self.session, "fn_index": event["id"], "data": data}
        began = time.perf_counter()
        answer = self.http.post(f"{self.url}/gradio_api/queue/join", json=body, timeout=LONGEST)
        answer.raise_for_status()
        stream = self.http.get(
            f"{self.url}/gradio_api/queue/data",
            params={"session_hash": self.session},
            stream=True,
            timeout=LONGEST,
        )
        said, last = "", {}
        for line in stream.iter_lines():
            if line.startswith(b"data: "):
                last = json.loads(line[6:])
                said += json.dumps(last)
                if last["msg"] == "process_completed":
                    break
        stream.close()
        return (
            time.perf_counter() - began,
            said,
            sorted(set(FILE.findall(said))),
        )


def serve(site):
    """Starts the page on a free port; its address and server."""
    tabs = page.TABS
    if "sample" not in [tab.name for tab in tabs]:
        tabs = (*tabs, page.Tab("Sample", "sample", build))
    guard, taken = server.make(site, tabs), server.listen(site.settings.demo)
    running = server.prepare(guard)
    threading.Thread(
        target=lambda: asyncio.run(running.serve(sockets=[taken])), daemon=True
    ).start()
    while not running.started:
        time.sleep(0.05)
    return server.address(taken), running


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="samples of each")
    parser.add_argument("--steps", type=int, default=300, help="of the training; 0: none")
    given = parser.parse_args()
    compilation.prepare()
    with tempfile.TemporaryDirectory() as folder:
        config = demo_config.get_config()
        config.demo.port = 0
        site = Site(Settings.read(config), Path(folder))
        url, running = serve(site)
        lost = measure(given, site, url)
        site.jobs.close()  # and with it the training
        time.sleep(1)  # in which the trainer hears of it
        running.should_exit = True
    return 1 if lost else 0


def measure(given, site, url):
    """Prints what comes of it; returns how many answers were lost."""
    first = Visitor(url, "first")
    cold, _, _ = first.click("sample")  # compiles
    print(f"first samples, which compile: {cold:.1f} s", flush=True)
    trainer = Visitor(url, "trainer")
    if given.steps:
        answer = threading.Thread(
            target=trainer.click, args=("adapt",), kwargs={"Steps": given.steps}, daemon=True
        )
        answer.start()
        while not any(job.fraction for job in _jobs(site)):
            time.sleep(0.5)
    times, lost = [], []

    def visit(number):
        try:
            visitor = Visitor(url, number)
            for i in range(given.rounds):
                seconds, said, files = visitor.click("sample", Seed=100 * number + i)
                own = visitor.http.cookies["nada_visitor"]
                good = "done in" in said and files and all(own in path for path in files)
                for path in files:
                    good = good and visitor.http.get(f"{url}/gradio_api/file={path}", timeout=60).ok
                (times if good else lost).append(seconds)
        except Exception as error:
            print(f"visitor {number}: {error}", flush=True)
            lost.append(0.0)

    began, before = time.perf_counter(), _step(site)
    threads = [threading.Thread(target=visit, args=(x,)) for x in range(given.visitors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = time.perf_counter() - began
    asked = given.visitors * given.rounds
    print(f"{len(times)} of {asked} answers came in {total:.1f} s, {len(lost)} were lost")
    if times:
        ordered = sorted(times)
        print(
            f"from click to picture: median {statistics.median(times):.2f} s, 90 % within "
            f"{ordered[int(0.9 * len(ordered))]:.2f} s, longest {ordered[-1]:.2f} s"
        )
    if given.steps:
        print(f"the training meanwhile: {before} -> {_step(site)}")
    return asked - len(times)


def _jobs(site):
    return [job for job in list(site.jobs._jobs.values()) if job.lane == "train"]


def _step(site):
    return next((job.note or job.state for job in _jobs(site)), "")


if __name__ == "__main__":
    sys.exit(main())
