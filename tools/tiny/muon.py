"""Muon: momentum whose matrix updates are made orthogonal (Newton-Schulz), for hidden weights."""
import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices, rounds=5):
    """[K,R,C] with R <= C -> the same with all singular values near one.

    The iteration runs on the small R x R Gram matrices; the matrices are multiplied once.
    """
    a, b, c = COEFFICIENTS
    x = matrices / (matrices.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-9)
    gram = x @ x.mT
    identity = torch.eye(x.shape[1])
    product = identity.expand_as(gram)
    for _ in range(rounds):
        factor = a * identity + b * gram + c * gram @ gram
        product = factor @ product
        gram = factor @ gram @ factor
    return product @ x


class Muon(torch.optim.Optimizer):
    """Updates have root mean square 0.2 x lr, like those of AdamW."""

    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if "buffer" not in self.state[p]:
                    self.state[p]["buffer"] = torch.zeros_like(p)
                buffer = self.state[p]["buffer"].lerp_(p.grad, 1 - group["momentum"])
                matrix = p.grad.lerp(buffer, group["momentum"]).reshape(p.shape[0], -1)
                wide = matrix.shape[0] <= matrix.shape[1]
                matrix = matrix if wide else matrix.mT
                shapes.setdefault(matrix.shape, []).append((p, wide, matrix))
            for shape, items in shapes.items():
                updates = orthogonalise(torch.stack([m for _, _, m in items]))
                for (p, wide, _), update in zip(items, updates):
                    update = (update if wide else update.mT).reshape(p.shape)
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)
