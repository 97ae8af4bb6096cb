"""Checks the peer against the golden vectors before it is timed: python check.py GOLDEN_FOLDER [--compile] [--device cuda].

In f32, every case of the plain TRM: logits, states and losses of every step, gradients of the first two, weights and
EMA at the end. Bounds (relative, norm of the difference over norm) are those of specification, "Golden vectors": 1e-4
logits and states (5e-2 from the third step of mlp_t on, where two correct f32 programs drift apart), 1e-3 losses,
gradients, weights. The states before each step are the golden ones.

In bf16, the first step against the same model in f32, with the recursion cut to T = 2, n = 1 (detached and recorded calls
of both kinds): the full recursion of mlp_t magnifies the rounding of bf16 until nothing can be said of it. Bounds:
5e-2, gradients 1.5e-1.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from model import Settings, Trm, compile_blocks
from training import Rule, Trainer

#: The timed variants, and what else this model can be.
CASES = ("trm_mlp", "trm_att_rope", "trm_att_learned", "trm_T2_n2_L3", "trm_no_puzzle_emb")
BF16_FORWARD, BF16_GRADIENT = 5e-2, 1.5e-1


def settings_of(config):
    ndim, hidden = config["puzzle_emb_ndim"], config["hidden_size"]
    return Settings(
        mixing="mlp_t" if config["mlp_t"] else "attention",
        positions=config["pos_encodings"],
        seq_len=config["seq_len"],
        vocab_size=config["vocab_size"],
        num_puzzle_identifiers=config["num_puzzle_identifiers"],
        puzzle_emb_ndim=ndim,
        prefix=config["puzzle_emb_len"] or -(-ndim // hidden),
        hidden_size=hidden,
        n_heads=config["num_heads"],
        n_layers=config["L_layers"],
        expansion=config["expansion"],
        h_cycles=config["H_cycles"],
        l_cycles=config["L_cycles"],
    )


class Case:
    """One golden case, and the worst error over its bound of each kind of figure."""

    def __init__(self, folder, name, device="cpu"):
        self.name, self.device = name, device
        self.json = json.loads((folder / f"{name}.json").read_text())
        self.tensors = load_file(folder / f"{name}.safetensors", device=device)
        self.settings = settings_of(self.json["config"])
        self.worst = {}

    def compare(self, kind, bound, ours, theirs):
        ours, theirs = (figure.detach().double().cpu() for figure in (ours, theirs))
        error = float((ours - theirs).norm() / (theirs.norm() + 1e-12)) / bound
        self.worst[kind] = max(self.worst.get(kind, 0.0), error if error == error else float("inf"))

    def trainer(self, settings, dtype, compiled):
        j = self.json
        rule = Rule(j["lr"], *j["betas"], j["weight_decay"], j["ema_rate"], j["puzzle_emb_lr"],
                    j["puzzle_emb_weight_decay"])
        with torch.device(self.device):
            model = Trm(settings, dtype)
        start = {k.removeprefix("init.inner."): v for k, v in self.tensors.items() if k.startswith("init.")}
        model.load_state_dict(start)
        if compiled:
            compile_blocks(model)
        return Trainer(model, rule, compiled)

    def batches(self, model):
        """(tokens, labels, identifiers, y, z) of each step: halted slots begin anew with the incoming example."""
        current, halted, states = None, None, model.start(self.json["config"]["batch_size"])
        begin = states
        for t in range(self.json["steps"]):
            names = ("inputs", "labels", "puzzle_identifiers")
            incoming = [self.tensors[f"step{t}.batch.{name}"].long() for name in names]
            if current is None:
                current = incoming
            else:
                pick = lambda new, old: torch.where(halted.view(-1, *[1] * (new.dim() - 1)), new, old)
                current = [pick(new, old) for new, old in zip(incoming, current)]
                carried = [self.tensors[f"step{t - 1}.carry.z_{s}"].to(model.dtype) for s in "HL"]
                states = [pick(new, old) for new, old in zip(begin, carried)]
            halted = self.tensors[f"step{t}.carry.halted"].bool()
            yield *current, *states

    def run(self, compiled):
        """Everything in f32, against the golden figures."""
        trainer = self.trainer(self.settings, torch.float32, compiled)
        model = trainer.model
        for t, batch in enumerate(self.batches(model)):
            forward = 5e-2 if t >= 2 and self.settings.mixing == "mlp_t" else 1e-4
            seen, rows_grad = trainer.gradients(*batch)
            self.compare("logits", forward, seen["logits"], self.tensors[f"step{t}.logits"])
            self.compare("q", forward, seen["q"][:, 0], self.tensors[f"step{t}.q_halt_logits"])
            for state, name in (("y", "H"), ("z", "L")):
                self.compare("states", forward, seen[state], self.tensors[f"step{t}.carry.z_{name}"])
            for name in ("lm_loss", "q_halt_loss"):
                self.compare("losses", 1e-3, seen[name], torch.tensor(self.json["metrics"][t][name]))
            if t < 2:
                for name, p in model.named_parameters():
                    self.compare("gradients", 1e-3, p.grad, self.tensors[f"step{t}.grad.inner.{name}"])
                if rows_grad is not None:
                    theirs = self.tensors[f"step{t}.grad.inner.puzzle_emb.local_weights"]
                    self.compare("gradients", 1e-3, rows_grad, theirs)
            trainer.update(batch[2], rows_grad, self.json["metrics"][t]["lr_factor"])
        for name, value in model.state_dict().items():
            self.compare("weights", 1e-3, value, self.tensors[f"final.inner.{name}"])
        for (name, _), ema in zip(model.named_parameters(), trainer.optimizer.ema):
            self.compare("averages", 1e-3, ema, self.tensors[f"ema.inner.{name}"])
        return self.worst

    def run_bf16(self, compiled):
        """The first step in bf16, with a short recursion, against the f32 model."""
        short = replace(self.settings, h_cycles=2, l_cycles=1)
        figures = []
        for dtype in (torch.float32, torch.bfloat16):
            trainer = self.trainer(short, dtype, compiled and dtype == torch.bfloat16)
            seen, rows_grad = trainer.gradients(*next(self.batches(trainer.model)))
            figures.append((seen, {name: p.grad for name, p in trainer.model.named_parameters()} | {"rows": rows_grad}))
        (seen, grads), (seen_bf16, grads_bf16) = figures
        for name in ("logits", "q", "y", "z", "lm_loss", "q_halt_loss"):
            self.compare(name, BF16_FORWARD, seen_bf16[name], seen[name])
        for name, grad in grads.items():
            if grad is not None:
                self.compare("gradients", BF16_GRADIENT, grads_bf16[name], grad)
        return self.worst


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("golden", type=Path)
    parser.add_argument("--compile", action="store_true", help="check the compiled model too (minutes)")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    failed = []
    for compiled in [False, True] if args.compile else [False]:
        for name in CASES[:2] if compiled else CASES:
            for check in ("f32", "bf16"):
                label = f"{name} {check} {'compile' if compiled else 'eager'}"
                case = Case(args.golden, name, args.device)
                worst = case.run(compiled) if check == "f32" else case.run_bf16(compiled)
                print(f"{label:32} error / bound: " + "  ".join(f"{k} {v:.2g}" for k, v in worst.items()), flush=True)
                failed += [f"{label}: {k}" for k, v in worst.items() if not v <= 1]
    if failed:
        sys.exit("outside the bounds: " + "; ".join(failed))


if __name__ == "__main__":
    main()
