"""The peers of the trainer's benchmarks: the same model and work in transformers and TRL on PyTorch.

    train_torch.py make FOLDER hidden layers heads kv_heads intermediate vocab
    train_torch.py WORK FOLDER DEVICE SIZES [--draw] [--lora] [--activation-checkpointing]

Prints one JSON object, as `webdancer-train bench` does: a row for each of the sizes, `AxBxC,…`. WORK is
sft (a plain loop), trl (TRL's SFTTrainer), generate, rollout (`generate`, a turn of all at a time) or continuous
(rollouts by continuous batching). On a processor in fp32; on a GPU weights that are trained are fp32 under autocast to bf16,
as TRL has it by default, and others bf16.
"""

import contextlib
import json
import resource
import sys
import tempfile
import time

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, Qwen3Config

WARM_UP_STEPS = 2
# As our own adapters.
ADAPTED = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]


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


def made_up(number, length, vocab):
    return [(number * 7919 + at * 31) % vocab for at in range(length)]


def documents_of(model, documents, length):
    vocab = model.config.vocab_size
    return torch.tensor([made_up(d, length, vocab) for d in range(documents)], device=model.device)


def load(work, folder, device, draw, lora, checkpointing):
    trains = work in ("sft", "trl")
    dtype = torch.float32 if device == "cpu" or (trains and not lora) else torch.bfloat16
    # transformers 5 chooses the paged kind of it by itself.
    attention = "sdpa_paged" if work == "continuous" and transformers.__version__.startswith("4.") else "sdpa"
    if draw:
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), attn_implementation=attention)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)
    model = model.to(device=device, dtype=dtype)
    if lora:
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules=ADAPTED))
    if checkpointing:
        # TRL turns it on by itself, and needs the same of inputs that have no gradient.
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model


def synchronise():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def groups_of(model):
    trained = [p for p in model.parameters() if p.requires_grad]
    return [dict(params=[p for p in trained if p.dim() == 2], weight_decay=0.1),
            dict(params=[p for p in trained if p.dim() == 1], weight_decay=0.0)]


def sft(model, documents, length, steps):
    """Documents of one length need no padding: the best case of a batch with a dimension of its own."""
    ids = documents_of(model, documents, length)
    labels = ids.clone()
    labels[:, : length // 2] = -100
    optimizer = torch.optim.AdamW([group for group in groups_of(model) if group["params"]], lr=1e-3, betas=(0.9, 0.95), fused=True)
    on_gpu = ids.is_cuda
    model.train()
    for step in range(steps + WARM_UP_STEPS):
        if step == WARM_UP_STEPS:
            synchronise()
            begun = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16) if on_gpu else contextlib.nullcontext():
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    synchronise()
    return ids.numel() * steps, time.perf_counter() - begun, loss.item()


def trl(model, documents, length, steps):
    """TRL's own trainer on the same documents, ready as ids. Of one length they need neither padding nor packing."""
    import datasets
    import tokenizers
    from trl import SFTConfig, SFTTrainer

    vocab = model.config.vocab_size
    # A trainer wants a tokenizer for its padding; nothing is tokenised.
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<pad>")
    mask = [int(at >= length // 2) for at in range(length)]
    steps_all = WARM_UP_STEPS + steps
    rows = [dict(input_ids=made_up(d, length, vocab), completion_mask=mask) for d in range(documents)] * steps_all
    on_gpu = model.device.type == "cuda"
    clock = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, _, state, control, **__):
            if state.global_step in (WARM_UP_STEPS, steps_all):
                synchronise()
                clock.append(time.perf_counter())
            # What is logged is the mean since it was before: so that the last is of the last step alone.
            control.should_log = state.global_step >= steps_all - 1

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder, max_steps=steps_all, per_device_train_batch_size=documents, max_length=None,
            completion_only_loss=True, bf16=on_gpu, use_cpu=not on_gpu, learning_rate=1e-3, lr_scheduler_type="constant",
            weight_decay=0.1, adam_beta2=0.95, max_grad_norm=1.0, optim="adamw_torch_fused", report_to="none",
            gradient_checkpointing=getattr(model, "is_gradient_checkpointing", False), save_strategy="no",
            logging_steps=10 * steps_all, disable_tqdm=True, dataloader_pin_memory=on_gpu, seed=0,
        )
        trainer = InOrder(model=model, args=config, processing_class=tokenizer, callbacks=[Clock()],
                          train_dataset=datasets.Dataset.from_list(rows))
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return documents * length * steps, clock[1] - clock[0], losses[-1]


@torch.no_grad()
def generate(model, prompts, length, steps):
    model.eval()
    ids = documents_of(model, prompts, length)

    def write(count):
        return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count,
                              do_sample=False, pad_token_id=0)

    write(3)
    synchronise()
    begun = time.perf_counter()
    written = write(steps)[:, length:].tolist()
    return prompts * steps, time.perf_counter() - begun, written


def written_in_turn(most, rollout, turn):
    return max(most * (4 + (3 * rollout + turn) % 5) // 8, 1)


@torch.no_grad()
def rollout(model, rollouts, prompt, written, turns, observation):
    """A loop around `generate`: all rollouts write a turn together, and the longest is waited for."""
    model.eval()
    vocab = model.config.vocab_size
    for question, turns in ((0, 1), (1, turns)):
        synchronise()
        begun, tokens = time.perf_counter(), 0
        contexts = [made_up(question, prompt, vocab) for _ in range(rollouts)]
        for turn in range(turns):
            longest = max(map(len, contexts))
            padding = [longest - len(ids) for ids in contexts]
            ids = torch.tensor([[0] * left + ids for left, ids in zip(padding, contexts)], device=model.device)
            mask = torch.tensor([[0] * left + [1] * (longest - left) for left in padding], device=model.device)
            counts = [written_in_turn(written, number, turn) for number in range(rollouts)]
            new = model.generate(ids, attention_mask=mask, max_new_tokens=max(counts), min_new_tokens=max(counts),
                                 do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0)[:, longest:].tolist()
            for number, count in enumerate(counts):
                tokens += count
                told = made_up(number * turns + turn + 1, observation, vocab)
                contexts[number] += new[number][:count] + told
    return tokens, time.perf_counter() - begun, tokens


def continuous(model, rollouts, prompt, written, turns, observation):
    """Continuous batching: each rollout goes on as soon as its turn is written."""
    vocab = model.config.vocab_size
    config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=written,
                              eos_token_id=-1, pad_token_id=0)
    manager = model.init_continuous_batching(generation_config=config)
    manager.start()
    try:
        for question, turns in ((0, 1), (1, turns)):
            begun, tokens = time.perf_counter(), 0
            contexts = [made_up(question, prompt, vocab) for _ in range(rollouts)]

            def ask(number, turn):
                manager.add_request(list(contexts[number]), request_id=f"{question}/{number}/{turn}",
                                    max_new_tokens=written_in_turn(written, number, turn))

            for number in range(rollouts):
                ask(number, 0)
            left = rollouts
            while left:
                result = manager.get_result(timeout=1)
                if result is None:
                    if not manager.is_running():
                        raise RuntimeError("continuous batching ended by itself")
                    continue
                if result.error:
                    raise RuntimeError(result.error)
                _, number, turn = map(int, result.request_id.split("/"))
                tokens += len(result.generated_tokens)
                contexts[number] += list(result.generated_tokens) + made_up(number * turns + turn + 1, observation, vocab)
                if turn + 1 < turns:
                    ask(number, turn + 1)
                else:
                    left -= 1
            seconds = time.perf_counter() - begun
    finally:
        manager.stop(block=True, timeout=10)
    return tokens, seconds, tokens


def row(work, model, sizes, device):
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        tokens, seconds, check = work(model, *map(int, sizes.split("x")))
    except torch.OutOfMemoryError as error:
        return dict(sizes=sizes, error=f"out of memory: {str(error).splitlines()[0]}")
    peak = torch.cuda.max_memory_allocated() if device != "cpu" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return dict(sizes=sizes, tokens_per_second=tokens / seconds, check=check, peak_memory=peak)


def main():
    if sys.argv[1] == "make":
        return make(sys.argv[2], *map(int, sys.argv[3:]))
    name, folder, device, sizes, *flags = sys.argv[1:]
    model = load(name, folder, device, *(flag in flags for flag in ("--draw", "--lora", "--activation-checkpointing")))
    work = dict(sft=sft, trl=trl, generate=generate, rollout=rollout, continuous=continuous)[name]
    print(json.dumps(dict(rows=[row(work, model, one, device) for one in sizes.split(",")])))


if __name__ == "__main__":
    main()
