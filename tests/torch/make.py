"""Writes the checkpoints beside this file, with PyTorch: python tests/torch/make.py

state.pt     a state dict as torch.compile and the published code name it: types, views, a parameter, whole numbers
nested.pt    the same kind of dict among an optimizer's and other things
object.pt    a dict that holds an object of a class
old.pt       the format of PyTorch before 1.6
"""

import argparse
import collections
import pathlib

import torch

HERE = pathlib.Path(__file__).parent


def numbers(*shape, dtype=torch.float32):
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float64) * 0.5 - 1).to(dtype).reshape(shape)


base = numbers(4, 3)
state = collections.OrderedDict(
    {
        "plain": base,
        "transposed": base.t(),
        "column": base[1:3, 1],
        "half": numbers(5, dtype=torch.float16),
        "brain": numbers(5, dtype=torch.bfloat16),
        "double": numbers(2, 2, 2, dtype=torch.float64),
        "parameter": torch.nn.Parameter(numbers(2)),
        "scalar": torch.tensor(7.5),
        "empty": torch.zeros(0, 3),
        "steps": torch.tensor([1, 2, 3]),
    }
)
state = collections.OrderedDict((f"_orig_mod.model.{name}", tensor) for name, tensor in state.items())
torch.save(state, HERE / "state.pt")

layer = torch.nn.Linear(3, 2)
with torch.no_grad():
    layer.weight.copy_(numbers(2, 3))
    layer.bias.copy_(numbers(2))
optimizer = torch.optim.AdamW(layer.parameters())
layer(numbers(1, 3)).sum().backward()
optimizer.step()
with torch.no_grad():
    layer.weight.copy_(numbers(2, 3))
    layer.bias.copy_(numbers(2))
wrapped = {f"module.{name}": tensor for name, tensor in layer.state_dict().items()}
torch.save({"epoch": 3, "lr": 1e-3, "big": 2**70, "model": wrapped, "optimizer": optimizer.state_dict()}, HERE / "nested.pt")
torch.save({"model": wrapped, "args": argparse.Namespace(lr=1e-3)}, HERE / "object.pt")
torch.save(wrapped, HERE / "old.pt", _use_new_zipfile_serialization=False)
