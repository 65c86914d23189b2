"""Requests to a made-up service in 77 intents: eleven things that can be asked about seven objects."""

import random
from itertools import product

from entailor.data.example import Example, content_id

ACTIONS = {
    "open": ("open", "set up", "get a new"),
    "close": ("close", "get rid of", "cancel"),
    "block": ("block", "freeze", "stop"),
    "price": ("what is the price of", "how much do I pay for", "what are the fees of"),
    "limit": ("what is the limit of", "how much can I move with", "raise the limit of"),
    "lost": ("I lost", "I cannot find", "somebody took"),
    "status": ("where is", "what is the state of", "how far are you with"),
    "change": ("change the details of", "correct the name on", "update"),
    "error": ("there is an error with", "it went wrong with", "I was refused by"),
    "share": ("share", "give my partner access to", "add a second person to"),
    "explain": ("explain", "tell me how to use", "what can I do with"),
}
OBJECTS = {
    "account": ("account", "current account"),
    "card": ("card", "debit card"),
    "loan": ("loan", "credit"),
    "transfer": ("transfer", "payment abroad"),
    "insurance": ("insurance", "policy"),
    "app": ("app", "phone login"),
    "safe": ("safe", "deposit box"),
}
BEFORE = ("", "please, ", "hello, ", "urgent: ", "since yesterday I ask myself, ", "a question, ")
BEHIND = ("", " today", " for my son", " before Friday", " as we agreed", ", thank you", " from home", " once more")
INTENTS = tuple(f"{action}_{thing}" for action, thing in product(ACTIONS, OBJECTS))


def make_intents(per_intent: int, seed: int = 0) -> list[Example]:
    """Return different texts, the intents in turn."""
    rng, found = random.Random(seed), {}
    for intent in INTENTS:
        action, thing = intent.split("_")
        texts: dict[str, None] = {}
        while len(texts) < per_intent:
            said, owner = rng.choice(ACTIONS[action]), rng.choice(("my", "the", "our"))
            words = f"{rng.choice(BEFORE)}{said} {owner} {rng.choice(OBJECTS[thing])}{rng.choice(BEHIND)}"
            texts[words] = None
        found[intent] = list(texts)
    return [
        Example(content_id(found[intent][n], None), found[intent][n], None, intent)
        for n in range(per_intent)
        for intent in INTENTS
    ]
