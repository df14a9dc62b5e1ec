"""Train the reference model that ships with edgehmn. A development tool: needs PyTorch, runs on the CPU.

    python tools/train_reference.py --data DIR --out build/reference [--steps N]

DIR holds `wikitext-2/train.txt` and `wikitext-2/valid.txt` (word-level WikiText-2) and `text-open/*.txt`.
The run is seeded, checkpoints every 500 steps and resumes from the last one. The learning rate is constant
and falls linearly over the last 30 % of the steps, so a run can be ended sooner by asking for fewer steps
while it is still on the plateau.

The architecture is Llama's (RMSNorm, RoPE, SwiGLU, no biases) with a causal sliding window of `n_ctx`
positions in every layer, a final LayerNorm and a tied head. Matrices inside the blocks are trained by Muon
(momentum orthogonalised by a Newton-Schulz iteration, Jordan et al. 2024), the rest by AdamW.
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import tokenizers

try:
    import safetensors.torch
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as e:
    sys.exit(f"train_reference.py needs PyTorch ({e}): pip install torch")


@dataclasses.dataclass(frozen=True)
class Config:
    n_layers: int = 6
    d_model: int = 128
    d_hidden: int = 344
    n_heads: int = 4
    vocab_size: int = 3072
    n_ctx: int = 128
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5


class RMSNorm(nn.Module):
    def __init__(self, d, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d)), eps

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rope_tables(cfg, length):
    half = cfg.d_model // cfg.n_heads // 2
    freq = cfg.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
    phase = torch.arange(length, dtype=torch.float64)[:, None] * freq
    return phase.cos().float(), phase.sin().float()


def rotate(x, cos, sin):
    """Rotate the pairs (i, i + half) of the last axis: the convention of Hugging Face's Llama."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        d, h = cfg.d_model, cfg.d_hidden
        self.cfg = cfg
        self.attn_norm, self.mlp_norm = RMSNorm(d, cfg.norm_eps), RMSNorm(d, cfg.norm_eps)
        self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.gate, self.up = nn.Linear(d, h, bias=False), nn.Linear(d, h, bias=False)
        self.down = nn.Linear(h, d, bias=False)
        for m in (self.q, self.k, self.v, self.gate, self.up):
            nn.init.normal_(m.weight, std=d**-0.5)
        for m in (self.o, self.down):
            nn.init.normal_(m.weight, std=d**-0.5 / math.sqrt(2 * cfg.n_layers))

    def forward(self, x, cos, sin, mask):
        x = x + self.attention(self.attn_norm(x), cos, sin, mask)
        y = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))

    def attention(self, y, cos, sin, mask):
        """Sliding window in blocks of n_ctx: every block sees itself and the one before, through a band."""
        cfg, (b, t, d), w = self.cfg, y.shape, self.cfg.n_ctx
        q, k, v = (m(y).view(b, t, cfg.n_heads, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)

        def blocks(z):  # (b, heads, t, d_head) -> (b * t / w, heads, w, d_head)
            return z.reshape(b, cfg.n_heads, t // w, w, -1).transpose(1, 2).flatten(0, 1)

        def with_previous(z):
            return torch.cat([blocks(F.pad(z, (0, 0, w, 0))[:, :, :t]), blocks(z)], -2)

        out = F.scaled_dot_product_attention(blocks(q), with_previous(k), with_previous(v), mask.repeat(b, 1, 1, 1))
        out = out.view(b, t // w, cfg.n_heads, w, -1).transpose(2, 3).reshape(b, t, d)
        return self.o(out)


def band_mask(n_blocks, w):
    """(n_blocks, 1, w, 2w) bool: position i of a block sees columns i+1 .. i+w; the first block has no past."""
    i, j = torch.arange(w)[:, None], torch.arange(2 * w)[None]
    mask = ((j > i) & (j <= i + w)).repeat(n_blocks, 1, 1, 1)
    mask[0, :, :, :w] = False
    return mask


class Model(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.embed = nn.Embedding(cfg.vocab_size, cfg.d_model)
        nn.init.normal_(self.embed.weight, std=cfg.d_model**-0.5)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layers))
        self.norm = nn.LayerNorm(cfg.d_model, eps=cfg.norm_eps)

    def forward(self, ids, mask, cos, sin):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return F.linear(self.norm(x.float()), self.embed.weight)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised per matrix; matrices of one shape are handled in one batch."""

    def __init__(self, matrices, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}
            for p in group["params"]:
                buf = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buf.lerp_(p.grad, 1 - group["momentum"])
                by_shape.setdefault(p.shape, []).append((p, p.grad.lerp(buf, group["momentum"])))
            for shape, pairs in by_shape.items():
                updates = orthogonalise(torch.stack([g for _, g in pairs]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for (p, _), update in zip(pairs, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


def orthogonalise(g, steps=5):
    """Quintic Newton-Schulz iteration on a batch of matrices."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.size(-2) > g.size(-1)
    x = g.mT if tall else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x.mT if tall else x


def train_tokenizer(texts, vocab_size):
    tok = tokenizers.Tokenizer(tokenizers.models.BPE())
    tok.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(texts, trainer)
    return tok


def encode(tok, text):
    lines = text.splitlines(keepends=True)
    groups = ["".join(lines[i : i + 500]) for i in range(0, len(lines), 500)]
    return np.concatenate([np.array(e.ids, np.int32) for e in tok.encode_batch(groups)])


def prepare(data, out, cfg):
    """Tokenizer and token arrays, cached in `out`: (wiki train, open texts, wiki valid)."""
    wiki = (data / "wikitext-2" / "train.txt").read_text("utf-8")
    texts = {p.name: p.read_text("utf-8") for p in sorted((data / "text-open").glob("*.txt"))}
    tok_path, ids_path = out / "tokenizer.json", out / "tokens.npz"
    if not ids_path.exists():
        chunks = [wiki] + [t[: 4 << 20] for t in texts.values()]
        tok = train_tokenizer([line for c in chunks for line in c.splitlines(keepends=True)], cfg.vocab_size)
        tok.save(str(tok_path))
        valid = (data / "wikitext-2" / "valid.txt").read_text("utf-8")
        open_ids = np.concatenate([encode(tok, t) for t in texts.values()])
        np.savez(ids_path, wiki=encode(tok, wiki), open=open_ids, valid=encode(tok, valid))
    ids = np.load(ids_path)
    return ids["wiki"], ids["open"], ids["valid"]


def batch(rng, sources, shares, n, length):
    """n random excerpts of length + 1 tokens; `shares` is how many come from each source."""
    rows = []
    for source, share in zip(sources, shares, strict=True):
        starts = rng.integers(0, len(source) - length - 1, share)
        rows += [source[s : s + length + 1] for s in starts]
    assert len(rows) == n
    return torch.from_numpy(np.stack(rows).astype(np.int64))


@torch.no_grad()
def stream_loss(model, ids, length=4096):
    """Mean nats per token; excerpts of `length` overlap by enough to warm every layer's window up."""
    cfg, warm = model.cfg, model.cfg.n_layers * model.cfg.n_ctx
    cos, sin = rope_tables(cfg, length)
    mask, total, count, start = band_mask(length // cfg.n_ctx, cfg.n_ctx), 0.0, 0, 0
    while start + length < len(ids):
        x = torch.from_numpy(ids[start : start + length + 1].astype(np.int64))
        logits = model(x[None, :-1], mask, cos, sin)[0]
        loss = F.cross_entropy(logits, x[1:], reduction="none")[0 if start == 0 else warm :]
        total, count, start = total + loss.sum().item(), count + len(loss), start + length - warm
    return total / count


def schedule(step, steps, warmup=100, decay=0.3):
    return min(1.0, (step + 1) / warmup, (steps - step) / (decay * steps))


def train(args, cfg):
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    wiki, open_text, valid = prepare(Path(args.data), out, cfg)
    model = Model(cfg)
    matrices = [p for n, p in model.named_parameters() if n.startswith("blocks") and p.ndim == 2]
    rest = [p for p in model.parameters() if all(p is not m for m in matrices)]
    optimisers = [
        Muon(matrices, lr=args.muon_lr, weight_decay=args.weight_decay),
        torch.optim.AdamW(rest, lr=args.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    log, start = [], 0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=False)
        model.load_state_dict(state["model"])
        for o, s in zip(optimisers, state["optimisers"], strict=True):
            o.load_state_dict(s)
        log, start = state["log"], state["step"]
    base = [o.param_groups[0]["lr"] for o in optimisers]
    n_wiki = round(args.batch * args.wiki_share)
    cos, sin = rope_tables(cfg, args.length)
    mask = band_mask(args.length // cfg.n_ctx, cfg.n_ctx)

    def token_losses(x):
        logits = model(x[:, :-1], mask, cos, sin)
        return F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="none").view(args.batch, -1)

    if args.compile:
        token_losses = torch.compile(token_losses)
    began = time.time()
    for step in range(start, args.steps):
        rng = np.random.default_rng((args.seed, step))
        x = batch(rng, (wiki, open_text), (n_wiki, args.batch - n_wiki), args.batch, args.length)
        for o, lr in zip(optimisers, base, strict=True):
            o.param_groups[0]["lr"] = lr * schedule(step, args.steps)
        losses = token_losses(x)
        losses.mean().backward()
        for o in optimisers:
            o.step()
            o.zero_grad()
        if step % 50 == 0:
            row = {"step": step, "wiki": losses[:n_wiki].mean().item(), "open": losses[n_wiki:].mean().item()}
            print(json.dumps(row | {"seconds": round(time.time() - began, 1)}), flush=True)
            log.append(row)
        if (step + 1) % 500 == 0 or step + 1 == args.steps:
            row = {"step": step + 1, "valid": stream_loss(model, valid[:100_000])}
            print(json.dumps(row), flush=True)
            log.append(row)
            state = {"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers]}
            torch.save(state | {"log": log, "step": step + 1}, out / "checkpoint.tmp")
            (out / "checkpoint.tmp").replace(checkpoint)
    save(model, cfg, out, log, args)


def save(model, cfg, out, log, args):
    """Write model.safetensors (float16), config.json and training.json beside tokenizer.json."""
    names = {"embed.weight": "embed", "norm.weight": "final_norm.weight", "norm.bias": "final_norm.bias"}
    for i in range(cfg.n_layers):
        for short in ("q", "k", "v", "o", "gate", "up", "down"):
            names[f"blocks.{i}.{short}.weight"] = f"layers.{i}.{short}"
        for norm in ("attn_norm", "mlp_norm"):
            names[f"blocks.{i}.{norm}.weight"] = f"layers.{i}.{norm}.weight"
    state = model.state_dict()
    assert set(names) == set(state)
    tensors = {new: state[old].half().contiguous() for old, new in names.items()}
    safetensors.torch.save_file(tensors, out / "model.safetensors")
    config = {
        "model_type": "trans-hmn",
        "architecture": "llama",
        "final_norm": "layernorm",
        "tied_head": True,
        "n_kv_heads": cfg.n_heads,
    }
    config |= dataclasses.asdict(cfg)
    (out / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    recipe = {k: v for k, v in vars(args).items() if k not in ("data", "out", "threads", "compile")}
    (out / "training.json").write_text(json.dumps({"recipe": recipe, "log": log}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with wikitext-2/ and text-open/")
    parser.add_argument("--out", default="build/reference", help="where to write (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=8, help="excerpts per step (default: %(default)s)")
    parser.add_argument("--length", type=int, default=512, help="tokens per excerpt (default: %(default)s)")
    parser.add_argument("--wiki-share", type=float, default=0.625, help="share of WikiText-2 (%(default)s)")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.004)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile (needs a C++ compiler)")
    args = parser.parse_args()
    data = Path(args.data)
    for name in ("wikitext-2/train.txt", "wikitext-2/valid.txt", "text-open/*.txt"):
        if not any(data.glob(name)):
            parser.error(f"{data / name}: no such file")
    train(args, Config())


if __name__ == "__main__":
    main()
