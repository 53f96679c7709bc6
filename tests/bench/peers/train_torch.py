"""The peer of the trainer's benchmark: the same model and batch in transformers on plain PyTorch.

    train_torch.py make FOLDER hidden layers heads kv_heads intermediate vocab
    train_torch.py sft|generate FOLDER DOCUMENTS LENGTH STEPS     prints one JSON object
"""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM, Qwen3Config


def make(folder, hidden, layers, heads, kv_heads, intermediate, vocab):
    torch.manual_seed(0)
    config = Qwen3Config(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        intermediate_size=intermediate, vocab_size=vocab, head_dim=hidden // heads, tie_word_embeddings=True,
        max_position_embeddings=8192, bos_token_id=None, eos_token_id=None,
    )
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        # As drawn, a model with a tied head repeats its last token, whatever its layers and its cache do.
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embed" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)


def documents_of(vocab, documents, length):
    return torch.tensor([[(d * 7919 + at * 31) % vocab for at in range(length)] for d in range(documents)])


def sft(model, ids, steps):
    """Documents of one length need no padding: the best case of a batch with a dimension of its own."""
    labels = ids.clone()
    labels[:, : ids.shape[1] // 2] = -100
    decay = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() == 1]
    groups = [dict(params=decay, weight_decay=0.1), dict(params=rest, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    model.train()
    for step in range(steps + 2):
        if step == 2:
            begun = time.perf_counter()
        loss = model(ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
    return ids.numel() * steps, time.perf_counter() - begun, value


@torch.no_grad()
def generate(model, ids, steps):
    model.eval()
    mask = torch.ones_like(ids)

    def write(count):
        return model.generate(ids, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0)

    write(3)
    begun = time.perf_counter()
    written = write(steps)[:, ids.shape[1]:]
    return written.numel(), time.perf_counter() - begun, written.tolist()


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        what, folder = sys.argv[1:3]
        documents, length, steps = map(int, sys.argv[3:])
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        ids = documents_of(model.config.vocab_size, documents, length)
        tokens, seconds, check = dict(sft=sft, generate=generate)[what](model, ids, steps)
        print(json.dumps(dict(tokens_per_second=round(tokens / seconds, 1), check=check)))
