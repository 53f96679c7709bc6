"""The reward of a rollout, for verl: 0.1 for the format, 0.9 for the answer, both 0 or 1.

The format is obeyed if the whole response is turns of a thought and one action, every action but the last calls search
or visit with a JSON object of arguments, and the last one answers. Observations stand between the turns; they are the
tools' text and not looked at. The answer is correct if its normal form is that of a gold answer: case, punctuation,
articles and white space make no difference.
"""

import json
import re
import unicodedata

FORMAT_WEIGHT = 0.1
ANSWER_WEIGHT = 0.9
TOOLS = ("search", "visit")

# What a chat template puts between turns; without special tokens the roles' names are left of it.
_BETWEEN = re.compile(r"<\|im_end\|>|<\|im_start\|>|<\|endoftext\|>")
_OBSERVATION = re.compile(r"\s*(?:user\s*)?<tool_response>.*?</tool_response>\s*(?:assistant\b)?", re.DOTALL)
_TURN = re.compile(
    r"\s*<think>(?P<thought>.*?)</think>\s*"
    r"(?:<tool_call>(?P<call>.*?)</tool_call>|<answer>(?P<answer>.*?)</answer>)",
    re.DOTALL,
)
_TAG = re.compile(r"</?(?:think|tool_call|tool_response|answer)>")


def _calls_a_tool(text):
    try:
        call = json.loads(text)
    except ValueError:
        return False
    return isinstance(call, dict) and call.get("name") in TOOLS and isinstance(call.get("arguments"), dict)


def parse(response):
    """Whether the format is obeyed, and the answer if there is one."""
    text = _BETWEEN.sub("", response)
    if not text.lstrip().startswith("<think>"):
        # Some templates open the first thought in the prompt.
        text = "<think>" + text
    position, obeyed, answer = 0, True, None
    while text[position:].strip():
        turn = _TURN.match(text, position)
        if turn is None or answer is not None:
            obeyed = False
            break
        position = turn.end()
        inside = turn["thought"] + (turn["call"] or "") + (turn["answer"] or "")
        obeyed = obeyed and not _TAG.search(inside)
        if turn["answer"] is not None:
            answer = turn["answer"].strip()
            continue
        observation = _OBSERVATION.match(text, position)
        obeyed = obeyed and _calls_a_tool(turn["call"]) and observation is not None
        position = observation.end() if observation else position
    if answer is None:
        found = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
        answer = found[-1].strip() if found else ""
        obeyed = False
    return obeyed and bool(answer), answer


def normalise(text):
    """The normal form of a short answer."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    text = re.sub(r"['\"`‘’“”«»]", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    kept = []
    for place, character in enumerate(text):
        after = text[place + 1 : place + 2]
        before = kept[-1] if kept else " "
        if unicodedata.category(character)[0] in "LMN":
            kept.append(character)
        elif character == "." and before.isdigit() and after.isdigit():
            kept.append(".")
        elif character in "-−" and before == " " and after.isdigit():
            kept.append("-")
        elif character in "+#" and before != " ":
            kept.append(character)
        else:
            kept.append(" ")
    words = "".join(kept).split()
    return " ".join([word for word in words if word not in ("a", "an", "the")] or words)


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    """What verl calls with the decoded response: `score` is the reward, `acc` whether the answer is correct."""
    obeyed, answer = parse(solution_str)
    gold = [ground_truth, *((extra_info or {}).get("answers") or [])]
    # Without letters or digits there is no normal form: the text itself is compared.
    form = lambda text: normalise(text) or text.strip()
    correct = bool(answer) and form(answer) in {form(text) for text in gold}
    score = FORMAT_WEIGHT * obeyed + ANSWER_WEIGHT * correct
    return {"score": round(score, 10), "acc": float(correct)}
