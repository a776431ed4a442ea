"""One small torch module for every layer that can be carried over, for the tests of all kinds of PyTorch files."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

Shape = tuple[int, ...]
VECTOR, SEQUENCE, IMAGE = (6,), (3, 8), (2, 8, 6)


def after(layer: nn.Module, shape: Shape) -> nn.Sequential:
    """Return a layer behind one with weights, so that its input has no special values."""
    first = {VECTOR: nn.Linear(6, 6), SEQUENCE: nn.Conv1d(3, 4, 3), IMAGE: nn.Conv2d(2, 4, 3)}[shape]
    return nn.Sequential(first, layer)


def trained(layer: nn.Module) -> nn.Module:
    """Return a layer whose weights and statistics are not those that it begins with."""
    for values in (*layer.parameters(), *layer.buffers()):
        if values.is_floating_point():
            nn.init.uniform_(values, 0.2, 1.5)
    return layer


class Plus(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tanh(x)


class Minus(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - torch.sigmoid(x)


class Times(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


class WithConstants(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (2.0 - x * 0.5 + 1.0) / 3.0


class Joined(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, torch.relu(x)], dim=1)


class Padded(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pad(x, [1, 2, 0, 1])


class Sliced(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 1:, ::2, 1:4]


class Split(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = torch.split(x, 2, dim=1)
        return first * torch.sigmoid(second)


class Chunked(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = torch.chunk(x, 2, dim=1)
        return first - second


class Viewed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.size(0), 4, -1).flatten(1)


class Permuted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class Transposed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(2, 3).unsqueeze(1).squeeze(1)


class Averaged(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=[2, 3])


class Enlarged(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Clamped(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.clamp(x, -0.5, 0.75)


class ClampedBelow(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(min=0)


class Places(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.places(torch.tensor([4]))


class Functions(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(functional.max_pool2d(functional.hardswish(x), 2))
        return torch.softmax(functional.adaptive_avg_pool2d(x, 1).view(x.size(0), -1), dim=1)


Make = Callable[[], nn.Module]

LAYERS: dict[str, tuple[Make, Shape]] = {
    "Linear": (lambda: nn.Linear(6, 4), VECTOR),
    "Linear without bias": (lambda: nn.Linear(6, 4, bias=False), VECTOR),
    "Linear on steps": (lambda: after(nn.Linear(6, 4), SEQUENCE), SEQUENCE),
    "Conv1d": (lambda: nn.Conv1d(3, 4, 3, padding=1, stride=2), SEQUENCE),
    "Conv1d dilated": (lambda: nn.Conv1d(3, 4, 3, dilation=2), SEQUENCE),
    "Conv1d depthwise": (lambda: after(nn.Conv1d(4, 4, 3, groups=4), SEQUENCE), SEQUENCE),
    "Conv2d": (lambda: nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0)), IMAGE),
    "Conv2d same": (lambda: nn.Conv2d(2, 4, 3, padding="same"), IMAGE),
    "Conv2d grouped": (lambda: after(nn.Conv2d(4, 6, 3, groups=2), IMAGE), IMAGE),
    "Conv2d depthwise": (lambda: after(nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False), IMAGE), IMAGE),
    "Conv2d dilated": (lambda: nn.Conv2d(2, 4, 2, dilation=2), IMAGE),
    "ConvTranspose2d": (lambda: after(nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1), IMAGE), IMAGE),
    "ConvTranspose1d": (lambda: after(nn.ConvTranspose1d(4, 3, 2, stride=2), SEQUENCE), SEQUENCE),
    "BatchNorm1d": (lambda: after(trained(nn.BatchNorm1d(6)), VECTOR), VECTOR),
    "BatchNorm1d of steps": (lambda: after(trained(nn.BatchNorm1d(4)), SEQUENCE), SEQUENCE),
    "BatchNorm2d": (lambda: after(trained(nn.BatchNorm2d(4)), IMAGE), IMAGE),
    "BatchNorm2d first": (lambda: nn.Sequential(trained(nn.BatchNorm2d(2)), nn.Conv2d(2, 3, 3)), IMAGE),
    "ReLU": (lambda: after(nn.ReLU(), IMAGE), IMAGE),
    "ReLU in place": (lambda: after(nn.ReLU(inplace=True), IMAGE), IMAGE),
    "ReLU6": (lambda: after(nn.ReLU6(), IMAGE), IMAGE),
    "LeakyReLU": (lambda: after(nn.LeakyReLU(0.2), IMAGE), IMAGE),
    "PReLU": (lambda: after(trained(nn.PReLU(4)), IMAGE), IMAGE),
    "PReLU of one slope": (lambda: after(nn.PReLU(), IMAGE), IMAGE),
    "Hardswish": (lambda: after(nn.Hardswish(), IMAGE), IMAGE),
    "Hardsigmoid": (lambda: after(nn.Hardsigmoid(), IMAGE), IMAGE),
    "Hardtanh": (lambda: after(nn.Hardtanh(), IMAGE), IMAGE),
    "Sigmoid": (lambda: after(nn.Sigmoid(), IMAGE), IMAGE),
    "Tanh": (lambda: after(nn.Tanh(), IMAGE), IMAGE),
    "GELU": (lambda: after(nn.GELU(), VECTOR), VECTOR),
    "GELU by tanh": (lambda: after(nn.GELU(approximate="tanh"), VECTOR), VECTOR),
    "SiLU": (lambda: after(nn.SiLU(), IMAGE), IMAGE),
    "Softmax": (lambda: after(nn.Softmax(dim=1), VECTOR), VECTOR),
    "LogSoftmax": (lambda: after(nn.LogSoftmax(dim=-1), VECTOR), VECTOR),
    "MaxPool1d": (lambda: after(nn.MaxPool1d(2), SEQUENCE), SEQUENCE),
    "MaxPool2d": (lambda: after(nn.MaxPool2d(3, stride=2, padding=1), IMAGE), IMAGE),
    "AvgPool1d": (lambda: after(nn.AvgPool1d(3, stride=1), SEQUENCE), SEQUENCE),
    "AvgPool2d": (lambda: after(nn.AvgPool2d(2), IMAGE), IMAGE),
    "AdaptiveAvgPool1d": (lambda: after(nn.AdaptiveAvgPool1d(1), SEQUENCE), SEQUENCE),
    "AdaptiveAvgPool2d": (lambda: after(nn.AdaptiveAvgPool2d(1), IMAGE), IMAGE),
    "AdaptiveAvgPool2d to several": (lambda: after(nn.AdaptiveAvgPool2d((3, 2)), IMAGE), IMAGE),
    "ZeroPad2d": (lambda: after(nn.ZeroPad2d((1, 0, 2, 1)), IMAGE), IMAGE),
    "ConstantPad1d": (lambda: after(nn.ConstantPad1d((1, 2), 0.0), SEQUENCE), SEQUENCE),
    "Upsample": (lambda: after(nn.Upsample(scale_factor=2), IMAGE), IMAGE),
    "UpsamplingNearest2d": (lambda: after(nn.UpsamplingNearest2d(scale_factor=2), IMAGE), IMAGE),
    "Upsample to a size": (lambda: after(nn.Upsample((12, 8)), IMAGE), IMAGE),
    "LayerNorm": (lambda: after(trained(nn.LayerNorm(6)), VECTOR), VECTOR),
    "Flatten": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(96, 3)), IMAGE),
    "Unflatten": (lambda: after(nn.Unflatten(1, (2, 3)), VECTOR), VECTOR),
    "Dropout": (lambda: after(nn.Dropout(0.5), VECTOR), VECTOR),
    "Dropout2d": (lambda: after(nn.Dropout2d(0.5), IMAGE), IMAGE),
    "Identity": (lambda: after(nn.Identity(), VECTOR), VECTOR),
    "add": (lambda: after(Plus(), IMAGE), IMAGE),
    "sub": (lambda: after(Minus(), IMAGE), IMAGE),
    "mul": (lambda: after(Times(), IMAGE), IMAGE),
    "numbers": (lambda: after(WithConstants(), IMAGE), IMAGE),
    "cat": (lambda: after(Joined(), IMAGE), IMAGE),
    "pad": (lambda: after(Padded(), IMAGE), IMAGE),
    "slice": (lambda: after(Sliced(), IMAGE), IMAGE),
    "split": (lambda: after(Split(), IMAGE), IMAGE),
    "chunk": (lambda: after(Chunked(), IMAGE), IMAGE),
    "reshape": (lambda: after(Viewed(), IMAGE), IMAGE),
    "permute": (lambda: after(Permuted(), IMAGE), IMAGE),
    "transpose": (lambda: after(Transposed(), IMAGE), IMAGE),
    "mean": (lambda: after(Averaged(), IMAGE), IMAGE),
    "interpolate": (lambda: after(Enlarged(), IMAGE), IMAGE),
    "clamp": (lambda: after(Clamped(), IMAGE), IMAGE),
    "clamp below": (lambda: after(ClampedBelow(), IMAGE), IMAGE),
    "Embedding": (lambda: after(Places(), VECTOR), VECTOR),
    "functions": (lambda: after(Functions(), IMAGE), IMAGE),
}


def make_layer(name: str) -> nn.Module:
    """Return a module of `LAYERS` in evaluation mode, always with the same weights."""
    torch.manual_seed(0)
    return LAYERS[name][0]().eval()
