"""Templates that texts are put into before CLIP embeds them."""

_PHOTOS = (
    "bad", "low resolution", "cropped", "bright", "dark", "close-up", "black and white",
    "pixelated", "jpeg corrupted", "blurry", "good",
)  # fmt: skip
_LOOKS = ("hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small")
_WORKS = (
    "a sculpture", "a rendering", "a tattoo", "a drawing", "a painting", "a doodle", "a sketch",
    "a rendition", "a photo", "graffiti", "art", "itap",
)  # fmt: skip
_MATERIALS = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")

# The 79 templates of the official code, those that CLIP's authors wrote for ImageNet.
TEMPLATES = (
    *(
        frame
        for article in ("a", "the")
        for frame in (
            *(f"a {photo} photo of {article} {{}}." for photo in _PHOTOS),
            *(f"a photo of {article} {look} {{}}." for look in _LOOKS),
            *(f"{work} of {article} {{}}." for work in _WORKS),
            *(f"{article} {material} {{}}." for material in _MATERIALS),
            f"{article} {{}} in a video game.",
        )
    ),
    "a photo of my {}.",
    "itap of my {}.",
    "a photo of one {}.",
)

# What a crop may show, for the patch loss.
PART_TEMPLATES = (
    "the paw of a {}.",
    "the nose of a {}.",
    "the eye of the {}.",
    "the ears of a {}.",
    "an eye of a {}.",
    "the tongue of a {}.",
    "the fur of the {}.",
    "colorful {} fur.",
    "a snout of a {}.",
    "the teeth of the {}.",
    "the {}s fangs.",
    "a claw of the {}.",
    "the face of the {}",
    "a neck of a {}",
    "the head of the {}",
)
