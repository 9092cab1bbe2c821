"""Reads official files as numpy arrays without running code from them.

`reader` reads PyTorch's checkpoints, `releases` NVIDIA's pickles of StyleGAN2. Both stand on `pickles` (the
interpreter), `standins` (the names that pickles may use) and `modules` (trees of PyTorch modules).
"""
