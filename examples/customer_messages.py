"""Writes a made-up export of a help desk: 600 customer messages, four queues of very different sizes, and some dirt.

python examples/customer_messages.py messages.csv
python examples/customer_messages.py fresh.csv 1         # other tickets of the same kind

The tutorial docs/tutorials/ten-minutes.md starts from this file. Nothing in it was written by a customer.
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

SHARES = {"delivery": 0.55, "billing": 0.28, "account": 0.13, "complaint": 0.04}
OPENINGS = ("Hello,", "Hi there,", "Good morning,", "Dear team,", "Hey,", "")
CLOSINGS = ("Thanks!", "Please help.", "Kind regards", "Thank you in advance.", "Waiting for your answer.", "")
THINGS = (
    "the kettle",
    "my lamp",
    "two chairs",
    "the blue rug",
    "a toaster",
    "our shelves",
    "the desk",
    "my headphones",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "last week", "the 3rd", "the 17th")
SENTENCES = {
    "delivery": (
        "I ordered {thing} on {day} and nothing has arrived.",
        "Tracking has said 'on its way' since {day}, where is {thing}?",
        "The driver left {thing} at the wrong house on {day}.",
        "Can {thing} come on {day} instead? Nobody is home before.",
        "Only half of the parcel came, {thing} is still missing.",
        "Where is my order {number}?",
    ),
    "billing": (
        "I was charged twice for {thing}, see order {number}.",
        "The invoice of {day} shows another price than the shop did.",
        "When do I get my money back for {thing}? I sent it back on {day}.",
        "Please send the invoice for order {number} with our VAT number.",
        "My card was declined on {day}, but the amount is gone.",
        "The voucher did not work when I paid for {thing}.",
    ),
    "account": (
        "I cannot log in since {day}, the code never comes.",
        "Please change the address in my account before {day}.",
        "How do I delete my account?",
        "The link to reset my password has expired again.",
        "I see somebody else's order {number} in my account.",
    ),
    "complaint": (
        "This is the third time I write about {thing} and nobody answers.",
        "Your colleague hung up on me on {day}. I want to speak to a manager.",
        "I have never been treated like this, and I will say so in my review.",
        "Since {day} I am sent from one desk to the next. I have had enough.",
    ),
}


def messages(count: int = 600, seed: int = 0) -> list[tuple[str, str, str]]:
    """Return ticket id, message and queue of each ticket.

    Args:
        count: of tickets.
        seed: the same seed gives the same tickets.

    About one message in twelve went to a wrong queue, some queues are written in another way or missing, and some
    tickets were sent twice.
    """
    rng = random.Random(seed)
    queues = [queue for queue, share in SHARES.items() for _ in range(round(share * count))]
    rng.shuffle(queues)
    tickets = []
    for number, queue in enumerate(queues, start=1):
        sentences = rng.sample(SENTENCES[queue], rng.randint(1, 2))
        if rng.random() < 0.25:  # people write of more than one thing
            sentences.append(rng.choice(SENTENCES[rng.choice(list(SHARES))]))
        text = " ".join(filter(None, (rng.choice(OPENINGS), *sentences, rng.choice(CLOSINGS))))
        text = text.format(thing=rng.choice(THINGS), day=rng.choice(DAYS), number=rng.randint(10_000, 99_999))
        chosen = rng.choice(list(SHARES)) if rng.random() < 0.08 else queue
        written = rng.choices((chosen, chosen.title(), ""), (0.95, 0.04, 0.01))[0]
        tickets.append((f"T-{number:04}", text, written))
    again = rng.sample(tickets, count // 50)
    return tickets + [(f"{ticket}-2", text, queue) for ticket, text, queue in again]


def write(path: Path, count: int = 600, seed: int = 0) -> None:
    """Write the tickets as a spreadsheet program of a European office does: semicolons between the cells."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["ticket", "message", "queue"])
        writer.writerows(messages(count, seed))


if __name__ == "__main__":
    name, *seed = sys.argv[1:]
    write(Path(name), seed=int(seed[0]) if seed else 0)
