"""What the tests of operations share: random arrays, and upsampling in PyTorch."""

import numpy as np

FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64 * 4  # with the gain of upsampling


def random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def fir(torch, x, padding):
    """The 4x4 filter, by explicit padding and a depthwise convolution; x NCHW."""
    x = torch.nn.functional.pad(x, padding)
    weight = torch.tensor(FIR, dtype=x.dtype).expand(x.shape[1], 1, 4, 4)
    return torch.nn.functional.conv2d(x, weight, groups=x.shape[1])


def reference_upsample_conv(torch, x, kernel):
    """PARITY: stride-2 transposed convolution, then the FIR with padding (1, 1)."""
    x, kernel = (torch.as_tensor(a, dtype=torch.float64) for a in (x, kernel))
    x, weight = x.permute(0, 3, 1, 2), kernel.permute(2, 3, 0, 1)
    y = torch.nn.functional.conv_transpose2d(x, weight, stride=2)
    return fir(torch, y, (1, 1, 1, 1)).permute(0, 2, 3, 1)
