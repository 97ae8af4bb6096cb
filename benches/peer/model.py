"""TRM in PyTorch, as fast as we know how to write it for a CPU or a GPU: the peer that `trm` is timed against.

Modules carry the published names, so published weights load with `load_state_dict`. Formulas: paper (arXiv 2510.04871)
and docs/specification.md; shapes: B sequences, L = P + S positions (P of the puzzle embedding, S tokens), D features, V
tokens known.

What was done for speed: the gate and up products are one; attention is `scaled_dot_product_attention` (its blocked CPU
kernel, flash attention on a GPU); what is transposed is made contiguous once, for the products that follow; detached cycles run under `no_grad`;
one network call is the unit that is compiled, so that 21 calls share two graphs (with and without gradient); in bf16 the
stream between the blocks is bf16 too, norms and losses are computed in f32 and f64.
"""

import math
from dataclasses import dataclass

import torch
import torch._dynamo
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Settings:
    """Sizes of a model; the defaults are the published ones for Sudoku-Extreme."""

    mixing: str = "mlp_t"  # or "attention"
    positions: str = "none"  # or "rope", "learned"
    seq_len: int = 81
    vocab_size: int = 11
    num_puzzle_identifiers: int = 1
    puzzle_emb_ndim: int = 512
    prefix: int = 16
    hidden_size: int = 512
    n_heads: int = 8
    n_layers: int = 2
    expansion: float = 4.0
    inner_multiple: int = 256
    learned_prefix: bool = False  # trm's own: rows of the prefix that are weights, in place of a puzzle's
    h_cycles: int = 3
    l_cycles: int = 6

    @property
    def length(self):
        """Positions the blocks see."""
        return self.prefix + self.seq_len


VARIANTS = {
    "mlp_t": Settings(),
    "attention": Settings(mixing="attention", positions="rope"),
    "maze": Settings(mixing="attention", positions="rope", seq_len=900, vocab_size=6, l_cycles=4),
    "quick_start": Settings(seq_len=36, vocab_size=8, puzzle_emb_ndim=0, prefix=1, learned_prefix=True, hidden_size=96,
                            inner_multiple=64, h_cycles=2, l_cycles=3),
}


def rms_norm(x):
    """x / sqrt(mean of squares + 1e-5) over the last axis; PyTorch computes it in f32, whatever comes in."""
    return F.rms_norm(x, x.shape[-1:], eps=1e-5).to(x.dtype)


class SwiGlu(nn.Module):
    """Wdown (silu(g) * u), [g; u] = Wgate_up v."""

    def __init__(self, width, s):
        super().__init__()
        inner = -(-round(s.expansion * width * 2 / 3) // s.inner_multiple) * s.inner_multiple
        self.gate_up_proj = nn.Linear(width, 2 * inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class Attention(nn.Module):
    """Self-attention over all positions, not causal."""

    def __init__(self, s):
        super().__init__()
        self.n_heads = s.n_heads
        self.qkv_proj = nn.Linear(s.hidden_size, 3 * s.hidden_size, bias=False)
        self.o_proj = nn.Linear(s.hidden_size, s.hidden_size, bias=False)

    def forward(self, h, rotation):
        b, length, d = h.shape
        qkv = self.qkv_proj(h).view(b, length, 3, self.n_heads, d // self.n_heads)
        qk, v = qkv[:, :, :2], qkv[:, :, 2]
        if rotation is not None:
            cos, sin = rotation
            first, second = qk.chunk(2, dim=-1)
            qk = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(v.dtype)
        q, k, v = qk[:, :, 0].transpose(1, 2), qk[:, :, 1].transpose(1, 2), v.transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.o_proj(out.transpose(1, 2).reshape(b, length, d))


class Block(nn.Module):
    """Mixes over positions, then over features; the norms come after the sums."""

    def __init__(self, s):
        super().__init__()
        if s.mixing == "mlp_t":
            self.mlp_t = SwiGlu(s.length, s)
        else:
            self.self_attn = Attention(s)
        self.mixing = s.mixing
        self.mlp = SwiGlu(s.hidden_size, s)

    def forward(self, h, rotation):
        if self.mixing == "mlp_t":
            t = h.transpose(1, 2).contiguous()
            h = rms_norm(t + self.mlp_t(t)).transpose(1, 2).contiguous()
        else:
            h = rms_norm(h + self.self_attn(h, rotation))
        return rms_norm(h + self.mlp(h))


class Network(nn.Module):
    """f(h, injected): the blocks, after what is injected has been added."""

    def __init__(self, s):
        super().__init__()
        self.layers = nn.ModuleList(Block(s) for _ in range(s.n_layers))
        self.rotation = None
        if s.positions == "rope":
            half = s.hidden_size // s.n_heads // 2
            angles = torch.outer(torch.arange(s.length).float(), 10000.0 ** (-torch.arange(half).float() / half))
            # [positions, q or k, heads, half a head]
            angles = angles.view(s.length, 1, 1, half)
            self.rotation = (angles.cos(), angles.sin())

    def forward(self, h, *injected):
        h = h + (injected[0] if len(injected) == 1 else injected[0] + injected[1])
        for layer in self.layers:
            h = layer(h, self.rotation)
        return h


class Table(nn.Module):
    """Rows to look up."""

    def __init__(self, rows, width):
        super().__init__()
        self.embedding_weight = nn.Parameter(torch.empty(rows, width))


class PuzzleTable(nn.Module):
    """One vector a puzzle; updated by its own rule, so not a parameter."""

    def __init__(self, rows, width):
        super().__init__()
        self.register_buffer("weights", torch.zeros(rows, width))


class Prefix(nn.Module):
    """The same positions in front of every puzzle's tokens."""

    def __init__(self, rows, width):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))


class Trm(nn.Module):
    """States y and z, one network for both."""

    def __init__(self, settings, dtype=torch.float32):
        super().__init__()
        s = self.settings = settings
        self.dtype = dtype  # of the stream between the blocks
        self.embed_tokens = Table(s.vocab_size, s.hidden_size)
        if s.puzzle_emb_ndim:
            self.puzzle_emb = PuzzleTable(s.num_puzzle_identifiers, s.puzzle_emb_ndim)
        if s.learned_prefix:
            self.prefix = Prefix(s.prefix, s.hidden_size)
        if s.positions == "learned":
            self.embed_pos = Table(s.length, s.hidden_size)
        self.L_level = Network(s)
        self.lm_head = nn.Linear(s.hidden_size, s.vocab_size, bias=False)
        self.q_head = nn.Linear(s.hidden_size, 2)
        self.register_buffer("H_init", torch.ones(s.hidden_size))
        self.register_buffer("L_init", torch.ones(s.hidden_size))
        self.initialise()

    @torch.no_grad()
    def initialise(self):
        """Fresh weights (a normal cut at two sigma; its deviation corrected)."""
        for name, p in self.named_parameters():
            if p.dim() == 2:
                std = 1 / math.sqrt(p.shape[1])
                nn.init.trunc_normal_(p, std=std / 0.8796, a=-2 * std / 0.8796, b=2 * std / 0.8796)
        self.q_head.weight.zero_()
        self.q_head.bias.fill_(-5.0)

    def start(self, batch):
        """The states (y, z) of a slot that begins."""
        shape = (batch, self.settings.length, self.settings.hidden_size)
        return tuple(init.to(self.dtype).expand(shape).contiguous() for init in (self.H_init, self.L_init))

    def embed(self, tokens, puzzle_rows):
        """x [B, L, D]; `puzzle_rows` [B, ndim] stand in front of the tokens."""
        s = self.settings
        x = F.embedding(tokens, self.embed_tokens.embedding_weight)
        if puzzle_rows is not None:
            room = s.prefix * s.hidden_size - s.puzzle_emb_ndim
            x = torch.cat([F.pad(puzzle_rows, (0, room)).view(-1, s.prefix, s.hidden_size), x], dim=1)
        if s.positions == "learned":
            x = (x + self.embed_pos.embedding_weight) * math.sqrt(0.5)
        x = x * math.sqrt(s.hidden_size)
        if s.learned_prefix:
            x = torch.cat([self.prefix.weight.expand(len(x), -1, -1), x], dim=1)
        return x.to(self.dtype)

    def cycle(self, x, y, z):
        """n updates of z, one of y."""
        for _ in range(self.settings.l_cycles):
            z = self.L_level(z, y, x)
        return self.L_level(y, z), z

    def forward(self, tokens, puzzle_rows, y, z):
        """One supervision step: (logits [B, S, V], q [B, 2], y, z). Gradient flows through the last cycle."""
        # Two regions: the bf16 copies of the weights made in the first one know no gradient.
        with torch.no_grad(), self.autocast():
            x = self.embed(tokens, puzzle_rows)
            for _ in range(self.settings.h_cycles - 1):
                y, z = self.cycle(x, y, z)
        with self.autocast():
            if torch.is_grad_enabled():
                x = self.embed(tokens, puzzle_rows)
            y, z = self.cycle(x, y, z)
            logits = self.lm_head(y[:, self.settings.prefix:])
        return logits, self.q_head(y[:, 0].float()), y, z

    def autocast(self):
        return torch.autocast(self.H_init.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)


def compile_blocks(model):
    """Compiles the network call for the sizes it will see. The 21 calls as one graph would take minutes."""
    torch._dynamo.reset()
    # More graphs than expected would silently run eager from then on.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    model.L_level.compile(dynamic=False)


def stablemax_nll(logits, labels):
    """-ln p[label] in f64, p = s / sum s, s(a) = a + 1 or 1 / (1 - a); 0 where nothing is labelled (-100)."""
    a = logits.double()
    s = torch.where(a < 0, 1 / (1 - a + 1e-30), a + 1)
    picked = s.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return (s.sum(-1).log() - picked.log()) * (labels != -100)


def losses(logits, q, labels):
    """(lm, halt), both summed over the sequences."""
    labelled = labels != -100
    count = labelled.sum(-1)
    lm = (stablemax_nll(logits, labels).sum(-1) / count.clamp_min(1)).sum()
    right = ((logits.argmax(-1) == labels) & labelled).sum(-1) == count
    return lm, F.binary_cross_entropy_with_logits(q[:, 0], right.to(q.dtype), reduction="sum")
