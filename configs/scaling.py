"""The messages between devices in a training step, for 1 to 256 of them; nothing is trained.

    python main.py --config=configs/scaling.py                       # the step of the embedded models
    python main.py --config=configs/scaling.py:ffhq                  # that of 1024 pixels and two ViT-Bs
    python main.py --config=configs/scaling.py --config.fsdp=2 --config.devices="(2, 8, 64)"
    pip install libtpu && python main.py --config=configs/scaling.py:ffhq --config.tpu=v5e --config.devices="(1,)"

Expected: a row a mesh in scaling.md: bytes by kind of message, the efficiency that they allow, and the memory that
the step needs on each device.
"""

from ml_collections import ConfigDict

from configs import default

VARIANTS = ("", "ffhq")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the defaults; variant "ffhq" is the paper's setting for the 1024-pixel generator."""
    if variant not in VARIANTS:
        raise ValueError(f"config variant is {variant!r}; expected nothing or one of: ffhq")
    config = ConfigDict()
    config.task = "scaling"  # the module of nada_jax.tasks that runs this config
    # The step that is measured: all fields of configs/default.py, as in the paper's run. The fields below take the
    # place of its own; weights and texts are not read.
    config.adapt = default.get_config("ffhq")
    config.devices = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # sizes of the mesh
    config.tpu = ""  # v5e or v6e: the compiler of such TPUs, which libtpu has; "": that of CPUs
    config.fsdp = 1  # of them, devices that share each large array

    config.size = 64  # side of the images: 64, 256, 512 or 1024
    config.clips = ("avatar-p8", "avatar-p16")  # or b32, b16, l14
    config.batch_size = 4  # images of one device; the whole batch grows with the devices
    config.precision = "float32"  # float32 or bfloat16
    config.strategy = "none"  # of freezing: none, late or adaptive
    config.k = 0  # latents of the strategies late and adaptive; 0: all
    config.low_memory = False  # see configs/default.py

    # What the prediction assumes: a ring of devices, and no message hidden behind arithmetic.
    config.step_ms = 30.0  # milliseconds of the step on one device
    config.gigabytes_per_second = 50.0  # from device to device; a 400 Gbit/s network port has 50
    config.microseconds = 5.0  # until a message arrives at the next device

    if variant == "ffhq":
        config.size, config.batch_size = 1024, 2
        config.clips = ("b32", "b16")
        config.precision, config.strategy = "bfloat16", "adaptive"
    return config
