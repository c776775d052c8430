"""Weights as bytes: safetensors only, strict about names and shapes, finite numbers only.

No files and no hashes (``registry/versions.py``), no pickle anywhere. Invariant: a model that
``load_weights`` filled has exactly the tensors of the file and no other.
"""

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn


def dump_weights(tensors: dict[str, Tensor]) -> bytes:
    """Return the content of a safetensors file with these tensors."""
    content: bytes = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    return content


def load_tensors(content: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        ValueError: truncated, or another kind of file.
    """
    try:
        tensors: dict[str, Tensor] = load(content)
    except SafetensorError as error:
        raise ValueError(f"not a safetensors file, or a part of one ({error})") from error
    return tensors


def load_weights(model: nn.Module, content: bytes) -> None:
    """Fill ``model`` from the content of a safetensors file.

    Raises:
        ValueError: truncated or foreign file, other names or shapes than the model's, or numbers that are not finite.
    """
    tensors = load_tensors(content)
    expected = model.state_dict()
    if tensors.keys() != expected.keys():
        raise ValueError(f"the weights have other tensors: {', '.join(sorted(tensors.keys() ^ expected.keys()))}")
    for name, tensor in tensors.items():
        wanted = expected[name]
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise ValueError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, the model has {wanted.dtype} {tuple(wanted.shape)}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds numbers that are not finite")
    model.load_state_dict(tensors)
