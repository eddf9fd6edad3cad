"""Latents without an encoder network: 8x8 block features of a picture.

The four channels are the block means of luma, R-Y and B-Y and the first (x + y) moment of luma
within the block, standardised.  The encoder in assets/tiny/vae computes the same function
(it is written as ordinary convolution weights), so training needs no encoder passes.
"""
import torch
import torch.nn.functional as F

LUMA = (0.30, 0.59, 0.11)
MEAN = (0.4521595, 0.0159996, -0.0077, -0.0014827)
DEVIATION = (0.3922775, 0.2184375, 0.3042197, 0.0919942)  # the moment channel is heavy-tailed: its deviation is doubled


def latents(images):
    """Pictures [N,3,H,W] in 0..1 -> what the U-Net denoises, [N,4,H/8,W/8]."""
    x = images * 2 - 1
    means = F.avg_pool2d(x, 8)
    weights = torch.tensor(LUMA).view(1, 3, 1, 1)
    luma, mean_luma = (x * weights).sum(1, keepdim=True), (means * weights).sum(1, keepdim=True)
    ramp = (torch.arange(8.0) - 3.5) / 3.5
    moment = F.conv2d(luma, ((ramp[None] + ramp[:, None]) / 64).view(1, 1, 8, 8), stride=8)
    features = torch.cat((mean_luma, means[:, 0:1] - mean_luma, means[:, 2:3] - mean_luma, moment), 1)
    return (features - torch.tensor(MEAN).view(1, 4, 1, 1)) / torch.tensor(DEVIATION).view(1, 4, 1, 1)
