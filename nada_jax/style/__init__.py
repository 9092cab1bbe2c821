"""Style transfer by the features of a VGG: the loss over an image of any size, and the images that minimise it."""
