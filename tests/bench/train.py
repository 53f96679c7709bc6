"""`make bench-train`: fine-tuning and generation on a processor, beside transformers' model in a plain PyTorch loop.

The same models (made by transformers, fp32), the same documents and prompts, the same threads, in turns; BENCH_ROUNDS is
how often each contestant runs (default 5). Documents are of one length, so that the peer's batch needs no padding: the
best case for it. The losses of the last step, and the tokens written greedily, are compared before anything is told. The first
time PyTorch, transformers and TRL are fetched for the peer, some gigabytes.
"""

import json
import os
import pathlib
import subprocess

import common

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
TRAINER = pathlib.Path(os.environ.get("BENCH_TRAINER", common.TARGET / "debug" / "webdancer-train")).absolute()
PEER = common.ROOT / "tests/bench/peers/train_torch.py"
# hidden, layers, heads, key-value heads, inner width, vocabulary
MODELS = {"0.9M": (128, 4, 4, 4, 384, 1024), "22M": (512, 6, 8, 2, 1536, 8192)}
# model, work, documents or prompts, tokens of each, steps
WORK = [
    ("0.9M", "sft", 64, 128, 10),
    ("0.9M", "sft", 8, 1024, 10),
    ("22M", "sft", 4, 512, 3),
    ("0.9M", "generate", 1, 128, 100),
    ("0.9M", "generate", 64, 128, 50),
    ("22M", "generate", 16, 128, 50),
]
TEXT = f"""
The peer is transformers' model of the architecture (Qwen3, attention by `scaled_dot_product_attention`) in a plain PyTorch
loop: forward, backward, `clip_grad_norm_`, `AdamW(fused=True)`; and its own `generate` with a key-value cache. Neither
side compiles its model.

Both get the same weights (drawn and saved by transformers), the same token ids, fp32 and {common.threads()} threads, and run
in turns, {ROUNDS} rounds behind one that is not counted; each process times its own steps behind a warm-up, without start and
loading. Documents and prompts of a row are of one length, written as *documents × tokens*: the peer needs no padding,
and packing gains nothing. *sft*: one update over all documents a step, the second half of each trained; tokens a second
are those read. Our head is computed where there is a loss, transformers' at every position: that is how each does it.
*generate*: greedy, all prompts at once, as many new tokens for each; tokens a second are those written, the reading of the
prompts in the time. Our cache of prompts is off, since the peer keeps none between calls.

Losses behind the last step must agree to a thousandth, and of the ids written at least 99 % by place (where two are about as
likely, sums in another order choose the other, and what follows differs), or there is no page.
"""


def python():
    """The python that has PyTorch and transformers."""
    return os.environ.get("BENCH_TORCH_PYTHON") or common.python("train/parity/requirements.txt")


def said(argv):
    return json.loads(common.measure(argv, env={"OMP_NUM_THREADS": str(common.threads())}).stdout.splitlines()[-1])


def ours(work, folder, device, sizes, *flags):
    """How the trainer is called to time work of these sizes, and what it says."""
    return said([TRAINER, "bench", work, "--model", folder, "--device", device, "--sizes", ",".join(sizes), *flags])


def peers(work, folder, device, sizes, *flags):
    """The same of the peer; `work` may be one of its own."""
    return said([python(), PEER, work, folder, device, ",".join(sizes), *flags])


def same(ours, theirs, least=None):
    """Raises where two checks are not of the same work; `least` is the share that must agree, if not the usual."""
    share, usual = agreement(ours, theirs)
    if not share >= (usual if least is None else least):
        raise RuntimeError(f"not the same work: {share:.4f} of it agrees")


def versions():
    """Of what the peer is made of."""
    script = "import torch, transformers as t; print(torch.__version__, t.__version__)"
    return subprocess.check_output([python(), "-c", script], text=True).strip()


def model(name):
    """The folder of a model, made if it is not there."""
    folder = common.SCRATCH / f"train-{name}"
    if not folder.exists():
        partial = common.emptied(folder.with_name(f"{folder.name}.partial"))
        common.measure([python(), PEER, "make", partial, *MODELS[name]])
        partial.rename(folder)
    return folder


def agreement(ours, theirs):
    """How far two checks are the same: of losses the ratio, of ids written the share that is equal by place."""
    if isinstance(ours, float):
        return 1 - abs(ours / theirs - 1), 0.999
    pairs = [(a, b) for left, right in zip(ours, theirs, strict=True) for a, b in zip(left, right, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs), 0.99


def main():
    with common.alone():
        write(timed())


def timed():
    """The rows of the table."""
    folders = {name: model(name) for name in MODELS}
    rows = []
    for name, work, documents, length, steps in WORK:
        arguments = [work, folders[name], "cpu", [f"{documents}x{length}x{steps}"]]
        common.say(f"{name} {work} {documents} × {length}")
        contestants = {"ours": lambda: ours(*arguments)["rows"][0], "peer": lambda: peers(*arguments)["rows"][0]}
        results = common.in_turns(contestants, ROUNDS)
        same(results["ours"][0]["check"], results["peer"][0]["check"])
        mine, theirs = (common.median([result["tokens_per_second"] for result in results[key]]) for key in ("ours", "peer"))
        rows.append((f"{work}, {name}, {documents} × {length}", f"{mine:,.0f}", f"{theirs:,.0f}", common.ratio(mine / theirs)))
        common.say(" | ".join(rows[-1]))
    return rows


def write(rows):
    """The page."""
    head = ("tokens a second", "webdancer-train", "transformers on PyTorch", "ours : theirs")
    common.write_report(
        "train", "Training and generation on a processor", common.command("bench-train"),
        [("torch, transformers", versions()), ("rounds", ROUNDS), common.BUILD],
        [("", TEXT), ("Medians of rounds in turns", common.table(head, rows))],
    )


if __name__ == "__main__":
    main()
