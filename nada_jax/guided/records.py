"""What a workdir says of its images, whose lines may have been changed by hand."""

from typing import Any

import numpy as np

from nada_jax.errors import UserError
from nada_jax.guided.drawing import Picture
from nada_jax.runs.per_image import ImageRun


def check_prompts(run: ImageRun, pictures: list[Picture]) -> None:
    """Makes sure that no image would replace that of another prompt, as names have a part of it only."""
    wanted = {
        picture.name.casefold(): picture.prompt for picture in pictures
    }  # as files are compared
    for row in run.earlier_rows:
        prompt = wanted.get(str(row.get("image")).casefold())
        if prompt is not None and row.get("prompt", prompt) != prompt:
            raise UserError(
                f"{run.directory} has {row['image']!r} of the prompt {row['prompt']!r}, which {prompt!r} would replace; "
                "give another --workdir"
            )


def is_whole(row: dict[str, Any]) -> bool:
    """Whether a line has what `finish` wrote, as one that was changed by hand may not."""
    kinds = {"image": str, "prompt": str, "seed": int, "seconds": int | float, "files": list}
    if not all(isinstance(row.get(name), kind) for name, kind in kinds.items()) or not row["files"]:
        return False
    measures, losses = row.get("measures"), row.get("losses")
    return (
        isinstance(measures, dict)
        and all(isinstance(x, int | float) for x in measures.values())
        and isinstance(losses, dict)
        and all(np.ndim(x) == 2 and np.shape(x)[1] == 2 for x in losses.values())
    )
