"""V2V: the 3D network of learnable triangulation, an encoder and decoder over a volume. Attributes have the names of the published checkpoints.

Layout: Moon et al. 2018 (V2V-PoseNet), deepened to five poolings by Iskakov et al. 2019. 11,944,353 parameters for 32 -> 17 channels.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

POOLINGS = 5
_WIDTHS = (32, 64, 128, 128, 128, 128)  # after so many poolings


class _Basic(nn.Module):
    def __init__(self, into: int, out: int, size: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv3d(into, out, size, padding=size // 2), nn.BatchNorm3d(out), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.block(x)
        return found


class _Residual(nn.Module):
    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.res_branch = nn.Sequential(
            nn.Conv3d(into, out, 3, padding=1), nn.BatchNorm3d(out), nn.ReLU(), nn.Conv3d(out, out, 3, padding=1), nn.BatchNorm3d(out)
        )
        self.skip_con = nn.Sequential() if into == out else nn.Sequential(nn.Conv3d(into, out, 1), nn.BatchNorm3d(out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.res_branch(x) + self.skip_con(x))


class _Up(nn.Module):
    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.ConvTranspose3d(into, out, 2, 2), nn.BatchNorm3d(out), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.block(x)
        return found


class _EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for k in range(1, POOLINGS + 1):
            above, below = _WIDTHS[k - 1 : k + 1]
            parts[f"encoder_res{k}"] = _Residual(above, below)
            parts[f"skip_res{k}"] = _Residual(above, above)
            parts[f"decoder_res{k}"] = _Residual(below, below)
            parts[f"decoder_upsample{k}"] = _Up(below, above)
        parts["mid_res"] = _Residual(_WIDTHS[-1], _WIDTHS[-1])
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        skipped = []
        for k in range(1, POOLINGS + 1):
            skipped.append(self.get_submodule(f"skip_res{k}")(x))
            x = self.get_submodule(f"encoder_res{k}")(F.max_pool3d(x, 2))
        x = self.get_submodule("mid_res")(x)
        for k in range(POOLINGS, 0, -1):
            x = self.get_submodule(f"decoder_upsample{k}")(self.get_submodule(f"decoder_res{k}")(x)) + skipped.pop()
        return x


class V2V(nn.Module):
    """volume [N,into,n,n,n] -> logits [N,out,n,n,n]; n a multiple of 32. Starts from Xavier's normal distribution, as published."""

    def __init__(self, into: int = 32, out: int = 17) -> None:
        super().__init__()
        self.front_layers = nn.Sequential(_Basic(into, 16, 7), _Residual(16, 32), _Residual(32, 32), _Residual(32, 32))
        self.encoder_decoder = _EncoderDecoder()
        self.back_layers = nn.Sequential(_Residual(32, 32), _Basic(32, 32, 1), _Basic(32, 32, 1))
        self.output_layer = nn.Conv3d(32, out, 1)
        for m in self.modules():
            if isinstance(m, (nn.Conv3d, nn.ConvTranspose3d)) and m.bias is not None:
                nn.init.xavier_normal_(m.weight)
                nn.init.zeros_(m.bias)

    def forward(self, volume: Tensor) -> Tensor:
        found: Tensor = self.output_layer(self.back_layers(self.encoder_decoder(self.front_layers(volume))))
        return found
