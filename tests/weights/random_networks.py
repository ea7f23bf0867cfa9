"""A network with random weights, none of them the value it would have by default."""

import torch
from caffe_writer import FILE_MEANS

from featherflow import networks


def random_network(name: str, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    network = networks.build(name, **options)
    for key, buffer in network.named_buffers():
        if key.startswith("mean"):
            buffer.copy_(torch.tensor(FILE_MEANS[key]))
        elif "up" in key:
            buffer.mul_(1 + 0.05 * torch.randn_like(buffer))
    return network
