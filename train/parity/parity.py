"""Parity with transformers: the fixtures that the trainer's tests are held against, and the way back.

    parity.py generate FOLDER   small random models, saved by transformers, and what it computes with them
    parity.py check FOLDER      loads what the trainer saved there, and compares the logits that lie beside it

`make parity` runs both in an environment of its own (requirements.txt). The fixtures are committed.
"""

import importlib.metadata
import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3Config

COMMON = dict(vocab_size=48, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=128, bos_token_id=None, eos_token_id=None,
              attn_implementation="eager")
YARN = dict(rope_type="yarn", factor=2.0, original_max_position_embeddings=64)
MODELS = {
    "qwen2": Qwen2Config(tie_word_embeddings=True, rope_theta=1e6, **COMMON),
    "qwen3": Qwen3Config(tie_word_embeddings=False, rope_theta=10_000.0, head_dim=8, **COMMON),
    "qwen3-yarn": Qwen3Config(tie_word_embeddings=True, rope_theta=100.0, head_dim=8, rope_scaling=YARN, **COMMON),
}
LENGTHS = (13, 7)
ADAMW = dict(lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
WEIGHT_DECAY, CLIP, GREEDY = 0.1, 1.0, 24


def generate(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, config) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():  # Norms and biases, too: a fresh model has ones and zeros.
                parameter.add_(0.2 * torch.randn_like(parameter))
        model.save_pretrained(folder / name)
        save_file(expectations(model), folder / name / "expected.safetensors")
    # TRL's part is made by trl_loss.py, in the same environment.
    versions = dict(torch=torch.__version__, transformers=transformers.__version__, trl=importlib.metadata.version("trl"))
    (folder / "versions.json").write_text(json.dumps(versions) + "\n")


def expectations(model):
    documents = [torch.randint(0, COMMON["vocab_size"], (length,)) for length in LENGTHS]
    trained = [torch.rand(length) < 0.6 for length in LENGTHS]
    out = {"ids": torch.cat(documents), "trained": torch.cat(trained).to(torch.int64)}
    logits = [model(document[None]).logits[0] for document in documents]
    out["logits"] = torch.cat(logits).detach()
    summed = sum(torch.nn.functional.cross_entropy(scores[:-1][mask[1:]], document[1:][mask[1:]], reduction="sum")
                 for scores, document, mask in zip(logits, documents, trained))
    loss = summed / sum(mask[1:].sum() for mask in trained)
    loss.backward()
    out["loss"] = loss.detach()[None]
    named = dict(model.named_parameters())
    out |= {f"gradient.{name}": parameter.grad.clone() for name, parameter in named.items()}
    prompt = documents[0][None]
    out["greedy"] = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=GREEDY,
                                   do_sample=False, pad_token_id=0)[0, prompt.shape[1]:]
    out["norm"] = torch.nn.utils.clip_grad_norm_(named.values(), CLIP)[None]
    groups = [dict(params=[p for p in named.values() if p.dim() == 2], weight_decay=WEIGHT_DECAY),
              dict(params=[p for p in named.values() if p.dim() == 1], weight_decay=0.0)]
    torch.optim.AdamW(groups, **ADAMW).step()
    out |= {f"stepped.{name}": parameter.detach().clone() for name, parameter in named.items()}
    return {name: tensor.contiguous() for name, tensor in out.items()}


def check(folder):
    names = sorted(path.parent.name for path in folder.glob("*/config.json"))
    assert names, f"nothing was saved in {folder}"
    for name in names:
        model, told = AutoModelForCausalLM.from_pretrained(folder / name, dtype="auto", output_loading_info=True)
        assert not any(told.values()), f"{name}: {told}"
        ours = load_file(folder / name / "expected.safetensors")
        with torch.no_grad():
            theirs = model(ours["ids"][None]).logits[0].float()
        worst = ((theirs - ours["logits"]).norm() / ours["logits"].norm()).item()
        limit = 1e-4 if model.dtype == torch.float32 else 2e-2
        print(f"{name}: {model.dtype}, logits differ by {worst:.1e} relative")
        assert worst < limit, f"{name}: {worst} is above {limit}"


if __name__ == "__main__":
    {"generate": generate, "check": check}[sys.argv[1]](pathlib.Path(sys.argv[2]))
