"""Reads official files as numpy arrays without running code from them.

`reader` reads a file, `contents` finds a network in what it holds, and `releases` checks NVIDIA's StyleGAN2s. They
stand on `pickles` (the interpreter), `standins` (the names that pickles may use) and `modules` (trees of
PyTorch modules).
"""
