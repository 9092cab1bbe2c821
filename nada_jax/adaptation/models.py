"""The models of an adaptation and their targets, loaded as configured."""

from jax.sharding import Mesh

from nada_jax.adaptation.settings import Settings
from nada_jax.adaptation.state import Frozen
from nada_jax.adaptation.steering import Steering
from nada_jax.adaptation.watch import Watch
from nada_jax.devices import mesh as meshes
from nada_jax.runs.training import TrainingRun
from nada_jax.weights import loading


def load(settings: Settings) -> tuple[Frozen, Steering | None, Watch | None]:
    """Loads models and computes targets, all on this process's own device.

    Returns:
      What the step reads; what chooses source texts, where `text.read_every` does; what may end the run early,
      where `stop.every` does.

    Raises:
      UserError: a model, text or folder cannot be used.
    """
    precision = settings.precision
    generator = loading.load_generator(settings.generator.weights, precision=precision)
    clips = [loading.load_clip(model, precision=precision) for model in settings.clip.models]
    options = {"parts": bool(settings.loss.active("crops")), "seed": settings.seed}
    steering = Steering(settings.text, generator, clips, settings.clip.weights, **options)
    targets = steering.targets(settings.text.source)
    networks = settings.load_networks()
    watch = None
    if settings.stop.every:
        judge, target = clips[0], targets[0].target
        if settings.stop.clip:
            judge = loading.load_clip(settings.stop.clip, precision=precision, field="stop.clip")
            own = Steering(settings.text, generator, [judge], [1.0], **options)
            target = own.targets(settings.text.source)[0].target
        watch = Watch(settings.stop, generator, judge.without_texts(), target)
    # The text towers are half of a clip, and the step reads images alone.
    frozen = Frozen(generator, tuple(clip.without_texts() for clip in clips), targets, networks)
    return frozen, steering if settings.text.read_every else None, watch


def read_source(frozen: Frozen, steering: Steering, run: TrainingRun, mesh: Mesh | None) -> Frozen:
    """Chooses the source text anew, by fresh images of the source, and turns all directions to it."""
    source = steering.read(run.step // steering.text.read_every)
    run.notes["source_text"] = source
    run.say(f"source text from step {run.step + 1} on: {source!r}")
    return frozen.replace(targets=meshes.place(steering.targets(source), mesh))
