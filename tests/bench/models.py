"""What the benchmarks of models at their real sizes share: shapes, the device, turns until the time is up.

Weights are drawn by each contestant where it computes: a shape is a `config.json` and nothing else. One command runs at most
BENCH_MINUTES (default 9), start of the processes included, as far as can be told from how long they took before. It runs on
the GPU if there is one, or on what BENCH_DEVICE names. On a processor it is a trial of the command, with a tiny model; its
table is printed, and no page written. On a machine that has a PyTorch, a `webdancer-train` and nothing else:

    BENCH_TRAINER=./webdancer-train BENCH_TORCH_PYTHON=python3 BENCH_SHAPES=0.5b python3 tests/bench/sft.py
"""

import functools
import json
import os
import shutil
import subprocess
import time

import common
import train

# hidden, layers, heads, key-value heads, inner width, vocabulary, whether the head is the embedding: Qwen2.5's, and one for trials
SHAPES = {
    "tiny": (64, 2, 4, 2, 160, 512, True),
    "0.5b": (896, 24, 14, 2, 4864, 151936, True),
    "1.5b": (1536, 28, 12, 2, 8960, 151936, True),
    "7b": (3584, 28, 28, 4, 18944, 152064, False),
}
# Dense bf16 operations a second of an H100 and an H200, and bytes a second from their memory, by NVIDIA's data sheets.
PEAK_FLOPS = 989e12
BANDWIDTH = {"H100": 3.35e12, "H200": 4.8e12}

DEVICE = os.environ.get("BENCH_DEVICE") or ("cuda" if shutil.which("nvidia-smi") else "cpu")
ON_GPU = DEVICE != "cpu"
CHOSEN = os.environ.get("BENCH_SHAPES", "0.5b,1.5b,7b" if ON_GPU else "tiny").split(",")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 2))
# Seconds of the longest turn so far.
LONGEST = [0.0]


@functools.cache
def deadline():
    """When the time is up, counted from the first call."""
    return time.monotonic() + 60 * float(os.environ.get("BENCH_MINUTES", 9))


def folder(shape):
    """A folder with the shape's `config.json`, as both sides read it."""
    hidden, layers, heads, kv_heads, inner, vocab, tied = SHAPES[shape]
    config = dict(
        architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, intermediate_size=inner, vocab_size=vocab,
        tie_word_embeddings=tied, hidden_act="silu", max_position_embeddings=32768, rms_norm_eps=1e-6,
        rope_theta=1000000.0, initializer_range=0.02, use_sliding_window=False, attention_dropout=0.0, use_cache=True,
    )
    made = common.emptied(common.SCRATCH / f"shape-{shape}")
    (made / "config.json").write_text(json.dumps(config))
    return made


def weights(shape):
    """Elements of the layers' matrices, and of the head."""
    hidden, layers, heads, kv_heads, inner, vocab, _ = SHAPES[shape]
    width = hidden // heads
    return layers * (hidden * width * (2 * heads + 2 * kv_heads) + 3 * hidden * inner), hidden * vocab


def in_turns(contestants):
    """Calls each contestant once a round, in an order that turns, and begins none that would end behind the deadline.

    Returns name -> the results; one that failed has a single line that says how.
    """
    names = list(contestants)
    results = {name: [] for name in names}
    for number in range(ROUNDS):
        for shift in range(len(names)):
            name = names[(number + shift) % len(names)]
            if isinstance(results[name], str):
                continue
            begun = time.monotonic()
            if begun + LONGEST[0] > deadline():
                common.say(f"no time is left for {name}, round {number + 1}")
                continue
            try:
                results[name].append(contestants[name]())
            except RuntimeError as error:
                results[name] = f"failed: {str(error).strip().splitlines()[-1][:200]}"
                common.say(f"{name} {results[name]}")
            LONGEST[0] = max(LONGEST[0], time.monotonic() - begun)
    return results


def rows_of(results, at):
    """The rounds of one contestant at the sizes of this place: (median of tokens a second, highest peak memory), or why not."""
    if isinstance(results, str):
        return results
    rows = [result["rows"][at] for result in results]
    failed = [row["error"] for row in rows if "error" in row]
    if failed or not rows:
        return failed[0] if failed else "not run: the time was up"
    return common.median([row["tokens_per_second"] for row in rows]), max(row["peak_memory"] for row in rows)


def beside_ours(results, contestants, at):
    """Of each contestant at the sizes of this place: name, key, what `rows_of` says, and how far ours is ahead of it."""
    ours = rows_of(results["webdancer-train"], at)
    for name, contestant in contestants.items():
        found = rows_of(results[name], at)
        has_ratio = contestant != "ours" and not isinstance(ours, str) and not isinstance(found, str)
        yield name, contestant, found, common.ratio(ours[0] / found[0]) if has_ratio else "–"


def tell(name, title, text, head, rows):
    """Writes the page of a GPU. A trial on a processor is no page: its table is printed."""
    table = common.table(head, rows)
    if not ON_GPU:
        print(table)
        return
    versions = [("GPU, driver", gpu()), ("torch, transformers", train.versions()), ("rounds", ROUNDS), common.BUILD]
    sections = [("", text), ("Medians of rounds in turns", table)]
    common.write_report(name, title, common.command(f"bench-{name}"), versions, sections)


def gpu():
    """The GPU's name, or that of the device."""
    if not ON_GPU:
        return DEVICE
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip() or DEVICE
