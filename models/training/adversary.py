"""The adversarial stage: a discriminator that learns beside the network (AVFR eq. 3).

Spectral norm bounds the discriminator's slope, and the hinge ends its interest in what it tells apart well
enough: a gradient penalty beside them would double its cost on a CPU.
"""

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from models.discriminator import Discriminator, DiscriminatorConfig
from models.training.losses import (
    LossConfig,
    discriminator_hinge,
    feature_matching,
    generator_hinge,
)


class Adversary:
    """A discriminator with its optimiser."""

    def __init__(self, config: DiscriminatorConfig, learning_rate: float, fabric: Fabric) -> None:
        self.fabric = fabric
        self.discriminator = Discriminator(config).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(
            self.discriminator.parameters(),
            learning_rate,
            betas=(0.0, 0.999),
            fused=fabric.device.type == "cuda" or None,
        )
        self.module, self.optimizer = fabric.setup(self.discriminator, optimizer)
        self.module.train()

    def judge(self, generated: Tensor, real: Tensor, losses: LossConfig) -> tuple[Tensor, dict[str, Tensor]]:
        """What the generator adds to its loss for pictures (N, 3, H, W), and its named parts."""
        # In evaluation mode the estimate of the spectral norm rests: one function judges both.
        self.discriminator.requires_grad_(False).eval()
        # Past the wrapper that averages gradients over processes, for here the discriminator gets none.
        with self.fabric.autocast():
            logits, features = self.discriminator(generated)
            with torch.no_grad():
                _, wanted = self.discriminator(real)
        self.discriminator.requires_grad_(True).train()
        parts = {
            "adversarial": generator_hinge(logits.float()),
            "feature_matching": feature_matching(
                [level.float() for level in wanted], [level.float() for level in features]
            ),
        }
        total = losses.adversarial * parts["adversarial"]
        return total + losses.feature_matching * parts["feature_matching"], parts

    def learn(self, generated: Tensor, real: Tensor, learning_rate: float) -> Tensor:
        """One step of the discriminator; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        count = len(real)
        logits, _ = self.module(torch.cat([real, generated.detach()]))
        loss = discriminator_hinge(logits[:count].float(), logits[count:].float())
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimiser, for a checkpoint."""
        return {"network": self.discriminator.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.discriminator.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
