"""Makes NVIDIA's pickles of a native generator, from the documented structure of these files."""

import io
import pickle
import struct
import sys
import types

import numpy as np

from nada_jax.weights import native

SOURCE = (
    "import os\nos.system('touch SPRUNG')\nraise SystemExit('the source of a pickle was run')\n"
)
FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64


def modules(**content):
    """Fake modules that pickles name, by dotted name with "__" for "."; for `sys.modules`."""
    made = {}
    for name, members in content.items():
        dotted = name.replace("__", ".")
        for end in range(1, dotted.count(".") + 2):
            parent = ".".join(dotted.split(".")[:end])
            made.setdefault(parent, types.ModuleType(parent))
        for member, value in members.items():
            value.__module__, value.__qualname__ = dotted, member
            setattr(made[dotted], member, value)
    return made


def dumps(content, protocol=4, dump=pickle.dumps, **named):
    """Pickles with fake modules in place for the time being."""
    made = modules(**named)
    former = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        return dump(content, protocol)
    finally:
        for name, module in former.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


# -- PyTorch: StyleGAN2-ADA and the StyleGAN3 repository ----------------------------------------------


def _reconstruct_persistent_obj(meta):
    raise AssertionError("never called")


class EasyDict(dict):
    """As NVIDIA's dnnlib has it."""


def storage_bytes(array):
    """What a storage's own pickle holds: it, saved in PyTorch's old format."""
    import torch

    memory = torch.tensor(array).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=memory, dtype=torch.float32, _internal=True)
    file = io.BytesIO()
    torch.save(typed, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def storage_pickle(array):
    """A pickle of protocol 2 of a storage alone."""
    call = ["torch.storage", "_load_from_bytes"]
    content = storage_bytes(array)
    return (
        b"\x80\x02c" + "\n".join(call).encode() + b"\nB" + struct.pack("<I", len(content)) + content
    ) + b"\x85R."


class Persistent:
    """An object of a class decorated with `torch_utils.persistence.persistent_class`."""

    def __init__(self, class_name, tensors=None, parts=None, source=SOURCE, **attributes):
        import torch

        buffers = ("w_avg", "resample_filter", "noise_const")
        tensors = {key: torch.tensor(array) for key, array in (tensors or {}).items()}
        state = {
            "training": False,
            "_parameters": {
                key: torch.nn.Parameter(x) for key, x in tensors.items() if key not in buffers
            },
            "_buffers": {key: x for key, x in tensors.items() if key in buffers},
            "_non_persistent_buffers_set": set(),
            "_modules": parts or {},
            "_init_args": (),
            "_init_kwargs": EasyDict(attributes),
        }
        self.meta = {
            "type": "class",
            "version": 5,
            "module_src": source,
            "class_name": class_name,
            "state": state | attributes,
        }

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta,)


def torch_module(generator, **changes):
    """G_ema of a generator. Changes: c_dim, architecture, activation, num_layers, conv_clamp."""
    arrays = native.model_to_arrays(generator)
    settings = {"architecture": "skip", "activation": "lrelu", "c_dim": 0} | changes
    clamp = {"conv_clamp": changes.get("conv_clamp", generator.architecture.conv_clamp)}

    def dense(path, **attributes):
        tensors = {"weight": arrays[f"{path}.weight"].T, "bias": arrays[f"{path}.bias"]}
        return Persistent("FullyConnectedLayer", tensors, **attributes)

    def modulated(name, path, extra, **attributes):
        tensors = {"weight": arrays[f"{path}.weight"].transpose(3, 2, 0, 1)} | extra
        tensors["bias"] = arrays[f"{path}.bias"]
        affine = {"affine": dense(f"{path}.modulation", activation="linear", bias_gain=1.0)}
        return Persistent(name, tensors, affine, **attributes, **clamp)

    fully = {
        f"fc{i}": dense(f"mapping.dense_{i}", activation="lrelu", bias_gain=0.01)
        for i in range(generator.architecture.mapping_layers)
    }
    mapping = Persistent(
        "MappingNetwork", {"w_avg": arrays["latent_avg"]}, fully, c_dim=settings["c_dim"]
    )
    blocks = {}
    for n in range(2, len(generator.architecture.channels) + 2):
        parts = {}
        for layer, index in (("conv0", 2 * n - 5), ("conv1", 2 * n - 4)):
            if index >= 0:
                path = f"conv_{index}"
                extra = {
                    "noise_strength": arrays[f"synthesis.{path}.noise_strength"],
                    "noise_const": arrays[f"noise.{path}"],
                    "resample_filter": FIR,
                }
                parts[layer] = modulated(
                    "SynthesisLayer", f"synthesis.{path}", extra, activation=settings["activation"]
                )
        parts["torgb"] = modulated("ToRGBLayer", f"synthesis.to_rgb_{n - 2}", {})
        tensors = {"resample_filter": FIR}
        if n == 2:
            tensors["const"] = arrays["synthesis.constant"].transpose(2, 0, 1)
        blocks[f"b{2**n}"] = Persistent(
            "SynthesisBlock", tensors, parts, architecture=settings["architecture"], img_channels=3
        )
    synthesis = Persistent("SynthesisNetwork", {}, blocks, img_channels=3)
    return Persistent("Generator", {}, {"mapping": mapping, "synthesis": synthesis}, c_dim=0)


def torch_state_dict(module, prefix=""):
    """What `module.state_dict()` gives in PyTorch."""
    state = module.meta["state"]
    found = {
        f"{prefix}{k}": x.detach() for k, x in (state["_parameters"] | state["_buffers"]).items()
    }
    for name, part in state["_modules"].items():
        found |= torch_state_dict(part, f"{prefix}{name}.")
    return found


TORCH_MODULES = {
    "torch_utils__persistence": {"_reconstruct_persistent_obj": _reconstruct_persistent_obj},
    "dnnlib__util": {"EasyDict": EasyDict},
}


def torch_pickle(content, protocol=4):
    """The bytes of what a .pkl of StyleGAN2-ADA (PyTorch) holds."""
    return dumps(content, protocol, **TORCH_MODULES)


def torch_archive(content, zipped=True):
    """The bytes of the same, saved by `torch.save`, as PTI does it."""
    import torch

    def save(content, protocol):
        file = io.BytesIO()
        torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        return file.getvalue()

    return dumps(content, 2, save, **TORCH_MODULES)


# -- TensorFlow: StyleGAN2 and StyleGAN2-ADA ---------------------------------------------------------


class Network:
    """As `dnnlib.tflib.network.Network` pickles itself."""

    def __init__(self, variables, components=None, **static_kwargs):
        self.state = {
            "version": 5,
            "name": "G",
            "static_kwargs": EasyDict(static_kwargs),
            "components": components or {},
            "build_module_src": SOURCE,
            "build_func_name": "G_main",
            "variables": list(variables.items()),
        }

    def __getstate__(self):
        return self.state


def tensorflow_network(generator, extra=None, **static_kwargs):
    """Gs of a generator."""
    arrays = native.model_to_arrays(generator)
    mapping = {
        f"Dense{i}/{kind}": arrays[f"mapping.dense_{i}.{kind}"]
        for i in range(generator.architecture.mapping_layers)
        for kind in ("weight", "bias")
    }
    synthesis = {"4x4/Const/const": arrays["synthesis.constant"].transpose(2, 0, 1)[None]}

    def modulated(name, path):
        kernel = arrays[f"{path}.weight"]
        up = name.endswith("Conv0_up")
        synthesis.update({
            f"{name}/weight": kernel[::-1, ::-1] if up else kernel,
            f"{name}/bias": arrays[f"{path}.bias"],
            f"{name}/mod_weight": arrays[f"{path}.modulation.weight"],
            f"{name}/mod_bias": arrays[f"{path}.modulation.bias"] - 1,
        })  # fmt: skip

    for i in range(generator.num_layers - 1):
        side = 2 ** ((i + 5) // 2)
        name = f"{side}x{side}/" + ("Conv" if i == 0 else "Conv0_up" if i % 2 else "Conv1")
        modulated(name, f"synthesis.conv_{i}")
        # A variable without axes comes out of TensorFlow as a number.
        synthesis[f"{name}/noise_strength"] = arrays[f"synthesis.conv_{i}.noise_strength"][()]
        synthesis[f"noise{i}"] = arrays[f"noise.conv_{i}"][None, None]
    for i in range(len(generator.architecture.channels)):
        modulated(f"{4 * 2**i}x{4 * 2**i}/ToRGB", f"synthesis.to_rgb_{i}")
    parts = {
        "mapping": Network(mapping, mapping_lrmul=0.01),
        "synthesis": Network(
            synthesis | (extra or {}), architecture="skip", resample_kernel=[1, 3, 3, 1]
        ),
    }
    settings = {"num_channels": 3, "label_size": 0} | static_kwargs
    if generator.architecture.conv_clamp is not None:
        settings["conv_clamp"] = generator.architecture.conv_clamp
    return Network({"lod": np.float32(0), "dlatent_avg": arrays["latent_avg"]}, parts, **settings)


def tensorflow_pickle(content, protocol=4):
    """The bytes of a .pkl of StyleGAN2 (TensorFlow)."""
    return dumps(
        content,
        protocol,
        dnnlib__tflib__network={"Network": Network},
        dnnlib__util={"EasyDict": EasyDict},
    )


# -- both -------------------------------------------------------------------------------------------


def release(generator, kind, **changes):
    """The bytes of a whole release: more networks than the one that is wanted."""
    if kind == "torch":
        other = Persistent("Discriminator", {"b4": np.ones((2, 2), np.float32)})
        networks = {"G": None, "D": other, "G_ema": torch_module(generator, **changes)}
        return torch_pickle(networks | {"training_set_kwargs": EasyDict(a=1)})
    other = Network({"weight": np.ones(3, np.float32)})
    return tensorflow_pickle((other, other, tensorflow_network(generator, **changes)))
