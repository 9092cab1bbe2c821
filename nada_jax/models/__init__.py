"""Networks as pure functions of their weights: one module a model, and the operations that they share.

Import the class of a model (`Generator`, `Clip`, `Encoder`, `Irse50`, `Mapper`, `Vgg`, `StyleDelta`) from the
module of its name. `stylegan2_networks`, `ops`, `convolution`, `upsampling`, `resampling` and `tokenizer` serve
these modules.
"""
