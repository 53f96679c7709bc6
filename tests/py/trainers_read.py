"""Has LLaMA-Factory's and verl's own loading code read what `webdancer pin export --as` wrote.

    trainers_read.py llamafactory FOLDER     converts every row; none may be skipped
    trainers_read.py verl-rl FOLDER          opens the rows as verl's dataset does and loads the reward function
    trainers_read.py verl-sft FOLDER         what it would train on must be the assistant's turns

Not part of the tests: both bring PyTorch. Run it in an environment with `pip install llamafactory==0.9.5 verl==0.9.1`;
docs/exports.md has what came of it.
"""

import json
import os
import sys


def llamafactory(folder):
    import yaml
    from datasets import load_dataset
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.parser import get_dataset_list

    settings = yaml.safe_load(open(f"{folder}/train.yaml"))
    [attributes] = get_dataset_list([settings["dataset"]], folder)
    rows = load_dataset("json", data_files=f"{folder}/{attributes.dataset_name}", split="train")
    converter = get_dataset_converter(attributes.formatting, attributes, None)
    skipped = 0
    for row in rows:
        converted = converter(row)
        said = [message["content"] for message in converted["_prompt"] + converted["_response"]]
        skipped += not converted["_response"]
        assert converted["_system"] == row["messages"][0]["content"]
        assert said == [message["content"] for message in row["messages"][1:]]
    return {"rows": len(rows), "skipped": skipped}


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer():
    """A tokenizer of bytes with the markup of Qwen's, without any model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {piece: number for number, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    pieces = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    pieces.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    end = "<|im_end|>"
    return PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token=end, pad_token=end, chat_template=CHAT_TEMPLATE)


def verl_rl(folder):
    import verl
    from omegaconf import OmegaConf
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.utils.dataset.rl_dataset import RLHFDataset

    os.chdir(folder)
    config = OmegaConf.load("rl.yaml")
    known = OmegaConf.load(os.path.dirname(verl.__file__) + "/trainer/config/_generated_ppo_trainer.yaml")
    OmegaConf.set_struct(known, True)
    OmegaConf.merge(known, config)  # A key that verl does not know is an error.
    config.data.filter_overlong_prompts = False
    data = RLHFDataset(data_files=[config.data.train_files], tokenizer=tokenizer(), config=config.data)
    reward = get_custom_reward_fn(config)
    rewards = []
    for row in data:
        assert [message["role"] for message in row["raw_prompt"]] == ["system", "user"]
        gold = row["reward_model"]["ground_truth"]
        answer = f"<think>\nx\n</think>\n<answer>\n{gold}\n</answer>"
        rewards.append(reward(row["data_source"], answer, gold, extra_info=row["extra_info"])["score"])
    return {"rows": len(data), "indices": sorted({row["index"] for row in data})[:3], "rewards": sorted(set(rewards))}


def verl_sft(folder):
    from omegaconf import OmegaConf
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    os.chdir(folder)
    config = OmegaConf.load("sft.yaml").data
    config.max_length *= 4  # Bytes are more than tokens.
    words = tokenizer()
    data = MultiTurnSFTDataset(parquet_files=[config.train_files], tokenizer=words, config=config)
    for row, messages in zip(data, data.messages):
        trained = words.decode(row["input_ids"][row["loss_mask"] == 1])
        spoken = [message["content"] for message in messages if message["role"] == "assistant"]
        assert [turn.strip() for turn in trained.split("<|im_end|>") if turn.strip()] == [turn.strip() for turn in spoken]
    return {"rows": len(data), "trained": "the assistant's turns"}


print(json.dumps({"llamafactory": llamafactory, "verl-rl": verl_rl, "verl-sft": verl_sft}[sys.argv[1]](sys.argv[2])))
