"""`make bench-sft`: fine-tuning at the shapes of Qwen2.5, beside transformers in a plain loop and beside TRL, on one GPU.

BENCH_SHAPES chooses among 0.5b, 1.5b, 7b (and tiny, for a trial on a processor); see `models.py` for the rest.
"""

import common
import models
import train

# Documents, tokens of each, steps: 16,384 tokens an update, in documents of 1k, 4k and 16k.
SIZES = ["16x1024x10", "4x4096x10", "1x16384x10"] if models.ON_GPU else ["4x128x3", "1x512x3"]
# What one GPU of 80 GB holds.
FLAGS = {"7b": ["--lora", "--activation-checkpointing"]}
GOALS = {"0.5b": "40 %", "1.5b": "48 %", "7b": "50 %"}
CONTESTANTS = {"webdancer-train": "ours", "transformers, a plain loop": "sft", "TRL's SFTTrainer": "trl"}
# Of the tokens, those that the head is computed at: ours where one is trained, theirs at all.
HEAD_SHARE = {"ours": 0.5, "sft": 1.0, "trl": 1.0}
TEXT = """
One update over 16,384 tokens a step, the second half of each document trained; a row is *documents × tokens*. Documents of a
row are of one length: the peers need no padding and packing gains nothing, which is the best case for them. Weights are drawn
anew by each (there is a shape and no model), the token ids are the same. 7B is trained by adapters of rank 16 beside all matrices, layers
run again on the way back, since one GPU does not hold the rest.

On a GPU ours computes in bf16 with fp32 masters; the peers, as TRL has it by default, have fp32 weights under autocast to bf16
(with adapters: bf16 weights, fp32 adapters), attention by `scaled_dot_product_attention`, AdamW fused, gradients cut to 1.
TRL is handed token ids and a mask. Nobody compiles the model. Each contestant is a process of its own for each round, in turns,
which times its steps behind two that are not counted.

Tokens are those read. MFU is (6·N + 6·L·heads·d·S)·tokens a second, and 6·V·h where the head is computed (ours at
trained positions, theirs at all), over 989 TFLOP/s; S is the length of the documents. With adapters frozen weights count 4
in place of 6, and what is run again does not count. *Of a matmul* is the same over what a product of two large matrices comes to in the same
run. Peak memory is that of tensors on the GPU, on a processor that of the process.

Before anything is timed, a small model whose weights both sides read is trained by all for five steps, on the same
device: the losses of the last must agree to 3 % (on a processor, in fp32, to 0.1 %). Without that of the plain loop there is
no page, and without TRL's no figure of it.
"""


def call(contestant, folder, sizes, *flags):
    if contestant == "ours":
        return train.ours("sft", folder, models.DEVICE, sizes, *flags)
    return train.peers(contestant, folder, models.DEVICE, sizes, *flags)


def check():
    """That all do the same work. Gives those that do not: name -> how; the plain loop must."""
    common.say("losses of a small model, by all")
    folder, losses, others = train.model("0.9M"), {}, {}
    for name, contestant in CONTESTANTS.items():
        try:
            losses[name] = call(contestant, folder, ["8x128x3"])["rows"][0]["check"]
            train.same(losses["webdancer-train"], losses[name], 0.97 if models.ON_GPU else None)
        except RuntimeError as error:
            if contestant != "trl":
                raise
            others[name] = f"failed: {str(error).strip().splitlines()[-1][:200]}"
            common.say(f"{name} {others[name]}")
    common.say(f"losses: {losses}")
    return others


def flops(shape, contestant, length):
    """Operations a token."""
    hidden, layers = models.SHAPES[shape][:2]
    matrices, head = models.weights(shape)
    per_weight = 4 if "--lora" in FLAGS.get(shape, []) else 6
    # Heads times their width is the width of the stream.
    return per_weight * (matrices + head * HEAD_SHARE[contestant]) + 6 * layers * hidden * length


def rows_at(shape, others):
    folder, flags = models.folder(shape), ["--draw", *FLAGS.get(shape, [])]
    results = models.in_turns({
        name: lambda contestant=contestant: call(contestant, folder, SIZES, *flags)
        for name, contestant in CONTESTANTS.items() if name not in others
    }) | others
    mine = results["webdancer-train"]
    matmul = max((result["matmul_flops"] for result in mine), default=None) if not isinstance(mine, str) else None
    # The sheet's figure is a GPU's.
    peak = models.PEAK_FLOPS if models.ON_GPU else matmul
    rows = []
    for at, sizes in enumerate(SIZES):
        documents, length, _ = map(int, sizes.split("x"))
        for name, contestant, found, ahead in models.beside_ours(results, CONTESTANTS, at):
            work = f"{shape}, {documents} × {length:,}"
            if isinstance(found, str):
                rows.append((work, name, found, "–", "–", "–", "–"))
                continue
            rate, memory = found
            speed = rate * flops(shape, contestant, length)
            share = lambda of: f"{100 * speed / of:.1f} %" if of else "–"
            goal = f" (goal {GOALS[shape]})" if contestant == "ours" and shape in GOALS else ""
            rows.append((work, name, f"{rate:,.0f}", share(peak) + goal, share(matmul), f"{memory / 2**30:.1f} GiB", ahead))
    for row in rows:
        common.say(" | ".join(row))
    return rows


def main():
    with common.alone():
        models.deadline()
        others = check()
        rows = [row for shape in models.CHOSEN for row in rows_at(shape, others)]
        head = ("work", "who", "tokens a second", "MFU", "of a matmul", "peak memory", "ours : theirs")
        models.tell("sft", "Fine-tuning on a GPU", TEXT, head, rows)


if __name__ == "__main__":
    main()
