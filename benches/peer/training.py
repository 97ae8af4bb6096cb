"""One update of the peer: forward, loss, backward, AdamATan2 with weight decay, EMA, puzzle table."""

from dataclasses import dataclass

import torch

from model import losses


@dataclass(frozen=True)
class Rule:
    """Settings of an update; the defaults are the published ones."""

    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 1.0
    ema_rate: float = 0.999
    puzzle_lr: float = 1e-4
    puzzle_weight_decay: float = 1.0


class Optimizer:
    """AdamATan2 over all tensors at once, and their EMA."""

    def __init__(self, parameters, rule, compiled=False):
        self.p = [p for p in parameters]
        self.m = [torch.zeros_like(p) for p in self.p]
        self.v = [torch.zeros_like(p) for p in self.p]
        self.ema = [p.detach().clone() for p in self.p]
        self.rule, self.t = rule, 0
        # Decay, rate, scale. On the device, so that neither a compiled sweep nor a CUDA graph is made again for new ones.
        self.numbers = torch.empty(3, device=self.p[0].device)
        self.sweep = torch.compile(sweep) if compiled else sweep

    def step(self, lr_factor=1.0):
        self.count(lr_factor)
        self.apply()

    def count(self, lr_factor=1.0):
        """The host's part of a step: the numbers of this one."""
        self.t += 1
        r, lr = self.rule, self.rule.lr * lr_factor
        self.numbers.copy_(torch.tensor(
            [1 - lr * r.weight_decay, -lr / (1 - r.beta1**self.t), (1 - r.beta2**self.t) ** -0.5]), non_blocking=True)

    @torch.no_grad()
    def apply(self):
        """The device's part."""
        r, grads = self.rule, [p.grad for p in self.p]
        self.sweep(self.p, grads, self.m, self.v, self.ema, *self.numbers.unbind(), r.beta1, r.beta2, r.ema_rate)
        for p in self.p:
            p.grad = None


def sweep(p, g, m, v, ema, decay, rate, scale, beta1, beta2, ema_rate):
    torch._foreach_lerp_(m, g, 1 - beta1)
    torch._foreach_mul_(v, beta2)
    torch._foreach_addcmul_(v, g, g, 1 - beta2)
    step = torch._foreach_sqrt(v)
    torch._foreach_mul_(step, scale)
    for m_i, step_i in zip(m, step):
        torch.atan2(m_i, step_i, out=step_i)
    torch._foreach_mul_(step, rate)
    torch._foreach_mul_(p, decay)
    torch._foreach_add_(p, step)
    torch._foreach_lerp_(ema, p, 1 - ema_rate)


class Trainer:
    """A model in training. The carry (y, z) is the caller's."""

    def __init__(self, model, rule=Rule(), compiled=False):
        self.model, self.rule = model, rule
        self.optimizer = Optimizer(model.parameters(), rule, compiled)

    def gradients(self, tokens, labels, identifiers, y, z):
        """Forward and backward of total / B. Returns what there is to see, and the gradient of the puzzle rows."""
        rows = puzzle_rows(self.model, identifiers)
        if rows is not None:
            rows.requires_grad_()
        logits, q, y, z = self.model(tokens, rows, y, z)
        lm, halt = losses(logits, q, labels)
        ((lm + 0.5 * halt) / len(tokens)).backward()
        seen = {"logits": logits.detach(), "q": q.detach(), "y": y.detach(), "z": z.detach(),
                "lm_loss": lm.detach(), "q_halt_loss": halt.detach()}
        return seen, None if rows is None else rows.grad

    def step(self, tokens, labels, identifiers, y, z, lr_factor=1.0):
        """A whole update; returns what `gradients` saw."""
        seen, rows_grad = self.gradients(tokens, labels, identifiers, y, z)
        self.update(identifiers, rows_grad, lr_factor)
        return seen

    def update(self, identifiers, rows_grad, lr_factor=1.0):
        self.optimizer.count(lr_factor)
        self.apply(identifiers, rows_grad, lr_factor)

    def apply(self, identifiers, rows_grad, lr_factor=1.0):
        """The device's part of an update."""
        self.optimizer.apply()
        if rows_grad is not None:
            self.update_puzzles(identifiers, rows_grad, self.rule.puzzle_lr * lr_factor)

    @torch.no_grad()
    def update_puzzles(self, identifiers, rows_grad, lr):
        """Sign-SGD with decay on the rows that were seen; gradients of equal puzzles are summed. No size depends on the data, as
        a CUDA graph demands: each slot writes the row of its puzzle, equal ones the same values."""
        table = self.model.puzzle_emb.weights
        first = (identifiers.unsqueeze(1) == identifiers).byte().argmax(1)
        grad = torch.zeros_like(rows_grad).index_add_(0, first, rows_grad)[first]
        table[identifiers] = table[identifiers] * (1 - lr * self.rule.puzzle_weight_decay) - lr * grad.sign()


def puzzle_rows(model, identifiers):
    """The puzzle table's rows [B, ndim], or None when the model has none."""
    return model.puzzle_emb.weights[identifiers] if model.settings.puzzle_emb_ndim else None
