"""OpenPose's networks in torch, for training and as the reference of what is exported."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .plan import PICTURE, Conv, Plan, plan


class OpenPose(nn.Module):
    """BODY_25 or COCO-18. Picture [B,3,H,W] float32 BGR, value / 256 - 0.5, H and W multiples of 8.

    Gives heatmaps [B,J+1,H/8,W/8] (the last channel is the background) and affinity fields [B,2L,H/8,W/8].
    """

    def __init__(self, name: str) -> None:
        """The untrained network of that name: `body25` or `coco18`. EngineError for another."""
        super().__init__()
        self.plan: Plan = plan(name)
        self.convs, self.prelus = nn.ModuleDict(), nn.ModuleDict()
        for layer in self.plan.layers:
            if isinstance(layer, Conv):
                into, out = layer.channels
                self.convs[layer.name] = nn.Conv2d(into, out, layer.kernel, padding=layer.kernel // 2)
                if layer.prelu:
                    self.prelus[layer.prelu] = nn.PReLU(out)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        done = {PICTURE: picture}
        for layer in self.plan.layers:
            if isinstance(layer, Conv):
                parts = [done[s] for s in layer.sources]
                x = self.convs[layer.name](parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
                if layer.prelu:
                    x = self.prelus[layer.prelu](x)
                done[layer.name] = torch.relu(x) if layer.after == "relu" else x
            else:
                done[layer.name] = torch.max_pool2d(done[layer.source], 2)
        return done[self.plan.heatmaps], done[self.plan.fields]

    def layers(self) -> dict[str, tuple[Tensor, ...]]:
        """Every layer's numbers, by the names and in the order of `Plan.blobs`."""
        found: dict[str, tuple[Tensor, ...]] = {}
        for name in self.plan.blobs():
            if name in self.convs:
                conv = self.convs[name]
                assert isinstance(conv, nn.Conv2d)
                assert conv.bias is not None
                found[name] = (conv.weight, conv.bias)
            else:
                prelu = self.prelus[name]
                assert isinstance(prelu, nn.PReLU)
                found[name] = (prelu.weight,)
        return found
