"""`make bench-rollout`: rollouts of a multi-turn agent at the shapes of Qwen2.5, beside transformers, on one GPU.

BENCH_SHAPES chooses among 0.5b, 1.5b, 7b (and tiny, for a trial on a processor); see `models.py` for the rest.
"""

import common
import models
import train

# Rollouts of one question, tokens of its prompt, of a turn at most, turns, tokens of an observation.
SIZES = "16x2048x256x4x512" if models.ON_GPU else "4x64x8x3x16"
CONTESTANTS = {
    "webdancer-train": "ours", "webdancer-train, CUDA graphs": "graphs", "transformers, generate": "rollout",
    "transformers, continuous batching": "continuous",
}
TEXT = """
{0} rollouts of one question, as a group of DAPO has them: a prompt of {1} tokens, {3} turns of {5} to {2} tokens, drawn
at temperature 1 from the whole distribution, and {4} tokens of an observation behind each. The web answers at once: what is
timed is reading and writing, and no tool. How long a turn is, is set by the bench and alike for all, since weights are
drawn and no model, so there is nothing that would end a turn. bf16 on a GPU, fp32 on a processor.

*generate* is the loop that most write: all rollouts write a turn together, as long as the longest, and every turn reads its
context anew. *continuous batching* is transformers' own, a rollout goes on as soon as its turn is written; attention is
the paged kind of `scaled_dot_product_attention`, since a bare machine has no flash-attn package. Ours, too, lets a rollout go
on at once, and keeps the keys and values of what was read. With CUDA
graphs our steps have fixed shapes and are recorded, which is off by default. Ours alone gives the log-probability of each token, which training needs.

Tokens are those that rollouts keep: what *generate* writes behind a turn's end does not count. The limit of a GPU is
the weights read once for each token of all rollouts at once, at the bandwidth of its memory (3.35 TB/s of an H100, 4.8 of an H200);
keys and values, prompts and all that is computed are left out of it. Each contestant is a process of its own for each round, in turns,
and times its work behind a turn of another question.
"""


def call(contestant, folder):
    if contestant in ("ours", "graphs"):
        flags = ["--draw", *(["--cuda-graphs"] if contestant == "graphs" else [])]
        return train.ours("rollout", folder, models.DEVICE, [SIZES], *flags)
    return train.peers(contestant, folder, models.DEVICE, [SIZES], "--draw")


def tokens():
    """What all rollouts write together."""
    rollouts, _, most, turns, _ = map(int, SIZES.split("x"))
    return sum(max(most * (4 + (3 * number + turn) % 5) // 8, 1) for number in range(rollouts) for turn in range(turns))


def ideal(shape):
    """Tokens a second if each step were the reading of the weights in bf16 and nothing else; None where that is not known."""
    bandwidth = next((speed for name, speed in models.BANDWIDTH.items() if name in models.gpu()), None)
    return bandwidth and int(SIZES.split("x")[0]) * bandwidth / (2 * sum(models.weights(shape)))


def rows_at(shape):
    folder = models.folder(shape)
    results = models.in_turns({
        name: lambda contestant=contestant: call(contestant, folder) for name, contestant in CONTESTANTS.items()
    })
    # A token more or less is other work, and no figure.
    for name, of in results.items():
        written = {row["check"] for result in of for row in result["rows"] if "check" in row} if not isinstance(of, str) else ()
        if any(count != tokens() for count in written):
            results[name] = f"failed: wrote {sorted(written)} tokens, not {tokens()}"
    most, rows = ideal(shape), []
    for name, _, found, ahead in models.beside_ours(results, CONTESTANTS, 0):
        if isinstance(found, str):
            rows.append((shape, name, found, "–", "–", "–"))
            continue
        rate, memory = found
        share = f"{100 * rate / most:.1f} %" if most else "–"
        rows.append((shape, name, f"{rate:,.0f}", share, f"{memory / 2**30:.1f} GiB", ahead))
    for row in rows:
        common.say(" | ".join(row))
    return rows


def main():
    with common.alone():
        models.deadline()
        rows = [row for shape in models.CHOSEN for row in rows_at(shape)]
        sizes = [int(size) for size in SIZES.split("x")]
        text = TEXT.format(*sizes, max(sizes[2] // 2, 1))
        head = ("shape", "who", "tokens a second", "of the limit", "peak memory", "ours : theirs (goal 10× generate)")
        models.tell("rollout", "Rollouts on a GPU", text, head, rows)


if __name__ == "__main__":
    main()
